//! Running, following and waiting over a controller that breaks.

mod streams;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use sculpt_proto::v1::{Attempt, Failure, Task, TaskState, Waiting, task_spec::Work};

use crate::{
    controller::{Controller, PROJECT},
    sandbox::run,
};

fn task(state: TaskState) -> Task {
    Task {
        uuid: "0198c0de-0000-7000-8000-000000000017".into(),
        number: 17,
        title: "work".into(),
        state: state.into(),
        attempts: vec![Attempt {
            number: 1,
            state: "running".into(),
            executor: "host".into(),
            log_bytes: 1,
            ..Attempt::default()
        }],
        ..Task::default()
    }
}

fn failed() -> Task {
    let failure = Failure { cause: "agent_exit".into(), message: "The agent ended with code 3.".into() };
    Task { failure: Some(failure), ..task(TaskState::Failed) }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wish_is_one_request() {
    let (sandbox, controller) = Controller::known(failed()).await;
    *controller.script.lost_answers.lock().unwrap() = 2;
    let done = run(sandbox.sculpt(&sandbox.path("home"), &["run", "-q", "-d", "--no-repo", "--", "work"])).await;
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "17\n", ""));
    let created = controller.script.created.lock().unwrap();
    assert_eq!(created.len(), 3);
    assert!(created.iter().all(|request| request == &created[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_base_is_sent_once_and_then_only_what_is_new() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("repo", 3);
    sandbox.git(&repo, &["remote", "add", "origin", "https://me:secret@forge.example/a/tool.git"]);
    fs::create_dir(repo.join("sub")).unwrap();
    fs::write(repo.join("sub/x"), "x").unwrap();
    sandbox.git(&repo, &["add", "."]);
    sandbox.git(&repo, &["commit", "-qm", "sub"]);
    let args = ["run", "-d", "do it"];
    let first = run(sandbox.sculpt(&repo.join("sub"), &args)).await;
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains("registered this repository as project tool"), "{}", first.stderr);
    assert!(first.stderr.contains("added the git remote `sculpt`"), "{}", first.stderr);

    let head = sandbox.git(&repo, &["rev-parse", "HEAD"]);
    let spec = controller.script.created.lock().unwrap()[0].spec.clone().unwrap();
    assert_eq!((spec.base, spec.project, spec.subdirectory), (head, PROJECT.to_owned(), b"sub".to_vec()));
    assert!(spec.tty);
    assert_eq!(spec.work, Some(Work::Prompt("do it".into())));
    let requester = spec.requester.unwrap();
    assert_eq!(requester.name, "tester");
    assert!(requester.email.starts_with("tester@"), "{}", requester.email);
    let ensured = controller.script.ensured.lock().unwrap()[0].clone();
    assert_eq!(ensured.remote, "https://forge.example/a/tool.git");
    assert_eq!(ensured.root_commit, sandbox.git(&repo, &["rev-list", "--max-parents=0", "HEAD"]));

    let url = sandbox.git(&repo, &["config", "remote.sculpt.url"]);
    assert_eq!(url, format!("{}/git/{PROJECT}.git", controller.url()));
    let helper = sandbox.git(&repo, &["config", "--get-urlmatch", "credential.helper", &url]);
    assert!(helper.ends_with("/sculpt' git-credential"), "{helper}");

    let second = run(sandbox.sculpt(&repo, &args)).await;
    assert_eq!((second.code, second.stderr.as_str()), (0, ""));
    assert_eq!(controller.script.packs.lock().unwrap().len(), 1);
    fs::write(repo.join("file0"), "other\n").unwrap();
    sandbox.git(&repo, &["commit", "-qam", "other"]);
    assert_eq!(run(sandbox.sculpt(&repo, &args)).await.code, 0);
    assert_eq!(controller.script.packs.lock().unwrap().len(), 2);
    assert_eq!(controller.script.ensured.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_in_a_fresh_repository() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("repo", 2);
    let all: Vec<_> = (0..8).map(|_| tokio::spawn(run(sandbox.sculpt(&repo, &["run", "-q", "-d", "x"])))).collect();
    for one in all {
        let done = one.await.unwrap();
        assert_eq!((done.code, done.stdout.as_str()), (0, "17\n"), "{}", done.stderr);
        assert!(!done.stderr.contains("not set up"), "{}", done.stderr);
    }
    assert_eq!(controller.script.created.lock().unwrap().len(), 8);
    let values = |key: &str| {
        let values = sandbox.git(&repo, &["config", "--local", "--null", "--get-all", key]);
        values.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    let helpers = values(&format!("credential.{}.helper", controller.url()));
    let [reset, ours] = &helpers[..] else { panic!("{helpers:?}") };
    assert!(reset.is_empty() && ours.ends_with("/sculpt' git-credential"), "{helpers:?}");
    assert_eq!(values("remote.sculpt.fetch"), ["+refs/heads/*:refs/remotes/sculpt/*"]);
    assert_eq!(values("remote.sculpt.url"), [format!("{}/git/{PROJECT}.git", controller.url())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dirty_tree_is_sent_and_stays_as_it_is() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("repo", 2);
    fs::write(repo.join(".gitignore"), "ignored\n").unwrap();
    sandbox.git(&repo, &["add", ".gitignore"]);
    sandbox.git(&repo, &["commit", "-qm", "ignore"]);
    let args = ["run", "-d", "--include-changes", "do it"];
    let clean = run(sandbox.sculpt(&repo, &args)).await;
    assert_eq!(clean.code, 0, "{}", clean.stderr);
    let head = sandbox.git(&repo, &["rev-parse", "HEAD"]);
    let base = |index: usize| controller.script.created.lock().unwrap()[index].spec.clone().unwrap().base;
    assert_eq!(base(0), head, "nothing differs, so there is no extra commit");

    fs::write(repo.join("file0"), "changed\n").unwrap();
    fs::write(repo.join("staged"), "staged\n").unwrap();
    sandbox.git(&repo, &["add", "staged"]);
    fs::write(repo.join("new file"), "new\n").unwrap();
    fs::write(repo.join("ignored"), "secret\n").unwrap();
    fs::remove_file(repo.join("file1")).unwrap();
    let before = (sandbox.git(&repo, &["status", "--porcelain"]), fs::read(repo.join(".git/index")).unwrap());
    assert_eq!(run(sandbox.sculpt(&repo, &args)).await.code, 0);
    let after = (sandbox.git(&repo, &["status", "--porcelain"]), fs::read(repo.join(".git/index")).unwrap());
    assert_eq!(before, after);
    assert_eq!(sandbox.git(&repo, &["rev-parse", "HEAD"]), head);

    let store = sandbox.path("store.git");
    let commit = base(1);
    assert_eq!(sandbox.git(&store, &["rev-parse", &format!("{commit}^")]), head);
    let files = sandbox.git(&store, &["ls-tree", "-r", "--name-only", &commit]);
    assert_eq!(files.lines().collect::<Vec<_>>(), [".gitignore", "file0", "new file", "staged"]);
    assert_eq!(sandbox.git(&store, &["show", &format!("{commit}:file0")]), "changed");
    assert_eq!(sandbox.git(&store, &["show", "-s", "--format=%an", &commit]), "tester");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_clone_says_how_to_mend_it() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("repo", 3);
    let url = format!("file://{}", repo.display());
    sandbox.git(&sandbox.path(""), &["clone", "-q", "--depth", "1", &url, "shallow"]);
    let shallow = sandbox.path("shallow");
    run(sandbox.sculpt(&shallow, &["run", "x"])).await.refuses(64, &["shallow", "git fetch --unshallow"]);
    assert!(controller.script.ensured.lock().unwrap().is_empty(), "the border of a shallow clone is not its root");
    sandbox.git(&shallow, &["fetch", "-q", "--unshallow"]);
    assert_eq!(run(sandbox.sculpt(&shallow, &["run", "-d", "x"])).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_controller_have_their_codes() {
    let (sandbox, _controller) = Controller::known(task(TaskState::Completed)).await;
    let home = sandbox.path("home");
    run(sandbox.sculpt(&home, &["stop", "17"])).await.refuses(7, &["stop task 17", "completed"]);
    run(sandbox.sculpt(&home, &["show", "99"])).await.refuses(6, &["no task 99", "sculpt ls"]);
    run(sandbox.sculpt(&home, &["diff", "17"])).await.refuses(7, &["published no commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_turn_or_with_patience() {
    let (sandbox, controller) = Controller::known(task(TaskState::Running)).await;
    let home = sandbox.path("home");
    run(sandbox.sculpt(&home, &["wait", "17", "--timeout", "100ms"])).await.refuses(124, &["limit of 100ms"]);
    run(sandbox.sculpt(&home, &["wait", "99"])).await.refuses(6, &["99"]);
    let waiting = tokio::spawn(run(sandbox.sculpt(&home, &["wait", "17", "17"])));
    // The watch sees the change whether it began before or after it.
    controller.script.task.send_replace(task(TaskState::Cancelled));
    assert_eq!(waiting.await.unwrap().code, 4);
    let json = run(sandbox.sculpt(&home, &["-o", "json", "show", "17"])).await;
    let shown: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((shown["state"].as_str(), shown["attempt"].as_u64()), (Some("cancelled"), Some(1)));
    let list = run(sandbox.sculpt(&home, &["ls", "-o", "json"])).await;
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_is_waited_for_until_its_real_end() {
    let lost = || Task {
        unreachable: true,
        waiting: Some(Waiting { text: "it goes on when the executor is back".into(), ..Waiting::default() }),
        ..task(TaskState::Lost)
    };
    let (sandbox, controller) = Controller::known(lost()).await;
    let home = sandbox.path("home");
    for args in [&["run", "--no-repo", "--", "work"][..], &["wait", "17"]] {
        controller.script.task.send_replace(lost());
        let mut child = sandbox.sculpt(&home, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let task_now = controller.script.task.clone();
        let ended = tokio::task::spawn_blocking(move || {
            assert!(said.by_ref().map(Result::unwrap).any(|line| line.contains("is lost: it goes on when")));
            task_now.send_replace(task(TaskState::Running));
            assert!(said.by_ref().map(Result::unwrap).any(|line| line.contains("its executor is back")));
            task_now.send_replace(task(TaskState::Cancelled));
            said.for_each(drop);
            child.wait().unwrap().code()
        });
        assert_eq!(ended.await.unwrap(), Some(4), "{args:?}");
    }
    controller.script.task.send_replace(lost());
    assert_eq!(run(sandbox.sculpt(&home, &["wait", "17", "--for", "lost"])).await.code, 0);
    run(sandbox.sculpt(&home, &["wait", "17", "--timeout", "200ms"])).await.refuses(124, &["is lost"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_offers_what_the_controller_knows() {
    let (sandbox, _controller) = Controller::known(task(TaskState::Running)).await;
    let home = sandbox.path("home");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_sculpt"));
    let offered = async |words: &str| {
        let script = format!(
            "PATH={}:$PATH; source <(sculpt completion bash); COMP_WORDS=(sculpt {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _sculpt_words sculpt \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            program.parent().unwrap().display()
        );
        let mut bash = sandbox.command("bash", &home);
        bash.args(["-c", &script]);
        let offered = run(bash).await;
        assert_eq!(offered.code, 0, "{}", offered.stderr);
        offered.stdout.trim().to_owned()
    };
    assert_eq!(offered("show ''").await, "17");
    assert_eq!(offered("logs -f 1").await, "17");
    assert_eq!(offered("pair 1").await, "17");
    assert_eq!(offered("config-ssh --re").await, "--remove");
    assert_eq!(offered("sh").await, "show");
    assert_eq!(offered("ls --state need").await, "needs_review");
    assert!(offered("logs --f").await.contains("--follow"));
    assert!(offered("run --no-repo -- bas").await.contains("bash"));
    let verbs = offered("''").await;
    assert!(verbs.contains("pair") && !verbs.contains("git-credential") && !verbs.contains("--output"), "{verbs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_controllers_repository_is_its_project() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("repo", 1);
    assert_eq!(run(sandbox.sculpt(&repo, &["run", "-d", "x"])).await.code, 0);
    let url = sandbox.git(&repo, &["config", "remote.sculpt.url"]);
    let clone = sandbox.path("clone");
    sandbox.git(&sandbox.path("home"), &["clone", "-q", &repo.to_string_lossy(), &clone.to_string_lossy()]);
    sandbox.git(&clone, &["remote", "set-url", "origin", &url]);
    let done = run(sandbox.sculpt(&clone, &["run", "-d", "x"])).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(!done.stderr.contains("registered"), "{}", done.stderr);
    assert_eq!(controller.script.ensured.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_uncommitted_is_said() {
    let (sandbox, _controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("repo", 1);
    fs::write(repo.join("file0"), "changed\n").unwrap();
    let said = async |args: &[&str]| run(sandbox.sculpt(&repo, args)).await.stderr;
    let first = said(&["run", "-d", "x"]).await;
    assert!(first.contains("1 uncommitted file stays here; --include-changes"), "{first}");
    fs::write(repo.join("new"), "").unwrap();
    assert!(said(&["run", "-d", "x"]).await.contains("2 uncommitted files stay here"));
    for quiet in
        [&["run", "-d", "-q", "x"][..], &["run", "-d", "--include-changes", "x"], &["run", "-d", "--base", "HEAD", "x"]]
    {
        assert!(!said(quiet).await.contains("uncommitted"), "{quiet:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_a_clone_is_what_that_one_is() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let repo = sandbox.repository("proj", 1);
    let home = sandbox.path("home");
    let clone = |from: &std::path::Path, name: &str, flags: &[&str]| {
        let to = sandbox.path(name);
        let (source, target) = (from.to_string_lossy(), to.to_string_lossy());
        sandbox.git(&home, &[&["clone", "-q"], flags, &[&*source, &*target]].concat());
        to
    };
    let second = clone(&repo, "proj2", &[]);
    let third = clone(&second, "proj3", &[]);
    let bare = clone(&repo, "central.git", &["--bare"]);
    let from_bare = clone(&bare, "proj4", &[]);
    let remote_of = async |repo: &std::path::Path| {
        assert_eq!(run(sandbox.sculpt(repo, &["project", "add"])).await.code, 0);
        controller.script.ensured.lock().unwrap().last().unwrap().remote.clone()
    };
    assert_eq!(remote_of(&third).await, "", "the first has no remote");
    assert_eq!(remote_of(&from_bare).await, bare.to_string_lossy(), "others push there");
    sandbox.git(&repo, &["remote", "add", "origin", "https://forge.example/a/tool.git"]);
    assert_eq!(remote_of(&third).await, "https://forge.example/a/tool.git");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_offered_of_a_project_that_was_removed() {
    let mut removed = task(TaskState::NeedsReview);
    removed.project = "web".into();
    removed.project_id = PROJECT.into();
    removed.project_removed = true;
    let (sandbox, _controller) = Controller::known(removed).await;
    let repo = sandbox.repository("repo", 1);
    for verb in ["diff", "fetch"] {
        run(sandbox.sculpt(&repo, &[verb, "17"])).await.refuses(7, &["project web was removed", "sculpt project add"]);
    }
    let shown = run(sandbox.sculpt(&repo, &["show", "17"])).await.stdout;
    assert!(shown.contains("web (removed") && !shown.contains("sculpt diff"), "{shown}");
}
