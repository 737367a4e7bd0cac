//! The lines of git's configuration by which git asks us for a controller's token. Several commands write them at once, and
//! people have lines of their own there.

use std::{env, path::Path};

use super::{GitError, program};
use crate::{config::Context, output::shell_quoted};

/// What git takes for a line of ours, from whatever place we ran: an extended regular expression, as `is_ours` says it.
const OURS: &str = "^!'.*' git-credential$";

/// A change of the lines. git makes each under the lock of its file, from what then is in it, and each leaves the same
/// however often and from however many processes it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Removes ours, which stands where it has no effect.
    Forget,
    /// Adds the empty line, after which the helpers before it count no more.
    Reset,
    /// Lets there be one line of ours: in the place of those that there are, or at the end.
    Name,
}

/// Lets git ask us, and nobody whom it asks about all hosts, for the token of the controller of `context`.
pub(super) async fn ask_us(directory: &Path, scope: &str, context: &Context) -> Result<(), GitError> {
    let (key, ours) = (format!("credential.{}.helper", context.address()), ours());
    for step in steps(&lines(directory, scope, &key).await, &ours) {
        step.make(directory, scope, &key, &ours).await?;
    }
    Ok(())
}

/// What is set for `key`, in order.
async fn lines(directory: &Path, scope: &str, key: &str) -> Vec<String> {
    // git fails where nothing is set.
    let found = program::text(directory, &["config", scope, "--null", "--get-all", key]).await.unwrap_or_default();
    found.split_terminator('\0').map(str::to_owned).collect()
}

/// What makes `lines` good: one of them is ours, and behind an empty one, which keeps the token from helpers that store what
/// they see. A command that ends between two steps leaves what the next one mends.
fn steps(lines: &[String], ours: &str) -> Vec<Step> {
    let reset = lines.iter().rposition(String::is_empty);
    let named: Vec<_> = lines.iter().enumerate().filter(|(_, line)| is_ours(line)).collect();
    if let ([(place, line)], Some(reset)) = (&named[..], reset)
        && *line == ours
        && *place > reset
    {
        return Vec::new();
    }
    // Whoever only adds the empty line would add it behind ours.
    let lost = named.iter().any(|(place, _)| reset.is_none_or(|reset| *place < reset));
    let steps = [(lost, Step::Forget), (reset.is_none(), Step::Reset), (true, Step::Name)];
    steps.into_iter().filter_map(|(due, step)| due.then_some(step)).collect()
}

impl Step {
    async fn make(self, directory: &Path, scope: &str, key: &str, ours: &str) -> Result<(), GitError> {
        let arguments = match self {
            Self::Forget => ["--unset-all", key, OURS].to_vec(),
            Self::Reset => ["--replace-all", key, "", "^$"].to_vec(),
            Self::Name => ["--replace-all", key, ours, OURS].to_vec(),
        };
        program::run(directory, ["config", scope].into_iter().chain(arguments)).await.map(drop)
    }
}

/// The line of this very program.
fn ours() -> String {
    let program =
        env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_else(|_| "sculpt".to_owned());
    let quoted = shell_quoted(&program);
    let quoted = if quoted.starts_with('\'') { quoted } else { format!("'{quoted}'") };
    format!("!{quoted} git-credential")
}

fn is_ours(line: &str) -> bool {
    line.strip_prefix("!'").is_some_and(|rest| rest.ends_with("' git-credential"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: &str = "!'/new/sculpt' git-credential";
    const ELDER: &str = "!'/old/it'\\''s/sculpt' git-credential";
    const KEY: &str = "credential.https://controller.example:7433.helper";
    const OTHERS: [&str; 3] = ["cache", "!gh auth git-credential", "!'/opt/a tool' auth git-credential"];

    #[test]
    fn what_is_good_is_left_alone() {
        use Step::{Forget, Name, Reset};
        for (lines, due) in [
            (&[][..], &[Reset, Name][..]),
            (&["", US], &[]),
            (&["", "cache", US, "store"], &[]),
            (&["cache", "", US], &[]),
            (&[""], &[Name]),
            (&["", ELDER], &[Name]),
            (&["", US, US, US], &[Name]),
            (&["", US, "", US], &[Forget, Name]),
            (&[US], &[Forget, Reset, Name]),
            (&[ELDER, ""], &[Forget, Name]),
            (&OTHERS, &[Reset, Name]),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(steps(&lines, US), due, "{lines:?}");
        }
        assert!(OTHERS.iter().all(|line| !is_ours(line)) && is_ours(ELDER) && is_ours(&ours()));
    }

    /// All orders in which two can make their steps.
    fn orders(first: &[Step], second: &[Step]) -> Vec<Vec<Step>> {
        let begun = |steps: &[Step], rest: Vec<Vec<Step>>| -> Vec<Vec<Step>> {
            rest.into_iter().map(|rest| [&steps[..1], &rest[..]].concat()).collect()
        };
        match (first, second) {
            ([], rest) | (rest, []) => vec![rest.to_vec()],
            _ => [begun(first, orders(&first[1..], second)), begun(second, orders(first, &second[1..]))].concat(),
        }
    }

    #[tokio::test]
    async fn whoever_comes_first_the_lines_are_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        program::run(path, ["init", "--quiet"]).await.unwrap();
        for (before, after) in [
            (&[][..], &["", US][..]),
            (&["", ELDER, "cache"], &["", US, "cache"]),
            (&["", US, US, US], &["", US]),
            (&["cache", US], &["cache", "", US]),
            (&OTHERS[1..], &[OTHERS[1], OTHERS[2], "", US]),
        ] {
            let due = steps(&before.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), US);
            for order in orders(&due, &due) {
                let _absent = program::run(path, ["config", "--local", "--unset-all", KEY]).await;
                for line in before {
                    program::run(path, ["config", "--local", "--add", KEY, line]).await.unwrap();
                }
                for step in &order {
                    let made = step.make(path, "--local", KEY, US).await;
                    // The other has forgotten it already: whoever is told so looks anew, and goes on.
                    assert!(made.is_ok() || *step == Step::Forget, "{made:?}");
                }
                assert_eq!(lines(path, "--local", KEY).await, after, "{before:?}: {order:?}");
            }
        }
    }
}
