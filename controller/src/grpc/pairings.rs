//! Pairings: opened, listed, taken back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sculpt_pairing::{Host, Pass, PassError, Profile, Right, login};
use sculpt_proto::{
    FieldError, MAX_MESSAGE,
    id::PairingId,
    timestamp, to_duration,
    v1::{self, pairings_server::PairingsServer},
};
use ssh_key::{HashAlg, PublicKey};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{
    caller,
    once::{once, once_of},
    status::{self, because},
    tunnel::Replies,
};
use crate::{
    access::{On, Read},
    bus::Bus,
    pki::{PASS_LIFE, SshAuthorities},
    relay::Relay,
    session::Sessions,
    store::{
        Store,
        pairings::{CloseError, NotNow, OpenError, Opened, Opening, Pairing, Past},
    },
};

/// How soon it is found that a pairing was taken back which nothing has told of.
pub const LOOK: Duration = Duration::from_secs(30);

/// Longest line of a public key that is taken; those of the kinds that are certified are much shorter.
const LONGEST_KEY: usize = 4096;

/// Serves pairings. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PairingsApi {
    /// The database.
    pub store: Store,
    /// Who hears of it.
    pub bus: Bus,
    /// The executors that can be asked to dial.
    pub sessions: Sessions,
    /// Where both ends of a tunnel meet.
    pub relay: Relay,
    /// Who certifies people.
    pub ssh: Arc<SshAuthorities>,
    /// What carries tunnels.
    pub tracker: TaskTracker,
    /// Cancelled when tunnels are to end.
    pub ending: CancellationToken,
    /// How often it is looked whether a pairing was taken back while a tunnel is open.
    pub look: Duration,
}

impl PairingsApi {
    /// As a service with its limits.
    pub fn into_service(self) -> PairingsServer<Self> {
        PairingsServer::new(self).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl v1::pairings_server::Pairings for PairingsApi {
    async fn open_pairing(
        &self,
        request: Request<v1::OpenPairingRequest>,
    ) -> Result<Response<v1::OpenPairingResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let request = once_of(&message, "OpenPairing", |message| &mut message.request_id)?;
        let (key, profile) = (key(&message.public_key)?, profile(message.profile())?);
        let task = self.store.find_task(&caller.sees(), &message.task).await?;
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let opening = Opening { by: caller.beside(&task, profile)?, life: PASS_LIFE, key: fingerprint };
        let opened = self.store.open_pairing(request, opening).await?;
        self.bus.guests();
        Ok(Response::new(self.certified(opened, &key)?))
    }

    type TunnelStream = Replies;

    async fn tunnel(&self, request: Request<Streaming<v1::TunnelRequest>>) -> Result<Response<Replies>, Status> {
        let caller = caller(&request)?;
        self.dialled(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn list_pairings(
        &self,
        request: Request<v1::ListPairingsRequest>,
    ) -> Result<Response<v1::ListPairingsResponse>, Status> {
        let caller = caller(&request)?;
        let task: On<Read> = caller.on(&self.store.find_task(&caller.sees(), &request.into_inner().task).await?)?;
        let pairings = self.store.pairings(&task).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListPairingsResponse { pairings }))
    }

    async fn close_pairing(
        &self,
        request: Request<v1::ClosePairingRequest>,
    ) -> Result<Response<v1::ClosePairingResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let request = once(&message.request_id, "ClosePairing", &message.pairing)?;
        let id = FieldError::parse(&message.pairing, "pairing")?;
        let placed = self.store.pairing(&caller.sees(), id).await?.ok_or_else(|| unknown(id))?;
        let closing = caller.closing(placed.task(), placed.owner())?;
        let pairing = self.store.close_pairing(closing, request, id).await?;
        self.bus.closed(id);
        Ok(Response::new(v1::ClosePairingResponse { pairing: Some(pairing.into()) }))
    }
}

impl PairingsApi {
    fn certified(&self, opened: Opened, key: &PublicKey) -> Result<v1::OpenPairingResponse, Status> {
        let Opened { pairing, remaining, executor, address } = opened;
        let pass =
            Pass { pairing: pairing.id, attempt: pairing.attempt, user: pairing.user.clone(), rights: pairing.rights };
        // The key's kind was looked at before anything was opened.
        let failed = |error: PassError| status::internal(&error);
        let certificate = self.ssh.certify_person(&pass, key, SystemTime::now(), remaining).map_err(failed)?;
        Ok(v1::OpenPairingResponse {
            login: login(pairing.attempt),
            pairing: Some(pairing.into()),
            certificate: certificate.to_openssh().map_err(|error| failed(error.into()))?,
            host: Host(executor).to_string(),
            known_hosts: self.ssh.known_hosts(executor).map_err(|error| failed(error.into()))?,
            address,
            lifetime: Some(to_duration(remaining)),
        })
    }
}

/// The key that is to be certified.
fn key(line: &str) -> Result<PublicKey, FieldError> {
    let wrong = |problem: String| FieldError::new("public_key", problem);
    if line.len() > LONGEST_KEY {
        return Err(wrong(format!("has {} bytes; at most {LONGEST_KEY} are taken", line.len())));
    }
    let key = PublicKey::from_openssh(line.trim())
        .map_err(|error| wrong(format!("is not a line as in `id_ed25519.pub`: {error}")))?;
    Pass::takes(&key).map_err(|error| wrong(error.to_string()))?;
    Ok(key)
}

fn profile(profile: v1::PairingProfile) -> Result<Profile, FieldError> {
    match profile {
        v1::PairingProfile::Observe => Ok(Profile::Observe),
        v1::PairingProfile::Attach => Ok(Profile::Attach),
        v1::PairingProfile::Workspace => Ok(Profile::Workspace),
        v1::PairingProfile::Unspecified => {
            Err(FieldError::new("profile", "is missing; say what for: to observe, to attach, or to work there"))
        }
    }
}

/// What somebody is told who may not know whether there is such a pairing.
pub(super) fn unknown(id: PairingId) -> Status {
    Status::not_found(format!("there is no pairing {id} that you see; `sculpt show` lists those of a task"))
}

impl From<Pairing> for v1::Pairing {
    fn from(pairing: Pairing) -> Self {
        Self {
            uuid: pairing.id.to_string(),
            attempt_id: pairing.attempt.to_string(),
            user: pairing.user,
            rights: pairing.rights.iter().map(Right::as_str).map(Into::into).collect(),
            created_at: Some(timestamp(pairing.created_at)),
            expires_at: Some(timestamp(pairing.expires_at)),
            sessions: pairing.seats.into_iter().map(Into::into).collect(),
            closed_at: pairing.closed_at.map(timestamp),
        }
    }
}

impl From<NotNow> for Status {
    fn from(error: NotNow) -> Self {
        let text = error.to_string();
        match error {
            NotNow::NotStarted(_) => because(Self::failed_precondition(text), "not_started"),
            NotNow::Over(_) => because(Self::failed_precondition(text), "over"),
            NotNow::Parked(_) => because(Self::failed_precondition(text), "parked"),
            NotNow::NoTerminal(_) => because(Self::failed_precondition(text), "no_terminal"),
            NotNow::NoSsh { .. } => because(Self::failed_precondition(text), "no_ssh"),
            NotNow::Unreachable { .. } => because(Self::unavailable(text), "unreachable"),
            NotNow::TooMany(_) | NotNow::Yours(_) | NotNow::Full(_) => {
                because(Self::resource_exhausted(text), "too_many")
            }
        }
    }
}

impl From<Past> for Status {
    fn from(error: Past) -> Self {
        let reason = match error {
            Past::Closed => "closed",
            Past::Over => "over",
            Past::Late => "late",
        };
        because(Self::failed_precondition(error.to_string()), reason)
    }
}

impl From<OpenError> for Status {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unknown(_) => Self::not_found(error.to_string()),
            OpenError::NotNow(error) => error.into(),
            OpenError::Past(error) => error.into(),
            OpenError::Request(error) => error.into(),
            OpenError::Lost(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<CloseError> for Status {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::Lost(error) => error.into(),
            CloseError::Request(error) => error.into(),
            CloseError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::{super::status::REASON, *};
    use crate::{relay::RelayError, session::Undialled};

    #[test]
    fn programs_are_told_in_one_word() {
        let executor = || "one".to_owned();
        for (status, code, reason) in [
            (Status::from(NotNow::NotStarted(17)), Code::FailedPrecondition, "not_started"),
            (NotNow::Over(17).into(), Code::FailedPrecondition, "over"),
            (NotNow::Parked(17).into(), Code::FailedPrecondition, "parked"),
            (NotNow::NoTerminal(17).into(), Code::FailedPrecondition, "no_terminal"),
            (NotNow::NoSsh { task: 17, executor: executor() }.into(), Code::FailedPrecondition, "no_ssh"),
            (NotNow::Unreachable { task: 17, executor: executor() }.into(), Code::Unavailable, "unreachable"),
            (NotNow::TooMany(17).into(), Code::ResourceExhausted, "too_many"),
            (NotNow::Yours(executor()).into(), Code::ResourceExhausted, "too_many"),
            (NotNow::Full(executor()).into(), Code::ResourceExhausted, "too_many"),
            (Past::Closed.into(), Code::FailedPrecondition, "closed"),
            (Past::Over.into(), Code::FailedPrecondition, "over"),
            (Past::Late.into(), Code::FailedPrecondition, "late"),
            (Undialled::Elsewhere.into(), Code::Unavailable, "elsewhere"),
            (Undialled::Busy.into(), Code::ResourceExhausted, "too_many"),
            (RelayError::Yours.into(), Code::ResourceExhausted, "too_many"),
            (RelayError::Often.into(), Code::ResourceExhausted, "too_many"),
            (RelayError::Full.into(), Code::ResourceExhausted, "too_many"),
            (RelayError::Silent.into(), Code::Unavailable, "silent"),
        ] {
            let told = status.metadata().get(REASON).and_then(|word| word.to_str().ok());
            assert_eq!((status.code(), told), (code, Some(reason)), "{status}");
        }
    }

    #[test]
    fn a_key_that_is_not_certified_is_refused_before_anything_is_opened() {
        const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        assert!(key(ED25519).is_ok() && key(&format!("{ED25519} ben@laptop\n")).is_ok());
        for line in ["", "hello", "ssh-ed25519 AAAA", &ED25519[..40], &"x".repeat(LONGEST_KEY + 1)] {
            assert_eq!(key(line).expect_err("it is none").field, "public_key", "{line}");
        }
        let old = "ssh-dss AAAAB3NzaC1kc3MAAACBANw9iSUO2UYhFMssjUgW46URqv8bBrDgHeF8HLBOWBvKuXF2Rx2J/XyhgX48SOLMuv0hcPaejlyLarabnF9F2V4dkpPpZSJ+7luHmxEjNxwhsdtg8UteXAWkeCzrQ6MvRJZHcDBjYh56KGvslbFnJsGLXlI4PQCyl6awNImwYGilAAAAFQCJGBU3hZf+QtP9Jh/nbfNlhFu7hwAAAIBHObOQioQVRm3HsVb7mOy3FVKhcLoLO3qoG9gTkd4KeuehtFAC3+rckiX7xSCnE/5BBKdL7VP9WRXac2Nlr9Pwl3e7zPut96wrCHt/TZX6vkfXKkbpUIj5zSqfvyNrWKaYJkfzwAQwrXNS1Hol676Ud/DDEn2oatdEhkS3beWHXAAAAIBgQqaz/YYTRMshzMzYcZ4lqgvgmA55y6v0h39e8HH2A5dwNS6sPUw2jyna+le0dceNRJifFld1J+WYM0vmquSr11DDavgEidOSaXwfMvPPPJqLmbzdtT16N+Gij9U9STQTHPQcQ3xnNNHgQAStzZJbhLOVbDDDo5BO7LMUALDfSA==";
        assert_eq!(key(old).expect_err("nobody takes it").field, "public_key");
    }
}
