//! Follows a living shim: reports the start, hands wishes over, keeps the view up, and tells how the log grows.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    Context, Handle, LogEnd, lease::Renewals, life::Life, milestones, prepare::GRACE, tmux_socket, view::keep_view,
};
use crate::{
    connect::Backoff,
    journal::JournalError,
    report::Step,
    session::Wish,
    shim::{Client, ClientError, Launch, Mode, Phase, Status},
    tmux::View,
};

/// From interrupt to kill for an attempt that may not publish anyway.
const FENCE_GRACE: Duration = Duration::from_secs(4);

/// From the wish for an end to the doubt whether the shim still sees to it: its grace, and some more.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(15);

impl Life<'_> {
    /// Returns when the agent has ended, or when the shim has to be looked for again.
    pub(super) async fn attend(&mut self, last: Option<Step>, backoff: &mut Backoff) -> Result<(), JournalError> {
        let launch = match Launch::read(&self.handle.dir) {
            Ok(launch) => launch,
            Err(error) => {
                warn!(attempt = %self.handle.id, %error, "cannot read how the agent was launched");
                backoff.wait().await;
                return Ok(());
            }
        };
        let client = Client::new(&launch.control_socket);
        let status = match client.status().await {
            Ok(status) => status,
            Err(error) => {
                debug!(attempt = %self.handle.id, %error, "the shim does not answer");
                backoff.wait().await;
                return Ok(());
            }
        };
        let terminal = matches!(launch.mode, Mode::Terminal { .. });
        let tmux = tmux_socket(&self.context.layout, self.handle.id);
        if !matches!(last, Some(Step::Running { .. })) {
            let Some(agent) = status.agent else {
                // It is about to start, or has failed to.
                backoff.wait().await;
                return Ok(());
            };
            let tmux_socket = if terminal { tmux.to_string_lossy().into_owned() } else { String::new() };
            self.record(Step::Running { pid: agent.pid, tmux_socket }).await?;
        }
        let view = || View::of(&self.handle.dir, &launch, tmux, self.context.program.clone());
        let shown = watch::Sender::new(milestones::status(&self.spec, self.handle.journal()));
        let _view = terminal.then(|| AbortOnDropHandle::new(tokio::spawn(keep_view(view(), shown.subscribe()))));
        let (context, handle) = (Arc::clone(self.context), Arc::clone(self.handle));
        let _milestones = AbortOnDropHandle::new(tokio::spawn(milestones::keep(context, handle, shown)));
        match follow(self.context, self.handle, &mut self.wish, &client, &status).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                debug!(attempt = %self.handle.id, %error, "lost the shim");
                backoff.wait().await;
            }
        }
        Ok(())
    }
}

/// Follows a living shim to its agent's end: hands wishes and the lease over, and tells how the log grows. An end that is
/// wished and does not come in time is an error, after which the shim is to be looked for again.
pub(super) async fn follow(
    context: &Context,
    handle: &Handle,
    wish: &mut watch::Receiver<Wish>,
    client: &Client,
    status: &Status,
) -> Result<(), ClientError> {
    let mut renewals = Renewals::new(context, status);
    let mut news = client.subscribe().await?;
    let mut held = false;
    let mut overdue = None;
    wish.mark_changed();
    loop {
        tokio::select! {
            progress = news.next() => match progress? {
                None => return Ok(()),
                Some(progress) => {
                    handle.grew(context, LogEnd { length: progress.log_end, finished: false });
                    handle.milestones.send_if_modified(|known| std::mem::replace(known, progress.milestones) != progress.milestones);
                    if matches!(progress.phase, Phase::Ended(_)) {
                        return Ok(());
                    }
                    // By a wish from before a restart, or by one that it did not answer in time.
                    if matches!(progress.phase, Phase::Held) && *wish.borrow() == Wish::Run {
                        client.resume().await?;
                    }
                }
            },
            changed = wish.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let wish = *wish.borrow_and_update();
                apply(client, wish, &mut held).await?;
                overdue = (wish >= Wish::Stop).then(|| Instant::now() + ENDS_WITHIN);
            }
            () = until(overdue) => return Err(client.silent()),
            confirmed = renewals.next() => client.lease(confirmed).await?,
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => pending().await,
    }
}

async fn apply(client: &Client, wish: Wish, held: &mut bool) -> Result<(), ClientError> {
    match wish {
        Wish::Run if !*held => {}
        Wish::Run => client.resume().await?,
        Wish::Hold => client.hold().await?,
        Wish::Stop => client.stop(GRACE).await?,
        Wish::Fence => client.stop(FENCE_GRACE).await?,
    }
    *held = wish == Wish::Hold;
    Ok(())
}
