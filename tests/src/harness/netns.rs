//! A host of its own on the network: a namespace that one virtual cable connects with this machine.
//!
//! The controller listens on loopback alone. So the cable carries an address of the loopback range, [`CONTROLLER`], which
//! a namespace has no other way to; packets are then really lost, late or cut off, below TCP.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};

/// Where the controller is to listen so that a [`Cable`] leads to it.
pub const CONTROLLER: &str = "127.77.0.1:0";

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the namespace to this machine.
    Up,
    /// From this machine to the namespace.
    Down,
}

/// A namespace and its cable; both gone when dropped.
#[derive(Debug)]
pub struct Cable {
    namespace: String,
    here: String,
    there: String,
}

impl Cable {
    /// Lays one; none, with a loud word, where this machine does not let us.
    pub fn lay() -> Result<Option<Self>> {
        static LAID: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return Ok(None);
        }
        let number = LAID.fetch_add(1, Ordering::Relaxed);
        let name = format!("sct{:x}n{number}", std::process::id());
        let cable = Self { here: format!("{name}h"), there: format!("{name}t"), namespace: name };
        if let Err(error) = run(&["ip", "netns", "add", &cable.namespace]) {
            eprintln!("SKIPPED: no network namespaces here: {error:#}");
            return Ok(None);
        }
        cable.connect(std::process::id().wrapping_mul(8).wrapping_add(number))?;
        Ok(Some(cable))
    }

    fn connect(&self, number: u32) -> Result<()> {
        let Self { namespace, here, there } = self;
        // One of the 16,384 subnets of four addresses below 10.213.
        let first = number % (1 << 14) * 4;
        let address = |host: u32| format!("10.213.{}.{}", (first + host) >> 8, (first + host) & 0xff);
        let (near, far) = (format!("{}/30", address(1)), format!("{}/30", address(2)));
        run(&["ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace])?;
        run(&["ip", "address", "add", &near, "dev", here])?;
        run(&["ip", "link", "set", here, "up"])?;
        for arguments in
            [&["address", "add", &far, "dev", there][..], &["link", "set", there, "up"], &["link", "set", "lo", "up"]]
        {
            run(&[&["ip", "-n", namespace], arguments].concat())?;
        }
        run(&["sysctl", "-qw", &format!("net.ipv4.conf.{here}.route_localnet=1")])?;
        let inside = format!("--net=/run/netns/{namespace}");
        run(&["nsenter", &inside, "sysctl", "-qw", &format!("net.ipv4.conf.{there}.route_localnet=1")])?;
        let host = CONTROLLER.trim_end_matches(":0");
        // In the table `local`, which is asked first and says of the whole range that it is this host.
        run(&["ip", "-n", namespace, "route", "add", host, "dev", there, "src", &address(2), "table", "local"])
    }

    /// What to start a program through so that it runs in the namespace.
    pub fn via(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace)]
    }

    /// From now on nothing arrives, and nobody is told.
    pub fn cut(&self, way: Way) -> Result<()> {
        self.discipline(way, &["blackhole"])
    }

    /// From now on at most so many kbit arrive a second.
    pub fn slow(&self, way: Way, kilobits: u32) -> Result<()> {
        self.discipline(way, &["tbf", "rate", &format!("{kilobits}kbit"), "burst", "16kb", "latency", "400ms"])
    }

    /// From now on everything arrives again.
    pub fn mend(&self, way: Way) -> Result<()> {
        let (program, device) = self.sender(way);
        run(&[&program[..], &["qdisc", "delete", "dev", device, "root"]].concat())
    }

    fn discipline(&self, way: Way, discipline: &[&str]) -> Result<()> {
        let (program, device) = self.sender(way);
        run(&[&program[..], &["qdisc", "replace", "dev", device, "root"], discipline].concat())
    }

    /// `tc` on the side that sends, and its end of the cable.
    fn sender(&self, way: Way) -> (Vec<&str>, &str) {
        match way {
            Way::Up => (vec!["tc", "-n", &self.namespace], &self.there),
            Way::Down => (vec!["tc"], &self.here),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The cable goes with the namespace as soon as nobody is in it any more, and at once when it is deleted itself.
        let _ = run(&["ip", "link", "delete", &self.here]);
        if let Err(error) = run(&["ip", "netns", "delete", &self.namespace]) {
            eprintln!("the namespace {} is left over: {error:#}", self.namespace);
        }
    }
}

pub(super) fn run(command: &[&str]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a command has a program")?;
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ended with {}: {}", command.join(" "), output.status, said.trim());
    Ok(())
}
