//! Certificates as tables, and as OpenSSH's own programs see them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path, process::Command};

use sculpt_pairing::{Host, Pass, Profile, Refusal, Rights, Window, check, login};
use sculpt_proto::id::{AttemptId, ExecutorId, PairingId};
use ssh_key::{
    Algorithm, Certificate, LineEnding, PrivateKey, PublicKey,
    certificate::{Builder, CertType},
    private::Ed25519Keypair,
};

const NOW: u64 = 1_800_000_000;
const WINDOW: Window = Window { since: NOW - 60, until: NOW + 300 };

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn attempt() -> AttemptId {
    "019a0000-0000-7000-8000-00000000000a".parse().unwrap()
}

fn pairing() -> PairingId {
    "019a0000-0000-7000-8000-00000000000b".parse().unwrap()
}

fn pass() -> Pass {
    Pass { pairing: pairing(), attempt: attempt(), user: "ada".into(), rights: Profile::Attach.rights() }
}

/// How one certificate differs from a good one.
type Change = fn(&mut Draft);

/// Whether it was refused for that.
type Expected = fn(&Refusal) -> bool;

struct Draft {
    kind: CertType,
    window: Window,
    authority: u8,
    key_id: &'static str,
    principals: Vec<String>,
    all_principals: bool,
    options: Vec<(&'static str, String)>,
    extensions: Vec<(&'static str, &'static str)>,
    login: String,
}

impl Draft {
    fn good() -> Self {
        Self {
            kind: CertType::User,
            window: WINDOW,
            authority: 1,
            key_id: "ada",
            principals: vec![login(attempt())],
            all_principals: false,
            options: vec![("pairing@sculpt", pairing().to_string()), ("rights@sculpt", "observe,drive".into())],
            extensions: Vec::new(),
            login: login(attempt()),
        }
    }

    fn sign(&self) -> Certificate {
        let subject = key(9);
        let Window { since, until } = self.window;
        let mut builder = Builder::new([7; 32], subject.public_key().key_data().clone(), since, until).unwrap();
        builder.cert_type(self.kind).unwrap().key_id(self.key_id).unwrap();
        if self.all_principals {
            builder.all_principals_valid().unwrap();
        }
        for principal in &self.principals {
            builder.valid_principal(principal.clone()).unwrap();
        }
        for (name, value) in &self.options {
            builder.critical_option(*name, value.clone()).unwrap();
        }
        for (name, value) in &self.extensions {
            builder.extension(*name, *value).unwrap();
        }
        builder.sign(&key(self.authority)).unwrap()
    }

    fn check(&self) -> Result<Pass, Refusal> {
        check(
            &self.sign(),
            &[key(2).public_key().key_data().clone(), key(1).public_key().key_data().clone()],
            &self.login,
            NOW,
        )
    }
}

fn other() -> String {
    "attempt-019a0000-0000-7000-8000-0000000000ff".into()
}

#[test]
fn what_is_refused() {
    let table: [(&str, Change, Expected); 22] = [
        ("a host's", |draft| draft.kind = CertType::Host, |why| *why == Refusal::Kind),
        ("another authority's", |draft| draft.authority = 3, |why| *why == Refusal::Authority),
        ("one of tomorrow", |draft| draft.window.since = NOW + 1, |why| *why == Refusal::Early { seconds: 1 }),
        ("one that just ended", |draft| draft.window.until = NOW, |why| *why == Refusal::Late { seconds: 0 }),
        ("one of yesterday", |draft| draft.window.until = NOW - 9, |why| *why == Refusal::Late { seconds: 9 }),
        ("one for another attempt", |draft| draft.principals = vec![other()], is_principal),
        ("one for several", |draft| draft.principals.push(other()), is_principal),
        ("one that names it twice", |draft| draft.principals.push(login(attempt())), is_principal),
        ("one for all names", |draft| (draft.principals, draft.all_principals) = (Vec::new(), true), is_principal),
        ("one for a pattern", |draft| draft.principals = vec!["attempt-*".into()], is_principal),
        ("another name", |draft| draft.login = other(), is_principal),
        ("another spelling", |draft| draft.login = format!("attempt-{}", attempt().0.simple()), is_principal),
        ("capitals", |draft| draft.login = format!("attempt-{}", attempt().to_string().to_uppercase()), is_principal),
        ("root", |draft| draft.login = "root".into(), |why| *why == Refusal::Login("root".into())),
        ("no name", |draft| draft.login = String::new(), |why| *why == Refusal::Login(String::new())),
        ("a command", |draft| draft.options.push(("force-command", "id".into())), is_unknown),
        ("an address", |draft| draft.options.push(("source-address", "127.0.0.1".into())), is_unknown),
        ("an extension", |draft| draft.extensions.push(("permit-X11-forwarding", "")), is_unknown),
        ("no pairing", |draft| drop(draft.options.remove(0)), |why| *why == Refusal::Missing("pairing@sculpt")),
        ("no rights", |draft| drop(draft.options.remove(1)), |why| *why == Refusal::Missing("rights@sculpt")),
        ("a right of tomorrow", |draft| draft.options[1].1.push_str(",fly"), is_unreadable),
        ("nobody", |draft| draft.key_id = "", |why| *why == Refusal::Missing("whose it is")),
    ];
    assert_eq!(Draft::good().check(), Ok(pass()));
    for (what, change, expected) in table {
        let mut draft = Draft::good();
        change(&mut draft);
        let refused = draft.check().expect_err(what);
        assert!(expected(&refused), "{what}: {refused:?}");
    }
}

fn is_principal(why: &Refusal) -> bool {
    matches!(why, Refusal::Principal { .. })
}

fn is_unknown(why: &Refusal) -> bool {
    matches!(why, Refusal::Unknown(_))
}

fn is_unreadable(why: &Refusal) -> bool {
    matches!(why, Refusal::Unreadable { .. })
}

/// One way in which each part of a certificate may be, and whether that is a good one.
type Way = (Change, bool);

/// Which part a refusal is about.
fn part(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::Kind => 0,
        Refusal::Authority => 1,
        Refusal::Early { .. } | Refusal::Late { .. } => 2,
        Refusal::Principal { .. } | Refusal::Login(_) => 3,
        Refusal::Missing("whose it is") => 5,
        Refusal::Unknown(_) | Refusal::Missing(_) | Refusal::Unreadable { .. } => 4,
    }
}

/// Nothing that is good makes up for anything that is not.
#[test]
fn every_combination() {
    let parts: [&[Way]; 6] = [
        &[(|_| {}, true), (|draft| draft.kind = CertType::Host, false)],
        &[(|_| {}, true), (|draft| draft.authority = 2, true), (|draft| draft.authority = 3, false)],
        &[
            (|_| {}, true),
            (|draft| draft.window.since = NOW + 1, false),
            (|draft| draft.window.until = NOW, false),
            (|draft| draft.window = Window { since: 0, until: 1 }, false),
        ],
        &[
            (|_| {}, true),
            (|draft| draft.principals = vec![other()], false),
            (|draft| draft.principals.push(other()), false),
            (|draft| (draft.principals, draft.all_principals) = (Vec::new(), true), false),
            (|draft| draft.login = other(), false),
            (|draft| draft.login = "root".into(), false),
        ],
        &[
            (|_| {}, true),
            (|draft| draft.options.push(("force-command", "id".into())), false),
            (|draft| draft.extensions.push(("permit-pty", "")), false),
            (|draft| drop(draft.options.remove(0)), false),
            (|draft| draft.options[1].1.push_str(",fly"), false),
        ],
        &[(|_| {}, true), (|draft| draft.key_id = "", false)],
    ];
    let all: usize = parts.iter().map(|ways| ways.len()).product();
    let mut taken = 0;
    for mut number in 0..all {
        let mut draft = Draft::good();
        let mut good = [true; 6];
        for (part, ways) in parts.iter().enumerate() {
            let (change, is_good) = ways[number % ways.len()];
            number /= ways.len();
            change(&mut draft);
            good[part] = is_good;
        }
        match draft.check() {
            Ok(_) => {
                assert_eq!(good, [true; 6]);
                taken += 1;
            }
            Err(refusal) => assert!(!good[part(&refusal)], "{refusal:?} of {good:?}"),
        }
    }
    assert_eq!(taken, 2, "by each of both authorities");
}

#[test]
fn a_window_of_seconds() {
    for (since, until, taken) in
        [(NOW, NOW + 1, true), (NOW + 1, NOW + 2, false), (NOW - 1, NOW, false), (0, u64::from(u32::MAX) * 2, true)]
    {
        let mut draft = Draft::good();
        draft.window = Window { since, until };
        assert_eq!(draft.check().is_ok(), taken, "{since} to {until}");
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let whole = Draft::good().sign().to_bytes().unwrap();
    let authorities = [key(1).public_key().key_data().clone()];
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        let Ok(certificate) = Certificate::from_bytes(&bytes) else { continue };
        assert!(check(&certificate, &authorities, &login(attempt()), NOW).is_err(), "byte {place}");
    }
}

#[test]
fn what_is_certified_is_believed() {
    let table = [
        ("observe", Profile::Observe),
        ("observe,drive", Profile::Attach),
        ("observe,drive,shell,forward", Profile::Workspace),
    ];
    for (text, profile) in table {
        let rights = profile.rights();
        assert_eq!(rights.to_string(), text);
        assert_eq!(text.parse::<Rights>(), Ok(rights));
        let pass = Pass { rights, ..pass() };
        let certificate = pass.certify(key(9).public_key(), WINDOW, &key(1)).unwrap();
        assert_eq!(check(&certificate, &[key(1).public_key().key_data().clone()], &login(attempt()), NOW), Ok(pass));
    }
    assert_eq!("".parse::<Rights>().unwrap_err().0, "");
    assert_eq!(Profile::Workspace.rights().within(Profile::Attach.rights()), Profile::Attach.rights());
}

/// Runs one of OpenSSH's programs to its end and gives all that it said.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn keygen_reads(directory: &Path, certificate: &Certificate) -> String {
    let file = directory.join("id-cert.pub");
    fs::write(&file, certificate.to_openssh().unwrap()).unwrap();
    run(Command::new("ssh-keygen").arg("-L").arg("-f").arg(&file))
}

#[test]
fn openssh_reads_both_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let text = keygen_reads(directory.path(), &pass().certify(key(9).public_key(), WINDOW, &key(1)).unwrap());
    for expected in
        ["ssh-ed25519-cert-v01@openssh.com user certificate", r#"Key ID: "ada""#, &login(attempt()), "pairing@sculpt"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let host = Host("019a0000-0000-7000-8000-00000000000c".parse::<ExecutorId>().unwrap());
    let text = keygen_reads(directory.path(), &host.certify(key(9).public_key(), WINDOW, &key(2)).unwrap());
    for expected in ["host certificate", "executor-019a0000-0000-7000-8000-00000000000c", "Critical Options: (none)"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn keys_that_are_not_certified() {
    let certified = pass().certify(key(9).public_key(), WINDOW, &key(1)).unwrap();
    let again = PublicKey::from(certified.public_key().clone());
    assert_eq!(again.algorithm(), Algorithm::Ed25519, "what is certified is the plain key");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("id");
    run(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&file));
    let rsa = PublicKey::from_openssh(&fs::read_to_string(file.with_extension("pub")).unwrap()).unwrap();
    let refused = pass().certify(&rsa, WINDOW, &key(1)).unwrap_err().to_string();
    assert!(refused.contains("ssh-rsa") && refused.contains("ed25519"), "{refused}");
    let host = Host(ExecutorId::fresh());
    assert!(host.certify(&rsa, WINDOW, &key(1)).unwrap_err().to_string().contains("Ed25519"));
}

/// Whoever has such a server trust our authority, by mistake, has let nobody in: the pass demands what it does not know.
#[test]
fn a_pass_opens_no_other_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let secret = |name: &str, key: &PrivateKey| {
        write_private(&path(name), &key.to_openssh(LineEnding::LF).unwrap());
        fs::write(path(&format!("{name}.pub")), key.public_key().to_openssh().unwrap()).unwrap();
    };
    secret("host", &key(5));
    secret("id", &key(9));
    fs::write(path("authorities"), key(1).public_key().to_openssh().unwrap()).unwrap();
    let account = run(Command::new("id").arg("-un")).trim().to_owned();
    fs::write(path("principals"), format!("{}\n", login(attempt()))).unwrap();
    let config = format!(
        "HostKey {}\nTrustedUserCAKeys {}\nAuthorizedPrincipalsFile {}\nStrictModes no\nPidFile none\nPermitRootLogin yes\n",
        path("host").display(),
        path("authorities").display(),
        path("principals").display()
    );
    fs::write(path("sshd_config"), config).unwrap();
    let known = format!("* {}\n", key(5).public_key().to_openssh().unwrap());
    fs::write(path("known"), known).unwrap();
    let asks = |certificate: &Certificate| {
        fs::write(path("id-cert.pub"), certificate.to_openssh().unwrap()).unwrap();
        let server = format!("ProxyCommand=/usr/sbin/sshd -i -e -f {}", path("sshd_config").display());
        run(Command::new("ssh")
            .args(["-F", "none", "-o", &server, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args([
                "-o",
                "PasswordAuthentication=no",
                "-o",
                "KbdInteractiveAuthentication=no",
                "-o",
                "BatchMode=yes",
                "-i",
            ])
            .arg(path("id"))
            .args([
                "-o",
                &format!("UserKnownHostsFile={}", path("known").display()),
                "-o",
                "GlobalKnownHostsFile=/dev/null",
            ])
            .args([&format!("{account}@elsewhere"), "echo", "let in"]))
    };
    // As long as the clock of this machine is right.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let window = Window { since: now - 60, until: now + 300 };
    let mut plain = Builder::new([7; 32], key(9).public_key().key_data().clone(), window.since, window.until).unwrap();
    plain.cert_type(CertType::User).unwrap().key_id("ada").unwrap().valid_principal(login(attempt())).unwrap();
    let said = asks(&plain.sign(&key(1)).unwrap());
    assert!(said.contains("let in"), "this server would let one in: {said}");
    let said = asks(&pass().certify(key(9).public_key(), window, &key(1)).unwrap());
    assert!(!said.contains("let in") && said.contains("Permission denied"), "{said}");
}

/// ssh refuses a key that others can read.
fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}
