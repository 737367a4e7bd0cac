//! Messages of Control, checked on their way in and made on their way out.

use prost::Message as _;
use sculpt_pairing::Right;
use sculpt_proto::{
    FieldError,
    executor::v1::{
        self as wire, ControlRequest, DesiredAttempt, ObservedAttempt, Phase as WirePhase, control_request,
    },
    id::AttemptId,
    to_duration,
};
use tonic::Status;

use crate::{
    session::{
        end::End,
        errands::{Call, Invited},
        reports::{Answer, Report},
        state::{Input, Observed},
    },
    store::{
        pairings::Guest,
        sessions::{Phase, Wish},
    },
};

/// What a session's reducer takes in.
pub(super) type In = Input<Report, Answer>;

/// Largest message, in bytes.
pub(super) const MAX_CONTROL: usize = 256 << 10;

/// A message as the reducer takes it; `None` for what this version does not know.
pub(super) fn input(request: ControlRequest) -> Result<Option<In>, End> {
    bounded(&request)?;
    Ok(Some(match request.part {
        Some(control_request::Part::Hello(_)) => {
            return Err(End::Fault(Status::invalid_argument("a second Hello")));
        }
        Some(control_request::Part::Observed(observed)) => Input::Observed {
            attempts: observed.attempts.into_iter().map(Observed::try_from).collect::<Result<_, _>>()?,
            last: observed.last,
        },
        Some(control_request::Part::Heartbeat(beat)) => Input::Heartbeat {
            sequence: beat.sequence,
            closed: (!beat.accepts_work).then(|| match beat.reason.as_str() {
                "" => "it takes no new work".to_owned(),
                reason => reason.chars().take(500).collect(),
            }),
        },
        Some(control_request::Part::Report(report)) => {
            let report = Report::try_from(report)?;
            Input::Report { attempt: report.attempt, report }
        }
        Some(control_request::Part::Collected(_)) | None => return Ok(None),
    }))
}

/// Refuses what no executor needs to say at once.
pub(super) fn bounded(request: &ControlRequest) -> Result<(), End> {
    let size = request.encoded_len();
    if size > MAX_CONTROL {
        let text = format!("a control message of {size} bytes; at most {MAX_CONTROL} are taken");
        return Err(End::Fault(Status::resource_exhausted(text)));
    }
    Ok(())
}

impl TryFrom<ObservedAttempt> for Observed {
    type Error = FieldError;

    fn try_from(observed: ObservedAttempt) -> Result<Self, FieldError> {
        Ok(Self {
            attempt: FieldError::parse(&observed.attempt_id, "observed.attempt_id")?,
            cluster: Some(FieldError::parse(&observed.cluster_id, "observed.cluster_id")?),
            ended: observed.ended,
            reports: observed.report_sequence,
            unreadable: (!observed.unreadable.is_empty()).then(|| remark(&observed.unreadable)),
        })
    }
}

/// What an executor says to people: one line, and not a long one.
fn remark(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

/// What an executor is told of an attempt that it should have.
pub(super) fn desired(attempt: AttemptId, wish: Wish) -> DesiredAttempt {
    let phase = match wish.phase {
        Phase::Run => WirePhase::Run,
        Phase::Hold => WirePhase::Hold,
        Phase::Stop => WirePhase::Stop,
        Phase::Fence => WirePhase::Fence,
    };
    DesiredAttempt {
        attempt_id: attempt.to_string(),
        task_id: wish.task.to_string(),
        task_number: wish.task_number,
        number: wish.number,
        spec_digest: wish.digest,
        phase: phase.into(),
        intent: wish.said.intent,
        milestone: wish.said.milestone,
    }
}

impl From<Call> for wire::Dial {
    fn from(call: Call) -> Self {
        Self { tunnel_id: call.tunnel.to_string(), pairing_id: call.pairing.to_string() }
    }
}

impl From<Invited> for wire::Guests {
    fn from(invited: Invited) -> Self {
        let guests = invited.guests.into_iter().map(Into::into).collect();
        Self { guests, authorities: invited.authorities.to_vec() }
    }
}

impl From<Guest> for wire::Guest {
    fn from(guest: Guest) -> Self {
        Self {
            pairing_id: guest.pairing.to_string(),
            attempt_id: guest.attempt.to_string(),
            user: guest.user,
            rights: guest.rights.iter().map(Right::as_str).map(Into::into).collect(),
            remaining: Some(to_duration(guest.remaining)),
        }
    }
}
