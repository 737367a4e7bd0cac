//! The database of a stack, asked past the controller.

use std::{fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{DEADLINE, Stack, within};

impl Stack {
    /// What `sql` gives, as psql prints it unadorned.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        let output = self.postgres_client("psql", &["-X", "-A", "-t", "-q", "-c", sql]).await?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Everything in the database, as pg_dump writes it.
    pub(super) async fn dump(&self) -> Result<Vec<u8>> {
        Ok(self.postgres_client("pg_dump", &["--data-only"]).await?.stdout)
    }

    async fn postgres_client(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(arguments).args(["-d", &self.database_url()?]).env_remove("PGOPTIONS").kill_on_drop(true);
        let run = async { command.output().await.with_context(|| format!("run {program}")) };
        let output = within(DEADLINE, &format!("{program} to end"), run).await?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }

    /// Where the database is: somebody's, or the built-in one behind its socket.
    pub fn database_url(&self) -> Result<String> {
        if let Some(url) = &self.database {
            return Ok(url.clone());
        }
        let path = self.data().join("controller/postgres/postmaster.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let sockets = text.lines().nth(4).context("the directory of the socket in postmaster.pid")?;
        Ok(format!("host={sockets} port=5432 user=sculpt dbname=sculpt"))
    }
}
