//! Typed identifiers: a uuid of one entity cannot be passed for that of another.

use std::{fmt, str::FromStr};

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh id that sorts by time of creation.
            pub fn fresh() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

id!(
    /// A task.
    TaskId
);
id!(
    /// One run of a task; with its number the fencing token.
    AttemptId
);
id!(
    /// A machine of the fleet.
    ExecutorId
);
id!(
    /// A git repository known to the controller.
    ProjectId
);
id!(
    /// One database's history; attempts are ended only in the name of the cluster that minted them.
    ClusterId
);
id!(
    /// A person who calls.
    UserId
);
id!(
    /// What a person shows to be known by.
    TokenId
);
id!(
    /// What lets one person sit beside one attempt for a while.
    PairingId
);
id!(
    /// One time that a person sits beside an attempt, from when they sit down until they leave.
    SeatId
);
id!(
    /// One connection of ssh on its way through the controller.
    TunnelId
);
id!(
    /// What a machine shows once to become an executor.
    JoinTokenId
);
id!(
    /// What keeps somebody from doing anything.
    LockId
);
id!(
    /// One wished change; the same for all retries of it.
    RequestId
);
