//! `sculpt-controller admin`: who has the controller's host can always become an admin.

use clap::{Args, Subcommand};

use super::{CommandError, Reached, Told, of_this_account};
use crate::{
    access::{self, user_name},
    app::account,
    config::PlaceArgs,
    pki::Authority,
};

/// Becoming an admin.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    verb: AdminVerb,
}

/// What is done.
#[derive(Debug, Subcommand)]
enum AdminVerb {
    /// Make an admin's token anew, when the last one was lost; prints it, once
    ///
    /// The user is made if there is none of the name, is admin of everything and not locked any more; whatever tokens they
    /// had are revoked. It stands in the audit record as done by the host. The controller may run meanwhile.
    Reset {
        /// Who [default: the account that runs this; their token is also kept in tokens/user in the data directory]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

impl AdminArgs {
    /// Does what was asked; returns what there is to tell.
    pub async fn run(self) -> Result<Told, CommandError> {
        let place = self.place.resolve()?;
        of_this_account(&place)?;
        let AdminVerb::Reset { user } = self.verb;
        if !Authority::exists(&place.authority) {
            return Err(CommandError::None(place.authority));
        }
        let pin = Authority::open(&place.authority)?.pin();
        let kept = place.data_dir.join("tokens/user");
        let (name, path) = match user {
            Some(name) => (name, None),
            None => (user_name(&account()), Some(kept.as_path())),
        };
        let reached = Reached::at(&place).await?;
        let reset = access::reset_admin(&reached.store, path, pin, &name).await;
        reached.leave().await;
        let token = reset?;
        let kept = path.map_or_else(String::new, |path| format!(" It is kept in {}.", path.display()));
        let note = format!(
            "{name} is an admin by this token alone; it is not shown again.{kept} `sculpt login URL` takes it from stdin. A \
             controller that runs knows it at once, and lets go of the tokens before it within seconds."
        );
        Ok(Told { answer: token.reveal(), note })
    }
}
