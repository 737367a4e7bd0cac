//! Connections that have proved nothing yet, bounded for each address: one stranger does not take everybody's seats, and
//! a hundred executors behind one NAT, who prove themselves, are not counted.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::network;

/// How many strangers each address has.
#[derive(Clone, Debug)]
pub(super) struct Newcomers {
    most: usize,
    there: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of them, until it proves who it is or all that hold this are gone.
#[derive(Clone, Debug)]
pub(super) struct Newcomer(Arc<Mutex<Option<Counted>>>);

#[derive(Debug)]
struct Counted {
    address: IpAddr,
    among: Newcomers,
}

impl Newcomers {
    /// At most so many of one address.
    pub(super) fn new(most: usize) -> Self {
        Self { most, there: Arc::default() }
    }

    /// One more from `address`, if it may have one more.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Newcomer> {
        let address = network(address);
        let mut there = self.there();
        let count = there.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Newcomer(Arc::new(Mutex::new(Some(Counted { address, among: self.clone() })))))
    }

    fn there(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// It is none any more.
    pub(super) fn proved(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut there = self.among.there();
        if let Some(count) = there.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                there.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_so_many_and_no_more() {
        let newcomers = Newcomers::new(2);
        let (one, two) = (newcomers.admit(address("10.0.0.1")), newcomers.admit(address("10.0.0.1")));
        assert!(one.is_some() && two.is_some());
        assert!(newcomers.admit(address("10.0.0.1")).is_none());
        assert!(newcomers.admit(address("::ffff:10.0.0.1")).is_none(), "it is the same one");
        assert!(newcomers.admit(address("10.0.0.2")).is_some(), "others are not hurt");
        drop(one);
        let three = newcomers.admit(address("10.0.0.1")).expect("one has gone");
        assert!(newcomers.admit(address("10.0.0.1")).is_none());
        three.proved();
        three.proved();
        assert!(newcomers.admit(address("10.0.0.1")).is_some(), "who has proved something is not counted");
        drop((two, three));
        assert!(newcomers.there().is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let newcomers = Newcomers::new(1);
        let _one = newcomers.admit(address("fd00::1")).expect("the first");
        assert!(newcomers.admit(address("fd00::2")).is_none());
        assert!(newcomers.admit(address("fd00:0:0:1::1")).is_some());
    }
}
