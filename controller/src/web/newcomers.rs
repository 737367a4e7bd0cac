//! Connections that have proved nothing yet. They are bounded for each address, and where there is no room for one more
//! the oldest of them makes way: who is known proves it within moments, and a crowd that sits there keeps nobody out. A
//! hundred executors behind one NAT, who prove themselves, are not counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::network;

/// The strangers of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Newcomers {
    most: usize,
    there: Arc<Mutex<There>>,
}

/// They are numbered in the order in which they came.
#[derive(Debug, Default)]
struct There {
    next: u64,
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
    of: HashMap<IpAddr, BTreeSet<u64>>,
}

/// One of them, until it proves who it is or all that hold this are gone.
#[derive(Clone, Debug)]
pub(super) struct Newcomer(Arc<Place>);

#[derive(Debug)]
struct Place {
    number: u64,
    among: Newcomers,
    proved: CancellationToken,
    displaced: CancellationToken,
}

impl Newcomers {
    /// At most so many of one address.
    pub(super) fn new(most: usize) -> Self {
        Self { most, there: Arc::default() }
    }

    /// One more from `address`, in the place of its oldest if it has as many as it may have.
    pub(super) fn admit(&self, address: IpAddr) -> Newcomer {
        let (address, displaced) = (network(address), CancellationToken::new());
        let mut there = self.there();
        let of = there.of.get(&address);
        let oldest = of.filter(|of| of.len() >= self.most).and_then(|of| of.first().copied());
        let way = oldest.and_then(|oldest| there.remove(oldest));
        let number = there.next;
        there.next += 1;
        there.all.insert(number, (address, displaced.clone()));
        there.of.entry(address).or_default().insert(number);
        drop(there);
        if let Some(way) = way {
            way.cancel();
        }
        Newcomer(Arc::new(Place { number, among: self.clone(), proved: CancellationToken::new(), displaced }))
    }

    /// Lets the oldest of all make way; says whether there was one.
    pub(super) fn displace(&self) -> bool {
        let mut there = self.there();
        let oldest = there.all.first_key_value().map(|(number, _)| *number);
        let way = oldest.and_then(|oldest| there.remove(oldest));
        drop(there);
        way.inspect(CancellationToken::cancel).is_some()
    }

    fn there(&self) -> MutexGuard<'_, There> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl There {
    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (address, displaced) = self.all.remove(&number)?;
        if let Some(of) = self.of.get_mut(&address) {
            of.remove(&number);
            if of.is_empty() {
                self.of.remove(&address);
            }
        }
        Some(displaced)
    }
}

impl Newcomer {
    /// It is none any more.
    pub(super) fn proved(&self) {
        self.0.proved.cancel();
        self.0.among.there().remove(self.0.number);
    }

    /// Whether it is none any more.
    pub(super) fn has_proved(&self) -> bool {
        self.0.proved.is_cancelled()
    }

    /// Cancelled when it has to make way.
    pub(super) fn displaced(&self) -> CancellationToken {
        self.0.displaced.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.among.there().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn displaced<const N: usize>(newcomers: [&Newcomer; N]) -> [bool; N] {
        newcomers.map(|newcomer| newcomer.displaced().is_cancelled())
    }

    #[test]
    fn an_address_has_so_many_and_its_oldest_makes_way() {
        let newcomers = Newcomers::new(2);
        let other = newcomers.admit(address("10.0.0.2"));
        let (one, two) = (newcomers.admit(address("10.0.0.1")), newcomers.admit(address("10.0.0.1")));
        assert_eq!(displaced([&one, &two]), [false; 2]);
        let three = newcomers.admit(address("::ffff:10.0.0.1"));
        assert_eq!(displaced([&one, &two, &three, &other]), [true, false, false, false], "it is the same address");
        drop(two);
        let four = newcomers.admit(address("10.0.0.1"));
        assert_eq!(displaced([&three, &four]), [false; 2], "one has gone");
        three.proved();
        three.proved();
        let (five, six) = (newcomers.admit(address("10.0.0.1")), newcomers.admit(address("10.0.0.1")));
        assert_eq!(displaced([&three, &four, &five, &six, &other]), [false, true, false, false, false]);
        assert_eq!([three.has_proved(), four.has_proved()], [true, false]);
        drop((one, three, four, five, six, other));
        let there = newcomers.there();
        assert!(there.all.is_empty() && there.of.is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn the_oldest_of_all_makes_way_unless_it_has_proved_who_it_is() {
        let newcomers = Newcomers::new(9);
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|from| newcomers.admit(address(from)));
        all[0].proved();
        assert!(newcomers.displace() && newcomers.displace());
        assert_eq!(displaced(all.each_ref()), [false, true, true]);
        assert!(!newcomers.displace(), "nobody is left who would");
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let newcomers = Newcomers::new(1);
        let one = newcomers.admit(address("fd00::1"));
        let two = newcomers.admit(address("fd00:0:0:1::1"));
        assert_eq!(displaced([&one, &two]), [false; 2]);
        let _three = newcomers.admit(address("fd00::2"));
        assert_eq!(displaced([&one, &two]), [true, false]);
    }
}
