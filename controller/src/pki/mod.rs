//! The controller's own authorities: whom they certify, how they are kept, and how one takes over from another.

mod authority;
mod issue;
mod public;
mod request;
mod shown;
mod ssh;
mod vouch;

pub use authority::{Authority, AuthorityError, Phase};
pub use issue::{IssueError, LEAF_LIFE, Names};
pub use public::{Lifetime, Worry};
pub use request::{PublicKey, RequestError};
pub use shown::{Keeper, Pki, Shown, ShownError};
pub use ssh::{HOST_LIFE, PASS_LIFE, SshAuthorities, SshError};
pub use vouch::VouchError;
