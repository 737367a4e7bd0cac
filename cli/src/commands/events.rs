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
        seat::{Seat, seat},
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

/// What an entry says beyond its kind: in words where it is by people or for them, else as it stands.
fn more(kind: &str, data: &str) -> String {
    let value: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    let Seat { comes, was, .. } = seat(value["role"].as_str().unwrap_or("guest"));
    match kind {
        "pairing.attached" => format!("  {comes}"),
        "pairing.typed" => {
            let (bytes, seconds) = (value["bytes"].as_u64().unwrap_or(0), value["seconds"].as_f64().unwrap_or(0.0));
            let text = value["text"].as_str().map(|text| format!(": {text:?}")).unwrap_or_default();
            format!("  typed {bytes} bytes in {seconds:.1} s{text}")
        }
        "pairing.detached" => match value["why"].as_str() {
            Some(why) => format!("  {was}, and had to go: {why}"),
            None => format!("  {was}, and left"),
        },
        "task.milestone" => format!("  {}", value["text"].as_str().unwrap_or_default()),
        "task.intent" => match value["intent"].as_str().unwrap_or_default() {
            "" => "  is for what its title says".to_owned(),
            intent => format!("  is for: {intent}"),
        },
        _ if matches!(data, "" | "{}" | "null") => String::new(),
        _ => format!("  {data}"),
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
            text.push_str(&more(&event.kind, &event.data));
            line(clean(text.trim_end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_did_is_told_in_words() {
        for (kind, data, words) in [
            ("pairing.attached", r#"{"role":"driver","session":"x"}"#, "  sat down as driver"),
            ("pairing.typed", r#"{"role":"driver","bytes":3,"seconds":1.5}"#, "  typed 3 bytes in 1.5 s"),
            ("pairing.typed", r#"{"bytes":3,"seconds":0.0,"text":"ls\r"}"#, "  typed 3 bytes in 0.0 s: \"ls\\r\""),
            ("pairing.detached", r#"{"role":"observer"}"#, "  was observer, and left"),
            ("pairing.detached", r#"{"role":"driver","why":"locked"}"#, "  was driver, and had to go: locked"),
            ("pairing.attached", r#"{"role":"command"}"#, "  came to run a command"),
            ("pairing.detached", r#"{"role":"files"}"#, "  copied files, and left"),
            ("task.milestone", r#"{"text":"the \"parser\" passes"}"#, "  the \"parser\" passes"),
            ("task.intent", r#"{"intent":"dates"}"#, "  is for: dates"),
            ("task.intent", r#"{"intent":""}"#, "  is for what its title says"),
            ("task.created", r#"{"title":"x"}"#, r#"  {"title":"x"}"#),
            ("attempt.running", "{}", ""),
        ] {
            assert_eq!(more(kind, data), words, "{kind} {data}");
        }
    }
}
