//! An authority that has taken over from another, which vouches for it.

use rcgen::Issuer;
use rustls::pki_types::CertificateDer;
use sculpt_tls::{CONTROLLER_NAME, Callers, Meeting, Proof, Server, client_config};

use super::{Authority, Listener, dial, told};

impl Authority {
    /// `self`, as this one vouches for it: of the same name and key.
    fn vouched_by(&self, previous: &Self) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&previous.params, previous.key.pair());
        self.params.signed_by(self.key.pair(), &issuer).unwrap().der().clone()
    }

    /// What proves the controller that `self` certifies, who sends `along` with it.
    fn beneath(&self, along: &[CertificateDer<'static>]) -> Proof {
        let mut controller = self.controller();
        controller.chain.truncate(1);
        controller.chain.extend_from_slice(along);
        controller
    }
}

/// Who has handed over no more than a pin may be met by another authority, which has taken over since.
#[tokio::test]
async fn one_that_the_pinned_authority_vouches_for_is_believed() {
    let (previous, present) = (Authority::named("previous"), Authority::named("present"));
    let (vouched, stranger) = (present.vouched_by(&previous), Authority::new());
    let forged = Authority::named("present").vouched_by(&stranger);
    for (along, believed) in [
        (vec![vouched.clone(), previous.certificate.clone()], true),
        (vec![previous.certificate.clone(), vouched.clone()], true),
        (vec![present.certificate.clone(), previous.certificate.clone()], false),
        (vec![vouched.clone()], false),
        (vec![forged, previous.certificate.clone()], false),
    ] {
        let listener = Listener::of(present.beneath(&along), Callers::Anyone).await;
        let meeting = Meeting::new(previous.pin());
        let config = client_config(&Server::Pinned(meeting.clone()), None).unwrap();
        assert_eq!(dial(listener.address, config, CONTROLLER_NAME).await.is_ok(), believed, "{along:?}");
        assert_eq!(meeting.authority(), believed.then_some(&previous.trust()), "{along:?}");
    }

    // Who knows either of the two needs to be told of no change; who knows another one is told who was shown.
    let shows = || present.beneath(&[vouched.clone(), previous.certificate.clone()]);
    for trust in [previous.trust(), present.trust()] {
        let listener = Listener::of(shows(), Callers::Anyone).await;
        dial(listener.address, client_config(&Server::Known(trust), None).unwrap(), CONTROLLER_NAME).await.unwrap();
    }
    let listener = Listener::of(shows(), Callers::Anyone).await;
    let config = client_config(&Server::Known(stranger.trust()), None).unwrap();
    let why = told(listener.address, config, CONTROLLER_NAME).await;
    for pin in [&previous, &present, &stranger].map(Authority::pin) {
        assert!(why.contains(&pin.to_string()), "{why}");
    }
}

/// Whoever was given the pin of the one that took over meets it by what the previous one says of it, unless its own
/// certificate is there.
#[tokio::test]
async fn one_that_is_vouched_for_is_met_by_its_own_pin() {
    let (previous, present) = (Authority::named("previous"), Authority::named("present"));
    let (vouched, own) = (present.vouched_by(&previous), present.certificate.clone());
    for (along, met) in [
        (vec![vouched.clone(), previous.certificate.clone()], &vouched),
        (vec![vouched.clone(), own.clone(), previous.certificate.clone()], &own),
        (vec![own.clone(), vouched.clone()], &own),
    ] {
        let listener = Listener::of(present.beneath(&along), Callers::Anyone).await;
        let meeting = Meeting::new(present.pin());
        dial(listener.address, client_config(&Server::Pinned(meeting.clone()), None).unwrap(), CONTROLLER_NAME)
            .await
            .unwrap();
        let trust = meeting.authority().expect("it was met").clone();
        assert_eq!(trust.certificates().collect::<Vec<_>>(), [met], "{along:?}");

        // It is as good as the other, also for a server that has not changed authorities or is through with it.
        for shows in [present.beneath(&along), present.controller()] {
            let listener = Listener::of(shows, Callers::Anyone).await;
            let config = client_config(&Server::Known(trust.clone()), None).unwrap();
            dial(listener.address, config, CONTROLLER_NAME).await.unwrap();
        }
    }
}
