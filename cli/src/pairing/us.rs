//! How ssh calls this very program back, also from an environment that knows nothing of the controller.

use std::{env, path::PathBuf};

use crate::{
    config::{Context, Overrides},
    output::shell_quoted,
};

/// Where the configuration and what ssh reads are found.
const PLACES: [&str; 2] = ["XDG_CONFIG_HOME", "XDG_STATE_HOME"];

/// This program, and what of its environment decides which controller it calls. A token is never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Us {
    pub(crate) program: PathBuf,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Us {
    /// As it runs now, for `context`.
    pub(crate) fn here(context: &Context) -> Self {
        let overrides = Overrides::from_environment();
        // A context of variables alone has no name that would find it again.
        let named = overrides.url.is_none() || overrides.token.is_none();
        let name = named.then(|| ("SCULPT_CONTEXT", context.name.clone()));
        let url = overrides.url.map(|url| ("SCULPT_URL", url));
        let places = PLACES.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
        let places = places.filter(|(_, value)| value.starts_with('/'));
        Self {
            program: env::current_exe().unwrap_or_else(|_| "sculpt".into()),
            variables: name.into_iter().chain(url).chain(places).collect(),
        }
    }

    /// A line for whatever shell the user has, as options of ssh take it: a percent sign stands for itself.
    pub(crate) fn line(&self, words: &[&str]) -> String {
        let program = shell_quoted(&self.program.to_string_lossy());
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={}", shell_quoted(value)));
        let prefix = (!self.variables.is_empty()).then(|| "env".to_owned());
        let words = words.iter().map(|word| shell_quoted(word));
        let line: Vec<String> = prefix.into_iter().chain(variables).chain([program]).chain(words).collect();
        line.join(" ").replace('%', "%%")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shell_finds_us_and_the_controller() {
        let us = |program: &str, variables| Us { program: program.into(), variables };
        for (us, line) in [
            (us("/usr/bin/sculpt", vec![]), "/usr/bin/sculpt tunnel --pairing u"),
            (us("/opt/a tool/it's", vec![]), r"'/opt/a tool/it'\''s' tunnel --pairing u"),
            (
                us("/100%/sculpt", vec![("SCULPT_CONTEXT", "my own".to_owned())]),
                "env SCULPT_CONTEXT='my own' /100%%/sculpt tunnel --pairing u",
            ),
        ] {
            assert_eq!(us.line(&["tunnel", "--pairing", "u"]), line);
        }
    }
}
