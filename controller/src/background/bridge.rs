//! The bus between replicas: what happened here is said by NOTIFY, what others say is delivered here.
//!
//! NOTIFY takes a lock of the whole server at commit, so signals are gathered and said at most every [`GATHER`]. Whatever
//! is lost is found by the poll of whoever needs it.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bus::{Bus, Signal},
    store::{
        Store, StoreError,
        notify::{Ear, LONGEST},
    },
};

/// Least time between two notifications.
const GATHER: Duration = Duration::from_millis(20);

/// How often we say something to ourselves, and how long we may hear nothing before the connection is taken for dead.
const CANARY: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);

/// Wait before a broken connection is made anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Carries signals both ways until `stop`.
pub async fn run(store: Store, bus: Bus, stop: CancellationToken) {
    let replica = Uuid::now_v7();
    bus.bridge();
    tokio::select! {
        () = stop.cancelled() => {}
        () = say(&store, &bus, replica) => {}
        () = hear(&store, &bus, replica) => {}
    }
}

async fn say(store: &Store, bus: &Bus, replica: Uuid) {
    loop {
        let signals = timeout(CANARY, bus.outgoing()).await.unwrap_or_default();
        for payload in payloads(replica, &signals) {
            if let Err(error) = store.notify(&payload).await {
                tracing::debug!(%error, "cannot notify other replicas; their poll repairs it");
            }
        }
        sleep(GATHER).await;
    }
}

async fn hear(store: &Store, bus: &Bus, replica: Uuid) {
    loop {
        match store.ear().await {
            Ok(ear) => {
                if let Err(error) = listen(ear, bus, replica).await {
                    tracing::debug!(%error, "cannot hear other replicas; connecting again");
                }
            }
            Err(error) => tracing::debug!(%error, "cannot listen to other replicas; trying again"),
        }
        sleep(AGAIN).await;
    }
}

async fn listen(mut ear: Ear, bus: &Bus, replica: Uuid) -> Result<(), StoreError> {
    missed(bus);
    let mut heard = Instant::now();
    loop {
        match timeout(SILENCE, ear.hear()).await {
            Ok(Ok(Some(payload))) => {
                heard = Instant::now();
                for signal in signals(replica, &payload) {
                    bus.deliver(signal);
                }
            }
            Ok(Ok(None)) => missed(bus),
            Ok(Err(error)) => return Err(error),
            // Not even our own canary.
            Err(_) if heard.elapsed() >= SILENCE => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Something may have been said that was not heard.
fn missed(bus: &Bus) {
    bus.deliver(Signal::Place);
    bus.deliver(Signal::Journal);
    bus.deliver(Signal::Access);
    bus.deliver(Signal::Audit);
    bus.deliver(Signal::Guests);
}

/// `signals` as payloads; one without signals when there are none, so that we hear ourselves.
fn payloads(replica: Uuid, signals: &BTreeSet<Signal>) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = replica.to_string();
    for signal in signals {
        let word = word(*signal);
        if payload.len() + word.len() + 1 > LONGEST {
            payloads.push(std::mem::replace(&mut payload, replica.to_string()));
        }
        payload.push(' ');
        payload.push_str(&word);
    }
    payloads.push(payload);
    payloads
}

/// What another replica said; nothing for what we said ourselves.
fn signals(replica: Uuid, payload: &str) -> Vec<Signal> {
    let mut words = payload.split(' ');
    let from = words.next().and_then(|from| Uuid::from_str(from).ok());
    if from == Some(replica) {
        return Vec::new();
    }
    words.filter_map(signal).collect()
}

fn word(signal: Signal) -> String {
    match signal {
        Signal::Place => "p".to_owned(),
        Signal::Journal => "j".to_owned(),
        Signal::Access => "a".to_owned(),
        Signal::Audit => "u".to_owned(),
        Signal::Guests => "g".to_owned(),
        Signal::Closed(pairing) => format!("c{}", pairing.0.simple()),
        Signal::Tell(executor) => format!("t{}", executor.0.simple()),
        Signal::Log(attempt) => format!("l{}", attempt.0.simple()),
    }
}

fn signal(word: &str) -> Option<Signal> {
    match word {
        "p" => Some(Signal::Place),
        "j" => Some(Signal::Journal),
        "a" => Some(Signal::Access),
        "u" => Some(Signal::Audit),
        "g" => Some(Signal::Guests),
        word => {
            let id = Uuid::from_str(word.get(1..)?).ok()?;
            match word.chars().next()? {
                't' => Some(Signal::Tell(id.into())),
                'l' => Some(Signal::Log(id.into())),
                'c' => Some(Signal::Closed(id.into())),
                // Said by a newer replica.
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sculpt_proto::id::{AttemptId, ExecutorId, PairingId};

    use super::*;

    #[test]
    fn signals_come_back_from_payloads() {
        let (us, other) = (Uuid::now_v7(), Uuid::now_v7());
        let mut all: BTreeSet<_> = (0..500).map(|_| Signal::Tell(ExecutorId::fresh())).collect();
        all.extend([Signal::Place, Signal::Journal, Signal::Access, Signal::Audit, Signal::Guests]);
        all.extend([Signal::Log(AttemptId::fresh()), Signal::Closed(PairingId::fresh())]);
        let said = payloads(other, &all);
        assert!(said.len() > 1 && said.iter().all(|payload| payload.len() <= LONGEST));
        let heard: BTreeSet<_> = said.iter().flat_map(|payload| signals(us, payload)).collect();
        assert_eq!(heard, all);
        assert!(signals(other, &said[0]).is_empty(), "what we said ourselves is delivered already");
        assert!(signals(us, &format!("{other} x y1 t")).is_empty(), "what is not known is passed over");
    }
}
