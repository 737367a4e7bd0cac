//! Goes through directory trees that somebody else can write: however deep they are and whatever is in them, a walk stays
//! inside, waits for nothing, and takes no more than a few descriptors and some memory for each level that it is below
//! the root.

mod levels;
mod owned;
mod remove;

pub use levels::{Place, Then, Visitor, open_directory, walk};
pub use owned::remove_owned;
pub use remove::remove;
