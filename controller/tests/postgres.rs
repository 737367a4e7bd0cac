//! The built-in Postgres: started, adopted, mended, refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sculpt_controller::postgres::{Postgres, PostgresError, Settings};
use tokio::runtime::Runtime;

const SETTINGS: Settings = Settings { durable: false };

/// A directory whose server is gone with it, also when a test fails.
struct Place(tempfile::TempDir);

impl Place {
    /// Below a directory that only its owner can enter, and with a long path.
    fn new() -> Self {
        let place = Self(tempfile::Builder::new().prefix("sculpt-pg-test-").tempdir_in("/tmp").expect("a directory"));
        fs::create_dir(place.deep()).expect("a directory");
        place
    }

    fn deep(&self) -> PathBuf {
        self.0.path().join("d".repeat(200 - self.0.path().as_os_str().len() - 1))
    }

    fn data(&self) -> PathBuf {
        self.deep().join("postgres")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = postmaster(&self.data()) {
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

fn postmaster(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.parse().ok()?)
}

#[test]
fn outlives_its_keeper_and_is_adopted_by_the_next() {
    let place = Place::new();
    // A runtime that goes away takes the keeper along, as kill -9 does, and leaves the server.
    let runtime = Runtime::new().expect("a runtime");
    let first = runtime.block_on(Postgres::start(&place.data(), SETTINGS)).expect("it starts");
    let pid = *first.postmaster().borrow();
    runtime.shutdown_background();
    drop(first);
    let pid = pid.expect("it runs");
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let second = Postgres::start(&place.data(), SETTINGS).await.expect("it is adopted");
        assert_eq!(*second.postmaster().borrow(), Some(pid));
        second.database().version().await.expect("it answers");
        second.stop().await;
    });
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
    assert!(test_kill_process(pid).is_err() || is_zombie(pid), "a shutdown ends it");
    assert!(!place.data().join("postmaster.pid").exists(), "in order");
}

/// The first runtime is not there any more to reap it.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn is_started_again_when_it_dies() {
    let place = Place::new();
    let postgres = Postgres::start(&place.data(), SETTINGS).await.expect("it starts");
    let mut told = postgres.postmaster();
    let first = told.borrow_and_update().expect("it runs");
    kill_process(Pid::from_raw(first.cast_signed()).expect("a pid"), Signal::KILL).expect("kill");
    let second = *told.wait_for(|pid| pid.is_some_and(|pid| pid != first)).await.expect("it is back");
    assert!(second.is_some());
    postgres.database().version().await.expect("it answers at the same place");
    postgres.stop().await;
    assert!(!place.data().join("postmaster.pid").exists());
}

#[tokio::test]
async fn data_of_another_version_is_refused_with_both_versions() {
    let place = Place::new();
    fs::create_dir(place.data()).expect("a directory");
    fs::write(place.data().join("PG_VERSION"), "9\n").expect("a version");
    let error = Postgres::start(&place.data(), SETTINGS).await.expect_err("it is refused");
    assert!(matches!(error, PostgresError::Version { data: 9, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("Postgres 9,") && text.contains("has Postgres 1") && text.contains("pg_upgrade"), "{text}");
}

#[tokio::test]
async fn a_directory_of_something_else_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.data()).expect("a directory");
    fs::write(place.data().join("thesis.tex"), "years of work").expect("a file");
    let error = Postgres::start(&place.data(), SETTINGS).await.expect_err("it is refused");
    assert!(matches!(error, PostgresError::NotACluster { .. }), "{error}");
    assert!(place.data().join("thesis.tex").exists());
}

#[tokio::test]
async fn what_a_killed_set_up_left_is_made_anew() {
    let place = Place::new();
    let half = place.deep().join("postgres.new");
    fs::create_dir(&half).expect("a directory");
    fs::write(half.join("PG_VERSION"), "15\n").expect("a file");
    let postgres = Postgres::start(&place.data(), SETTINGS).await.expect("it starts");
    assert!(!half.exists());
    postgres.stop().await;
}

#[tokio::test]
async fn a_pid_file_that_names_a_stranger_does_not_stop_it() {
    let place = Place::new();
    let postgres = Postgres::start(&place.data(), SETTINGS).await.expect("it starts");
    postgres.stop().await;
    let lines = format!("{}\n{}\n1700000000\n5432\n/tmp\n\n\nready\n", std::process::id(), place.data().display());
    fs::write(place.data().join("postmaster.pid"), lines).expect("a pid file as a crash leaves it");
    let postgres = Postgres::start(&place.data(), SETTINGS).await.expect("it starts");
    assert_ne!(*postgres.postmaster().borrow(), Some(std::process::id()));
    postgres.stop().await;
}
