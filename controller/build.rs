//! Tells cargo that a new migration is a reason to compile.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
