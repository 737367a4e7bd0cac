//! The rules of the source tree, as far as a program can check them: who depends on whom, and which file may name what.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Packages of ours, each with those of ours that it may depend on.
const DEPENDENCIES: [(&str, &[&str]); 13] = [
    ("sculpt-proto", &[]),
    ("sculpt-core", &[]),
    ("sculpt-walk", &[]),
    ("sculpt-space", &["sculpt-walk"]),
    ("sculpt-failpoints", &[]),
    ("sculpt-pairing", &["sculpt-proto"]),
    ("sculpt-tls", &["sculpt-proto"]),
    (
        "sculpt-controller",
        &[
            "sculpt-core",
            "sculpt-failpoints",
            "sculpt-pairing",
            "sculpt-proto",
            "sculpt-space",
            "sculpt-tls",
            "sculpt-fuzz",
        ],
    ),
    (
        "sculpt-executor",
        &[
            "sculpt-failpoints",
            "sculpt-pairing",
            "sculpt-proto",
            "sculpt-space",
            "sculpt-tls",
            "sculpt-walk",
            "sculpt-fuzz",
        ],
    ),
    ("sculpt", &["sculpt-pairing", "sculpt-proto", "sculpt-space", "sculpt-tls", "sculpt-fuzz"]),
    ("sculpt-tests", &["sculpt-failpoints", "sculpt-proto", "sculpt-tls"]),
    // It runs both sides in one process, and nothing depends on it.
    ("sculpt-simulation", &["sculpt-controller", "sculpt-core", "sculpt-executor", "sculpt-proto"]),
    ("sculpt-fuzz", &["sculpt", "sculpt-controller", "sculpt-executor"]),
];

/// Crates that the pure core must not even depend on.
const IMPURE: [&str; 8] = ["tokio", "sqlx", "tonic", "prost", "rand", "git2", "reqwest", "hyper"];

/// What files below a folder must not name, except where it belongs.
struct Rule {
    folder: &'static str,
    words: &'static [&'static str],
    except: &'static [&'static str],
    why: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        folder: "controller/src",
        words: &["sqlx"],
        except: &["controller/src/store"],
        why: "all SQL stands in store/",
    },
    Rule {
        folder: "controller/src",
        words: &["sculpt_proto::v1", "sculpt_proto::executor", "tonic", "prost"],
        except: &[
            "controller/src/session",
            "controller/src/grpc",
            "controller/src/app",
            "controller/src/web",
            "controller/src/access",
        ],
        why: "generated types stop at the edge: session/, grpc/, access/ and conversions",
    },
    Rule {
        folder: "controller/src",
        words: &["git2"],
        except: &["controller/src/git"],
        why: "git2 has one module on each side",
    },
    Rule { folder: "cli/src", words: &["git2"], except: &["cli/src/git"], why: "git2 has one module on each side" },
    Rule {
        folder: "executor-agent",
        words: &["git2", "sqlx"],
        except: &[],
        why: "an agent's repository is hostile: the executor runs plain git on it, and it has no database",
    },
    Rule {
        folder: "executor-agent/src",
        words: &["russh"],
        except: &["executor-agent/src/ssh"],
        why: "only the SSH server knows by which crate it serves",
    },
    Rule {
        folder: "controller/core/src",
        words: &[
            "tokio",
            "sqlx",
            "tonic",
            "std::fs",
            "std::net",
            "std::process",
            "std::env",
            "Utc::now",
            "Local::now",
            "SystemTime",
            "Instant::now",
            "rand",
            "now_v7",
            "new_v4",
        ],
        except: &[],
        why: "the core is pure: no I/O, no clock, no randomness",
    },
];

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap_or(Path::new("/")).to_owned()
}

/// What `cargo metadata` says of the workspace at `root`.
pub fn metadata(root: &Path) -> Result<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read the output of cargo metadata")
}

/// What is wrong with the dependencies, one sentence each.
pub fn wrong_dependencies(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<_, _> = DEPENDENCIES.into_iter().collect();
    let mut wrong = Vec::new();
    for package in items(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} has no place in the layering; give it one in DEPENDENCIES"));
            continue;
        };
        for dependency in items(&package["dependencies"]) {
            let on = dependency["name"].as_str().unwrap_or_default();
            // A package's tests may ask for a feature of its own.
            if on != name && allowed.contains_key(on) && !may.contains(&on) {
                wrong.push(format!("{name} must not depend on {on}"));
            }
            if name == "sculpt-core" && IMPURE.contains(&on) {
                wrong.push(format!("sculpt-core is pure and must not depend on {on}"));
            }
        }
    }
    wrong
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Every line of source below `root` that names what does not belong there.
pub fn wrong_names(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for rule in &RULES {
        let folder = root.join(rule.folder);
        if !folder.is_dir() {
            continue;
        }
        for file in sources(&folder)? {
            let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            if rule.except.iter().any(|place| belongs(&path, place)) {
                continue;
            }
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let code: Vec<_> = text.lines().map(code_of).collect();
            let code = code.join("\n");
            for word in rule.words {
                let lines = places(&code, word).map(|at| code[..at].matches('\n').count() + 1);
                wrong.extend(lines.map(|line| format!("{path}:{line}: names {word}: {}", rule.why)));
            }
        }
    }
    Ok(wrong)
}

/// Whether `path` is `place`, the file `place.rs`, or stands below `place/`.
fn belongs(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

/// A line without its comment and without what stands in quotes.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => drop(rest.next()),
            '/' if !quoted && rest.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(c),
        }
    }
    code
}

/// Where `code` names `word`, also as part of a group such as `std::{env, fs}`.
fn places(code: &str, word: &str) -> impl Iterator<Item = usize> {
    let grouped = word.rsplit_once("::").map(|(path, leaf)| {
        let group = format!("{path}::{{");
        words(code, &group).into_iter().filter(move |start| {
            let group = &code[start + path.len()..];
            !words(&group[..group.find(';').unwrap_or(group.len())], leaf).is_empty()
        })
    });
    words(code, word).into_iter().chain(grouped.into_iter().flatten())
}

/// Where `word` stands in `code` as a word of its own.
fn words(code: &str, word: &str) -> Vec<usize> {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let whole = |start: usize| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let open = word.ends_with(|c: char| !part_of_name(c));
        !before.is_some_and(part_of_name) && (open || !after.is_some_and(part_of_name))
    };
    code.match_indices(word).map(|(start, _)| start).filter(|start| whole(*start)).collect()
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
