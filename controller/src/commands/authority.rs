//! `sculpt-controller authority`: who is trusted, and how another takes over.

use std::time::SystemTime;

use clap::Subcommand;
use humantime::format_rfc3339_seconds;
use sculpt_tls::Pin;

use super::{CommandError, Reached, Told, of_this_account};
use crate::{
    config::{Place, PlaceArgs},
    pki::{Authority, LEAF_LIFE, Phase, SshAuthorities, VouchError},
    store::{Store, StoreError, Time, certificates::Untold},
};

/// Executors that are named before the rest is counted.
const NAMED: usize = 10;

/// The authority that certifies the controller and its executors.
#[derive(Debug, Subcommand)]
enum AuthorityVerb {
    /// Say who is trusted, and how far a change has come
    Show,
    /// Make the next authority, which is trusted from now on and certifies nothing yet
    ///
    /// Executors that are connected learn of it within a minute, others when they come back; people's tools when they are
    /// used next.
    Prepare,
    /// Let the next authority certify; the one before stays trusted
    ///
    /// Executors that are connected have a certificate of the new one within a minute. The one before vouches for it: tokens
    /// made before are believed until it is retired, also where the new one is not known yet.
    Activate {
        /// Also when the present one cannot vouch for the next one, and executors have not learnt of that yet or the database
        /// cannot be asked
        #[arg(long)]
        force: bool,
    },
    /// End the trust in the previous authority; who has nothing newer must join or sign in again
    Retire {
        /// Also when executors have nothing newer yet, or the database cannot be asked
        #[arg(long)]
        force: bool,
    },
}

/// Where the authority stands.
#[derive(Debug, clap::Args)]
pub struct AuthorityArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    verb: AuthorityVerb,
}

impl AuthorityArgs {
    /// Does what was asked; returns what there is to tell. A controller that runs sees the change within seconds.
    pub async fn run(self) -> Result<Told, CommandError> {
        let place = self.place.resolve()?;
        of_this_account(&place)?;
        let directory = &place.authority;
        if !Authority::exists(directory) {
            return Err(CommandError::None(place.authority));
        }
        let authority = match self.verb {
            AuthorityVerb::Show => Authority::open(directory)?,
            AuthorityVerb::Prepare => Authority::prepare(directory)?,
            AuthorityVerb::Activate { force } => {
                let present = Authority::open(directory)?;
                if let (Some(next), Err(why), false) = (present.next(), present.vouch(), force) {
                    everybody_knows(&place, next, why).await?;
                }
                Authority::activate(directory)?
            }
            AuthorityVerb::Retire { force } => {
                if let Some(previous) = Authority::open(directory)?.previous()
                    && !force
                {
                    nobody_needs(&place, previous).await?;
                }
                Authority::retire(directory)?
            }
        };
        // A command that changes nothing makes nothing either.
        let made = SshAuthorities::files(directory).iter().all(|file| file.exists());
        let ssh = made.then(|| SshAuthorities::open(directory)).transpose()?;
        Ok(told(&authority, ssh.as_ref()))
    }
}

/// Whether every executor knows the authority `next`, for which the present one cannot vouch.
async fn everybody_knows(place: &Place, next: Pin, why: VouchError) -> Result<(), CommandError> {
    let ask = async |store: &Store| store.untold_of(next.bytes()).await;
    let untold = asked(place, ask).await.map_err(|error| CommandError::Untellable(Box::new(error)))?;
    let renews = |executor: Untold| match (executor.connected, executor.certified_until) {
        (true, _) => format!("{} (connected: within a minute)", executor.name),
        (false, Some(until)) if renewal_of(until) > SystemTime::now() => {
            format!(
                "{} (if it comes back: at {} at the latest)",
                executor.name,
                format_rfc3339_seconds(renewal_of(until))
            )
        }
        (false, _) => format!("{} (when it comes back)", executor.name),
    };
    let names = named(untold.into_iter().map(renews).collect());
    names.map_or(Ok(()), |names| Err(CommandError::Untold { names, why }))
}

/// Whether every executor can do without the authority `previous`.
async fn nobody_needs(place: &Place, previous: Pin) -> Result<(), CommandError> {
    let ask = async |store: &Store| store.certified_by(previous.bytes()).await;
    let needed = asked(place, ask).await.map_err(|error| CommandError::Unseen(Box::new(error)))?;
    named(needed).map_or(Ok(()), |names| Err(CommandError::Needed(names)))
}

/// When a certificate that runs out at `until` is renewed by itself.
fn renewal_of(until: Time) -> SystemTime {
    SystemTime::from(until) - LEAF_LIFE / 3
}

async fn asked<T>(place: &Place, ask: impl AsyncFnOnce(&Store) -> Result<T, StoreError>) -> Result<T, CommandError> {
    let reached = Reached::at(place).await?;
    let answer = ask(&reached.store).await;
    reached.leave().await;
    Ok(answer?)
}

/// The first of `names`, and how many more there are; `None`: there are none.
fn named(names: Vec<String>) -> Option<String> {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().checked_sub(NAMED) {
        _ if names.is_empty() => None,
        None | Some(0) => Some(shown),
        Some(more) => Some(format!("{shown} and {more} more")),
    }
}

fn told(authority: &Authority, ssh: Option<&SshAuthorities>) -> Told {
    let (second, next) = match authority.phase() {
        Phase::Steady => ("", "nothing is being changed; `prepare` begins".to_owned()),
        Phase::Prepared => ("next", prepared(authority.vouch().err())),
        Phase::Activated => ("previous", activated(authority.is_vouched_for()).to_owned()),
    };
    let pins = authority.trust().pins().enumerate();
    let mut lines: Vec<String> =
        pins.map(|(at, pin)| format!("{:<9} {pin}", if at == 0 { "certifies" } else { second })).collect();
    lines.extend(ssh.into_iter().flat_map(SshAuthorities::public).map(|(whose, key)| format!("{whose:<9} {key}")));
    Told { answer: lines.join("\n"), note: next }
}

fn prepared(cannot_vouch: Option<VouchError>) -> String {
    match cannot_vouch {
        None => "`activate` lets the next one certify; the present one vouches for it until it is retired".to_owned(),
        Some(why) => format!(
            "`activate` when everybody has learnt of the next one; it names the executors that have not. The present one cannot \
             vouch for it: {why}. Tokens made before `activate` are good then only where they were used after `prepare`"
        ),
    }
}

const fn activated(vouched_for: bool) -> &'static str {
    if vouched_for {
        "`retire` when nobody needs the previous one; it names the executors that do. Tokens made before `activate` are \
         good then only where they were used since `prepare`"
    } else {
        "`retire` when nobody needs the previous one; it names the executors that do. The previous one does not vouch for \
         this one: tokens made before `activate` are good only where they were used since `prepare`"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_counted() {
        let names = |count: usize| (0..count).map(|number| number.to_string()).collect();
        assert_eq!(named(names(0)), None);
        assert_eq!(named(names(2)).as_deref(), Some("0, 1"));
        assert_eq!(named(names(NAMED)).as_deref(), Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9"));
        assert_eq!(named(names(NAMED + 2)).as_deref(), Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"));
    }
}
