//! How much of a disk our directories take, how much they may take, and what follows: executors and controllers measure
//! and judge alike.

mod gauge;
mod level;
mod measure;

pub use bytesize::ByteSize;
pub use gauge::Gauge;
pub use level::{Level, Space};
pub use measure::{Disk, in_background, on_disk};
