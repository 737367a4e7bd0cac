//! Duties that nobody calls: each is woken by a signal and by a period.

pub mod bridge;
pub mod compact;
pub mod dead_blobs;
pub mod evict;
pub mod guests;
pub mod health;
pub mod history;
pub mod last_use;
pub mod liveness;
pub mod maintenance;
pub mod notary;
pub mod place;
pub mod retention;
pub mod seal;
pub mod space;
