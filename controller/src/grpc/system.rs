//! The controller about itself: who it is, and whether its parts are well.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use sculpt_proto::v1;
use tokio::{process::Command, time::timeout};
use tonic::{Request, Response, Status};

use super::{About, Api, caller};
use crate::{pki::Lifetime, room::Room};

/// In seconds.
const DAY: u64 = 24 * 3600;

/// Oldest git that the controller works with.
const OLDEST_GIT: (u32, u32) = (2, 35);

#[tonic::async_trait]
impl v1::system_server::System for Api {
    async fn get_info(&self, request: Request<v1::GetInfoRequest>) -> Result<Response<v1::GetInfoResponse>, Status> {
        let by = caller(&request)?;
        let about = &self.about;
        let mut checks = vec![
            self.check_database().await,
            self.check_record().await,
            check_space(&about.room, &about.data_dir),
            check_git(&about.git).await,
            well("retention", retention(about)),
        ];
        checks.extend(about.public.borrow().as_deref().map(|public| check_public(public, SystemTime::now())));
        Ok(Response::new(v1::GetInfoResponse {
            cluster_id: about.cluster.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            postgres: about.postgres.clone(),
            user: by.name().to_owned(),
            checks,
            event_days: about.event_days,
        }))
    }
}

impl Api {
    async fn check_database(&self) -> v1::Check {
        let start = Instant::now();
        match self.store.cluster().await {
            Ok(cluster) if cluster == self.about.cluster => {
                let took = start.elapsed().as_secs_f64() * 1000.0;
                well("database", format!("Postgres {} answers in {took:.1} ms", self.about.postgres))
            }
            Ok(_) => ill(
                "database",
                "it is another database than the one this controller started with".to_owned(),
                "Restart the controller if this is meant; else point it at the right database.",
            ),
            Err(error) => ill(
                "database",
                format!("Postgres {} does not answer: {error}", self.about.postgres),
                "Start the database if it is yours; see the controller's log and that of Postgres (the built-in one's is postgres.log in the data directory).",
            ),
        }
    }

    async fn check_record(&self) -> v1::Check {
        match self.store.power_over_record().await {
            Ok(None) => well("audit record", "the database's role can add to it, and nothing else".to_owned()),
            Ok(Some(power)) => ill(
                "audit record",
                format!("the database's role {power}, so it could change what stands in the record"),
                "Give the controller a role of its own with --database-url, and the owner of the tables with \
                 --maintenance-database-url.",
            ),
            Err(error) => ill("audit record", format!("not known: {error}"), "Ask again when the database answers."),
        }
    }
}

fn well(name: &str, text: String) -> v1::Check {
    v1::Check { name: name.to_owned(), ok: true, text, remedy: String::new() }
}

fn ill(name: &str, text: String, remedy: &str) -> v1::Check {
    v1::Check { name: name.to_owned(), ok: false, text, remedy: remedy.to_owned() }
}

fn check_space(room: &Room, data_dir: &Path) -> v1::Check {
    let (space, shown) = (room.standing().space, data_dir.display());
    match (room.full(), room.closed()) {
        (Some(why), _) => ill(
            "disk",
            format!("{why} are used for {shown}; log bytes and packs are not taken, and wait on the executors' disks"),
            "Make room on the disk, or raise disk_budget if that is what is used up; it goes on by itself.",
        ),
        (None, Some(why)) => ill(
            "disk",
            format!("{why} are used for {shown}; no new tasks are placed"),
            "Make room on the disk, or raise disk_budget; new tasks are placed again when less than 75 % are used.",
        ),
        (None, None) if space.budget == 0 => well("disk", format!("not counted yet: {shown}")),
        (None, None) => well("disk", format!("{space} are used for {shown}")),
    }
}

fn check_public(certificate: &Lifetime, now: SystemTime) -> v1::Check {
    const NAME: &str = "certificate";
    match certificate.worry(now) {
        None => well(NAME, format!("the public certificate in {certificate}")),
        Some(worry) => v1::Check { ok: !worry.refused, ..ill(NAME, worry.to_string(), worry.remedy) },
    }
}

fn retention(about: &About) -> String {
    let logs = match about.log_retention {
        Some(span) if span.as_secs().is_multiple_of(DAY) => {
            format!("logs of tasks that have ended for {} days", span.as_secs() / DAY)
        }
        Some(span) => format!("logs of tasks that have ended for {}", humantime::format_duration(span)),
        None => "logs for ever".to_owned(),
    };
    format!("the journal is kept for {} days, {logs}", about.event_days)
}

async fn check_git(program: &Path) -> v1::Check {
    let asked = timeout(Duration::from_secs(5), Command::new(program).arg("--version").output()).await;
    let said = match asked {
        Ok(Ok(told)) => String::from_utf8_lossy(&told.stdout).trim().to_owned(),
        Ok(Err(error)) => format!("cannot be run: {error}"),
        Err(_) => "does not answer within 5 s".to_owned(),
    };
    if git_version(&said).is_some_and(|version| version >= OLDEST_GIT) {
        return well("git", said);
    }
    let (major, minor) = OLDEST_GIT;
    ill("git", format!("{}: {said}", program.display()), &format!("Install git {major}.{minor} or newer."))
}

/// The version in a line like `git version 2.47.1`.
fn git_version(line: &str) -> Option<(u32, u32)> {
    let mut parts = line.strip_prefix("git version ")?.split(['.', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::git_version;

    #[test]
    fn reads_versions_of_git() {
        assert_eq!(git_version("git version 2.47.1"), Some((2, 47)));
        assert_eq!(git_version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(git_version("cannot be run: no such file"), None);
    }
}
