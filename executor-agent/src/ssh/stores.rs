//! What may be kept of what people have sent, over all of their channels: some memory for everybody together, less of it for one
//! of them, and some files of each. Who sends more than is read takes nothing of others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in memory that wait for who takes them, for all people together.
const MEMORY: usize = 64 << 20;

/// And of one person.
const OF_ONE: usize = 16 << 20;

/// Files of one person.
pub(super) const FILES: usize = 16;

/// Everybody's.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    memory: Arc<Semaphore>,
    people: Arc<Mutex<HashMap<String, Weak<Store>>>>,
}

/// One person's.
#[derive(Debug)]
pub(super) struct Store {
    all: Arc<Semaphore>,
    own: Semaphore,
    files: Arc<Semaphore>,
}

/// Memory that a channel has, given back with it.
#[derive(Debug)]
pub(super) struct Memory {
    store: Arc<Store>,
    length: usize,
}

impl Default for Stores {
    fn default() -> Self {
        Self { memory: Arc::new(Semaphore::new(MEMORY)), people: Arc::default() }
    }
}

impl Stores {
    /// That of `user`, the same as long as anybody has it.
    pub(super) fn of(&self, user: &str) -> Arc<Store> {
        let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = people.get(user).and_then(Weak::upgrade) {
            return store;
        }
        people.retain(|_, store| store.strong_count() > 0);
        let (own, files) = (Semaphore::new(OF_ONE), Arc::new(Semaphore::new(FILES)));
        let store = Arc::new(Store { all: Arc::clone(&self.memory), own, files });
        people.insert(user.to_owned(), Arc::downgrade(&store));
        store
    }
}

impl Store {
    /// Room for one more file; none: there are enough.
    pub(super) fn file(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.files).try_acquire_owned().ok()
    }
}

impl Memory {
    /// Nothing yet.
    pub(super) fn of(store: Arc<Store>) -> Self {
        Self { store, length: 0 }
    }

    /// Whose it is.
    #[cfg(test)]
    pub(super) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Whether there is so much more just now.
    pub(super) fn has(&self, length: usize) -> bool {
        self.store.all.available_permits().min(self.store.own.available_permits()) >= length
    }

    /// Takes so much more, if there is as much.
    pub(super) fn grow(&mut self, length: usize) -> bool {
        let Ok(wished) = u32::try_from(length) else { return false };
        let (all, own) = (self.store.all.try_acquire_many(wished), self.store.own.try_acquire_many(wished));
        let (Ok(all), Ok(own)) = (all, own) else { return false };
        all.forget();
        own.forget();
        self.length += length;
        true
    }

    /// Gives so much back.
    pub(super) fn shrink(&mut self, length: usize) {
        let length = length.min(self.length);
        self.length -= length;
        self.store.all.add_permits(length);
        self.store.own.add_permits(length);
    }

    /// Gives all of it back.
    pub(super) fn clear(&mut self) {
        self.shrink(self.length);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_what_others_have_and_whoever_goes_leaves_everything() {
        let stores = Stores::default();
        let mut people: Vec<Memory> = (0..=MEMORY / OF_ONE).map(|n| Memory::of(stores.of(&n.to_string()))).collect();
        let mut again = Memory::of(stores.of("0"));
        assert!(people[0].grow(OF_ONE - 1) && !people[0].grow(2) && !again.grow(2) && again.grow(1));
        let (last, others) = people.split_last_mut().unwrap();
        assert!(others.iter_mut().skip(1).all(|memory| memory.grow(OF_ONE)));
        assert!(!last.has(1) && !last.grow(1));
        again.shrink(1);
        assert!(last.grow(1) && !again.has(1));
        drop((people, again));
        assert_eq!(stores.memory.available_permits(), MEMORY);
        let ada = stores.of("ada");
        let files: Vec<OwnedSemaphorePermit> = std::iter::from_fn(|| ada.file()).collect();
        assert!(files.len() == FILES && stores.of("ada").file().is_none() && stores.of("bob").file().is_some());
        assert_eq!(stores.people.lock().unwrap().len(), 2, "nobody is kept account of who has gone");
    }
}
