//! The journal, followed.

use std::collections::VecDeque;

use futures_util::stream;
use sculpt_proto::{FieldError, id::ClusterId, v1};
use tokio::{sync::watch, time::Instant};
use tonic::{Request, Response, Status};

use super::{
    Api, POLL, Replies, convert,
    cursor::{CursorError, cursor, place},
};
use crate::store::events::{Of, Place, Reader};

/// How often a follower whose place moves without an event for it is told so.
const TELL_PLACE: std::time::Duration = std::time::Duration::from_secs(30);

#[tonic::async_trait]
impl v1::events_server::Events for Api {
    type WatchEventsStream = Replies<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = super::caller(&request)?;
        let message = request.into_inner();
        let of = match message.task.as_str() {
            "" => Of::Seen(caller.sees()),
            name => Of::Task(self.readable(&caller, name).await?),
        };
        // Before the first read: what happens meanwhile wakes the first wait.
        let moved = self.bus.journal_moved();
        let start = self.start(&message.cursor).await?;
        let reader = self.store.journal(start, of).await?;
        let follower = Follower {
            cluster: self.about.cluster,
            told: None,
            told_at: Instant::now(),
            reader,
            moved,
            follow: message.follow,
            ready: VecDeque::new(),
            done: false,
        };
        let replies = stream::try_unfold(follower, |mut follower| async move {
            Ok(follower.next().await?.map(|part| (v1::WatchEventsResponse { part: Some(part) }, follower)))
        });
        Ok(Response::new(self.replies(replies)))
    }
}

impl Api {
    /// The place that a caller's cursor means; `None` for the oldest that is kept.
    async fn start(&self, text: &str) -> Result<Option<Place>, Status> {
        match text {
            "" => Ok(None),
            "now" => Ok(Some(self.store.settled().await?)),
            text => match place(self.about.cluster, text) {
                Ok(place) => Ok(Some(place)),
                Err(CursorError::OtherCluster) => Err(Status::out_of_range(
                    "this cursor belongs to another database; list again and watch from the list's cursor",
                )),
                Err(CursorError::Malformed) => {
                    Err(FieldError::new("cursor", format!("{text:?} was not given by this controller")).into())
                }
            },
        }
    }
}

/// One caller's way through the journal.
struct Follower {
    cluster: ClusterId,
    reader: Reader,
    moved: watch::Receiver<u64>,
    follow: bool,
    ready: VecDeque<v1::Event>,
    /// The place that the caller knows, and since when.
    told: Option<Place>,
    told_at: Instant,
    done: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<v1::watch_events_response::Part>, Status> {
        use v1::watch_events_response::Part;
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(Part::Event(event)));
            }
            if self.done {
                return Ok(None);
            }
            self.moved.mark_unchanged();
            let batch = self.reader.next().await?;
            if !batch.is_empty() {
                let at = |id: i64| cursor(self.cluster, Place(id));
                self.ready = batch
                    .into_iter()
                    .map(|event| {
                        let cursor = at(event.id);
                        convert::event(event, cursor)
                    })
                    .collect();
                continue;
            }
            let place = self.reader.place();
            let first = self.told.is_none();
            if first || self.told != Some(place) && self.told_at.elapsed() >= TELL_PLACE {
                self.told = Some(place);
                self.told_at = Instant::now();
                self.done = !self.follow;
                return Ok(Some(Part::Cursor(cursor(self.cluster, place))));
            }
            tokio::select! {
                changed = self.moved.changed() => changed.map_err(|_| super::status::shutting_down())?,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}
