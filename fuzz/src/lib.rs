//! The inputs that are kept of fuzzing, as an ordinary test.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

/// Gives `run` every input that is kept of `target`, and names the one that it panics on.
///
/// # Panics
/// When `run` does, or when there is no input.
pub fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let inputs: Vec<PathBuf> =
        ["corpus", "artifacts"].iter().flat_map(|kind| files(&root.join(kind).join(target))).collect();
    assert!(!inputs.is_empty(), "nothing is kept of the fuzz target {target}");
    for input in inputs {
        let bytes = fs::read(&input).unwrap_or_else(|error| panic!("cannot read {}: {error}", input.display()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&bytes))) {
            eprintln!("the input was {}", input.display());
            resume_unwind(panic);
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    // Nothing went wrong yet: there are no artifacts.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    found.sort();
    found
}
