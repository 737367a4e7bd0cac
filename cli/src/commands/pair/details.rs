//! What leads to an agent, for people and for other clients than ours.

use std::ffi::OsString;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use ssh_key::{HashAlg, PublicKey};

use crate::{
    failure::Failure,
    output::{Format, clean, json, line, shell_quoted, time::distance},
    pairing::{Access, Address, Route},
};

/// The port of ssh where none is named.
const SSH: u16 = 22;

#[derive(Debug, Serialize)]
struct Details {
    task: u64,
    attempt: String,
    pairing: String,
    /// To be run as it is.
    command: Vec<String>,
    /// `tunnel` or `direct`.
    route: &'static str,
    /// What to connect to; by the tunnel it is a name that only the proxy command knows.
    host: String,
    port: u16,
    user: String,
    /// What the host's certificate is for.
    host_key_alias: String,
    /// Of the authorities that sign the host's certificate.
    fingerprints: Vec<String>,
    /// What to run there.
    session: String,
    rights: Vec<String>,
    identity_file: String,
    certificate_file: String,
    known_hosts_file: String,
    config_file: String,
    expires_at: Option<String>,
}

/// Shows them.
pub(super) fn print(access: &Access, arguments: &[OsString], session: &str, format: Format) -> Result<(), Failure> {
    let details = Details::of(access, arguments, session);
    match format {
        Format::Json => json(&details),
        Format::Text => details.page(access).iter().try_for_each(line),
    }
}

impl Details {
    fn of(access: &Access, arguments: &[OsString], session: &str) -> Self {
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let words = arguments.iter().map(|word| word.to_string_lossy().into_owned());
        let grant = access.grant.clone();
        let (route, host, port) = match &access.route {
            Route::Tunnel => ("tunnel", grant.host.clone(), SSH),
            Route::Direct(Address { host, port }) => ("direct", host.clone(), *port),
        };
        Self {
            task: access.number,
            attempt: grant.attempt.to_string(),
            pairing: grant.pairing.to_string(),
            command: ["ssh".to_owned()].into_iter().chain(words).collect(),
            route,
            host,
            port,
            user: grant.login,
            host_key_alias: grant.host,
            fingerprints: grant.known_hosts.iter().filter_map(|line| fingerprint(line)).collect(),
            session: session.to_owned(),
            rights: grant.rights,
            identity_file: text(access.key()),
            certificate_file: text(access.certificate()),
            known_hosts_file: text(access.known_hosts_file()),
            config_file: text(access.config()),
            expires_at: until(access).map(|until| until.to_rfc3339_opts(SecondsFormat::Secs, true)),
        }
    }

    fn page(&self, access: &Access) -> Vec<String> {
        let words: Vec<String> = self.command.iter().map(|word| shell_quoted(word)).collect();
        let good = until(access).map(|until| distance(until - Utc::now())).unwrap_or_default();
        let way = match &access.route {
            Route::Tunnel => "through the controller, by the configuration's ProxyCommand",
            Route::Direct(_) => "straight to the executor",
        };
        let fields = [
            ("host", self.host.clone()),
            ("port", if access.route == Route::Tunnel { String::new() } else { self.port.to_string() }),
            ("way", way.to_owned()),
            ("user", self.user.clone()),
            ("proves to be", self.host_key_alias.clone()),
            ("signed by", self.fingerprints.join(" ")),
            ("session", self.session.clone()),
            ("rights", self.rights.join(" ")),
            ("key", self.identity_file.clone()),
            ("certificate", self.certificate_file.clone()),
            ("known hosts", self.known_hosts_file.clone()),
            ("expires", good),
        ];
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(name, value)| format!("  {name:<14}{}", clean(value)));
        [clean(&words.join(" "))].into_iter().chain(fields).collect()
    }
}

fn until(access: &Access) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(access.until()).ok()?, 0)
}

/// Of the key in a line of a known-hosts file.
fn fingerprint(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().skip_while(|word| !word.starts_with("ssh-")).collect();
    let key: PublicKey = words.join(" ").parse().ok()?;
    Some(key.fingerprint(HashAlg::Sha256).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_known_by_its_fingerprint() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
        let print = fingerprint(&format!("@cert-authority executor-1 {key} who")).unwrap();
        assert!(print.starts_with("SHA256:") && print.len() == 50, "{print}");
        assert_eq!(fingerprint("@cert-authority executor-1 ssh-ed25519 AAAA"), None);
    }
}
