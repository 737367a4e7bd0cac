//! A task's state as it changes.

use sculpt_proto::v1::{Task, WatchTaskRequest, WatchTaskResponse};
use tonic::Streaming;

use crate::{
    client::{Backoff, Client, Outage},
    failure::{Failure, is_transient},
};

/// A watch that survives restarts of the controller.
pub(crate) struct Watch {
    client: Client,
    /// Its uuid.
    task: String,
    attempted: String,
    stream: Option<Streaming<WatchTaskResponse>>,
    backoff: Backoff,
    outage: Outage,
    quiet: bool,
}

impl Watch {
    /// Begins to watch the task of this uuid, which people know by its number; `quiet` keeps outages to itself.
    pub(crate) fn new(client: &Client, number: u64, uuid: &str, quiet: bool) -> Self {
        Self {
            client: client.clone(),
            task: uuid.to_owned(),
            attempted: format!("watch task {number}"),
            stream: None,
            backoff: Backoff::new(),
            outage: Outage::default(),
            quiet,
        }
    }

    /// The task as it is, then as it is after each change. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Task, Failure> {
        loop {
            let answer = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => {
                    let request = WatchTaskRequest { task: self.task.clone() };
                    match self.client.tasks().watch_task(request).await {
                        Ok(response) => {
                            self.stream = Some(response.into_inner());
                            continue;
                        }
                        Err(status) => Err(status),
                    }
                }
            };
            match answer {
                Ok(Some(WatchTaskResponse { task: Some(task) })) => {
                    self.backoff.reset();
                    self.outage.ended(self.quiet);
                    return Ok(task);
                }
                Ok(Some(WatchTaskResponse { task: None })) => {}
                // Only the client ends a watch.
                Ok(None) => self.again().await,
                Err(status) if is_transient(&status) => self.again().await,
                Err(status) => return Err(self.client.refused(&self.attempted, &status)),
            }
        }
    }

    async fn again(&mut self) {
        self.stream = None;
        self.outage.began(self.quiet);
        self.backoff.pause().await;
    }
}
