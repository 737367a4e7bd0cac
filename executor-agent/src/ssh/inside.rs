//! Those who have come in: so many connections at a time, and of one person fewer, so that nobody takes everybody's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many connections people may have at a time.
const CONNECTIONS: usize = 128;

/// And one person: as many as tunnels through the controller.
const OF_ONE: usize = 64;

/// Who is there, and how often.
#[derive(Clone, Debug, Default)]
pub(super) struct Inside(Arc<Mutex<BTreeMap<String, usize>>>);

/// One connection, counted for as long as this lives.
#[derive(Debug)]
pub(super) struct OneInside {
    user: String,
    all: Inside,
}

/// Why there is no place for one more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    /// They have enough.
    #[error("you have {OF_ONE} connections to this executor already; close one of them")]
    Own,
    /// All together have.
    #[error("people have {CONNECTIONS} connections to this executor already; come again when some of them have gone")]
    All,
}

impl Inside {
    /// Somebody comes in.
    pub(super) fn comes(&self, user: &str) -> Result<OneInside, Crowded> {
        let mut there = self.lock();
        if there.get(user).is_some_and(|own| *own >= OF_ONE) {
            return Err(Crowded::Own);
        }
        if there.values().sum::<usize>() >= CONNECTIONS {
            return Err(Crowded::All);
        }
        *there.entry(user.to_owned()).or_default() += 1;
        Ok(OneInside { user: user.to_owned(), all: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OneInside {
    fn drop(&mut self) {
        let mut there = self.all.lock();
        if let Some(own) = there.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                there.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_leaves_room_for_others_and_whoever_goes_makes_some() {
        let inside = Inside::default();
        let comes = |user: &str| -> Vec<OneInside> { std::iter::from_fn(|| inside.comes(user).ok()).collect() };
        let mut ada = comes("ada");
        assert_eq!(ada.len(), OF_ONE);
        assert_eq!(inside.comes("ada").unwrap_err(), Crowded::Own);
        let bob = comes("bob");
        assert_eq!(bob.len(), CONNECTIONS - OF_ONE);
        assert_eq!(inside.comes("eve").unwrap_err(), Crowded::All);
        ada.truncate(OF_ONE - 2);
        assert_eq!(comes("eve").len(), 2);
        assert_eq!(comes("ada").len(), 2, "eve has gone");
        drop((ada, bob));
        assert!(inside.lock().is_empty(), "nobody is kept account of who has gone");
    }
}
