//! A network of machines: a controller that has an address, people's machines that reach it, and executors behind routers
//! that translate addresses and let nobody in. All of them are network namespaces; all routers know only the way out.
//!
//! ```text
//! this machine ── controller ─┬─ a person's machine
//!                             ├─ router ── executor 192.168.1.2
//!                             └─ router ── executor 192.168.1.2
//! ```

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use super::netns::run;

/// What a router does: it answers nobody, passes on what comes from inside, and what belongs to it.
const ROUTER: &str = r#"table ip router {
    chain own { type filter hook input priority 0; policy drop; ct state established,related accept; }
    chain through {
        type filter hook forward priority 0; policy drop
        iifname "inside" accept
        ct state established,related accept
    }
    chain translated { type nat hook postrouting priority 100; oifname "outside" masquerade; }
}"#;

/// A network; gone when dropped.
#[derive(Debug)]
pub struct Network {
    controller: Host,
    address: String,
    others: Vec<Host>,
}

/// What to start a program through so that it runs on a machine of the network.
pub type Via = [String; 2];

impl Network {
    /// One with a controller's machine, which this machine reaches too; none, with a loud word, where we may not lay one.
    pub fn lay() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return Ok(None);
        }
        if let Err(error) = Command::new("nft").arg("--version").output() {
            eprintln!("SKIPPED: no nft ({error}); run scripts/setup");
            return Ok(None);
        }
        let controller = match Host::make("c") {
            Ok(host) => host,
            Err(error) => {
                eprintln!("SKIPPED: no network namespaces here: {error:#}");
                return Ok(None);
            }
        };
        let (near, far) = subnet();
        let here = format!("{}h", controller.0);
        run(&["ip", "link", "add", &here, "type", "veth", "peer", "name", "here", "netns", &controller.0])?;
        run(&["ip", "address", "add", &format!("{far}/30"), "dev", &here])?;
        run(&["ip", "link", "set", &here, "up"])?;
        controller.plug("here", &near)?;
        Ok(Some(Self { controller, address: near, others: Vec::new() }))
    }

    /// The controller's address, by which every machine of the network reaches it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The controller's machine.
    pub fn controller(&self) -> Via {
        self.controller.via()
    }

    /// One more machine beside the controller's.
    pub fn beside(&mut self) -> Result<Via> {
        let host = Host::make("p")?;
        self.connect(&host)?;
        self.keep(host)
    }

    /// One more machine, behind a router of its own.
    pub fn behind_a_router(&mut self) -> Result<Via> {
        let (router, host) = (Host::make("r")?, Host::make("e")?);
        self.connect(&router)?;
        router.plugged_into(&host)?;
        router.plug("inside", "192.168.1.1")?;
        host.plug("outside", "192.168.1.2")?;
        host.ip(&["route", "add", "default", "via", "192.168.1.1"])?;
        router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        router.run(&["nft", ROUTER])?;
        self.keep(router)?;
        self.keep(host)
    }

    fn keep(&mut self, host: Host) -> Result<Via> {
        let via = host.via();
        self.others.push(host);
        Ok(via)
    }

    /// A cable between the controller's machine and `host`, which knows no other way.
    fn connect(&self, host: &Host) -> Result<()> {
        let (near, far) = subnet();
        let end = format!("to-{}", self.others.len());
        let controller = &self.controller;
        controller.ip(&["link", "add", &end, "type", "veth", "peer", "name", "outside", "netns", &host.0])?;
        controller.plug(&end, &near)?;
        host.plug("outside", &far)?;
        host.ip(&["route", "add", "default", "via", &near])
    }
}

/// Two addresses of one subnet; of the 16,384 with four addresses below 10.214.
fn subnet() -> (String, String) {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
    let first = number % (1 << 14) * 4;
    let address = |host: u32| format!("10.214.{}.{}", (first + host) >> 8, (first + host) & 0xff);
    (address(1), address(2))
}

/// A machine: a namespace by its name, gone when dropped, with its ends of all cables.
#[derive(Debug)]
struct Host(String);

impl Host {
    fn make(kind: &str) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let host = Self(format!("sct{:x}{kind}{number}", std::process::id()));
        run(&["ip", "netns", "add", &host.0])?;
        host.ip(&["link", "set", "lo", "up"])?;
        Ok(host)
    }

    fn via(&self) -> Via {
        ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.0)]
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        run(&[&["ip", "-n", &self.0], arguments].concat())
    }

    fn run(&self, command: &[&str]) -> Result<()> {
        let [program, argument] = self.via();
        run(&[&[program.as_str(), &argument], command].concat())
    }

    /// Gives its end of a cable an address, in a subnet of the usual size for it.
    fn plug(&self, end: &str, address: &str) -> Result<()> {
        let size = if address.starts_with("192.168.") { 24 } else { 30 };
        self.ip(&["address", "add", &format!("{address}/{size}"), "dev", end])?;
        self.ip(&["link", "set", end, "up"])
    }

    /// A cable from its end `inside` to the end `outside` of `host`.
    fn plugged_into(&self, host: &Self) -> Result<()> {
        self.ip(&["link", "add", "inside", "type", "veth", "peer", "name", "outside", "netns", &host.0])
            .context("lay a cable behind a router")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = run(&["ip", "netns", "delete", &self.0]) {
            eprintln!("the namespace {} is left over: {error:#}", self.0);
        }
    }
}
