//! The scripted controller's pairings: it certifies whatever key it is shown, and its tunnels lead to somebody who shouts.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use sculpt_pairing::{Host, Pass, Profile, Right, Window, login};
use sculpt_proto::{
    id::{AttemptId, ExecutorId, PairingId},
    v1::{pairings_server::Pairings, tunnel_request::Part as Asked, tunnel_response::Part as Answered, *},
};
use ssh_key::{PrivateKey, PublicKey, private::Ed25519Keypair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::controller::{Answer, Script};

pub(crate) const ATTEMPT: &str = "0198c0de-0000-7000-8000-0000000000a1";
const EXECUTOR: &str = "0198c0de-0000-7000-8000-0000000000e1";

/// What was asked for, and what is answered.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) opened: Mutex<Vec<OpenPairingRequest>>,
    /// How often a pairing was asked for, also in vain.
    pub(crate) asked: AtomicU32,
    /// What the caller may not do, of all that they ask for.
    pub(crate) denied: Mutex<Vec<Right>>,
    /// Where people reach the executor without the controller.
    pub(crate) address: Mutex<String>,
    /// What is answered to who asks for a pairing.
    pub(crate) refusal: Mutex<Option<Status>>,
    /// What is answered to who asks for a tunnel, and what one ends with after its first bytes.
    pub(crate) closed: Mutex<Option<Status>>,
    pub(crate) cut: Mutex<Option<Status>>,
}

fn authority() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[9; 32]))
}

#[tonic::async_trait]
impl Pairings for Script {
    type TunnelStream = ReceiverStream<Result<TunnelResponse, Status>>;

    async fn open_pairing(&self, request: Request<OpenPairingRequest>) -> Answer<OpenPairingResponse> {
        self.desk.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(refusal) = self.desk.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let request = request.into_inner();
        let denied = self.desk.denied.lock().unwrap().clone();
        let works = [Right::Shell, Right::Forward].iter().any(|right| !denied.contains(right));
        if request.profile() == PairingProfile::Workspace && !works {
            return Err(Status::permission_denied("You may not work there."));
        }
        let (attempt, host): (AttemptId, ExecutorId) = (ATTEMPT.parse().unwrap(), EXECUTOR.parse().unwrap());
        let key = PublicKey::from_openssh(&request.public_key).unwrap();
        let profile = match request.profile() {
            PairingProfile::Workspace | PairingProfile::Unspecified => Profile::Workspace,
            PairingProfile::Attach => Profile::Attach,
            PairingProfile::Observe => Profile::Observe,
        };
        let rights = profile.rights().iter().filter(|right| !denied.contains(right)).collect();
        let pass = Pass { pairing: PairingId::fresh(), attempt, user: "ada".into(), rights };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let certificate = pass.certify(&key, Window { since: now - 60, until: now + 900 }, &authority()).unwrap();
        self.desk.opened.lock().unwrap().push(request);
        let pairing = Pairing {
            uuid: pass.pairing.to_string(),
            attempt_id: attempt.to_string(),
            rights: rights.iter().map(|right| right.as_str().to_owned()).collect(),
            ..Pairing::default()
        };
        Ok(Response::new(OpenPairingResponse {
            pairing: Some(pairing),
            certificate: certificate.to_openssh().unwrap(),
            login: login(attempt),
            host: Host(host).to_string(),
            known_hosts: vec![Host(host).known(authority().public_key()).unwrap()],
            address: self.desk.address.lock().unwrap().clone(),
            lifetime: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
        }))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelRequest>>) -> Answer<Self::TunnelStream> {
        if let Some(closed) = self.desk.closed.lock().unwrap().clone() {
            return Err(closed);
        }
        let cut = self.desk.cut.lock().unwrap().clone();
        let mut asked = request.into_inner();
        let first = asked.message().await?.unwrap();
        assert!(matches!(first.part, Some(Asked::Pairing(_))), "{first:?}");
        let (send, answers) = mpsc::channel(4);
        tokio::spawn(async move {
            let said = |part| Ok(TunnelResponse { part: Some(part) });
            send.send(said(Answered::Open(TunnelOpen {}))).await.unwrap();
            while let Ok(Some(TunnelRequest { part })) = asked.message().await {
                let Some(Asked::Data(data)) = part else { break };
                if send.send(said(Answered::Data(data.to_ascii_uppercase().into()))).await.is_err() {
                    return;
                }
                if let Some(status) = &cut {
                    return drop(send.send(Err(status.clone())).await);
                }
            }
            // What is still on the way comes after the other side has ended.
            for last in [Answered::Data("BYE".into()), Answered::End(TunnelEnd {})] {
                drop(send.send(said(last)).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn list_pairings(&self, _: Request<ListPairingsRequest>) -> Answer<ListPairingsResponse> {
        Ok(Response::new(ListPairingsResponse::default()))
    }

    async fn close_pairing(&self, _: Request<ClosePairingRequest>) -> Answer<ClosePairingResponse> {
        Err(Status::not_found("There is no such pairing."))
    }
}
