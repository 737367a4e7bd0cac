//! Whose turn it is to type: once the last who drove has got up, messages to the agent need not wait for a rest.

use std::sync::Arc;

use tracing::debug;

use super::{Context, Handle, prepare::CONTROL};
use crate::shim::Client;

impl Handle {
    /// Nobody is left who drives: tells the shim.
    pub(super) async fn hand_back(self: Arc<Self>, context: Arc<Context>) {
        let shim = Client::new(&context.layout.sockets(self.id).join(CONTROL));
        if let Err(error) = shim.hand_back().await {
            // Its messages go out a little later, or its agent has ended.
            debug!(attempt = %self.id, %error, "could not say that nobody types any more");
        }
    }
}
