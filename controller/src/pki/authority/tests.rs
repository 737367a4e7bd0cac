use sculpt_proto::id::{ClusterId, ExecutorId};
use sculpt_tls::{Caller, Callers, Identity, Server, client_config, server_config};

use super::*;
use crate::pki::SshAuthorities;

fn pins(authority: &Authority) -> Vec<Pin> {
    authority.trust().pins().collect()
}

fn subject() -> Subject {
    Subject { cluster: ClusterId::fresh(), executor: ExecutorId::fresh(), generation: 1 }
}

fn certified(authority: &Authority) -> CertificateDer<'static> {
    let request = Key::fresh().expect("a key").request().expect("a request");
    let key = PublicKey::requested(&request).expect("a good request");
    authority.executor(&key, &subject(), SystemTime::now(), issue::LEAF_LIFE).expect("it is certified")
}

#[test]
fn is_made_once_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("authority");
    let made = Authority::open(&path).expect("it is made");
    assert_eq!((made.phase(), made.trust().pins().len()), (Phase::Steady, 1));
    assert_eq!(pins(&Authority::open(&path).expect("it is read")), pins(&made));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(CURRENT))), (0o700, 0o600));
    fs::set_permissions(path.join(CURRENT), fs::Permissions::from_mode(0o644)).expect("open it");
    assert!(matches!(Authority::open(&path), Err(AuthorityError::Private(PrivateError::Open { .. }))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).expect("open it");
    assert!(matches!(Authority::open(&path), Err(AuthorityError::Writable { mode: 0o770, .. })));
}

/// Only root can give something away, so that only root's run shows it.
#[test]
fn what_belongs_to_another_account_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    for name in ["", CURRENT, NEXT, PREVIOUS, VOUCHED, "ssh-users.key", "ssh-hosts.key"] {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = directory.path().join("authority");
        Authority::open(&authority).expect("it is made");
        let path = if name.is_empty() { authority.clone() } else { authority.join(name) };
        if !path.exists() {
            private::write(&path, "planted").expect("it is written");
        }
        std::os::unix::fs::chown(&path, Some(12_345), None).expect("it is given away");
        let refused = Authority::open(&authority).map(|found| found.pin());
        let said = matches!(&refused, Err(AuthorityError::Anothers { path: found, owner: 12_345 }) if *found == path);
        assert!(said, "{name}: {refused:?}");
    }
}

#[test]
fn another_takes_over_in_three_steps_and_no_other_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let [first] = pins(&Authority::open(path).expect("it is made"))[..] else { panic!("one authority") };
    assert!(matches!(Authority::activate(path), Err(AuthorityError::Order(_))));
    assert!(matches!(Authority::retire(path), Err(AuthorityError::Order(_))));

    let prepared = Authority::prepare(path).expect("it is prepared");
    let [one, next] = pins(&prepared)[..] else { panic!("two authorities") };
    assert_eq!((prepared.phase(), prepared.pin(), one), (Phase::Prepared, first, first));
    assert!(matches!(Authority::prepare(path), Err(AuthorityError::Order(_))));
    assert!(matches!(Authority::retire(path), Err(AuthorityError::Order(_))));

    let activated = Authority::activate(path).expect("it is activated");
    assert_eq!((activated.phase(), pins(&activated)), (Phase::Activated, vec![next, first]));
    assert!(matches!(Authority::prepare(path), Err(AuthorityError::Order(_))));
    assert!(matches!(Authority::activate(path), Err(AuthorityError::Order(_))));

    let steady = Authority::retire(path).expect("it is retired");
    assert_eq!((steady.phase(), pins(&steady)), (Phase::Steady, vec![next]));
}

#[test]
fn a_crash_while_activating_leaves_it_prepared() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let prepared = Authority::prepare(path).expect("it is prepared");
    let own = Trust::of([prepared.certificate.clone()]).expect("an authority");
    private::write(&path.join(PREVIOUS), &own.to_pem()).expect("the first half of activating");
    let found = Authority::open(path).expect("it is read");
    assert_eq!((found.phase(), pins(&found)), (Phase::Prepared, pins(&prepared)));
    assert_eq!(Authority::activate(path).expect("it goes on").phase(), Phase::Activated);
}

#[test]
fn many_that_make_it_at_once_have_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("authority");
    let begin = std::sync::Barrier::new(16);
    let open = || {
        begin.wait();
        let made = pins(&Authority::open(&path).expect("it is made or read"));
        let ssh = SshAuthorities::open(&path).expect("they are made or read");
        (made, ssh.public().collect::<Vec<_>>())
    };
    let opened: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
        all.into_iter().map(|one| one.join().expect("it ends")).collect()
    });
    assert!(opened.iter().all(|one| *one == opened[0]), "{opened:?}");
    assert_eq!(fs::read_dir(&path).expect("a listing").count(), 3, "nothing else is left");
}

#[test]
fn the_previous_one_vouches_from_activate_to_retire() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let file = path.join(VOUCHED);
    let opened = Authority::open(path).expect("it is made");
    assert_eq!((opened.vouch().err(), opened.is_vouched_for()), (Some(VouchError::NotPrepared), false));
    let prepared = Authority::prepare(path).expect("it is prepared");
    assert!(prepared.vouch().is_ok() && !prepared.is_vouched_for() && !file.exists());
    let activated = Authority::activate(path).expect("it is activated");
    assert!(activated.is_vouched_for());
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&file).expect("it is there");
    // What is not about these two says nothing.
    private::write(&file, &opened.trust().to_pem()).expect("it is written");
    assert!(!Authority::open(path).expect("it is read").is_vouched_for());
    assert!(!Authority::retire(path).expect("it is retired").is_vouched_for() && !file.exists());
    // Nor does what a crash left.
    private::write(&file, &kept).expect("it is written");
    assert!(!Authority::open(path).expect("it is read").is_vouched_for());
    Authority::prepare(path).expect("it is prepared");
    assert!(!file.exists());
}

/// Whom each side of a change believes, by the library that the listeners use.
#[tokio::test]
async fn both_are_believed_while_one_takes_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let before = Authority::open(path).expect("it is made");
    let (old_trust, old_executor) = (before.trust().clone(), certified(&before));
    let prepared = Authority::prepare(path).expect("it is prepared");
    let activated = Authority::activate(path).expect("it is activated");
    let steady = Authority::retire(path).expect("it is retired");

    let names = Names::new([]).expect("names");
    for (authority, trust, believed) in [
        (&prepared, &old_trust, true),
        (&activated, prepared.trust(), true),
        // The previous one vouches for the present one, until it is retired.
        (&activated, &old_trust, true),
        (&steady, &old_trust, false),
        (&steady, prepared.trust(), true),
    ] {
        let proof = authority.controller(&names, SystemTime::now()).expect("a certificate");
        let identity = Identity::new(proof, None).expect("an identity");
        let server = server_config(identity, &Callers::Executors(authority.trust().clone())).expect("settings");
        let client = client_config(&Server::Known(trust.clone()), None).expect("settings");
        assert_eq!(shake_hands(server, client).await, believed, "{:?}", authority.phase());
    }
    for (authority, believed) in [(&prepared, true), (&activated, true), (&steady, false)] {
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            authority.trust().roots().expect("roots"),
            rustls::crypto::ring::default_provider().into(),
        );
        let verified = verifier.build().expect("a verifier").verify_client_cert(
            &old_executor,
            &[],
            rustls::pki_types::UnixTime::now(),
        );
        assert_eq!(verified.is_ok(), believed, "{:?}", authority.phase());
    }
}

async fn shake_hands(server: rustls::ServerConfig, client: rustls::ClientConfig) -> bool {
    let mut server = rustls::ServerConnection::new(server.into()).expect("a connection");
    let name = sculpt_tls::CONTROLLER_NAME.try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(client.into(), name).expect("a connection");
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("into memory");
        }
        server.read_tls(&mut &wire[..]).expect("from memory");
        if server.process_new_packets().is_err() {
            return false;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("into memory");
        }
        client.read_tls(&mut &wire[..]).expect("from memory");
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[test]
fn an_executor_gets_the_name_that_it_is_given_and_a_day() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::open(directory.path()).expect("it is made");
    let key = Key::fresh().expect("a key");
    let asked = PublicKey::requested(&key.request().expect("a request")).expect("a good request");
    let (subject, now) = (subject(), SystemTime::now());
    let certificate = authority.executor(&asked, &subject, now, issue::LEAF_LIFE).expect("it is certified");
    let at = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        Caller::of(&certificate, rustls::pki_types::UnixTime::since_unix_epoch(since)).expect("it names one")
    };
    assert_eq!((at(now).subject, at(now).key), (subject, asked.digest()));
    assert!(!at(now + issue::LEAF_LIFE - Duration::from_secs(2)).lapsed);
    assert!(at(now + issue::LEAF_LIFE + Duration::from_secs(2)).lapsed);
}

#[test]
fn one_given_from_outside_must_be_an_authority() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3_600);
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (is_ca, usages, until, wrong) in [
        (IsCa::ExplicitNoCa, vec![], now + day, "CA:TRUE"),
        (IsCa::NoCa, vec![], now + day, "CA:TRUE"),
        (ca, vec![KeyUsagePurpose::DigitalSignature], now + day, "keyCertSign"),
        (ca, vec![KeyUsagePurpose::KeyCertSign], now - day, "has run out"),
        (ca, vec![KeyUsagePurpose::KeyCertSign], now + day, ""),
        (ca, vec![], now + day, ""),
    ] {
        let key = Key::fresh().expect("a key");
        let mut params = CertificateParams::default();
        (params.is_ca, params.key_usages) = (is_ca, usages);
        (params.not_before, params.not_after) = ((now - 2 * day).into(), until.into());
        let pem = params.self_signed(key.pair()).expect("a certificate").pem();
        private::write(&path.join(CURRENT), &format!("{}{pem}", key.to_pem())).expect("it is written");
        match (Authority::open(path), wrong) {
            (Ok(authority), "") => assert_eq!(authority.pin(), Pin::of_key(&key)),
            (Err(error), wrong) if !wrong.is_empty() => assert!(error.to_string().contains(wrong), "{error}"),
            (found, wrong) => panic!("{found:?}, and not {wrong:?}"),
        }
    }
}

#[test]
fn one_given_from_outside_must_fit_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    Authority::open(&path.join("a")).expect("it is made");
    let pem = fs::read_to_string(path.join("a").join(CURRENT)).expect("it is there");
    let other = Key::fresh().expect("a key").to_pem();
    let (_, certificate) = pem.split_at(pem.find("-----BEGIN CERTIFICATE").expect("a certificate"));
    for (text, wrong) in [
        (format!("{other}{certificate}"), "is not that of the first certificate"),
        (certificate.to_owned(), "cannot use the private key"),
        (other, "no certificate in PEM form"),
        ("hello".to_owned(), "cannot use the private key"),
    ] {
        private::write(&path.join(CURRENT), &text).expect("it is written");
        let error = Authority::open(path).expect_err("it does not fit").to_string();
        assert!(error.contains(wrong), "{error}");
        assert_eq!(fs::read_to_string(path.join(CURRENT)).expect("it is there"), text, "nothing is overwritten");
    }
}
