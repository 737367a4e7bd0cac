//! How controller, executors and people's tools prove to each other who they are: tokens that carry the pin of an
//! authority, keys that never leave their machine, certificates that name an executor, and connections that trust no one
//! else.
//!
//! Nothing is trusted on first use. A token is handed over by a person, and with it the [`Pin`] of the authority that the
//! controller must prove; from then on the authority itself is kept ([`Trust`]).

mod client;
mod explain;
mod key;
mod pin;
pub mod private;
mod server;
mod subject;
mod token;
mod trust;
mod verify;

pub use client::{CONTROLLER_NAME, ClientError, Meeting, Proof, Server, client_config, connector, shows_another};
pub use explain::{Matter, Problem, causes, explain};
pub use key::{Key, KeyError};
pub use pin::{Pin, PinError};
pub use server::{Caller, CallerError, Callers, Identity, ServerError, server_config, validity};
pub use subject::{Subject, SubjectError};
pub use token::{Kind, Secret, Token, TokenError};
pub use trust::{Trust, TrustError, to_pem};
