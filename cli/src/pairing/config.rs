//! PURE: what ssh is told of an attempt. All that could make it ask a question, or go to anybody else, is decided here.

use std::path::Path;

use super::{
    access::Access,
    route::{Address, Route},
    us::Us,
};

/// A path that cannot stand in a configuration of ssh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot stand in a configuration of ssh")]
pub(crate) struct Unspeakable(pub(crate) String);

/// The configuration that leads to an attempt, for `ssh -F` and for `Include` alike.
pub(super) fn text(access: &Access, us: &Us) -> Result<String, Unspeakable> {
    let (grant, alias) = (&access.grant, access.alias());
    let file = |path: &Path| quoted(path).map(|path| path.replace('%', "%%"));
    let way = match &access.route {
        Route::Tunnel => {
            let command = us.line(&["tunnel", "--pairing", &grant.pairing.to_string()]);
            if command.chars().any(char::is_control) {
                return Err(Unspeakable(us.program.to_string_lossy().into_owned()));
            }
            // Only the proxy command goes by it; it is what ssh calls the host.
            format!("  HostName {alias}\n  ProxyCommand {command}\n")
        }
        Route::Direct(Address { host, port }) => format!("  HostName {host}\n  Port {port}\n  ProxyCommand none\n"),
    };
    Ok(format!(
        "# Written by sculpt for task {number}, and written anew when it is needed.\n\
         Host {alias} sculpt.{task}\n\
         {way}  User {login}\n\
         \x20 HostKeyAlias {host}\n\
         \x20 UserKnownHostsFile {known_hosts}\n\
         \x20 IdentityFile {key}\n\
         \x20 CertificateFile {certificate}\n\
         {FIXED}",
        number = access.number,
        task = access.task,
        login = grant.login,
        host = grant.host,
        known_hosts = file(&access.known_hosts_file())?,
        key = file(&access.key())?,
        certificate = file(&access.certificate())?,
    ))
}

/// Both sides prove themselves by certificates and by nothing else. Of this machine nothing goes over but how its owner reads.
/// A connection that is shared by its host's name would outlive the attempt for which it was made. Keys that a person's own
/// settings name for every host add up with ours, and nothing takes them away.
const FIXED: &str = "  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com
  UpdateHostKeys no
  VerifyHostKeyDNS no
  CheckHostIP no
  CanonicalizeHostname no
  IdentitiesOnly yes
  IdentityAgent none
  AddKeysToAgent no
  PreferredAuthentications publickey
  PasswordAuthentication no
  KbdInteractiveAuthentication no
  ForwardAgent no
  ForwardX11 no
  RemoteCommand none
  RequestTTY auto
  ControlMaster no
  ControlPath none
  LogLevel INFO
  ConnectTimeout 20
  ServerAliveInterval 15
  ServerAliveCountMax 2
  SendEnv LANG LC_* COLORTERM
";

/// A path as one word of a configuration of ssh.
pub(crate) fn quoted(path: &Path) -> Result<String, Unspeakable> {
    let text = path.to_str().filter(|text| {
        let spoken = |c: char| !c.is_control() && !"\"\\".contains(c);
        // ssh would put a variable in its place.
        path.is_absolute() && text.chars().all(spoken) && !text.contains("${")
    });
    text.map(|text| format!("\"{text}\"")).ok_or_else(|| Unspeakable(path.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sculpt_proto::id::TaskId;

    use super::*;
    use crate::pairing::{Purpose, access::tests::access};

    /// What ssh makes of it.
    fn effective(text: &str, host: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, text).unwrap();
        let output = Command::new("ssh").arg("-G").arg("-F").arg(&file).args(["--", host]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn us() -> Us {
        Us { program: "/opt/a tool/sculpt".into(), variables: vec![("SCULPT_CONTEXT", "100% mine".to_owned())] }
    }

    #[test]
    fn ssh_goes_there_and_believes_nobody_else() {
        let direct = Route::Direct("[2001:db8::1]:2222".parse().unwrap());
        let command = "env SCULPT_CONTEXT='100%% mine' '/opt/a tool/sculpt' tunnel --pairing";
        let pairing = access(Purpose::Workspace, Route::Tunnel).grant.pairing;
        for (route, way) in [
            (Route::Tunnel, vec![format!("proxycommand {command} {pairing}"), "hostname sculpt.17".to_owned()]),
            (direct, vec!["port 2222".to_owned(), "hostname 2001:db8::1".to_owned()]),
        ] {
            let access = access(Purpose::Workspace, route.clone());
            // Whatever the person wants of other hosts.
            let theirs = "Host *\n  ProxyJump bastion\n  StrictHostKeyChecking no\n  ForwardAgent yes\n  User me\n  \
                          IdentityAgent /agent\n  Port 1\n  UserKnownHostsFile /dev/null\n  PasswordAuthentication yes\n  \
                          RemoteCommand top\n  RequestTTY force\n  ConnectTimeout 0\n  ControlMaster auto\n  ControlPath /tmp/%h\n  IdentityFile /mine\n";
            let text = text(&access, &us()).unwrap() + theirs;
            let found = effective(&text, "sculpt.17");
            let fixed = [
                "user attempt-1",
                "hostkeyalias executor-1",
                "stricthostkeychecking true",
                "userknownhostsfile /state of 100%/ssh/known_hosts",
                "globalknownhostsfile /dev/null",
                "identityfile /state of 100%%/ssh/key",
                "certificatefile /state of 100%%/ssh/workspace-cert.pub",
                "identitiesonly yes",
                "identityagent none",
                "forwardagent no",
                "forwardx11 no",
                "updatehostkeys false",
                "passwordauthentication no",
                "requesttty auto",
                "connecttimeout 20",
                "controlmaster false",
                "hostkeyalgorithms ssh-ed25519-cert-v01@openssh.com",
            ];
            for line in fixed.into_iter().map(str::to_owned).chain(way) {
                assert!(found.contains(&line), "{line} is not in {found:#?}");
            }
            let theirs = ["proxyjump", "remotecommand top", "controlpath /"];
            assert!(!found.iter().any(|line| theirs.iter().any(|option| line.starts_with(option))), "{found:#?}");
            // One key of theirs stays in force, after ours.
            let keys: Vec<_> = found.iter().filter_map(|line| line.strip_prefix("identityfile ")).collect();
            assert_eq!(keys, ["/state of 100%%/ssh/key", "/mine"]);
            assert_eq!(found.iter().any(|line| line.starts_with("proxycommand")), route == Route::Tunnel);
            assert!(effective(&text, "elsewhere").contains(&"user me".to_owned()));
            let uuid = format!("sculpt.{}", access.task);
            assert!(effective(&text, &uuid).contains(&"user attempt-1".to_owned()));
            let other = format!("sculpt.{}", TaskId::fresh());
            assert!(effective(&text, &other).contains(&"user me".to_owned()));
        }
    }

    #[test]
    fn no_path_is_read_for_something_else() {
        for (path, word) in [
            ("/a/b", Some("\"/a/b\"")),
            ("/a b/ü%d", Some("\"/a b/ü%d\"")),
            ("/it's", Some("\"/it's\"")),
            ("relative", None),
            ("/a\"b", None),
            ("/a\\b", None),
            ("/a\nb", None),
            ("/${HOME}", None),
        ] {
            assert_eq!(quoted(Path::new(path)).ok().as_deref(), word, "{path}");
        }
        let us = Us { program: "/a\nb".into(), variables: Vec::new() };
        assert!(text(&access(Purpose::Workspace, Route::Tunnel), &us).is_err());
    }
}
