//! Makes the executor of this installation one of its controller's, in the way that all executors become one.

use std::{path::Path, process::Stdio};

use sculpt_proto::v1::{CreateJoinTokenRequest, CreateJoinTokenResponse, WhoAmIRequest};
use sculpt_tls::Trust;
use tokio::{io::AsyncWriteExt as _, process::Command};
use uuid::Uuid;

use super::{Places, child::sibling};
use crate::{client::Client, config::Context, exit::Exit, failure::Failure, output::shell_quoted};

const ATTEMPTED: &str = "enrol the executor at the controller";

/// How long the token is good; it is used at once.
const TTL: prost_types::Duration = prost_types::Duration { seconds: 300, nanos: 0 };

/// Joins, unless the executor has joined before; anew when it does not know the authority that has taken over since: it was
/// away while the controller told of it.
pub(super) async fn enrol(places: &Places, context: Context, executor_url: &str) -> Result<(), Failure> {
    let identity = places.executor().join("identity");
    let joined = identity.join("certificate.pem").exists();
    let client = match Client::to(context).await {
        // The executor will say itself what keeps it away.
        Err(_) if joined => return Ok(()),
        client => client?,
    };
    if joined && !is_stranger(&client, &identity.join("trust.pem")).await {
        return Ok(());
    }
    let request = CreateJoinTokenRequest {
        request_id: Uuid::new_v4().to_string(),
        ttl: Some(TTL),
        uses: 1,
        ..CreateJoinTokenRequest::default()
    };
    // Not tried again by itself: the secret of the first answer would be lost, and the token with it.
    let CreateJoinTokenResponse { secret, .. } =
        client.read(ATTEMPTED, client.executors().create_join_token(request)).await?;
    join(&places.executor(), executor_url, &secret, joined).await
}

/// Whether the controller is certified by an authority that is not among those in `trust`. What cannot be seen is not.
async fn is_stranger(client: &Client, trust: &Path) -> bool {
    let pins = |pem: &[u8]| Trust::from_pem(pem).map(|trust| trust.pins().collect::<Vec<_>>()).unwrap_or_default();
    let known = std::fs::read(trust).map(|pem| pins(&pem)).unwrap_or_default();
    let who = client.read(ATTEMPTED, client.identity().who_am_i(WhoAmIRequest {})).await;
    let now = who.ok().and_then(|who| pins(who.trust.as_bytes()).first().copied());
    !known.is_empty() && now.is_some_and(|now| !known.contains(&now))
}

async fn join(data_dir: &Path, url: &str, token: &str, again: bool) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, ATTEMPTED, why);
    let mut child = Command::new(sibling("executor"))
        .args(["join", url, "--token-file", "-", "--data-dir"])
        .arg(data_dir)
        .args(again.then_some("--again"))
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
    let failure = failed(said.trim().trim_start_matches("sculpt-executor: ").to_owned());
    if !again {
        return Err(failure);
    }
    let aside = shell_quoted(&data_dir.with_extension("old").to_string_lossy());
    let data_dir = shell_quoted(&data_dir.to_string_lossy());
    Err(failure
        .next(format!("`mv {data_dir} {aside}` puts aside what it holds; the next start makes another executor")))
}
