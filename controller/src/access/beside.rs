//! What somebody may beside an agent: which of a person's rights in a project are rights beside its agents, and who still
//! has those that a pairing was opened with.

use std::collections::HashMap;

use sculpt_core::rights;
use sculpt_pairing::{Profile, Right, Rights};
use sculpt_proto::id::{ProjectId, TokenId, UserId};
use tonic::Status;

use super::{Caller, Denied, Drive, Forward, Merge, On, Read, Shell, caller::Who};
use crate::store::{bearers::Bearer, tasks::Located};

/// The caller may sit beside a task's agent, and do this there.
#[derive(Clone, Debug)]
pub struct Beside {
    sees: On<Read>,
    rights: Rights,
}

/// The caller may take a pairing back that is beside this task.
#[derive(Clone, Debug)]
pub struct Closing {
    by: Caller,
}

/// Why somebody may not sit where they wish.
#[derive(Debug, thiserror::Error)]
pub enum NotBeside {
    /// They may not even look on.
    #[error(transparent)]
    Observe(Denied),
    /// They may look on, and wish to type.
    #[error("{0}; `sculpt pair --read-only` looks on without it")]
    Drive(Denied),
    /// They may not work there.
    #[error("{0}; `sculpt pair --read-only` looks on without it")]
    Work(Denied),
}

impl From<NotBeside> for Status {
    fn from(error: NotBeside) -> Self {
        Self::permission_denied(error.to_string())
    }
}

/// Which rights beside an agent come with those in its project.
pub(crate) fn beside(rights: rights::Rights) -> Rights {
    let of_project = |right| match right {
        Right::Observe => rights::Right::Read,
        Right::Drive => rights::Right::Drive,
        Right::Shell => rights::Right::Shell,
        Right::Forward => rights::Right::Forward,
    };
    Right::ALL.into_iter().filter(|right| rights.has(of_project(*right))).collect()
}

impl Caller {
    /// The proof that they may sit beside the agent of `task` for what `profile` is about. To work there is to do whatever
    /// of it they may.
    pub fn beside(&self, task: &Located, profile: Profile) -> Result<Beside, NotBeside> {
        let sees = self.on::<Read>(task).map_err(NotBeside::Observe)?;
        match profile {
            Profile::Observe => {}
            Profile::Attach => {
                self.on::<Drive>(task).map_err(NotBeside::Drive)?;
            }
            Profile::Workspace => {
                // Whoever may do either has a use for it; who may do neither is told of the one that most come for.
                if let (Err(denied), Err(_)) = (self.on::<Shell>(task), self.on::<Forward>(task)) {
                    return Err(NotBeside::Work(denied));
                }
            }
        }
        Ok(Beside { sees, rights: beside(self.rights_on(task)).within(profile.rights()) })
    }

    /// The proof that they may take a pairing of `owner` back that is beside `task`: one's own always, others' by who tends
    /// the project.
    pub fn closing(&self, task: &Located, owner: UserId) -> Result<Closing, Denied> {
        if owner != self.user() {
            self.on::<Merge>(task)?;
        }
        Ok(Closing { by: self.clone() })
    }
}

impl Beside {
    /// To which task.
    pub fn sees(&self) -> &On<Read> {
        &self.sees
    }

    /// What they may do there.
    pub fn rights(&self) -> Rights {
        self.rights
    }
}

impl Closing {
    /// Who.
    pub fn caller(&self) -> &Caller {
        &self.by
    }
}

/// Who holds pairings, as far as their tokens still count.
#[derive(Debug)]
pub(crate) struct Holders(HashMap<TokenId, Who>);

impl Holders {
    /// Those of `bearers` that count.
    pub(crate) fn of(bearers: impl IntoIterator<Item = Bearer>) -> Self {
        let counting = bearers.into_iter().filter_map(|bearer| Some((bearer.token, Who::of(bearer).ok()?)));
        Self(counting.collect())
    }

    /// What who shows `token` may now beside an agent that works for `creator`, in `project`.
    pub(crate) fn rights(&self, token: TokenId, project: Option<ProjectId>, creator: &str) -> Rights {
        self.0.get(&token).map(|who| beside(who.rights_on(&who.grants, project, creator))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use sculpt_core::rights::Role;

    use super::*;
    use crate::store::bearers::Standing;

    fn rights(text: &str) -> Rights {
        text.parse().expect("rights")
    }

    #[test]
    fn each_role_and_what_it_may_beside_an_agent() {
        for (role, may) in [
            (Role::Viewer, "observe"),
            (Role::Operator, "observe"),
            (Role::Driver, "observe,drive"),
            (Role::Shell, "observe,shell"),
            (Role::Forwarder, "observe,forward"),
            (Role::Pair, "observe,drive,shell,forward"),
            (Role::Maintainer, "observe,drive,shell,forward"),
            (Role::Admin, "observe,drive,shell,forward"),
        ] {
            assert_eq!(beside(role.rights()), rights(may), "{role}");
        }
        assert_eq!(beside(rights::Rights::NONE), Rights::NONE);
    }

    #[test]
    fn who_holds_a_pairing_has_what_their_token_gives_now() {
        let (web, ops) = (ProjectId::fresh(), ProjectId::fresh());
        let (pair, driver, viewer) = ((Some(web), Role::Pair), (Some(web), Role::Driver), (Some(web), Role::Viewer));
        let bearer = |standing, roles: &[(Option<ProjectId>, Role)], scope: Option<(Option<ProjectId>, Role)>| Bearer {
            token: TokenId::fresh(),
            user: UserId::fresh(),
            name: "ben".to_owned(),
            standing,
            expires_in: None,
            roles: roles.to_vec(),
            scope: scope.map(|scope| vec![scope]),
            admins: Vec::new(),
        };
        let everywhere = (None, Role::Driver);
        for (bearer, project, creator, may) in [
            (bearer(Standing::Good, &[pair], None), Some(web), "eve", "observe,drive,shell,forward"),
            (bearer(Standing::Good, &[pair], None), Some(ops), "ben", ""),
            (bearer(Standing::Good, &[pair], Some(driver)), Some(web), "eve", "observe,drive"),
            (bearer(Standing::Good, &[viewer, driver], None), Some(web), "eve", "observe,drive"),
            (bearer(Standing::Good, &[], None), Some(web), "ben", ""),
            // Without a project it is its maker's.
            (bearer(Standing::Good, &[everywhere], None), None, "ben", "observe,drive"),
            (bearer(Standing::Good, &[everywhere], None), None, "eve", ""),
            (bearer(Standing::Revoked, &[pair], None), Some(web), "eve", ""),
            (bearer(Standing::Removed, &[pair], None), Some(web), "eve", ""),
            (bearer(Standing::Expired, &[pair], None), Some(web), "eve", ""),
            (bearer(Standing::UserLocked(String::new()), &[pair], None), Some(web), "eve", ""),
            (bearer(Standing::TokenLocked(String::new()), &[pair], None), Some(web), "eve", ""),
        ] {
            let (token, shown) = (bearer.token, format!("{bearer:?} in {project:?} of {creator}"));
            let said = Holders::of([bearer]).rights(token, project, creator);
            let may = if may.is_empty() { Rights::NONE } else { rights(may) };
            assert_eq!(said, may, "{shown}");
        }
        assert_eq!(Holders::of([]).rights(TokenId::fresh(), Some(web), "ben"), Rights::NONE);
    }
}
