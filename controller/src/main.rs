//! `sculpt-controller`.

fn main() {}
