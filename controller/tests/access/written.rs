//! What the compiler cannot see: that no handler goes around the proofs.

use std::{fs, path::Path};

/// Ways to act in nobody's name, which are for the controller itself.
const BYPASSES: [&str; 5] = ["Sees::everything", "Actor::", "Dispatch::apply", ".apply(", "By::"];

#[test]
fn no_handler_acts_in_nobodys_name() {
    let handlers = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grpc");
    for file in fs::read_dir(handlers).expect("handlers") {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("it can be read");
        for bypass in BYPASSES {
            assert!(!text.contains(bypass), "{} has {bypass}: take a proof of the caller instead", path.display());
        }
    }
}
