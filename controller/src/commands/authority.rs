//! `sculpt-controller authority`: who is trusted, and how another takes over.

use clap::Subcommand;
use sculpt_tls::Pin;

use super::{CommandError, Reached, Told, of_this_account};
use crate::{
    config::{Place, PlaceArgs},
    pki::{Authority, Phase, SshAuthorities},
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
    /// Executors and people's tools learn of it by themselves, executors with the next renewal of their certificates: wait
    /// for a day before it is activated.
    Prepare,
    /// Let the next authority certify; the one before stays trusted
    Activate,
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
            AuthorityVerb::Activate => Authority::activate(directory)?,
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

/// Whether every executor can do without the authority `previous`.
async fn nobody_needs(place: &Place, previous: Pin) -> Result<(), CommandError> {
    let needed = async {
        let reached = Reached::at(place).await?;
        let found = reached.store.certified_by(previous.bytes()).await;
        reached.leave().await;
        Ok::<_, CommandError>(found?)
    };
    let needed = needed.await.map_err(|error| CommandError::Unseen(Box::new(error)))?;
    if needed.is_empty() {
        return Ok(());
    }
    let mut names = needed[..needed.len().min(NAMED)].join(", ");
    if needed.len() > NAMED {
        names = format!("{names} and {} more", needed.len() - NAMED);
    }
    Err(CommandError::Needed(names))
}

fn told(authority: &Authority, ssh: Option<&SshAuthorities>) -> Told {
    let (second, next) = match authority.phase() {
        Phase::Steady => ("", "nothing is being changed; `prepare` begins"),
        Phase::Prepared => ("next", "wait until everybody has learnt of the next one, then `activate`"),
        Phase::Activated => ("previous", "wait until all certificates of the previous one have run out, then `retire`"),
    };
    let pins = authority.trust().pins().enumerate();
    let mut lines: Vec<String> =
        pins.map(|(at, pin)| format!("{:<9} {pin}", if at == 0 { "certifies" } else { second })).collect();
    lines.extend(ssh.into_iter().flat_map(SshAuthorities::public).map(|(whose, key)| format!("{whose:<9} {key}")));
    Told { answer: lines.join("\n"), note: next.to_owned() }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        config::{Cli, Command},
        pki::AuthorityError,
    };

    async fn run(directory: &std::path::Path, verb: &[&str]) -> Result<Told, CommandError> {
        let directory = directory.display().to_string();
        let place = ["--authority-dir", &directory, "--data-dir", &directory];
        let arguments = ["sculpt-controller", "authority"].iter().chain(verb).chain(&place);
        match Cli::try_parse_from(arguments).expect("arguments are right").command {
            Command::Authority(arguments) => arguments.run().await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_change_is_told_step_by_step() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let error = run(path, &["show"]).await.expect_err("there is none").to_string();
        assert!(error.contains("makes it at its first start"), "{error}");
        Authority::open(path).expect("it is made");
        assert_eq!(run(path, &["show"]).await.expect("it is shown").answer.lines().count(), 1);
        SshAuthorities::open(path).expect("they are made");
        for (verb, lines, next) in [
            (&["show"][..], 1, "prepare"),
            (&["prepare"], 2, "activate"),
            (&["activate"], 2, "retire"),
            (&["retire", "--force"], 1, "prepare"),
        ] {
            let said = run(path, verb).await.expect("it is done");
            let ssh = said.answer.lines().filter(|line| line.contains(" ssh-ed25519 ")).count();
            assert_eq!((said.answer.lines().count(), ssh), (lines + 2, 2), "{said:?}");
            assert!(said.note.contains(next), "{said:?}");
        }
        let again = run(path, &["retire"]).await;
        assert!(matches!(again, Err(CommandError::Authority(AuthorityError::Order(_)))), "{again:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_asked_for_is_not_retired() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        Authority::open(path).expect("it is made");
        run(path, &["prepare"]).await.expect("it is prepared");
        run(path, &["activate"]).await.expect("it is activated");
        let error = run(path, &["retire"]).await.expect_err("there is no database").to_string();
        assert!(error.contains("there is no database in") && error.contains("--force"), "{error}");
        assert_eq!(Authority::open(path).expect("it is there").phase(), Phase::Activated, "nothing has happened");
    }
}
