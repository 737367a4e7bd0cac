//! The wire stays compatible with what is frozen in `proto/golden/`.

#[cfg(test)]
mod compatibility;
#[cfg(test)]
mod surface;
