//! What the documents tell people to type exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result};
use sculpt_tests::{harness::programs, layering::workspace};

const DOCUMENTS: [&str; 3] = ["README.md", "SECURITY.md", "ARCHITECTURE.md"];

const PROGRAMS: [&str; 3] = ["sculpt", "sculpt-controller", "sculpt-executor"];

/// What a program's `--help` says of each of its verbs, asked once.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, Option<String>>);

impl Helps {
    /// The help of the verb at `path`; `None` when there is no such verb.
    fn of(&mut self, path: &[String]) -> Result<Option<String>> {
        if let Some(known) = self.0.get(path) {
            return Ok(known.clone());
        }
        let (program, verbs) = path.split_first().context("a command begins with a program")?;
        let answer = Command::new(programs()?.join(program))
            .args(verbs)
            .arg("--help")
            .output()
            .with_context(|| format!("ask {program} for its help"))?;
        let help = answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned());
        self.0.insert(path.to_vec(), help.clone());
        Ok(help)
    }

    /// Why nobody can type `command`; `None` when they can.
    fn problem(&mut self, command: &str) -> Result<Option<String>> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let mut path = vec![words[0].to_owned()];
        let mut help = self.of(&path)?.unwrap_or_default();
        for (at, word) in words.iter().enumerate().skip(1) {
            // A verb of verbs wants one of them; a word after the last is an argument. `help` is of the parser's own.
            let verb = word.starts_with(|c: char| c.is_ascii_lowercase()) && *word != "help";
            if at != path.len() || !help.contains("\nCommands:\n") || !verb {
                break;
            }
            // `add|ls|rm` are three verbs.
            for verb in word.split('|') {
                let longer = [&path[..], &[verb.to_owned()]].concat();
                if self.of(&longer)?.is_none() {
                    return Ok(Some(format!("{:?} has no verb {verb:?}", path.join(" "))));
                }
            }
            path.push(word.split('|').next().unwrap_or_default().to_owned());
            help = self.of(&path)?.unwrap_or_default();
        }
        let own = words.iter().take_while(|word| !["--", "<", ">", "|", "&&"].contains(word));
        for flag in own.filter(|word| word.starts_with("--")) {
            let name = flag.split('=').next().unwrap_or_default();
            if !help.contains(name) {
                return Ok(Some(format!("{:?} has no flag {name}", path.join(" "))));
            }
        }
        Ok(None)
    }
}

/// The commands of ours in `text`: lines of its listings, and what stands between backquotes.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut listing = false;
    for line in text.lines() {
        if line.starts_with("```") {
            listing = !listing;
        } else if listing {
            let typed = line.strip_prefix("$ ").unwrap_or(line);
            found.extend(ours(typed.split("  #").next().unwrap_or_default()));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).flat_map(|quoted| quoted.split(", ")).filter_map(ours));
        }
    }
    found
}

/// `typed` without what is set for it and with verbs divided as the shell divides them, if it runs a program of ours.
fn ours(typed: &str) -> Option<String> {
    let typed = typed.replace("\\|", "|");
    let words = typed.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('-'));
    let words: Vec<&str> = words.collect();
    let first = *words.first()?;
    let verb = words.get(1)?;
    let plain = verb.starts_with("--") || verb.starts_with(|c: char| c.is_ascii_lowercase());
    (PROGRAMS.contains(&first) && plain).then(|| words.join(" "))
}

#[test]
fn every_command_of_the_documents_can_be_typed() -> Result<()> {
    let mut helps = Helps::default();
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(workspace().join(document)).with_context(|| format!("read {document}"))?;
        let commands = commands(&text);
        assert!(!commands.is_empty(), "{document} names none: the reader of documents is broken");
        for command in commands {
            if let Some(problem) = helps.problem(&command)? {
                wrong.push(format!("{document}: {command}: {problem}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} command(s) that nobody can type:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn a_command_that_does_not_exist_is_found() -> Result<()> {
    let text = "Say `sculpt frobnicate 7`, or:\n```\nA=b sculpt run --colour blue -- x --no-such\n$ sculpt pool set|heat gpu\n```\n";
    let mut helps = Helps::default();
    let wrong: Result<Vec<_>> = commands(text).iter().map(|command| helps.problem(command)).collect();
    let wrong: Vec<String> = wrong?.into_iter().flatten().collect();
    assert_eq!(
        wrong,
        [
            "\"sculpt\" has no verb \"frobnicate\"",
            "\"sculpt pool\" has no verb \"heat\"",
            "\"sculpt run\" has no flag --colour"
        ]
    );
    Ok(())
}
