//! Who calls, and what they may.

use std::sync::Arc;

use sculpt_core::rights::{Grants, Right, Rights};
use sculpt_proto::id::{ProjectId, TokenId, UserId};

use super::{Denied, In, May, Need, On, Sees, Unknown, Whose, denied::Place, proof::Loose};
use crate::store::{audit::By, bearers::Bearer, projects::Project, tasks::Located};

/// Who calls, by which token and from where. Made by [`Authority`](super::Authority) alone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    who: Arc<Who>,
    address: Arc<str>,
}

/// Who shows a token.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) user: UserId,
    pub(super) name: String,
    pub(super) token: TokenId,
    /// All that the user may.
    pub(super) owned: Grants<ProjectId>,
    /// What is left of it in the token's scope.
    pub(super) grants: Grants<ProjectId>,
    /// Whether the token has a scope.
    pub(super) scoped: bool,
    /// Who can give rights.
    pub(super) admins: Vec<String>,
}

impl Who {
    /// What of `grants` concerns a task that `creator` made in `project`.
    pub(super) fn rights_on(&self, grants: &Grants<ProjectId>, project: Option<ProjectId>, creator: &str) -> Rights {
        match project {
            Some(project) => grants.in_project(&project),
            None if self.name == creator || grants.everywhere().has(Right::Administer) => {
                grants.everywhere() & Rights::of_project()
            }
            None => Rights::NONE,
        }
    }
}

impl Caller {
    pub(super) fn new(who: Arc<Who>, address: &str) -> Self {
        Self { who, address: address.into() }
    }

    /// Their name.
    pub fn name(&self) -> &str {
        &self.who.name
    }

    /// Who.
    pub fn user(&self) -> UserId {
        self.who.user
    }

    /// By which token.
    pub fn token(&self) -> TokenId {
        self.who.token
    }

    /// Whether the token lets them do less than they may.
    pub fn is_limited(&self) -> bool {
        self.who.scoped
    }

    /// What they may now.
    pub fn grants(&self) -> &Grants<ProjectId> {
        &self.who.grants
    }

    /// Refuses them unless they may all that they might when they called, by what is known `now` of their token.
    pub(crate) fn still(&self, now: Option<Bearer>) -> Result<(), Unknown> {
        let now = Who::of(now.ok_or(Unknown::Foreign)?)?;
        if now.grants.cover(self.grants()) { Ok(()) } else { Err(Unknown::Changed) }
    }

    /// For the record.
    pub fn by(&self) -> By {
        By::user(self.name(), self.token(), &self.address)
    }

    /// What they see.
    pub fn sees(&self) -> Sees {
        let everywhere = self.who.grants.everywhere();
        let loose = if everywhere.has(Right::Administer) {
            Loose::All
        } else if everywhere.has(Right::Read) {
            Loose::Of(self.who.name.clone())
        } else {
            Loose::None
        };
        Sees::new(self.who.grants.visible(), loose)
    }

    /// The proof that they may do this to the controller and in all projects.
    pub fn may<R: Need>(&self) -> Result<May<R>, Denied> {
        let (has, owns) = (self.who.grants.everywhere(), self.who.owned.everywhere());
        self.check(R::RIGHT, has, owns, || Place::Controller)?;
        Ok(May::new(self.clone()))
    }

    /// The proof that they may do this in `project`.
    pub fn within<R: Need>(&self, project: &Project) -> Result<In<R>, Denied> {
        let id = project.id();
        let (has, owns) = (self.who.grants.in_project(&id), self.who.owned.in_project(&id));
        self.check(R::RIGHT, has, owns, || Place::Project(project.name.clone()))?;
        Ok(In::new(id, self.clone()))
    }

    /// The proof that they may do this to `task`.
    pub fn on<R: Need>(&self, task: &Located) -> Result<On<R>, Denied> {
        let place = || match task.project() {
            Some((_, name)) => Place::Project(name.to_owned()),
            None => Place::Controller,
        };
        let owned = self.who.rights_on(&self.who.owned, task.project().map(|(id, _)| id), task.creator());
        self.check(R::RIGHT, self.rights_on(task), owned, place)?;
        Ok(On::new(task.id(), task.project().map(|(id, _)| id), self.clone()))
    }

    /// What they may do to `task`.
    pub(super) fn rights_on(&self, task: &Located) -> Rights {
        self.who.rights_on(&self.who.grants, task.project().map(|(id, _)| id), task.creator())
    }

    /// Whether there is any place where they may do this.
    pub(super) fn somewhere(&self, right: Right) -> Result<(), Denied> {
        let one = |may: bool| if may { [right].into_iter().collect() } else { Rights::NONE };
        let (has, owns) = (self.who.grants.somewhere(right), self.who.owned.somewhere(right));
        self.check(right, one(has), one(owns), || Place::Anywhere)
    }

    /// Whether they may do this to the controller.
    pub(super) fn everywhere(&self, right: Right) -> Result<(), Denied> {
        self.check(right, self.who.grants.everywhere(), self.who.owned.everywhere(), || Place::Controller)
    }

    /// The proof that they may look after their own tokens.
    pub fn own(&self) -> Whose {
        Whose::own(self.clone())
    }

    fn check(&self, right: Right, has: Rights, owns: Rights, place: impl Fn() -> Place) -> Result<(), Denied> {
        if has.has(right) {
            return Ok(());
        }
        let (who, admins) = (self.who.name.clone(), self.who.admins.clone());
        Err(Denied { who, right, place: place(), by_token: owns.has(right), admins })
    }
}

#[cfg(test)]
mod tests {
    use sculpt_core::rights::Role;

    use super::*;
    use crate::store::bearers::Standing;

    fn bearer(roles: Vec<(Option<ProjectId>, Role)>, scope: Option<Vec<(Option<ProjectId>, Role)>>) -> Bearer {
        Bearer {
            token: TokenId::fresh(),
            user: UserId::fresh(),
            name: "ben".to_owned(),
            standing: Standing::Good,
            expires_in: None,
            roles,
            scope,
            admins: Vec::new(),
        }
    }

    #[test]
    fn who_has_lost_a_right_since_they_called_is_refused() {
        let web = ProjectId::fresh();
        let (admin, operator, viewer) = ((None, Role::Admin), (Some(web), Role::Operator), (Some(web), Role::Viewer));
        let good = || bearer(vec![admin, operator], None);
        let stands = |standing| Some(Bearer { standing, ..good() });
        let may = |roles| Some(bearer(roles, None));
        let locked = || "lost laptop".to_owned();
        for (now, said) in [
            (Some(good()), None),
            (may(vec![admin]), None),
            (may(vec![admin, operator, (None, Role::Viewer)]), None),
            (None, Some("not one of this controller")),
            (stands(Standing::Removed), Some("its user was removed")),
            (stands(Standing::Revoked), Some("was revoked")),
            (stands(Standing::Expired), Some("has expired")),
            (stands(Standing::UserLocked(locked())), Some("user ben is locked (lost laptop)")),
            (stands(Standing::TokenLocked(locked())), Some("the token is locked (lost laptop)")),
            (may(vec![operator]), Some("has changed")),
            (may(vec![]), Some("has changed")),
            (Some(bearer(vec![admin, operator], Some(vec![viewer]))), Some("has changed")),
        ] {
            let caller = Caller::new(Arc::new(Who::of(good()).expect("it counts")), "192.0.2.1");
            let shown = format!("{now:?}");
            match (caller.still(now), said) {
                (Ok(()), None) => {}
                (Err(error), Some(said)) if error.to_string().contains(said) => {}
                other => panic!("{other:?} for {shown}"),
            }
        }
    }
}
