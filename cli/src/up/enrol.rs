//! Makes the executor of this installation one of its controller's, in the way that all executors become one.

use std::{path::Path, process::Stdio};

use sculpt_proto::v1::{CreateJoinTokenRequest, CreateJoinTokenResponse};
use tokio::{io::AsyncWriteExt as _, process::Command};
use uuid::Uuid;

use super::{Places, child::sibling};
use crate::{client::Client, config::Context, exit::Exit, failure::Failure};

const ATTEMPTED: &str = "enrol the executor at the controller";

/// How long the token is good; it is used at once.
const TTL: prost_types::Duration = prost_types::Duration { seconds: 300, nanos: 0 };

/// Joins, unless the executor has joined before.
pub(super) async fn enrol(places: &Places, context: Context, executor_url: &str) -> Result<(), Failure> {
    if places.executor().join("identity/certificate.pem").exists() {
        return Ok(());
    }
    let client = Client::to(context).await?;
    let request = CreateJoinTokenRequest {
        request_id: Uuid::new_v4().to_string(),
        ttl: Some(TTL),
        uses: 1,
        ..CreateJoinTokenRequest::default()
    };
    let CreateJoinTokenResponse { secret, .. } =
        client.change(ATTEMPTED, async || client.executors().create_join_token(request.clone()).await).await?;
    join(&places.executor(), executor_url, &secret).await
}

async fn join(data_dir: &Path, url: &str, token: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, ATTEMPTED, why);
    let mut child = Command::new(sibling("executor"))
        .args(["join", url, "--token-file", "-", "--data-dir"])
        .arg(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // Not in an argument: arguments can be read by every user of the machine. One that ended early says why below.
    if let Some(mut stdin) = child.stdin.take() {
        let _unread = stdin.write_all(token.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().trim_start_matches("sculpt-executor: ").to_owned()))
}
