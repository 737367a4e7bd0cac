//! What is said to who may not do what they asked for.

use std::fmt;

use sculpt_core::rights::{Right, Role};
use tonic::Status;

/// A right that is lacking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub(super) who: String,
    pub(super) right: Right,
    pub(super) place: Place,
    /// They have it, and the token takes it away.
    pub(super) by_token: bool,
    /// Who can give it.
    pub(super) admins: Vec<String>,
}

/// Where a right is lacking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Project(String),
    Controller,
    Anywhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(name) => write!(f, "in project {name}"),
            Self::Controller => f.write_str("for the whole controller"),
            Self::Anywhere => f.write_str("in any project"),
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, right, place, by_token, admins } = self;
        let right = (*right, right.as_str());
        if *by_token {
            return write!(
                f,
                "this token is limited and does not let {who} {} {place}; use one of theirs that does",
                right.1
            );
        }
        let role = Role::with(right.0);
        let article = if matches!(role, Role::Operator | Role::Admin) { "an" } else { "a" };
        write!(f, "{who} may not {} {place}: that takes the role of {article} {role} there. ", right.1)?;
        match admins.as_slice() {
            [] => f.write_str("Ask an admin of this controller for it"),
            names => write!(f, "Ask {} for it", names.join(" or ")),
        }
    }
}

impl std::error::Error for Denied {}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        Self::permission_denied(denied.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_lacking_and_whom_to_ask() {
        let denied = |place, by_token| Denied {
            who: "ben".into(),
            right: Right::Create,
            place,
            by_token,
            admins: vec!["ada".into(), "eve".into()],
        };
        assert_eq!(
            denied(Place::Project("web".into()), false).to_string(),
            "ben may not create tasks in project web: that takes the role of an operator there. Ask ada or eve for it"
        );
        assert_eq!(
            denied(Place::Controller, true).to_string(),
            "this token is limited and does not let ben create tasks for the whole controller; use one of theirs that does"
        );
    }
}
