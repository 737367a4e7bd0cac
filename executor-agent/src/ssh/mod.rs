//! People beside agents: an SSH server that knows nobody but who the controller certifies and tells of, and takes them to
//! one attempt each.

mod blocks;
mod channel;
mod connection;
mod cut;
mod direct;
mod door;
mod forward;
mod guests;
mod host_proof;
mod inside;
mod intake;
mod keys;
mod limits;
mod listeners;
mod modes;
mod place;
mod process;
mod reception;
mod relay;
mod reports;
mod request;
mod seat;
mod server;
mod severable;
mod shown;
pub mod socket;
mod spill;
mod stores;
mod strangers;
mod tunnel;
mod visit;

pub use guests::{Guest, GuestList, NoAuthority, NotAGuest, authorities};
pub use host_proof::HostProof;
pub use place::{Attempts, NoPlace, Place};
pub use reception::{Dial, Hears, Told, news, run};
pub use reports::{Beside, Reports};
pub(crate) use server::LOOKS_ON;
pub use server::{COMES_IN_WITHIN, Came, ConnectionError, Means, Server};
pub use strangers::Stranger;
pub use tunnel::{LastWords, Tunnel, TunnelError};
