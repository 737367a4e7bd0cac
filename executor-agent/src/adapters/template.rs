//! An agent of the settings file: a command in which marks are replaced inside single arguments, never by a shell.

use std::{ffi::OsString, path::Path};

use super::{Adapter, AdapterError, LONGEST_ARGUMENT, Start};
use crate::config::{AgentTemplate, PromptBy};

const PROMPT: &str = "{prompt}";
const PROMPT_FILE: &str = "{prompt_file}";

/// A template with its prompt.
pub(super) struct Template {
    name: String,
    template: AgentTemplate,
    prompt: String,
}

impl Template {
    pub(super) fn new(name: String, template: AgentTemplate, prompt: String) -> Self {
        Self { name, template, prompt }
    }

    fn check(&self) -> Result<(), AdapterError> {
        let as_argument = self.template.command.iter().any(|argument| argument.contains(PROMPT));
        if as_argument && self.prompt.len() > LONGEST_ARGUMENT {
            return Err(AdapterError::TooLong { agent: self.name.clone(), bytes: self.prompt.len() });
        }
        if as_argument && self.prompt.contains('\0') {
            return Err(AdapterError::Nul { agent: self.name.clone() });
        }
        Ok(())
    }
}

impl Adapter for Template {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, prompt_file: &Path) -> Result<Start, AdapterError> {
        self.check()?;
        let fill = |argument: &String| fill(argument, &self.prompt, prompt_file);
        let by_file = !matches!(self.template.prompt, PromptBy::Argument);
        let start = Start {
            argv: self.template.command.iter().map(fill).collect(),
            env: self.template.env.clone(),
            prompt_file: by_file.then(|| self.prompt.clone()),
            prompt_on_stdin: self.template.prompt == PromptBy::Stdin,
        };
        start.checked()
    }
}

/// Replaces the marks in one pass, so that a mark within the prompt stays as it is.
fn fill(argument: &str, prompt: &str, file: &Path) -> OsString {
    let mut filled = OsString::new();
    let mut rest = argument;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push(before);
        if let Some(after) = from.strip_prefix(PROMPT) {
            filled.push(prompt);
            rest = after;
        } else if let Some(after) = from.strip_prefix(PROMPT_FILE) {
            filled.push(file);
            rest = after;
        } else {
            filled.push("{");
            rest = &from[1..];
        }
    }
    filled.push(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(command: &[&str], by: PromptBy, prompt: &str) -> Result<Start, AdapterError> {
        let template = AgentTemplate {
            command: command.iter().map(|argument| (*argument).to_owned()).collect(),
            prompt: by,
            env: [("A".to_owned(), "b".to_owned())].into(),
        };
        Template::new("robot".into(), template, prompt.into()).start(Path::new("/w.prompt"))
    }

    #[test]
    fn a_prompt_stays_one_argument_whatever_it_holds() {
        let prompt = "; rm -rf $HOME `x` {prompt_file} \"two\nlines\"";
        let start = start(&["robot", "--say={prompt}!", "{x}"], PromptBy::Argument, prompt).unwrap();
        assert_eq!(start.argv, ["robot".into(), OsString::from(format!("--say={prompt}!")), "{x}".into()]);
        assert_eq!(start.prompt_file, None);
        assert_eq!(start.env["A"], "b");
    }

    #[test]
    fn a_long_prompt_goes_by_file_or_stdin() {
        let long = "x".repeat(1 << 20);
        let error = start(&["robot", "{prompt}"], PromptBy::Argument, &long).unwrap_err().to_string();
        assert!(error.contains("prompt = \"stdin\"") && error.contains("prompt = \"file\""), "{error}");
        let file = start(&["robot", "{prompt_file}"], PromptBy::File, &long).unwrap();
        assert_eq!(file.argv[1], "/w.prompt");
        assert_eq!(file.prompt_file.as_deref(), Some(long.as_str()));
        assert!(start(&["robot"], PromptBy::Stdin, &long).unwrap().prompt_on_stdin);
    }
}
