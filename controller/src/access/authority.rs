//! Who shows a token. Looked up in the database, and remembered for a few seconds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sculpt_core::rights::Grants;
use sculpt_proto::id::TokenId;
use sculpt_tls::{Kind, Token, TokenError};
use tokio::sync::OnceCell;
use tonic::Status;

use super::{Caller, caller::Who};
use crate::{
    bus::Bus,
    store::{
        Store, StoreError,
        bearers::{Bearer, Standing},
    },
};

/// How long a change that nobody was told of goes unnoticed by a call. What is open asks as often, and can be given an answer
/// as old: twice this, and the time to ask, is less than the 10 s in which who is locked is gone.
const FRESH: Duration = Duration::from_secs(4);

/// Tokens that are remembered.
const REMEMBERED: usize = 4096;

/// Knows callers by their tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authority {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    known: Mutex<HashMap<[u8; 32], Known>>,
    /// Tokens that were used since this was written down, and from where.
    used: Mutex<BTreeMap<TokenId, String>>,
}

/// What is known of a token, or is being asked.
#[derive(Clone, Debug)]
struct Known {
    /// When it was asked, and what had been told until then.
    asked: Instant,
    told: u64,
    /// Whether it was good when it was asked before.
    proved: bool,
    answer: Arc<OnceCell<Answer>>,
}

impl Known {
    fn is_good(&self) -> bool {
        self.proved || self.answer.initialized()
    }
}

#[derive(Clone, Debug)]
struct Answer {
    who: Arc<Who>,
    expires: Option<Instant>,
}

/// Why a token makes nobody a caller.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// There is none.
    #[error("this call needs a token: `authorization: Bearer sculpt_user_…`; `sculpt login` keeps one")]
    Missing,
    /// It is none.
    #[error("{0}")]
    Malformed(#[from] TokenError),
    /// Nobody here made it.
    #[error("the token is not one of this controller, or its user was removed; ask an admin for one")]
    Foreign,
    /// Its time is over.
    #[error("the token has expired; make another one with `sculpt token create`, or ask an admin for one")]
    Expired,
    /// Somebody revoked it.
    #[error("the token was revoked; ask an admin for another one")]
    Revoked,
    /// Somebody locked it or its user.
    #[error("{what} is locked{}; ask an admin", because(reason))]
    Locked {
        /// The user, or the token.
        what: String,
        /// In the words of who locked it.
        reason: String,
    },
    /// They may less than when they called.
    #[error("what you may do here has changed; call again")]
    Changed,
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

impl From<Unknown> for Status {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Store(error) => error.into(),
            // Asked again they are told what they lack.
            Unknown::Changed => Self::unavailable(unknown.to_string()),
            unknown => Self::unauthenticated(unknown.to_string()),
        }
    }
}

impl Authority {
    /// Looks tokens up in `store`, and anew whenever `bus` tells that rights have changed.
    pub fn new(store: Store, bus: Bus) -> Self {
        Self { inner: Arc::new(Inner { store, bus, known: Mutex::default(), used: Mutex::default() }) }
    }

    /// Who shows `token` from `address`.
    pub async fn authenticate(&self, token: &str, address: &str) -> Result<Caller, Unknown> {
        let digest = Token::parse(token, Kind::User)?.secret.digest();
        self.by_digest(digest, address).await
    }

    /// Who shows a token of this digest.
    pub(super) async fn by_digest(&self, digest: [u8; 32], address: &str) -> Result<Caller, Unknown> {
        let who = self.who(digest).await?;
        self.used().insert(who.token, address.to_owned());
        Ok(Caller::new(who, address))
    }

    /// Whether somebody showed a token of this digest a while ago, and was let in. While it is looked up anew, too.
    pub(super) fn remembers(&self, digest: &[u8; 32]) -> bool {
        self.known().get(digest).is_some_and(Known::is_good)
    }

    /// Resolves when `caller` may no longer all that they might when they called, to what they are told. While the database
    /// is away nothing is known to have changed.
    pub(super) async fn lost(self, digest: [u8; 32], caller: Caller) -> Status {
        let mut changed = self.inner.bus.access_changed();
        loop {
            // A bus that is gone ends nothing; the poll goes on.
            let _ = tokio::time::timeout(FRESH, changed.changed()).await;
            match self.who(digest).await {
                Ok(now) if now.grants.cover(caller.grants()) => {}
                Ok(_) => return Unknown::Changed.into(),
                Err(Unknown::Store(error)) => tracing::debug!(%error, "cannot see whether a caller may go on"),
                Err(unknown) => return unknown.into(),
            }
        }
    }

    /// Writes down which tokens were used since this was called last.
    pub async fn note_use(&self) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *self.used());
        if used.is_empty() {
            return Ok(());
        }
        let noted = self.inner.store.note_use(used.clone()).await;
        if noted.is_err() {
            let mut since = self.used();
            for (token, address) in used {
                since.entry(token).or_insert(address);
            }
        }
        noted
    }

    async fn who(&self, digest: [u8; 32]) -> Result<Arc<Who>, Unknown> {
        let Known { answer, .. } = self.known_or_asked(digest);
        let asked = answer.get_or_try_init(|| self.ask(digest)).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(unknown) => {
                self.forget(&digest, &unknown);
                return Err(unknown);
            }
        };
        match answer.expires {
            Some(at) if at <= Instant::now() => Err(Unknown::Expired),
            _ => Ok(Arc::clone(&answer.who)),
        }
    }

    /// It is good for nothing; a database that is away says nothing about one that was good.
    fn forget(&self, digest: &[u8; 32], because: &Unknown) {
        let away = matches!(because, Unknown::Store(_));
        let mut all = self.known();
        if !all.get(digest).is_some_and(|known| away && known.proved) {
            all.remove(digest);
        }
    }

    /// What is remembered, if it is fresh; else a place for the answer, which one of those who wait for it gets.
    fn known_or_asked(&self, digest: [u8; 32]) -> Known {
        let told = *self.inner.bus.access_changed().borrow();
        let fresh = |known: &Known| known.told == told && known.asked.elapsed() < FRESH;
        let mut all = self.known();
        if let Some(known) = all.get(&digest).filter(|known| fresh(known)) {
            return known.clone();
        }
        let proved = all.get(&digest).is_some_and(Known::is_good);
        if all.len() >= REMEMBERED {
            all.retain(|_, known| fresh(known) && known.answer.initialized());
        }
        if all.len() >= REMEMBERED {
            all.clear();
        }
        let known = Known { asked: Instant::now(), told, proved, answer: Arc::default() };
        all.insert(digest, known.clone());
        known
    }

    async fn ask(&self, digest: [u8; 32]) -> Result<Answer, Unknown> {
        let asked = Instant::now();
        let bearer = self.inner.store.bearer(&digest).await?.ok_or(Unknown::Foreign)?;
        let expires = bearer.expires_in.map(|left| asked + left);
        Ok(Answer { who: Arc::new(Who::of(bearer)?), expires })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<TokenId, String>> {
        self.inner.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Who {
    /// Who shows a token of which this is known, if it counts.
    pub(super) fn of(bearer: Bearer) -> Result<Self, Unknown> {
        let Bearer { token, user, name, standing, expires_in: _, roles, scope, admins } = bearer;
        match standing {
            Standing::Good => {}
            Standing::Removed => return Err(Unknown::Foreign),
            Standing::Revoked => return Err(Unknown::Revoked),
            Standing::Expired => return Err(Unknown::Expired),
            Standing::UserLocked(reason) => return Err(Unknown::Locked { what: format!("user {name}"), reason }),
            Standing::TokenLocked(reason) => return Err(Unknown::Locked { what: "the token".to_owned(), reason }),
        }
        let owned = Grants::of(roles);
        let scoped = scope.is_some();
        let grants = scope.map_or_else(|| owned.clone(), |scope| owned.narrowed(&Grants::of(scope)));
        Ok(Self { user, name, token, owned, grants, scoped, admins })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sculpt_proto::id::UserId;

    use super::*;
    use crate::store::Database;

    fn answer() -> Answer {
        let who = Who {
            user: UserId::fresh(),
            name: "ben".to_owned(),
            token: TokenId::fresh(),
            owned: Grants::of([]),
            grants: Grants::of([]),
            scoped: false,
            admins: Vec::new(),
        };
        Answer { who: Arc::new(who), expires: None }
    }

    #[tokio::test]
    async fn who_was_let_in_is_remembered_while_asked_for_again() {
        let database = Database::at_socket(Path::new("/nowhere"), "nobody", "none");
        let authority = Authority::new(Store::new(&database, 1), Bus::new());
        let digest = [1; 32];
        authority.known_or_asked(digest);
        assert!(!authority.remembers(&digest), "nobody has said that it is good");
        authority.known_or_asked(digest).answer.set(answer()).expect("it is the first");
        assert!(authority.remembers(&digest));

        authority.known().get_mut(&digest).expect("it is there").asked -= FRESH;
        for _ in 0..2 {
            let again = authority.known_or_asked(digest);
            assert!(!again.answer.initialized(), "what is not fresh is asked again");
            assert!(authority.remembers(&digest), "its owner is no stranger meanwhile");
        }
        let nobody_knows = StoreError::Unreadable { what: "users.name", value: String::new() };
        authority.forget(&digest, &Unknown::Store(nobody_knows));
        assert!(authority.remembers(&digest), "nor while the database cannot tell");
        authority.forget(&digest, &Unknown::Revoked);
        assert!(!authority.remembers(&digest));
    }

    #[test]
    fn what_is_open_ends_in_time_though_nobody_is_told() {
        assert!(2 * FRESH + Duration::from_secs(2) <= Duration::from_secs(10));
    }
}
