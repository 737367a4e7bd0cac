//! Fuzz target: whatever spec a controller hands out, no path of it leads out of its place and no name is read as an
//! option, a revision or a second line.

use std::path::{Component, Path};

use arbitrary::{Arbitrary, Unstructured};
use prost::Message as _;
use sculpt_proto::{
    executor::v1::AttemptSpec,
    v1::{Requester, TaskSpec, task_spec},
};

use super::Spec;

#[derive(Debug, Arbitrary)]
enum Handed<'a> {
    /// As it comes off the wire.
    Encoded(&'a [u8]),
    /// Right but for what is text.
    Texts {
        branch: &'a str,
        git_path: &'a str,
        subdirectory: &'a [u8],
        base: &'a str,
        name: &'a str,
        env: (&'a str, &'a str),
    },
}

/// Checks what has passed the checks by other rules than theirs.
pub fn spec(data: &[u8]) {
    let Ok(handed) = Handed::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let wire = match handed {
        Handed::Encoded(bytes) => {
            let Ok(wire) = AttemptSpec::decode(bytes) else { return };
            wire
        }
        Handed::Texts { branch, git_path, subdirectory, base, name, env } => AttemptSpec {
            branch: branch.to_owned(),
            git_path: git_path.to_owned(),
            task: Some(TaskSpec {
                work: Some(task_spec::Work::Prompt(String::new())),
                subdirectory: subdirectory.to_vec(),
                base: if base.is_empty() { "a".repeat(40) } else { base.to_owned() },
                env: [(env.0.to_owned(), env.1.to_owned())].into(),
                requester: Some(Requester { name: name.to_owned(), email: name.to_owned() }),
                ..TaskSpec::default()
            }),
            ..right()
        },
    };
    if let Ok(spec) = Spec::try_from(wire) {
        check(&spec);
    }
}

fn right() -> AttemptSpec {
    let id = uuid::Uuid::nil().to_string();
    AttemptSpec {
        cluster_id: id.clone(),
        attempt_id: id.clone(),
        task_id: id.clone(),
        project_id: id,
        ..AttemptSpec::default()
    }
}

fn check(spec: &Spec) {
    for (key, value) in &spec.env {
        let taken = !key.is_empty() && !key.contains('=') && !format!("{key}{value}").contains('\0');
        assert!(taken, "{key:?}={value:?} would panic where the agent is started");
    }
    for text in [&spec.requester.name, &spec.requester.email] {
        assert!(!text.trim().is_empty() && !text.contains(['<', '>', '\n', '\0']), "git takes no identity {text:?}");
    }
    let Some(repository) = &spec.repository else { return };
    assert!(is_ref(&format!("refs/heads/{}", repository.branch)), "git takes no branch {:?}", repository.branch);
    assert!(!repository.branch.starts_with('-'), "{:?} is an option", repository.branch);
    assert!(repository.base.bytes().all(|byte| byte.is_ascii_hexdigit()), "{:?} is no commit", repository.base);
    assert!(climbs_not(&repository.subdirectory), "{:?} leads out", repository.subdirectory);
    assert!(climbs_not(Path::new(repository.git_path.trim_start_matches('/'))), "{:?} leads out", repository.git_path);
}

/// The rules of git-check-ref-format(1), one by one.
fn is_ref(name: &str) -> bool {
    let banned = |c: char| (c as u32) < 0x20 || c as u32 == 0x7f || " ~^:?*[\\".contains(c);
    let component = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.split('/').all(component)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && !name.chars().any(banned)
}

fn climbs_not(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("spec", super::spec);
    }
}
