//! Who may do what. People have roles, everywhere or in single projects; a role is a set of rights; a token narrows what
//! its owner may, and never widens it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{BitAnd, BitOr},
    str::FromStr,
};

/// One thing that somebody may do. The first seven are of a project, the last three of the whole controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Right {
    /// See a project, its tasks, logs, diffs and events; fetch from it, and look on at its agents' terminals.
    Read,
    /// Start tasks, and send the commits that they begin at.
    Create,
    /// Stop, retry, answer.
    Steer,
    /// Type into agents' terminals.
    Drive,
    /// Run programs in agents' workspaces, and copy files.
    Shell,
    /// Reach what agents' own processes listen on, and be reached by them.
    Forward,
    /// Merge what was made, and change or remove the project.
    Merge,
    /// Register projects.
    Found,
    /// Enrol, remove and tend executors.
    Fleet,
    /// Users, their roles, other people's tokens, locks; read what was done by whom.
    Administer,
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rights(u16);

/// What a person is to a project, or to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks on.
    Viewer,
    /// Starts tasks and steers them.
    Operator,
    /// Types into agents' terminals.
    Driver,
    /// Works in agents' workspaces.
    Shell,
    /// Reaches what agents' own processes listen on.
    Forwarder,
    /// Sits beside agents, with all that belongs to it.
    Pair,
    /// Does all that an operator does, sits beside agents, and merges.
    Maintainer,
    /// Does everything.
    Admin,
}

/// What is not the name of a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role; there are viewer, operator, driver, shell, forwarder, pair, maintainer and admin")]
pub struct UnknownRole(pub String);

/// What somebody may, in all projects and in single ones. `P` names a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants<P> {
    everywhere: Rights,
    projects: BTreeMap<P, Rights>,
}

/// Which projects somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visible<P> {
    /// All, also those to come.
    All,
    /// These.
    Only(BTreeSet<P>),
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Create,
        Self::Steer,
        Self::Drive,
        Self::Shell,
        Self::Forward,
        Self::Merge,
        Self::Found,
        Self::Fleet,
        Self::Administer,
    ];

    /// What a person is told that they lack.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create tasks",
            Self::Steer => "steer tasks",
            Self::Drive => "type into agents' terminals",
            Self::Shell => "work in agents' workspaces",
            Self::Forward => "reach what agents listen on",
            Self::Merge => "merge",
            Self::Found => "register projects",
            Self::Fleet => "tend executors",
            Self::Administer => "administer",
        }
    }

    /// Whether it can be had in one project alone.
    pub fn is_of_project(self) -> bool {
        !matches!(self, Self::Found | Self::Fleet | Self::Administer)
    }
}

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);

    /// Those that can be had in one project alone.
    pub fn of_project() -> Self {
        Right::ALL.into_iter().filter(|right| right.is_of_project()).collect()
    }

    /// Whether `right` is among them.
    pub fn has(self, right: Right) -> bool {
        self.0 & bit(right) != 0
    }

    /// Whether all of them are among `others`.
    pub fn within(self, others: Self) -> bool {
        self & others == self
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

fn bit(right: Right) -> u16 {
    1 << right as u8
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, |all, right| Self(all.0 | bit(right)))
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Rights {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Role {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 8] = [
        Self::Viewer,
        Self::Operator,
        Self::Driver,
        Self::Shell,
        Self::Forwarder,
        Self::Pair,
        Self::Maintainer,
        Self::Admin,
    ];

    /// What comes with it. Who may do anything in a project may see it.
    pub fn rights(self) -> Rights {
        use Right::{Create, Drive, Forward, Found, Merge, Read, Shell, Steer};
        match self {
            Self::Viewer => [Read].into_iter().collect(),
            Self::Operator => [Read, Create, Steer, Found].into_iter().collect(),
            Self::Driver => [Read, Drive].into_iter().collect(),
            Self::Shell => [Read, Shell].into_iter().collect(),
            Self::Forwarder => [Read, Forward].into_iter().collect(),
            Self::Pair => [Read, Drive, Shell, Forward].into_iter().collect(),
            Self::Maintainer => [Read, Create, Steer, Drive, Shell, Forward, Merge, Found].into_iter().collect(),
            Self::Admin => Right::ALL.into_iter().collect(),
        }
    }

    /// The least role that brings `right`.
    pub fn with(right: Right) -> Self {
        Self::ALL.into_iter().find(|role| role.rights().has(right)).unwrap_or(Self::Admin)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Driver => "driver",
            Self::Shell => "shell",
            Self::Forwarder => "forwarder",
            Self::Pair => "pair",
            Self::Maintainer => "maintainer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

impl<P: Ord + Clone> Grants<P> {
    /// What `roles` give; `None` is every project.
    pub fn of(roles: impl IntoIterator<Item = (Option<P>, Role)>) -> Self {
        let mut grants = Self { everywhere: Rights::NONE, projects: BTreeMap::new() };
        for (project, role) in roles {
            match project {
                None => grants.everywhere = grants.everywhere | role.rights(),
                // Of one project nobody rules the fleet.
                Some(project) => {
                    let rights = grants.projects.entry(project).or_default();
                    *rights = *rights | (role.rights() & Rights::of_project());
                }
            }
        }
        grants
    }

    /// What is left when only what `scope` gives as well is used.
    pub fn narrowed(&self, scope: &Self) -> Self {
        let everywhere = self.everywhere & scope.everywhere;
        let named: BTreeSet<&P> = self.projects.keys().chain(scope.projects.keys()).collect();
        let both = |project: &P| self.in_project(project) & scope.in_project(project);
        let projects = named.into_iter().map(|project| (project.clone(), both(project)));
        Self { everywhere, projects: projects.filter(|(_, rights)| *rights != Rights::NONE).collect() }
    }

    /// What somebody may in `project`.
    pub fn in_project(&self, project: &P) -> Rights {
        let single = self.projects.get(project).copied().unwrap_or_default();
        (self.everywhere | single) & Rights::of_project()
    }

    /// What somebody may in all projects, and to the controller itself.
    pub fn everywhere(&self) -> Rights {
        self.everywhere
    }

    /// Whether there is any place where somebody may do this.
    pub fn somewhere(&self, right: Right) -> bool {
        self.everywhere.has(right) || self.projects.values().any(|rights| rights.has(right))
    }

    /// Whether they give all that `others` give, wherever that is.
    pub fn cover(&self, others: &Self) -> bool {
        others.everywhere.within(self.everywhere)
            && others.projects.keys().all(|project| others.in_project(project).within(self.in_project(project)))
    }

    /// The fewest and least roles that give the same.
    pub fn roles(&self) -> Vec<(Option<P>, Role)> {
        let everywhere = fewest(self.everywhere, Role::rights).into_iter().map(|role| (None, role));
        let single = self.projects.iter().flat_map(|(project, rights)| {
            let gives = |role: Role| role.rights() & Rights::of_project();
            // What is had everywhere is not said of each project again.
            let more = fewest(*rights, gives).into_iter().filter(move |role| !gives(*role).within(self.everywhere));
            more.map(|role| (Some(project.clone()), role))
        });
        everywhere.chain(single).collect()
    }

    /// What lists are made of.
    pub fn visible(&self) -> Visible<P> {
        if self.everywhere.has(Right::Read) {
            return Visible::All;
        }
        let seen = self.projects.iter().filter(|(_, rights)| rights.has(Right::Read));
        Visible::Only(seen.map(|(project, _)| project.clone()).collect())
    }
}

/// The roles that give nothing but `rights`, less those that another of them makes needless.
fn fewest(rights: Rights, gives: impl Fn(Role) -> Rights) -> Vec<Role> {
    let fitting: Vec<Role> = Role::ALL.into_iter().filter(|role| gives(*role).within(rights)).collect();
    let needless = |role: Role| {
        fitting.iter().any(|other| match gives(*other) == gives(role) {
            true => *other < role,
            false => gives(role).within(gives(*other)),
        })
    };
    fitting.iter().copied().filter(|role| !needless(*role)).collect()
}

impl<P: Ord> Visible<P> {
    /// Whether `project` is among them.
    pub fn has(&self, project: &P) -> bool {
        match self {
            Self::All => true,
            Self::Only(projects) => projects.contains(project),
        }
    }
}
