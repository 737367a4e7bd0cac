//! Where people reach this executor's attempts without the controller.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{ConfigError, wrong};

/// Where people come without the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where they find that, as `host:port`.
    pub advertise: String,
}

/// The same as it is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Said {
    pub(super) listen: Option<String>,
    pub(super) advertise: Option<String>,
}

impl Said {
    /// None: they come through the controller alone. Where nothing is set, people on this host find it `here`.
    pub(super) fn check(self, here: Option<SocketAddr>) -> Result<Option<Direct>, ConfigError> {
        let missing = |other: &str| format!("is nothing without ssh.{other}; set both, or neither");
        match (self.listen, self.advertise) {
            (None, None) => Ok(here.map(|listen| Direct { listen, advertise: listen.to_string() })),
            (Some(_), None) => Err(wrong("ssh.listen", missing("advertise"))),
            (None, Some(_)) => Err(wrong("ssh.advertise", missing("listen"))),
            (Some(listen), Some(advertise)) => {
                Ok(Some(Direct { listen: address(&listen)?, advertise: place(advertise)? }))
            }
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    let address: Option<SocketAddr> = text.parse().ok();
    address.filter(|address| address.port() != 0).ok_or_else(|| {
        wrong(
            "ssh.listen",
            format!("{text:?} is no address with a port; write it like \"0.0.0.0:7422\" or \"[::]:7422\""),
        )
    })
}

/// A name or an address, and a port.
fn place(text: String) -> Result<String, ConfigError> {
    let sound = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let host = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            // An option of ssh is no name.
            None => !host.is_empty() && !host.starts_with('-') && named(host),
        };
        host && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    let problem = || format!("{text:?} is not \"host:port\", as people reach this host");
    if sound { Ok(text) } else { Err(wrong("ssh.advertise", problem())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(listen: Option<&str>, advertise: Option<&str>) -> Result<Option<Direct>, ConfigError> {
        Said { listen: listen.map(str::to_owned), advertise: advertise.map(str::to_owned) }.check(None)
    }

    #[test]
    fn what_is_set_comes_before_people_here() {
        let here = Some("127.0.0.1:7422".parse().unwrap());
        let direct = Said::default().check(here).unwrap().unwrap();
        assert_eq!((Some(direct.listen), direct.advertise.as_str()), (here, "127.0.0.1:7422"));
        let set = Said { listen: Some("0.0.0.0:22".into()), advertise: Some("host:22".into()) };
        assert_eq!(set.clone().check(here).unwrap(), set.check(None).unwrap());
        let half = Said { listen: Some("0.0.0.0:22".into()), advertise: None };
        assert!(half.check(here).is_err());
    }

    #[test]
    fn it_is_off_unless_both_are_set_and_make_sense() {
        assert_eq!(said(None, None).unwrap(), None);
        for advertise in ["build7.example:7422", "192.0.2.1:22", "[2001:db8::1]:7422", "a_b:1"] {
            let direct = said(Some("0.0.0.0:7422"), Some(advertise)).unwrap().unwrap();
            assert_eq!((direct.listen.port(), direct.advertise.as_str()), (7422, advertise));
        }
        for (listen, advertise, name) in [
            (Some("0.0.0.0:7422"), None, "ssh.listen"),
            (None, Some("host:7422"), "ssh.advertise"),
            (Some("7422"), Some("host:7422"), "ssh.listen"),
            (Some("0.0.0.0:0"), Some("host:7422"), "ssh.listen"),
            (Some("host:7422"), Some("host:7422"), "ssh.listen"),
            (Some("[::]:7422"), Some("host"), "ssh.advertise"),
            (Some("[::]:7422"), Some("host:0"), "ssh.advertise"),
            (Some("[::]:7422"), Some(":7422"), "ssh.advertise"),
            (Some("[::]:7422"), Some("-oProxyCommand=x:7422"), "ssh.advertise"),
            (Some("[::]:7422"), Some("a b:7422"), "ssh.advertise"),
            (Some("[::]:7422"), Some("2001:db8::1:7422"), "ssh.advertise"),
        ] {
            let error = said(listen, advertise).unwrap_err().to_string();
            assert!(error.contains(name), "{listen:?} {advertise:?}: {error}");
        }
    }
}
