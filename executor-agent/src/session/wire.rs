//! Conversions between the wire and what the session holds.

use std::time::Duration;

use sculpt_pairing::Right;
use sculpt_proto::{
    FieldError,
    executor::v1::{self as wire, control_response::Part, ended, report::Step as WireStep, report_ack},
    id::AttemptId,
    required, to_duration,
    v1::{Exit as WireExit, Failure as WireFailure},
};

use tokio::time::Instant;

use super::machine::{Input, Refusal, Wanted, Wish};
use crate::{
    report::{Ended, Exit, Outcome, Seat, Step},
    ssh::{Dial, Guest, GuestList, authorities},
    tmux::Status,
};

/// A message of the controller as the machine takes it; none for what the machine has no part in.
pub(super) fn input(part: Part) -> Result<Option<Input>, FieldError> {
    match part {
        Part::Welcome(_)
        | Part::Reject(_)
        | Part::HeartbeatAck(_)
        | Part::Collect(_)
        | Part::Guests(_)
        | Part::Dial(_) => Ok(None),
        Part::Desired(desired) => Ok(Some(Input::Desired {
            full: desired.full,
            last: desired.last,
            attempts: desired.attempts.into_iter().map(wanted).collect::<Result<_, _>>()?,
            released: desired
                .released
                .iter()
                .map(|id| FieldError::parse(id, "desired.released"))
                .collect::<Result<_, _>>()?,
        })),
        Part::ReportAck(ack) => {
            let refusal = match ack.refusal() {
                report_ack::Refusal::Unspecified => None,
                report_ack::Refusal::UnknownAttempt => Some(Refusal::Unknown),
                report_ack::Refusal::Fenced => Some(Refusal::Fenced),
                report_ack::Refusal::Gap => Some(Refusal::Gap),
                report_ack::Refusal::Illegal => Some(Refusal::Illegal),
            };
            Ok(Some(Input::Acked {
                attempt: FieldError::parse(&ack.attempt_id, "report_ack.attempt_id")?,
                through: ack.through,
                refusal,
            }))
        }
    }
}

/// The attempts that the controller takes over by this message.
pub(super) fn adopted(part: &Part) -> Result<Vec<AttemptId>, FieldError> {
    match part {
        Part::Desired(desired) => desired.adopted.iter().map(|id| FieldError::parse(id, "desired.adopted")).collect(),
        Part::Welcome(_)
        | Part::Reject(_)
        | Part::HeartbeatAck(_)
        | Part::ReportAck(_)
        | Part::Collect(_)
        | Part::Guests(_)
        | Part::Dial(_) => Ok(Vec::new()),
    }
}

/// What people at the screens of attempts are to read.
pub(super) fn said(part: &Part) -> Result<Vec<(AttemptId, Status)>, FieldError> {
    let Part::Desired(desired) = part else { return Ok(Vec::new()) };
    let said = |attempt: &wire::DesiredAttempt| {
        let status = Status { intent: attempt.intent.clone(), milestone: attempt.milestone.clone() };
        Ok((FieldError::parse(&attempt.attempt_id, "desired.attempts.attempt_id")?, status))
    };
    desired.attempts.iter().map(said).collect()
}

/// Whom the executor lets in from `now` on.
pub(super) fn guests(told: wire::Guests, now: Instant) -> Result<GuestList, FieldError> {
    let guest = |guest: wire::Guest| {
        let remaining = required(guest.remaining, "guests.remaining")?;
        // A right of tomorrow is none here.
        let rights = guest.rights.iter().filter_map(|right| right.parse::<Right>().ok()).collect();
        let pairing = FieldError::parse(&guest.pairing_id, "guests.pairing_id")?;
        let attempt = FieldError::parse(&guest.attempt_id, "guests.attempt_id")?;
        let until = now + sculpt_proto::duration(remaining, "guests.remaining")?;
        Ok((pairing, Guest { attempt, user: guest.user, rights, until }))
    };
    let authorities = authorities(told.authorities.iter().map(String::as_str))
        .map_err(|error| FieldError::new("guests.authorities", error.to_string()))?;
    Ok(GuestList { guests: told.guests.into_iter().map(guest).collect::<Result<_, FieldError>>()?, authorities })
}

/// For whom to dial.
pub(super) fn dial(dial: &wire::Dial) -> Result<Dial, FieldError> {
    Ok(Dial {
        tunnel: FieldError::parse(&dial.tunnel_id, "dial.tunnel_id")?,
        pairing: FieldError::parse(&dial.pairing_id, "dial.pairing_id")?,
    })
}

fn wanted(attempt: wire::DesiredAttempt) -> Result<Wanted, FieldError> {
    let wish = match attempt.phase() {
        wire::Phase::Run => Wish::Run,
        wire::Phase::Hold => Wish::Hold,
        wire::Phase::Stop => Wish::Stop,
        wire::Phase::Fence => Wish::Fence,
        wire::Phase::Unspecified => return Err(FieldError::new("desired.attempts.phase", "is missing")),
    };
    Ok(Wanted {
        attempt: FieldError::parse(&attempt.attempt_id, "desired.attempts.attempt_id")?,
        digest: attempt.spec_digest,
        wish,
    })
}

/// A report for the wire; it was written `age` ago.
pub fn report(attempt: AttemptId, sequence: u64, age: Duration, said: Step) -> wire::Report {
    wire::Report { attempt_id: attempt.to_string(), sequence, age: Some(to_duration(age)), step: Some(step(said)) }
}

fn step(step: Step) -> WireStep {
    match step {
        Step::Accepted => WireStep::Accepted(wire::Accepted {}),
        Step::Preparing => WireStep::Preparing(wire::Preparing {}),
        Step::Running { pid, tmux_socket } => WireStep::Running(wire::Running { pid, tmux_socket }),
        Step::Finalizing { exit } => WireStep::Finalizing(wire::Finalizing { exit: present(exit) }),
        Step::Ended(ended) => WireStep::Ended(self::ended(ended)),
        Step::Note { text } => WireStep::Note(wire::Note { text }),
        Step::Milestone { text } => WireStep::Milestone(wire::Milestone { text }),
        Step::Seat(seat) => self::seat(seat),
    }
}

fn seat(seat: Seat) -> WireStep {
    match seat {
        Seat::Attached { seat, pairing, role, .. } => WireStep::Attached(wire::Attached {
            pairing_id: pairing.to_string(),
            session_id: seat.to_string(),
            role: role.as_str().to_owned(),
        }),
        Seat::Typed { seat, bytes, took, content, .. } => WireStep::Typed(wire::Typed {
            session_id: seat.to_string(),
            bytes,
            took: Some(to_duration(took)),
            content: content.0,
        }),
        Seat::Detached { seat, why } => WireStep::Detached(wire::Detached { session_id: seat.to_string(), why }),
    }
}

fn ended(ended: Ended) -> wire::Ended {
    let (outcome, failure) = match ended.outcome {
        Outcome::Completed => (ended::Outcome::Completed, None),
        Outcome::Cancelled => (ended::Outcome::Cancelled, None),
        Outcome::Fenced => (ended::Outcome::Fenced, None),
        Outcome::Failed(failure) => (
            ended::Outcome::Failed,
            Some(WireFailure { cause: failure.cause.as_str().to_owned(), message: failure.message }),
        ),
    };
    wire::Ended {
        outcome: outcome.into(),
        failure,
        exit: present(ended.exit),
        log_length: ended.log_length,
        head: ended.head.unwrap_or_default(),
    }
}

fn present(exit: Exit) -> Option<WireExit> {
    (exit != Exit::default()).then_some(WireExit { code: exit.code, signal: exit.signal })
}

/// The first message of the controller.
pub(super) enum First {
    /// The session begins.
    Welcome(Welcome),
    /// It does not.
    Reject(wire::Reject),
}

/// A session's parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Welcome {
    pub(super) link: crate::attempts::Link,
    pub(super) heartbeat: std::time::Duration,
    pub(super) watchdog: std::time::Duration,
}

/// What the controller says first.
pub(super) fn first(part: Option<Part>) -> Result<First, FieldError> {
    match required(part, "part")? {
        Part::Reject(reject) => Ok(First::Reject(reject)),
        Part::Welcome(welcome) => {
            let span = |value: Option<prost_types::Duration>, default: u64, field| {
                let default = std::time::Duration::from_secs(default);
                let span = value.map_or(Ok(default), |value| sculpt_proto::duration(value, field))?;
                Ok::<_, FieldError>(span.max(std::time::Duration::from_millis(20)))
            };
            Ok(First::Welcome(Welcome {
                link: crate::attempts::Link {
                    epoch: welcome.epoch,
                    cluster: FieldError::parse(&welcome.cluster_id, "welcome.cluster_id")?,
                },
                heartbeat: span(welcome.heartbeat_interval, 10, "welcome.heartbeat_interval")?,
                watchdog: span(welcome.watchdog, 30, "welcome.watchdog")?,
            }))
        }
        Part::HeartbeatAck(_)
        | Part::Desired(_)
        | Part::ReportAck(_)
        | Part::Collect(_)
        | Part::Guests(_)
        | Part::Dial(_) => Err(FieldError::new("part", "is neither Welcome nor Reject")),
    }
}

#[cfg(test)]
mod tests {
    use sculpt_pairing::Profile;
    use sculpt_proto::id::PairingId;

    use super::*;

    #[test]
    fn guests_are_who_the_controller_says() {
        let (pairing, attempt, now) = (PairingId::fresh(), AttemptId::fresh(), Instant::now());
        let guest = wire::Guest {
            pairing_id: pairing.to_string(),
            attempt_id: attempt.to_string(),
            user: "ada".to_owned(),
            rights: ["observe", "drive", "fly"].map(str::to_owned).to_vec(),
            remaining: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        };
        let told = |guest: wire::Guest| guests(wire::Guests { guests: vec![guest], authorities: Vec::new() }, now);
        let until = now + Duration::from_secs(60);
        let expected = Guest { attempt, user: "ada".to_owned(), rights: Profile::Attach.rights(), until };
        assert_eq!(told(guest.clone()).unwrap().guests, [(pairing, expected)].into());
        for wrong in [
            wire::Guest { pairing_id: "x".to_owned(), ..guest.clone() },
            wire::Guest { attempt_id: String::new(), ..guest.clone() },
            wire::Guest { remaining: None, ..guest },
        ] {
            assert!(told(wrong).is_err());
        }
        let authority = wire::Guests { guests: Vec::new(), authorities: vec!["ssh-ed25519 no".to_owned()] };
        assert!(guests(authority, now).unwrap_err().to_string().contains("guests.authorities"));
    }
}
