//! When to end, and on whose behalf we run.

use std::{io::Read as _, thread};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by SIGTERM, by SIGINT, and with `lifeline` by the end of stdin.
pub(super) fn ending(lifeline: bool) -> anyhow::Result<CancellationToken> {
    let told = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let by_signal = told.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        by_signal.cancel();
    });
    if lifeline {
        let by_parent = told.clone();
        // A thread that the runtime does not know: it may sit in its read for ever.
        let watch = move || {
            let mut sink = [0; 64];
            let mut stdin = std::io::stdin().lock();
            while stdin.read(&mut sink).is_ok_and(|count| count > 0) {}
            by_parent.cancel();
        };
        thread::Builder::new().name("lifeline".to_owned()).spawn(watch).context("watch the lifeline")?;
    }
    Ok(told)
}

/// Name of the account that we run as.
pub(crate) fn account() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}
