//! Who this executor is, and how it proves it: a key that never leaves this machine, and a certificate for a day.

mod credentials;
mod join;
mod renew;
mod schedule;
mod standing;
mod status;

pub use credentials::{CredentialError, Credentials, Keyring};
pub use join::{JoinArgs, JoinError, join};
pub use renew::run as renew;
pub use standing::{Refusal, Standing};
pub use status::{Status, StatusArgs, StatusError, status};
