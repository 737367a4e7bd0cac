//! Whom the executor lets sit beside its attempts: who the controller says, as long as it says so.

use std::{collections::BTreeMap, time::Duration};

use russh::keys::ssh_key::{PublicKey, public::KeyData};
use sculpt_pairing::{Pass, Rights};
use sculpt_proto::id::{AttemptId, PairingId};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

/// How long a pairing may take to be told here that its certificate knows of already.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Beside which attempt.
    pub attempt: AttemptId,
    /// Name of the user.
    pub user: String,
    /// What they may do.
    pub rights: Rights,
    /// Until when they can come in; who is in stays until the pairing is taken back.
    pub until: Instant,
}

/// All of them, and whose signature shows that somebody is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestList {
    /// By pairing.
    pub guests: BTreeMap<PairingId, Guest>,
    /// The authorities for people.
    pub authorities: Vec<KeyData>,
}

/// Why somebody with a good certificate is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAGuest {
    /// Not told, or taken back.
    #[error("this pairing is not known here, or was taken back; ask for a new one")]
    Unknown,
    /// Told for something else than the certificate says.
    #[error("this pairing is for somebody or something else than the certificate says; ask for a new one")]
    Other,
    /// Its time is over.
    #[error("the time to begin sessions with this pairing is over; ask for a new one")]
    Over,
    /// No right is in both.
    #[error("nothing that the certificate allows is allowed any more; ask for a new one")]
    Powerless,
}

/// A line that is no public key.
#[derive(Debug, thiserror::Error)]
#[error("an authority for people is not a line as in `id_ed25519.pub`: {0}")]
pub struct NoAuthority(#[source] russh::keys::ssh_key::Error);

/// Reads authorities, one line each.
pub fn authorities<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<KeyData>, NoAuthority> {
    let read = |line| PublicKey::from_openssh(line).map(KeyData::from).map_err(NoAuthority);
    lines.into_iter().map(read).collect()
}

impl GuestList {
    /// What somebody with this pass may do who comes in at `now`.
    pub fn welcome(&self, pass: &Pass, now: Instant) -> Result<Rights, NotAGuest> {
        let guest = self.guests.get(&pass.pairing).ok_or(NotAGuest::Unknown)?;
        if guest.attempt != pass.attempt || guest.user != pass.user {
            return Err(NotAGuest::Other);
        }
        if now >= guest.until {
            return Err(NotAGuest::Over);
        }
        let rights = guest.rights.within(pass.rights);
        if rights == Rights::NONE { Err(NotAGuest::Powerless) } else { Ok(rights) }
    }

    /// Whether somebody who came in by this pass, and may do what is in its rights, may stay.
    pub fn stays(&self, pass: &Pass) -> bool {
        self.guests.get(&pass.pairing).is_some_and(|guest| {
            guest.attempt == pass.attempt && guest.user == pass.user && pass.rights.within(guest.rights) == pass.rights
        })
    }
}

/// Waits for the first list, which an executor that has just begun is told soon: until then everybody is a stranger.
pub(super) async fn first(list: &mut watch::Receiver<GuestList>) {
    // Without one they are strangers.
    let _untold = timeout(TOLD_WITHIN, list.wait_for(|list| !list.authorities.is_empty())).await;
}

/// What somebody with this pass may do. The certificate may be faster than the news of its pairing.
pub(super) async fn welcome(list: &mut watch::Receiver<GuestList>, pass: &Pass) -> Result<Rights, NotAGuest> {
    let deadline = Instant::now() + TOLD_WITHIN;
    loop {
        let answer = list.borrow_and_update().welcome(pass, Instant::now());
        if answer != Err(NotAGuest::Unknown) {
            return answer;
        }
        if !matches!(timeout_at(deadline, list.changed()).await, Ok(Ok(()))) {
            return answer;
        }
    }
}

/// Returns when the pairing was taken back, or something of what it allowed.
pub(super) async fn taken_back(list: &mut watch::Receiver<GuestList>, pass: &Pass) {
    if list.wait_for(|list| !list.stays(pass)).await.is_err() {
        // Nobody tells any more: the executor is ending, and ends its connections itself.
        std::future::pending::<()>().await;
    }
}

/// Returns when other authorities certify people than did last: those for hosts change with them. The first that are told are no
/// others.
pub(super) async fn other_authorities(list: &mut watch::Receiver<GuestList>) {
    let mut known = list.borrow_and_update().authorities.clone();
    while list.changed().await.is_ok() {
        let told = list.borrow_and_update().authorities.clone();
        if !known.is_empty() && told != known {
            return;
        }
        known = told;
    }
    // Nobody tells any more: the executor is ending.
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use russh::keys::ssh_key::{PrivateKey, private::Ed25519Keypair};
    use sculpt_pairing::{Profile, Right};

    use super::*;

    fn pass() -> Pass {
        Pass { pairing: PairingId::fresh(), attempt: AttemptId::fresh(), user: "ada".into(), rights: attach() }
    }

    fn attach() -> Rights {
        Profile::Attach.rights()
    }

    fn observe() -> Rights {
        Profile::Observe.rights()
    }

    fn guest(pass: &Pass) -> Guest {
        let until = Instant::now() + Duration::from_secs(60);
        Guest { attempt: pass.attempt, user: pass.user.clone(), rights: Profile::Workspace.rights(), until }
    }

    fn list(pass: &Pass, guest: Guest) -> GuestList {
        GuestList { guests: [(pass.pairing, guest)].into(), authorities: Vec::new() }
    }

    #[test]
    fn who_comes_in() {
        type Change = fn(&mut Guest);
        let table: [(&str, Change, Result<Rights, NotAGuest>); 6] = [
            ("as told", |_| {}, Ok(attach())),
            ("told less than certified", |guest| guest.rights = observe(), Ok(observe())),
            ("told something else", |guest| guest.rights = [Right::Shell].into_iter().collect(), {
                Err(NotAGuest::Powerless)
            }),
            ("told for another attempt", |guest| guest.attempt = AttemptId::fresh(), Err(NotAGuest::Other)),
            ("told for somebody else", |guest| guest.user = "bob".into(), Err(NotAGuest::Other)),
            ("too late", |guest| guest.until = Instant::now(), Err(NotAGuest::Over)),
        ];
        for (what, change, expected) in table {
            let pass = pass();
            let mut guest = guest(&pass);
            change(&mut guest);
            assert_eq!(list(&pass, guest).welcome(&pass, Instant::now()), expected, "{what}");
        }
        assert_eq!(GuestList::default().welcome(&pass(), Instant::now()), Err(NotAGuest::Unknown));
    }

    #[test]
    fn who_stays() {
        let pass = pass();
        let told = guest(&pass);
        assert!(list(&pass, told.clone()).stays(&pass));
        assert!(list(&pass, Guest { until: Instant::now(), ..told.clone() }).stays(&pass), "who is in is in");
        assert!(!list(&pass, Guest { rights: observe(), ..told.clone() }).stays(&pass), "something was taken back");
        assert!(!list(&pass, Guest { user: "bob".into(), ..told }).stays(&pass));
        assert!(!GuestList::default().stays(&pass), "all was");
    }

    #[tokio::test]
    async fn a_pairing_that_is_told_late_is_waited_for() {
        let pass = pass();
        let (tell, mut told) = watch::channel(GuestList::default());
        let late = list(&pass, guest(&pass));
        let telling = async {
            tokio::task::yield_now().await;
            tell.send_replace(late);
        };
        assert_eq!(tokio::join!(welcome(&mut told, &pass), telling).0, Ok(attach()));
    }

    #[tokio::test]
    async fn what_is_taken_back_is_noticed() {
        let pass = pass();
        let (tell, mut told) = watch::channel(list(&pass, guest(&pass)));
        let taking = async {
            tokio::task::yield_now().await;
            tell.send_replace(GuestList::default());
        };
        tokio::join!(taken_back(&mut told, &pass), taking);
    }

    #[tokio::test]
    async fn other_authorities_are_noticed_and_the_first_are_no_others() {
        let line = |seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])).public_key().key_data().clone();
        let of = |seed| GuestList { authorities: vec![line(seed)], ..GuestList::default() };
        let (tell, mut told) = watch::channel(GuestList::default());
        let mut noticed = std::pin::pin!(other_authorities(&mut told));
        for same in [of(1), of(1)] {
            tell.send_replace(same);
            assert!(poll!(&mut noticed).is_pending());
        }
        tell.send_replace(of(2));
        assert!(poll!(&mut noticed).is_ready());
    }

    #[test]
    fn authorities_are_lines() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB4IX8FOaJTaOrVDVdbSVLQBFJlbDYEDcgnsU4j2ZpeM people";
        assert_eq!(authorities([line, line]).unwrap().len(), 2);
        assert!(authorities([line, "ssh-ed25519 AAAA"]).is_err());
    }
}
