//! Whom a client believes for as long as it lives: another authority may take over meanwhile.

use std::{sync::Arc, time::Duration};

use sculpt_tls::{Server, client_config, connector, shows_another};
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::{BoxError, ServiceExt as _, service_fn};

use super::Client;
use crate::{authority, config::Context};

/// Reaches the controller of `context`, now believing `server`, and whenever the connection is lost whoever is stored then.
/// Each later connection is told to `again`, and so is the first one if it shows an authority that is not stored.
pub(super) async fn connect(
    endpoint: Endpoint,
    context: &Context,
    server: Server,
    patience: Duration,
    again: Arc<Notify>,
) -> Result<Channel, Error> {
    let (context, mut first) = (context.clone(), Some(server));
    let connect = service_fn(move |uri: Uri| {
        let (believed, is_first) = match first.take() {
            Some(server) => (Ok(server), true),
            None => (authority::server(&context), false),
        };
        let again = Arc::clone(&again);
        async move {
            let server = believed?;
            let config = client_config(&server, None)?;
            let stream = connector(&server, config, patience).oneshot(uri).await?;
            if !is_first || shows_another(&server, &stream) {
                again.notify_one();
            }
            Ok::<_, BoxError>(stream)
        }
    });
    endpoint.connect_with_connector(connect).await
}

/// Lets `client` learn of authorities until the answer is dropped: a command that follows may outlive what it began with.
pub(super) fn learning(client: Client) -> JoinSet<()> {
    let mut learning = JoinSet::new();
    learning.spawn(async move {
        loop {
            due(&client.again, authority::FRESH).await;
            client.learn_authorities().await;
        }
    });
    learning
}

/// Waits for so long, or until the controller was reached anew: that it was away may be because another authority certifies.
async fn due(again: &Notify, every: Duration) {
    tokio::select! {
        () = again.notified() => {}
        () = sleep(every) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_learnt_with_time_and_with_every_new_connection() {
        let (again, hour, begun) = (Notify::new(), Duration::from_secs(3_600), Instant::now());
        due(&again, hour).await;
        assert_eq!(begun.elapsed(), hour);
        // Also when nobody waited just then, and once.
        again.notify_one();
        again.notify_one();
        due(&again, hour).await;
        assert_eq!(begun.elapsed(), hour);
        due(&again, hour).await;
        assert_eq!(begun.elapsed(), hour * 2);
    }
}
