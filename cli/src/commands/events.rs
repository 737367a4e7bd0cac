//! `sculpt events`.

use sculpt_proto::v1::{Event, WatchEventsRequest, WatchEventsResponse, watch_events_response::Part};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::EventsArgs,
    client::{Backoff, Client, Outage},
    exit::Exit,
    failure::{Failure, is_transient},
    output::{
        Format, clean, json_line, line,
        tasks::filled,
        time::{local_clock, rfc3339},
    },
};

#[derive(Serialize)]
struct EventJson {
    cursor: String,
    time: Option<String>,
    kind: String,
    task: Option<u64>,
    task_uuid: Option<String>,
    attempt: Option<u32>,
    executor: Option<String>,
    state: Option<String>,
    revision: Option<u64>,
    actor: Option<String>,
    data: Value,
}

pub(super) async fn run(args: EventsArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    tokio::select! {
        outcome = follow(&client, args, format) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Detached),
    }
}

async fn follow(client: &Client, args: EventsArgs, format: Format) -> Result<Exit, Failure> {
    const ATTEMPTED: &str = "read the journal";
    let mut cursor = args.from_cursor.unwrap_or_default();
    let mut backoff = Backoff::new();
    let mut outage = Outage::default();
    loop {
        let request = WatchEventsRequest { cursor: cursor.clone(), follow: args.follow, task: String::new() };
        let mut broken = match client.events().watch_events(request).await {
            Ok(response) => {
                outage.ended(false);
                let mut stream = response.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(WatchEventsResponse { part: Some(Part::Event(event)) })) => {
                            show(&event, format)?;
                            cursor = event.cursor;
                            backoff.reset();
                        }
                        Ok(Some(WatchEventsResponse { part: Some(Part::Cursor(place)) })) => cursor = place,
                        Ok(Some(WatchEventsResponse { part: None })) => {}
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        if broken.is_none() && !args.follow {
            return Ok(Exit::Done);
        }
        if let Some(status) = broken.take_if(|status| !is_transient(status)) {
            let failure = client.refused(ATTEMPTED, &status);
            return Err(match status.code() {
                tonic::Code::OutOfRange => failure.next("that place is no longer kept: begin without --from-cursor"),
                _ => failure,
            });
        }
        outage.began(false);
        backoff.pause().await;
    }
}

fn show(event: &Event, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => json_line(&EventJson {
            cursor: event.cursor.clone(),
            time: rfc3339(event.time.as_ref()),
            kind: event.kind.clone(),
            task: (event.task != 0).then_some(event.task),
            task_uuid: filled(&event.task_uuid),
            attempt: (event.attempt != 0).then_some(event.attempt),
            executor: filled(&event.executor),
            state: filled(&event.state),
            revision: (event.revision != 0).then_some(event.revision),
            actor: filled(&event.actor),
            data: serde_json::from_str(&event.data).unwrap_or(Value::Null),
        }),
        Format::Text => {
            let mut text = format!("{}  {:<22}", local_clock(event.time.as_ref()), event.kind);
            if event.task != 0 {
                text.push_str(&format!("  task {}", event.task));
            }
            if event.attempt != 0 {
                text.push_str(&format!(" attempt {}", event.attempt));
            }
            for (word, value) in [("on", &event.executor), ("→", &event.state), ("by", &event.actor)] {
                if !value.is_empty() {
                    text.push_str(&format!("  {word} {value}"));
                }
            }
            if !matches!(event.data.as_str(), "" | "{}" | "null") {
                text.push_str(&format!("  {}", event.data));
            }
            line(clean(text.trim_end()))
        }
    }
}
