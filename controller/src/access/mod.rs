//! Who calls, what they may, and the proof of it.
//!
//! A call passes the [`gate`](enter): its token is looked up ([`Authority`]), the [rule](Rule) of its method is asked, and
//! its handler finds the [`Caller`]. What needs a right takes a proof, [`In`] a project, [`On`] a task, [`May`] of the whole
//! controller, which nobody but the caller hands out; what reads a repository takes a [`Fetch`]; what lists takes what the
//! caller [`Sees`].
//!
//! Nobody learns of what they may not see: it is NOT_FOUND, like what is not there. What is seen and may not be changed is
//! PERMISSION_DENIED. Tasks without a project are seen by who made them, as far as their rights in all projects go, and by
//! admins.

mod authority;
mod beside;
mod caller;
mod denied;
mod fetch;
mod first;
mod gate;
mod guarded;
mod proof;
mod rules;

pub use self::{
    authority::{Authority, Unknown},
    beside::{Beside, Closing, NotBeside},
    caller::Caller,
    denied::Denied,
    fetch::Fetch,
    first::{FirstError, first_admin, reset_admin, user_name},
    gate::{Gate, enter},
    proof::{
        Administer, Create, Drive, Fleet, Forward, Found, In, May, Merge, Need, On, Read, Sees, Shell, Steer, Whose,
    },
    rules::{RULES, Rule, rule},
};
pub(crate) use self::{beside::Holders, guarded::Guarded, proof::Loose};
