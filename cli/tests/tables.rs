//! Exit codes, the JSON of a task, contexts.

use std::{fs, path::Path};

use sculpt::{
    config::{Config, ConfigError, Entry, Overrides},
    exit::{Exit, STATES, state_name},
    output::tasks::TaskJson,
};
use sculpt_proto::v1::{
    Attempt, Command, Exit as ProcessExit, Failure, Milestone, OnLost, Requester, Task, TaskSpec, TaskState, Waiting,
    task_spec::Work, waiting::Reason,
};

use crate::sandbox::{Sandbox, stray_token};

#[test]
fn scripts_can_rely_on_the_codes() {
    let codes: Vec<_> =
        STATES.iter().map(|state| (state_name(*state), Exit::of_state(*state).map(Exit::code))).collect();
    let expected = [
        ("queued", None),
        ("starting", None),
        ("running", None),
        ("waiting", Some(3)),
        ("idle", Some(0)),
        ("paused", None),
        ("limited", Some(75)),
        ("needs_review", Some(0)),
        ("accepted", Some(0)),
        ("merged", Some(0)),
        ("rejected", Some(5)),
        ("completed", Some(0)),
        ("failed", Some(1)),
        ("lost", None),
        ("cancelled", Some(4)),
    ];
    assert_eq!(codes, expected);
    let statuses = [
        (tonic::Code::NotFound, 6),
        (tonic::Code::AlreadyExists, 7),
        (tonic::Code::Aborted, 7),
        (tonic::Code::FailedPrecondition, 7),
        (tonic::Code::InvalidArgument, 64),
        (tonic::Code::Unavailable, 69),
        (tonic::Code::Unauthenticated, 77),
        (tonic::Code::PermissionDenied, 77),
        (tonic::Code::Internal, 1),
    ];
    for (status, code) in statuses {
        assert_eq!(Exit::of_status(status).code(), code, "{status:?}");
    }
    assert_eq!([Exit::Usage, Exit::TimedOut].map(Exit::code), [2, 124]);
}

fn full_task() -> Task {
    let at = |seconds: i64| Some(prost_types::Timestamp { seconds: 1_700_000_000 + seconds, nanos: 5_000_000 });
    Task {
        uuid: "0198c0de-0000-7000-8000-000000000017".into(),
        number: 17,
        revision: 9,
        title: "Fix the parser".into(),
        state: TaskState::Failed.into(),
        failure: Some(Failure { cause: "agent_exit".into(), message: "The agent ended with code 3.".into() }),
        spec: Some(TaskSpec {
            work: Some(Work::Command(Command { argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"exit 3\xff".to_vec()] })),
            base: "1".repeat(40),
            tty: true,
            env: [("KEY".to_owned(), "value".to_owned())].into(),
            timeout: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
            on_lost: OnLost::Retry.into(),
            lost_after: Some(prost_types::Duration { seconds: 5_400, nanos: 0 }),
            requirements: [("gpu".to_owned(), "yes".to_owned())].into(),
            labels: [("team".to_owned(), "core".to_owned())].into(),
            requester: Some(Requester { name: "Ada".into(), email: "ada@example.org".into() }),
            priority: 5,
            ..TaskSpec::default()
        }),
        project_id: "0198c0de-0000-7000-8000-00000000000a".into(),
        project: "tool".into(),
        branch: "sculpt/17-fix-the-parser".into(),
        head: "2".repeat(40),
        attempts: vec![Attempt {
            uuid: "0198c0de-0000-7000-8000-0000000000a1".into(),
            number: 1,
            executor_id: "0198c0de-0000-7000-8000-0000000000e1".into(),
            executor: "host-a".into(),
            state: "ended".into(),
            head: "2".repeat(40),
            exit: Some(ProcessExit { code: Some(3), signal: None }),
            log_bytes: 4096,
            log_complete: true,
            created_at: at(1),
            started_at: at(2),
            ended_at: at(3),
            failure: Some(Failure { cause: "agent_exit".into(), message: "The agent ended with code 3.".into() }),
            notes: vec!["submodules are not fetched".into()],
            pid: 0,
            outcome: "failed".into(),
            tmux_socket: String::new(),
            attached: Vec::new(),
        }],
        created_at: at(0),
        ended_at: at(3),
        intent: "run".into(),
        intent_line: "parse dates".into(),
        milestones: vec![
            Milestone { time: at(4), text: "the tests pass".into(), attempt: 1, user: String::new() },
            Milestone { time: at(5), text: "looked through".into(), attempt: 0, user: "ada".into() },
        ],
        created_by: "ada".into(),
        ..Task::default()
    }
}

#[test]
fn the_json_of_a_task_is_stable() {
    let waiting = Task {
        number: 18,
        state: TaskState::Queued.into(),
        waiting: Some(Waiting {
            reason: Reason::NoFreeSlot.into(),
            text: "All slots are in use.".into(),
            not_before: None,
        }),
        spec: Some(TaskSpec { work: Some(Work::Prompt("do it".into())), ..TaskSpec::default() }),
        ..Task::default()
    };
    let tasks = [TaskJson::from(&full_task()), TaskJson::from(&waiting)];
    let shown = serde_json::to_string_pretty(&tasks).unwrap() + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tasks.json");
    if std::env::var_os("SCULPT_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &shown).unwrap();
    }
    assert_eq!(shown, fs::read_to_string(&golden).unwrap(), "set SCULPT_WRITE_GOLDEN to accept a wanted change");
}

#[test]
fn each_variable_replaces_its_own_part() {
    let sandbox = Sandbox::new();
    let (kept, mine) = (stray_token(), stray_token());
    let token_file = sandbox.context("https://127.0.0.1:7433", &kept);
    let file = sandbox.path("home/.config/sculpt/config.toml");
    let mut config = Config::load(&file).unwrap();
    let resolve = |config: &Config, url: Option<&str>, token: Option<&str>, context: Option<&str>| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let overrides = Overrides { url: own(url), token: own(token), context: own(context) };
        config.resolve(&file, &overrides).map(|context| (context.name, context.url.to_string(), context.token))
    };
    let is = |name: &str, url: &str, token: &str| (name.to_owned(), url.to_owned(), token.to_owned());

    assert_eq!(resolve(&config, None, None, None).unwrap(), is("local", "https://127.0.0.1:7433/", &kept));
    let url = resolve(&config, Some("https://localhost:1"), None, None).unwrap();
    assert_eq!(url, is("local", "https://localhost:1/", &kept));
    let token = resolve(&config, None, Some(&mine), None).unwrap();
    assert_eq!(token, is("local", "https://127.0.0.1:7433/", &mine));
    config.contexts.insert("other".into(), Entry { url: "https://[::1]:9".into(), token_file });
    assert_eq!(resolve(&config, None, None, Some("other")).unwrap().1, "https://[::1]:9/");
    assert!(matches!(resolve(&config, None, None, Some("third")), Err(ConfigError::UnknownContext { .. })));
    let alone = resolve(&Config::default(), Some("https://127.0.0.1:2"), Some(&mine), None).unwrap();
    assert_eq!(alone, is("environment", "https://127.0.0.1:2/", &mine));
    assert!(matches!(resolve(&Config::default(), None, None, None), Err(ConfigError::NoContext(_))));
    assert!(matches!(
        resolve(&Config::default(), Some("https://127.0.0.1:2"), None, None),
        Err(ConfigError::NoToken(_))
    ));
    for wrong in ["http://127.0.0.1:7433", "ssh://host", "https://me@127.0.0.1", "https://host/path", "https://"] {
        assert!(matches!(resolve(&config, Some(wrong), None, None), Err(ConfigError::Url { .. })), "{wrong}");
    }
}

#[test]
fn the_configuration_survives_being_written() {
    let sandbox = Sandbox::new();
    sandbox.context("https://127.0.0.1:7433", &stray_token());
    let file = sandbox.path("home/.config/sculpt/config.toml");
    let config = Config::load(&file).unwrap();
    config.save(&file).unwrap();
    assert_eq!(Config::load(&file).unwrap(), config);
}
