//! Those at the executor's own door who have not shown who they are: so many at a time, and of one address fewer still. Where there
//! are too many the oldest makes way: who holds connections and says nothing keeps nobody out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// How many of them there may be, and of one address, behind which a house full of people may sit who all come at once, each to
/// look whether there is a way and then to take it. An IPv6 network of 64 bits is one address: who has one of its addresses
/// has them all.
const ALL: usize = 512;
const OF_ONE: usize = 128;

/// Who is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers(Arc<Mutex<There>>);

#[derive(Debug, Default)]
struct There {
    /// How many have come.
    came: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// One of them, counted for as long as this lives.
#[derive(Debug)]
pub struct Stranger {
    number: u64,
    all: Strangers,
}

impl Strangers {
    /// Somebody comes. The token is cancelled when they have to make way.
    pub(super) fn comes(&self, from: IpAddr) -> (Stranger, CancellationToken) {
        let (from, way) = (network(from), CancellationToken::new());
        let mut there = self.lock();
        let same = || there.all.iter().filter(|(_, (address, _))| *address == from).map(|(number, _)| *number);
        let oldest = match same().count() {
            OF_ONE.. => same().next(),
            _ if there.all.len() >= ALL => there.all.keys().next().copied(),
            _ => None,
        };
        if let Some((_, makes_way)) = oldest.and_then(|number| there.all.remove(&number)) {
            makes_way.cancel();
        }
        there.came += 1;
        let number = there.came;
        there.all.insert(number, (from, way.clone()));
        (Stranger { number, all: self.clone() }, way)
    }

    fn lock(&self) -> MutexGuard<'_, There> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.lock().all.remove(&self.number);
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Come = Vec<(Stranger, CancellationToken)>;

    /// How many of them have made way, and that they were the oldest.
    fn made_way(come: &Come) -> usize {
        let gone = come.iter().take_while(|(_, way)| way.is_cancelled()).count();
        assert!(come[gone..].iter().all(|(_, way)| !way.is_cancelled()));
        gone
    }

    #[test]
    fn the_oldest_of_an_address_makes_way_and_then_the_oldest_of_all() {
        let strangers = Strangers::default();
        let come =
            |from: &str, times: usize| -> Come { (0..times).map(|_| strangers.comes(from.parse().unwrap())).collect() };
        let first = come("192.0.2.1", OF_ONE + 1);
        assert_eq!(made_way(&first), 1);
        let again = come("::ffff:192.0.2.1", 1);
        assert_eq!((made_way(&first), made_way(&again)), (2, 0), "the same written otherwise");
        let second = come("2001:db8::1", OF_ONE);
        let neighbour = come("2001:db8::2", 1);
        assert_eq!((made_way(&second), made_way(&neighbour)), (1, 0), "of the same network");
        let others = [come("192.0.2.2", OF_ONE), come("192.0.2.3", OF_ONE)];
        assert_eq!(others.iter().map(made_way).sum::<usize>() + made_way(&first), 2, "there was room");
        let more = come("192.0.2.4", 3);
        assert_eq!((made_way(&first), made_way(&more)), (5, 0), "the oldest of all");
        drop(first);
        let rest = come("192.0.2.1", 5);
        assert_eq!((made_way(&rest), made_way(&second)), (0, 1), "who has gone has made room");
        drop((again, second, neighbour, others, more, rest));
        assert!(strangers.lock().all.is_empty(), "nobody is kept account of who has gone");
    }
}
