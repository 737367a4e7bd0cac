//! `sculpt admin`.

mod user;

use clap::Subcommand;

use crate::{exit::Exit, failure::Failure, output::Format};

#[derive(Subcommand)]
pub(crate) enum AdminVerb {
    /// Users and their roles
    #[command(subcommand)]
    User(user::UserVerb),
}

pub(super) async fn run(verb: AdminVerb, format: Format) -> Result<Exit, Failure> {
    match verb {
        AdminVerb::User(verb) => user::run(verb, format).await,
    }
}
