//! What lists show of a spec that is too long for them: everything but the end of what is long, so that it is true as far as
//! it goes.

use prost::Message as _;
use sculpt_proto::v1::{TaskSpec, task_spec::Work};

/// Specs up to this size stand in lists whole, in bytes.
const WHOLE: usize = 1024;

/// What stays of a long prompt or of a long command's arguments together, in bytes.
const BEGINNING: usize = 256;

/// Environments up to this size stand in lists, in bytes: a value that is cut would be taken for the whole.
const ENV: usize = 256;

/// What lists show of `spec`; `None`: all of it.
pub(crate) fn brief(spec: &TaskSpec) -> Option<TaskSpec> {
    if spec.encoded_len() <= WHOLE {
        return None;
    }
    let work = spec.work.as_ref().map(|work| match work {
        Work::Prompt(prompt) => Work::Prompt(beginning(prompt)),
        Work::Command(command) => Work::Command(sculpt_proto::v1::Command { argv: first(&command.argv) }),
    });
    let size: usize = spec.env.iter().map(|(key, value)| key.len() + value.len()).sum();
    let env = if size <= ENV { spec.env.clone() } else { Default::default() };
    let brief = TaskSpec { work, env, ..without_bulk(spec) };
    (brief != *spec).then_some(brief)
}

/// `spec` without what may be large, and so without a copy of it.
fn without_bulk(spec: &TaskSpec) -> TaskSpec {
    TaskSpec {
        work: None,
        env: Default::default(),
        agent: spec.agent.clone(),
        project: spec.project.clone(),
        base: spec.base.clone(),
        commit: spec.commit,
        tty: spec.tty,
        timeout: spec.timeout,
        requirements: spec.requirements.clone(),
        pool: spec.pool.clone(),
        priority: spec.priority,
        on_lost: spec.on_lost,
        lost_after: spec.lost_after,
        labels: spec.labels.clone(),
        title: spec.title.clone(),
        intent: spec.intent.clone(),
        requester: spec.requester.clone(),
        subdirectory: spec.subdirectory.clone(),
    }
}

fn beginning(text: &str) -> String {
    if text.len() <= BEGINNING {
        return text.to_owned();
    }
    let kept: String =
        text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= BEGINNING).map(|(_, c)| c).collect();
    kept + "…"
}

fn first(argv: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut left = BEGINNING;
    let mut kept = Vec::new();
    for argument in argv {
        if argument.len() > left || kept.len() == BEGINNING {
            kept.push([&argument[..argument.len().min(left)], "…".as_bytes()].concat());
            break;
        }
        left -= argument.len();
        kept.push(argument.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::Command;

    use super::*;

    fn command(argv: &[&str]) -> TaskSpec {
        let argv = argv.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        TaskSpec { work: Some(Work::Command(Command { argv })), tty: true, ..TaskSpec::default() }
    }

    #[test]
    fn what_is_short_is_whole() {
        assert_eq!(brief(&command(&["sh", "-c", "true"])), None);
        let labels = (0..64).map(|n| (format!("key-{n}"), "x".repeat(200))).collect();
        assert_eq!(brief(&TaskSpec { labels, ..command(&["true"]) }), None, "labels are never cut");
    }

    #[test]
    fn what_is_long_keeps_its_beginning_and_every_other_fact() {
        let env = (0..20).map(|n| (format!("KEY_{n}"), "x".repeat(100))).collect();
        let prompt = Some(Work::Prompt("ä".repeat(5_000)));
        let spec = TaskSpec { work: prompt, env, agent: "robot".into(), tty: true, priority: 3, ..Default::default() };
        let short = brief(&spec).expect("it is cut");
        assert!(short.encoded_len() <= WHOLE);
        let expected = Some(Work::Prompt(format!("{}…", "ä".repeat(BEGINNING / 2))));
        assert_eq!(short, TaskSpec { work: expected, env: Default::default(), ..spec.clone() });
    }

    #[test]
    fn a_long_command_keeps_its_first_arguments() {
        let long = "x".repeat(2_000);
        for (argv, expected) in [
            (vec!["sh", "-c", &long], vec!["sh".to_owned(), "-c".into(), format!("{}…", "x".repeat(BEGINNING - 4))]),
            (vec![&long], vec![format!("{}…", "x".repeat(BEGINNING))]),
        ] {
            let short = brief(&command(&argv)).expect("it is cut");
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            assert_eq!(short, command(&expected));
        }
        let empty = vec![""; 5_000];
        let short = brief(&command(&empty)).expect("it is cut");
        assert!(short.encoded_len() <= WHOLE, "empty arguments count as well");
    }
}
