//! Names of projects: what the table takes, and what is free.

use super::ProjectError;
use crate::store::{Connection, StoreError};

/// Longest name in bytes, as the table has it.
const MAX_NAME: usize = 63;

/// How many suffixes are tried before a taken name is an error.
const SUFFIXES: u32 = 1000;

/// The name that a project can have: the wished one, else the first free one with a suffix, unless it must be exact.
pub(super) async fn free_name(conn: &mut Connection, wished: &str, exact: bool) -> Result<String, ProjectError> {
    let wanted = sanitised(wished);
    let mut name = wanted.clone();
    for suffix in 2.. {
        let sql = "SELECT EXISTS (SELECT FROM projects WHERE name = $1 AND removed_at IS NULL)";
        let taken: bool = sqlx::query_scalar(sql).bind(&name).fetch_one(&mut *conn).await.map_err(StoreError::from)?;
        if !taken {
            break;
        }
        if exact || suffix > SUFFIXES {
            return Err(ProjectError::NameTaken(wanted));
        }
        name = suffixed(&wanted, suffix);
    }
    Ok(name)
}

/// A name that the table takes: letters, digits, dots, dashes, underscores, beginning with one of the first two.
pub(super) fn sanitised(wish: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = wish.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(MAX_NAME).collect();
    let name = name.trim_end_matches(['-', '.']);
    if name.is_empty() { "project".to_owned() } else { name.to_owned() }
}

fn suffixed(name: &str, suffix: u32) -> String {
    let suffix = format!("-{suffix}");
    let kept: String = name.chars().take(MAX_NAME - suffix.len()).collect();
    kept + &suffix
}

#[cfg(test)]
mod tests {
    use super::{sanitised, suffixed};

    #[test]
    fn names_fit_the_table() {
        assert_eq!(sanitised("my repo (old)"), "my-repo--old");
        assert_eq!(sanitised("..hidden"), "hidden");
        assert_eq!(sanitised("über"), "ber");
        assert_eq!(sanitised("日本"), "project");
        assert_eq!(sanitised(&"x".repeat(100)).len(), 63);
        assert_eq!(suffixed(&"x".repeat(63), 12).len(), 63);
    }
}
