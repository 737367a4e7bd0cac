//! Those at the executor's own door who have not shown who they are: so many at a time, and of one address fewer still, so that
//! there is room for people.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many of them there may be, and of one address. An IPv6 network of 64 bits is one address: who has one of its addresses
/// has them all.
const ALL: usize = 64;
const OF_ONE: usize = 16;

/// How many there are, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, counted for as long as this lives.
#[derive(Debug)]
pub struct Stranger {
    from: IpAddr,
    all: Strangers,
}

impl Strangers {
    /// Somebody comes. None: there are too many of them.
    pub(super) fn comes(&self, from: IpAddr) -> Option<Stranger> {
        let from = network(from);
        let mut counts = self.lock();
        if counts.values().sum::<usize>() >= ALL {
            return None;
        }
        let count = counts.entry(from).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Stranger { from, all: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
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

    #[test]
    fn one_address_does_not_take_all_the_room() {
        let strangers = Strangers::default();
        let come = |from: &str, times: usize| -> Vec<Stranger> {
            (0..times).filter_map(|_| strangers.comes(from.parse().unwrap())).collect()
        };
        let first = come("192.0.2.1", OF_ONE + 1);
        assert_eq!(first.len(), OF_ONE);
        assert!(come("::ffff:192.0.2.1", 1).is_empty(), "the same written otherwise");
        let second = come("2001:db8::1", OF_ONE);
        assert!(come("2001:db8::2", 1).is_empty(), "of the same network");
        let others = [come("192.0.2.2", OF_ONE), come("192.0.2.3", OF_ONE)];
        assert_eq!(second.len() + others.iter().map(Vec::len).sum::<usize>(), 3 * OF_ONE);
        assert!(come("192.0.2.4", 1).is_empty(), "there are enough");
        drop(first);
        assert_eq!(come("192.0.2.1", OF_ONE + 1).len(), OF_ONE);
        drop((second, others));
        assert!(strangers.lock().is_empty(), "nobody is kept account of who has gone");
    }
}
