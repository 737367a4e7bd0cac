//! The wire stays compatible with what is frozen in `proto/golden/`.

mod compatibility;
mod surface;
