//! The context of each installation of this machine: by which name the next shell finds it.

use std::path::{Path, PathBuf};

use super::{Places, lock};
use crate::{
    config::{Config, ConfigError, Entry, LOCAL},
    exit::Exit,
    failure::Failure,
    output::{note, shell_quoted},
};

/// Where an installation keeps its user's token, below its data directory.
const USER_TOKEN: &str = "controller/tokens/user";

/// A context that was written.
pub(super) struct Written {
    pub(super) name: String,
    /// The next shell uses it without being told.
    pub(super) current: bool,
}

impl Places {
    pub(crate) fn user_token(&self) -> PathBuf {
        self.data.join(USER_TOKEN)
    }
}

/// The data directory of the installation that this token belongs to; `None` when none of ours does.
pub(crate) fn data_of(token_file: &Path) -> Option<PathBuf> {
    token_file.ends_with(USER_TOKEN).then(|| token_file.ancestors().nth(3).map(Path::to_owned)).flatten()
}

/// Pid of the `sculpt up` that runs on this data directory.
pub(crate) fn running(data: &Path) -> Option<String> {
    lock::holder(&data.join("up.lock"))
}

/// The command that starts the installation of this token again; plain `sculpt up` when it is none of ours.
pub(crate) fn start_command(token_file: &Path) -> String {
    let default = Places::default_data().ok();
    match data_of(token_file).filter(|data| Some(data) != default.as_ref()) {
        Some(data) => format!("sculpt up --data-dir {}", shell_quoted(&data.to_string_lossy())),
        None => "sculpt up".to_owned(),
    }
}

/// Makes this installation known to the next shell, and the one that it talks to unless another one runs.
pub(super) fn write(url: &str, places: &Places) -> Result<Written, Failure> {
    let save = || -> Result<Written, ConfigError> {
        let file = Config::path()?;
        let mut config = Config::load(&file)?;
        let before = config.clone();
        let entry = Entry { url: url.to_owned(), token_file: places.user_token() };
        let name = name_of(&config, &entry.token_file, |other| other.exists());
        config.contexts.insert(name.clone(), entry);
        let other = config.current.clone().filter(|current| *current != name);
        match other.filter(|current| keeps(&config, current)) {
            Some(current) => say_other(&current, &name, &config),
            None => config.current = Some(name.clone()),
        }
        if config != before {
            config.save(&file)?;
        }
        Ok(Written { current: config.current.as_ref() == Some(&name), name })
    };
    save().map_err(|error| Failure::new(Exit::Failed, "write the configuration for the next shell", error.to_string()))
}

/// Whether this context stays the current one: a person wrote it, or its installation runs.
fn keeps(config: &Config, name: &str) -> bool {
    let Some(entry) = config.contexts.get(name) else { return false };
    data_of(&entry.token_file).is_none_or(|data| running(&data).is_some())
}

fn say_other(current: &str, ours: &str, config: &Config) {
    let place = config.contexts.get(current).map(|entry| entry.url.as_str()).unwrap_or_default();
    note(format!(
        "another shell talks to the context {current} ({place}), which stays the current one; this one is {ours}"
    ));
}

/// The name of the context with this token: the one it has, else `local` when that is free or its installation is gone, else
/// that of its directory.
fn name_of(config: &Config, token_file: &Path, exists: impl Fn(&Path) -> bool) -> String {
    if let Some((name, _)) = config.contexts.iter().find(|(_, entry)| entry.token_file == token_file) {
        return name.clone();
    }
    let free = |name: &str| config.contexts.get(name).is_none_or(|entry| !exists(&entry.token_file));
    let folder = data_of(token_file).and_then(|data| data.file_name().map(|name| name.to_string_lossy().into_owned()));
    let folder: String = folder
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    let folder = if folder.is_empty() { LOCAL.to_owned() } else { folder };
    let suffixed = (2..).map(|number: u32| format!("{folder}-{number}"));
    let mut names = [LOCAL.to_owned(), folder.clone()].into_iter().chain(suffixed);
    names.find(|name| free(name)).unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(contexts: &[(&str, &str)]) -> Config {
        let entry = |data: &str| Entry { url: String::new(), token_file: Path::new(data).join(USER_TOKEN) };
        let contexts = contexts.iter().map(|(name, data)| ((*name).to_owned(), entry(data))).collect();
        Config { current: None, contexts }
    }

    #[test]
    fn each_data_directory_has_a_context_of_its_own() {
        for (known, data, name) in [
            (&[][..], "/a/data", "local"),
            (&[("local", "/a/data")], "/a/data", "local"),
            (&[("local", "/a/data")], "/b/my data", "my-data"),
            (&[("local", "/gone/data")], "/b/data", "local"),
            (&[("local", "/a/data"), ("data", "/b/data")], "/c/data", "data-2"),
            (&[("local", "/a/data"), ("mine", "/b/data")], "/b/data", "mine"),
        ] {
            let token = Path::new(data).join(USER_TOKEN);
            let named = name_of(&config(known), &token, |token| !token.starts_with("/gone"));
            assert_eq!(named, name, "{data} beside {known:?}");
        }
    }

    #[test]
    fn a_token_tells_where_its_installation_stands() {
        assert_eq!(data_of(Path::new("/a b/data/controller/tokens/user")), Some(PathBuf::from("/a b/data")));
        assert_eq!(data_of(Path::new("/home/me/token")), None);
        assert_eq!(start_command(Path::new("/a b/controller/tokens/user")), "sculpt up --data-dir '/a b'");
        assert_eq!(start_command(Path::new("SCULPT_TOKEN")), "sculpt up");
    }
}
