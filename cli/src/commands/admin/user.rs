//! `sculpt admin user`.

use clap::Subcommand;
use sculpt_proto::v1::{
    AddUserRequest, Executor, GrantRoleRequest, ListExecutorsRequest, ListUsersRequest, RemoveUserRequest,
    RevokeRoleRequest, User,
};
use uuid::Uuid;

use crate::{
    args::value::{self, Binding},
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean,
        identity::{UserJson, roles},
        json, line, note,
        table::Grid,
        time::age,
    },
};

#[derive(Subcommand)]
pub(crate) enum UserVerb {
    /// List users
    Ls,
    /// Add a user; they sign in with a token that `sculpt token create --user NAME` makes
    Add {
        /// Lower-case letters, digits and . _ @ + -
        #[arg(value_parser = value::named)]
        name: String,
        /// Shown with their commits
        #[arg(long, default_value = "")]
        email: String,
        /// viewer, operator, driver, shell, forwarder, pair, maintainer or admin, everywhere or @PROJECT; may be repeated
        #[arg(long = "role", value_name = "ROLE[@PROJECT]", value_parser = value::binding)]
        roles: Vec<Binding>,
    },
    /// Remove a user, their tokens and open streams; what they did keeps their name
    Rm {
        /// Who
        #[arg(value_parser = value::named)]
        name: String,
    },
    /// Give a user a role
    Grant {
        /// To whom
        #[arg(value_parser = value::named)]
        name: String,
        /// viewer, operator, driver, shell, forwarder, pair, maintainer or admin, everywhere or @PROJECT
        #[arg(value_name = "ROLE[@PROJECT]", value_parser = value::binding)]
        role: Binding,
    },
    /// Take a role from a user
    Revoke {
        /// From whom
        #[arg(value_parser = value::named)]
        name: String,
        /// As `sculpt admin user ls` shows it
        #[arg(value_name = "ROLE[@PROJECT]", value_parser = value::binding)]
        role: Binding,
    },
}

pub(super) async fn run(verb: UserVerb, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let request_id = Uuid::new_v4().to_string();
    match verb {
        UserVerb::Ls => ls(&client, format).await,
        UserVerb::Add { name, email, roles } => {
            let reaching = roles.iter().find(|role| role.is_as_good_as_the_agent()).cloned();
            let roles = roles.into_iter().map(Into::into).collect();
            let request = AddUserRequest { request_id, name: name.clone(), email, roles };
            let attempted = format!("add user {name}");
            let answer = client.change(&attempted, async || client.identity().add_user(request.clone()).await).await?;
            said(answer.user, &format!("added user {}", clean(&name)), format)?;
            if format == Format::Text {
                note(format!("`sculpt token create --user {name}` makes a token for them"));
            }
            tell_reach(&client, reaching.as_ref()).await;
            Ok(Exit::Done)
        }
        UserVerb::Rm { name } => {
            let request = RemoveUserRequest { request_id, name: name.clone() };
            let attempted = format!("remove user {name}");
            let answer =
                client.change(&attempted, async || client.identity().remove_user(request.clone()).await).await?;
            said(answer.user, &format!("removed user {}", clean(&name)), format)
        }
        UserVerb::Grant { name, role } => {
            let attempted = format!("make {name} {role}");
            let request = GrantRoleRequest { request_id, user: name.clone(), role: Some(role.clone().into()) };
            let answer =
                client.change(&attempted, async || client.identity().grant_role(request.clone()).await).await?;
            said(answer.user, &format!("{} is {role}", clean(&name)), format)?;
            tell_reach(&client, Some(&role).filter(|role| role.is_as_good_as_the_agent())).await;
            Ok(Exit::Done)
        }
        UserVerb::Revoke { name, role } => {
            let attempted = format!("take {role} from {name}");
            let request = RevokeRoleRequest { request_id, user: name.clone(), role: Some(role.clone().into()) };
            let answer =
                client.change(&attempted, async || client.identity().revoke_role(request.clone()).await).await?;
            // It may never have been theirs, or be theirs elsewhere still.
            let left = answer.user.as_ref().map_or(String::new(), |user| roles(&user.roles));
            let left = if left.is_empty() { "no role".to_owned() } else { clean(&left) };
            said(answer.user, &format!("{} is not {role}, and has {left}", clean(&name)), format)
        }
    }
}

/// Tells who gives such a role what it is worth now. What cannot be looked at is not told: the role is given.
async fn tell_reach(client: &Client, role: Option<&Binding>) {
    let Some(role) = role else { return };
    let list = client.read("list executors", client.executors().list_executors(ListExecutorsRequest {})).await;
    list.map(|list| reach(role, &list.executors)).unwrap_or_default().iter().for_each(note);
}

/// PURE: where somebody of this role may do more than in an agent's workspace.
fn reach(role: &Binding, executors: &[Executor]) -> Vec<String> {
    let open = executors.iter().filter(|executor| !executor.separates && !executor.locked);
    let words = |executor: &Executor| {
        let whose = if executor.owner.is_empty() { String::new() } else { format!(" (they are {}'s)", executor.owner) };
        format!(
            "{role} is worth the account of executor {} itself: it does not keep agents apart, and who works beside those that it runs{whose} works as that \
             account",
            executor.name
        )
    };
    open.map(|executor| clean(&words(executor))).collect()
}

async fn ls(client: &Client, format: Format) -> Result<Exit, Failure> {
    let users = client.read("list users", client.identity().list_users(ListUsersRequest {})).await?.users;
    match format {
        Format::Json => json(&users.iter().map(UserJson::from).collect::<Vec<_>>())?,
        Format::Text => {
            let mut grid = Grid::new(&["NAME", "ROLES*", "LOCKED-", "EMAIL-", "AGE"]);
            for user in &users {
                grid.row([
                    user.name.clone(),
                    roles(&user.roles),
                    user.locked.clone(),
                    user.email.clone(),
                    age(user.created_at.as_ref()),
                ]);
            }
            line(grid.render())?;
        }
    }
    Ok(Exit::Done)
}

fn said(user: Option<User>, text: &str, format: Format) -> Result<Exit, Failure> {
    match (format, &user) {
        (Format::Json, Some(user)) => json(&UserJson::from(user))?,
        _ => line(text)?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_worth_an_account_where_agents_are_not_kept_apart() {
        let executor = |name: &str, separates, locked| Executor {
            name: name.into(),
            separates,
            locked,
            owner: "root".into(),
            ..Executor::default()
        };
        let executors = [executor("apart", true, false), executor("vm", false, false), executor("locked", false, true)];
        let role = value::binding("shell@web").unwrap();
        let told = reach(&role, &executors);
        assert!(told.len() == 1 && told[0].starts_with("shell@web is worth the account of executor vm"), "{told:?}");
        for (role, told) in
            [("pair", true), ("driver", true), ("viewer", false), ("forwarder", false), ("admin", false)]
        {
            assert_eq!(value::binding(role).unwrap().is_as_good_as_the_agent(), told, "{role}");
        }
    }
}
