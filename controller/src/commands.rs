//! What the program does besides serving; for its host's administrator.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{
    config::{ConfigError, data_dir},
    pki::{Authority, AuthorityError, Phase},
};

/// The authority that certifies the controller and its executors.
#[derive(Debug, Subcommand)]
pub enum AuthorityVerb {
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
    Retire,
}

/// Where the authority stands.
#[derive(Debug, clap::Args)]
pub struct AuthorityArgs {
    /// Directory of the authorities [default: authority in the data directory]
    #[arg(long, value_name = "DIR", env = "SCULPT_CONTROLLER_AUTHORITY_DIR", global = true)]
    authority_dir: Option<PathBuf>,
    /// Data directory of the controller
    #[arg(long, env = "SCULPT_CONTROLLER_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: AuthorityVerb,
}

/// Why the authority was not changed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Where it stands.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A command that changes nothing makes nothing either.
    #[error("there is no authority in {}; the controller makes it at its first start", .0.display())]
    None(PathBuf),
    /// What is there.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl AuthorityArgs {
    /// Does what was asked; returns what there is to tell. A controller that runs sees the change within seconds.
    pub fn run(self) -> Result<String, CommandError> {
        let directory = match self.authority_dir {
            Some(directory) => directory,
            None => data_dir(self.data_dir)?.join("authority"),
        };
        if !Authority::files(&directory)[0].exists() {
            return Err(CommandError::None(directory));
        }
        let authority = match self.verb {
            AuthorityVerb::Show => Authority::open(&directory)?,
            AuthorityVerb::Prepare => Authority::prepare(&directory)?,
            AuthorityVerb::Activate => Authority::activate(&directory)?,
            AuthorityVerb::Retire => Authority::retire(&directory)?,
        };
        Ok(told(&authority))
    }
}

fn told(authority: &Authority) -> String {
    let (second, next) = match authority.phase() {
        Phase::Steady => ("", "nothing is being changed; `prepare` begins"),
        Phase::Prepared => ("next", "wait until everybody has learnt of the next one, then `activate`"),
        Phase::Activated => ("previous", "wait until all certificates of the previous one have run out, then `retire`"),
    };
    let pins = authority.trust().pins().enumerate();
    let lines = pins.map(|(at, pin)| format!("{:<9} {pin}\n", if at == 0 { "certifies" } else { second }));
    format!("{}{next}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::{Cli, Command};

    fn run(directory: &std::path::Path, verb: &str) -> Result<String, CommandError> {
        let directory = directory.display().to_string();
        let cli = Cli::try_parse_from(["sculpt-controller", "authority", verb, "--authority-dir", &directory]);
        match cli.expect("arguments are right").command {
            Command::Authority(arguments) => arguments.run(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_change_is_told_step_by_step() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let error = run(path, "show").expect_err("there is none").to_string();
        assert!(error.contains("makes it at its first start"), "{error}");
        Authority::open(path).expect("it is made");
        for (verb, lines, next) in
            [("show", 1, "prepare"), ("prepare", 2, "activate"), ("activate", 2, "retire"), ("retire", 1, "prepare")]
        {
            let said = run(path, verb).expect(verb);
            assert!(said.lines().count() == lines + 1 && said.contains(next), "{said}");
        }
        assert!(matches!(run(path, "retire"), Err(CommandError::Authority(AuthorityError::Order(_)))));
    }
}
