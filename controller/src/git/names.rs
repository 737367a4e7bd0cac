//! Names of refs.

use sculpt_proto::id::{AttemptId, TaskId};

/// Everything below is kept but not advertised.
pub const HIDDEN: &str = "refs/sculpt";

/// Keeps a commit that was sent to be the base of tasks.
pub fn base(commit: &str) -> String {
    format!("{HIDDEN}/bases/{commit}")
}

/// Keeps what an attempt published.
pub fn attempt(task: TaskId, attempt: AttemptId) -> String {
    format!("{}{attempt}", attempts_of(task))
}

/// What the names of all attempts of a task begin with.
pub fn attempts_of(task: TaskId) -> String {
    format!("{HIDDEN}/attempts/{task}/")
}

/// The ref of a local branch.
pub fn branch(name: &str) -> String {
    format!("refs/heads/{name}")
}

/// Whether `name` may stand in a row: stricter than git, so that no file system, shell or tool reads more into it.
pub fn is_plain(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.'])
            && !part.to_ascii_lowercase().ends_with(".lock")
            && !part.contains("..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    name.len() <= 255 && name.starts_with("refs/") && name.split('/').count() >= 3 && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for name in ["refs/heads/main", "refs/heads/sculpt/17-fix-login", "refs/sculpt/bases/0a1b", "refs/tags/v1.0"] {
            assert!(is_plain(name), "{name}");
        }
        let long = format!("refs/heads/{}", "a".repeat(250));
        for name in [
            "",
            "HEAD",
            "refs/heads",
            "refs/heads/",
            "refs/heads//a",
            "refs/heads/-a",
            "refs/heads/.a",
            "refs/heads/a..b",
            "refs/heads/a.lock",
            "refs/heads/a.LOCK/b",
            "refs/heads/a.",
            "refs/heads/a b",
            "refs/heads/a\n",
            "refs/heads/@{1}",
            "refs/heads/ä",
            "refs/heads/a:b",
            "refs/heads/../x",
            "heads/a/b",
            &long,
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
