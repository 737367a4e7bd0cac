//! Plain git against the route.

use std::{path::Path, time::Instant};

use axum::{Extension, Router};
use sculpt_controller::web::git_http;
use tokio_util::task::AbortOnDropHandle;

use super::{
    World,
    repo::{Repo, try_git},
};
use crate::harness;

struct Served {
    url: String,
    _server: AbortOnDropHandle<()>,
}

async fn serve(world: &World) -> Served {
    let ada = harness::admin(&world.store).await;
    serve_behind(world, |routes| routes.layer(Extension(ada))).await
}

/// The routes behind what finds out who calls.
async fn serve_behind(world: &World, door: impl FnOnce(Router) -> Router) -> Served {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/git/{}.git", listener.local_addr().unwrap(), world.project);
    let routes = door(git_http::routes(world.repositories.clone(), world.store.clone()));
    let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Served { url, _server: AbortOnDropHandle::new(server) }
}

async fn git(directory: &Path, args: &[&str]) -> String {
    let said = try_git(directory, args, b"").await.unwrap_or_else(|error| panic!("git {args:?}: {error}"));
    String::from_utf8(said).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_clone_sees_the_branches_and_nothing_hidden() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    world.make_refs(vec!["refs/heads/sculpt/1-fix".to_owned()], &tip).await;
    let served = serve(&world).await;
    let home = tempfile::tempdir().unwrap();
    for version in ["0", "1", "2"] {
        let name = format!("clone-{version}");
        let setting = format!("protocol.version={version}");
        git(home.path(), &["-c", &setting, "clone", "-q", &served.url, &name]).await;
        let clone = home.path().join(&name);
        assert_eq!(git(&clone, &["rev-parse", "HEAD"]).await, tip);
        assert_eq!(git(&clone, &["branch", "--show-current"]).await, "sculpt/1-fix");
        let seen = git(&clone, &["-c", &setting, "ls-remote", "origin"]).await;
        assert_eq!(seen, format!("{tip}\tHEAD\n{tip}\trefs/heads/sculpt/1-fix"));
    }
}

#[tokio::test]
async fn where_nobody_finds_out_who_calls_nothing_is_given_out() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    let served = serve_behind(&world, |routes| routes).await;
    let said = try_git(repo.path(), &["ls-remote", &served.url], b"").await.expect_err("nobody may read");
    assert!(said.contains("not found"), "{said}");
}

#[tokio::test]
async fn a_hidden_base_is_fetched_by_its_id() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let old = repo.commit("a.txt", "one\n").await;
    let tip = repo.commit("a.txt", "two\n").await;
    world.send_all(&repo, &tip).await;
    // Where nothing at all is advertised, the client's side of version 0 gives up by itself.
    let other = Repo::new().await;
    let seen = other.commit("b.txt", "three\n").await;
    world.send_all(&other, &seen).await;
    world.make_refs(vec!["refs/heads/main".to_owned()], &seen).await;
    let served = serve(&world).await;
    for version in ["0", "2"] {
        let clone = Repo::new().await;
        let setting = format!("protocol.version={version}");
        clone.git(&["-c", &setting, "fetch", "-q", "--depth=1", &served.url, &tip]).await;
        clone.git(&["-c", &setting, "fetch", "-q", "--unshallow", &served.url, &tip]).await;
        assert_eq!(clone.git(&["rev-parse", "FETCH_HEAD~1"]).await, old);
        let partial = Repo::new().await;
        partial.git(&["-c", &setting, "fetch", "-q", "--filter=blob:none", &served.url, &tip]).await;
        assert_eq!(partial.git(&["rev-parse", "FETCH_HEAD"]).await, tip);
    }
    let nobody = Repo::new().await;
    let error = try_git(nobody.path(), &["fetch", &served.url, &"d".repeat(40)], b"").await.unwrap_err();
    assert!(error.contains("not our ref"), "{error}");
}

#[tokio::test]
async fn a_second_fetch_brings_only_what_is_new() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..400_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    repo.commit("noise.bin", &noise).await;
    // Enough commits for a request that git compresses.
    for round in 0..120 {
        repo.git(&["commit", "-q", "--allow-empty", "-m", &format!("{round}")]).await;
    }
    let first = repo.git(&["rev-parse", "HEAD"]).await;
    world.send_all(&repo, &first).await;
    world.make_refs(vec!["refs/heads/one".to_owned()], &first).await;
    let served = serve(&world).await;
    let home = tempfile::tempdir().unwrap();
    git(home.path(), &["clone", "-q", &served.url, "clone"]).await;
    let clone = home.path().join("clone");
    for round in 0..120 {
        git(&clone, &["commit", "-q", "--allow-empty", "-m", &format!("mine {round}")]).await;
    }
    let second = repo.commit("b.txt", "new\n").await;
    world.send(&second, &repo.pack(&second, &[&first]).await).await.unwrap();
    world.make_refs(vec!["refs/heads/two".to_owned()], &second).await;
    git(&clone, &["fetch", "-q", "origin"]).await;
    assert_eq!(git(&clone, &["rev-parse", "origin/two"]).await, second);
    let packs = std::fs::read_dir(clone.join(".git/objects/pack")).unwrap();
    let large = packs.filter(|entry| entry.as_ref().unwrap().metadata().unwrap().len() > 100_000).count();
    assert_eq!(large, 1, "the large file came twice");
}

#[tokio::test]
async fn pushing_and_dumb_http_are_refused_with_a_sentence() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    let served = serve(&world).await;
    let error = try_git(repo.path(), &["push", &served.url, "main"], b"").await.unwrap_err();
    assert!(error.contains("403") && error.contains("sculpt run"), "{error}");
    assert!(!world.has(&tip).await);
    let unknown = served.url.replace(&world.project.to_string(), &sculpt_proto::id::ProjectId::fresh().to_string());
    let error = try_git(repo.path(), &["ls-remote", &unknown], b"").await.unwrap_err();
    assert!(error.contains("not found") && error.contains("there is no project"), "{error}");
    let error = try_git(repo.path(), &["ls-remote", &served.url.replace(".git", "")], b"").await.unwrap_err();
    assert!(error.contains("not found"), "{error}");
}

#[tokio::test]
async fn an_empty_project_can_be_cloned() {
    let world = World::new().await;
    let served = serve(&world).await;
    let home = tempfile::tempdir().unwrap();
    git(home.path(), &["clone", "-q", &served.url, "clone"]).await;
}

#[tokio::test]
async fn ten_thousand_branches_are_fetched_fast() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    let names = (0..10_000).map(|number| format!("refs/heads/sculpt/{number}-task")).collect();
    world.make_refs(names, &tip).await;
    let served = serve(&world).await;
    let home = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    world.repositories.open(world.project).await.unwrap();
    let opened = begin.elapsed();
    git(home.path(), &["clone", "-q", "--bare", &served.url, "clone"]).await;
    let cloned = begin.elapsed() - opened;
    let clone = home.path().join("clone");
    git(&clone, &["fetch", "-q", "origin", "+refs/heads/*:refs/heads/*"]).await;
    let fetched = begin.elapsed() - opened - cloned;
    eprintln!("10,000 branches: cache brought up to date in {opened:?}, clone {cloned:?}, second fetch {fetched:?}");
    assert_eq!(git(&clone, &["for-each-ref", "--count=20000", "--format=x"]).await.lines().count(), 10_000);
    assert!(cloned.as_secs() < 20 && fetched.as_secs() < 10, "{cloned:?}, {fetched:?}");
}
