//! Gathering from real working copies, hostile ones among them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sculpt_executor::{
    blocking::Blocking,
    harvest::{Commit, Container, Harvest, HarvestError, Plan, harvest},
    spec::{Repository, Requester},
    workspace,
};
use sculpt_proto::id::{AttemptId, ProjectId};

use crate::git::{git, project, try_git};

struct Copy {
    root: tempfile::TempDir,
    plan: Plan,
}

impl Copy {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (store, base) = project(root.path(), &[(b"a.txt", "one\n"), (b".gitignore", "*.tmp\n")]);
        let path = root.path().join("copy");
        let repository = Repository {
            project: ProjectId::fresh(),
            name: "p".into(),
            base: base.clone(),
            branch: "sculpt/1-x".into(),
            git_path: "/git/x.git".into(),
            subdirectory: PathBuf::new(),
        };
        let requester = Requester { name: "Ann Example".into(), email: "ann@example.org".into() };
        workspace::check_out(&path, &store, &repository, &requester, None, &Blocking::default()).await.unwrap();
        let plan = Plan {
            workspace: path,
            base,
            store,
            quarantine: root.path().join("quarantine.git"),
            commit: Some(Commit { requester, message: "Keep it\n\nBody\n".into() }),
            container: Container {
                program: env!("CARGO_BIN_EXE_sculpt-executor").into(),
                attempt: AttemptId::fresh().to_string(),
                ..Container::default()
            },
        };
        Self { root, plan }
    }

    fn path(&self) -> &Path {
        &self.plan.workspace
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(self.path(), arguments)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join(name), content).unwrap();
    }

    /// An executable that leaves a trace when it is run.
    fn trap(&self, path: &Path) -> PathBuf {
        let trace = self.root.path().join("trace");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\ntouch '{}'\ncat\n", trace.display())).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        trace
    }

    async fn harvest(&self) -> Harvest {
        harvest(&self.plan).await.unwrap()
    }

    /// What a fresh repository with the base has of the head after it has taken the pack.
    fn published(&self, harvest: &Harvest, arguments: &[&str]) -> String {
        let found = harvest.found.as_ref().unwrap();
        assert_eq!(fs::metadata(&found.pack).unwrap().len(), found.pack_length);
        let pack = fs::read(&found.pack).unwrap();
        let target = self.plan.store.join("objects/pack/pack-taken.pack");
        fs::write(&target, pack).unwrap();
        git(&self.plan.store, &["index-pack", "--strict", target.to_str().unwrap()]);
        git(&self.plan.store, arguments)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_copy_gives_nothing() {
    let copy = Copy::new().await;
    assert_eq!(copy.harvest().await, Harvest::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_changes_are_committed_for_the_requester() {
    let copy = Copy::new().await;
    copy.write("new file\n.txt", "hi\n");
    copy.write("skip.tmp", "no\n");
    fs::remove_file(copy.path().join("a.txt")).unwrap();
    let harvest = copy.harvest().await;
    let head = harvest.found.clone().unwrap().head;
    let log = copy.published(&harvest, &["log", "-1", "--format=%an <%ae> %cn|%s", &head]);
    assert_eq!(log, "Ann Example <ann@example.org> Ann Example|Keep it");
    let names = copy.published(&harvest, &["diff", "--name-status", "-z", &copy.plan.base, &head]);
    assert_eq!(names, "D\0a.txt\0A\0new file\n.txt\0");
    assert_eq!(harvest.keep, None);
    // A restart in between gathers the same again.
    assert_eq!(copy.harvest().await.found.unwrap().head, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_wish_uncommitted_changes_stay_where_they_are() {
    let mut copy = Copy::new().await;
    copy.plan.commit = None;
    copy.write("a.txt", "two\n");
    assert_eq!(copy.harvest().await, Harvest::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_found_on_whatever_head_is() {
    for (case, note) in [("branch", None), ("detached", None), ("orphan", Some("does not descend")), ("behind", None)] {
        let copy = Copy::new().await;
        match case {
            "branch" => drop(copy.git(&["checkout", "-qb", "other"])),
            "detached" => drop(copy.git(&["checkout", "-q", "--detach"])),
            "orphan" => drop(copy.git(&["checkout", "-q", "--orphan", "fresh"])),
            _ => {}
        }
        copy.write("b.txt", case);
        copy.git(&["add", "-A"]);
        copy.git(&["commit", "-qm", case]);
        let head = copy.git(&["rev-parse", "HEAD"]);
        let harvest = copy.harvest().await;
        let found = harvest.found.clone().unwrap();
        assert_eq!(found.head, head, "{case}");
        assert_eq!(found.branch.is_none(), case == "detached");
        assert_eq!(copy.published(&harvest, &["show", &format!("{head}:b.txt")]), case);
        assert_eq!(harvest.notes.iter().any(|text| note.is_some_and(|note| text.contains(note))), note.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_not_published_keep_the_workspace() {
    let copy = Copy::new().await;
    copy.git(&["checkout", "-qb", "side"]);
    copy.write("b.txt", "side");
    copy.git(&["add", "-A"]);
    copy.git(&["commit", "-qm", "side"]);
    copy.git(&["checkout", "-q", "sculpt/1-x"]);
    let harvest = copy.harvest().await;
    assert_eq!(harvest.found, None);
    assert_eq!(harvest.keep.as_deref(), Some("1 commits on other branches are not published"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unborn_head_is_told_and_a_lost_repository_is_an_error() {
    let mut copy = Copy::new().await;
    copy.plan.commit = None;
    copy.git(&["symbolic-ref", "HEAD", "refs/heads/nothing"]);
    let gathered = copy.harvest().await;
    assert!(gathered.found.is_none() && gathered.notes[0].contains("without commits"), "{gathered:?}");
    fs::remove_dir_all(copy.path().join(".git")).unwrap();
    let lost = harvest(&copy.plan).await;
    assert!(matches!(lost, Err(HarvestError::NoRepository)), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_repository_names_is_run() {
    let copy = Copy::new().await;
    let hook = copy.path().join(".git/hooks/pre-commit");
    let trace = copy.trap(&hook);
    for name in ["post-commit", "reference-transaction", "post-index-change", "commit-msg"] {
        copy.trap(&copy.path().join(".git/hooks").join(name));
    }
    let program = copy.root.path().join("program");
    copy.trap(&program);
    let program = program.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.editor",
        "core.pager",
        "gpg.program",
        "diff.external",
        "filter.x.clean",
        "filter.x.process",
        "filter.x.smudge",
        "credential.helper",
        "core.alternateRefsCommand",
        "uploadpack.packObjectsHook",
    ] {
        fs::OpenOptions::new().append(true).open(copy.path().join(".git/config")).unwrap();
        git(copy.root.path(), &["config", "--file", copy.path().join(".git/config").to_str().unwrap(), key, program]);
    }
    let config = copy.path().join(".git/config");
    for (key, value) in [("commit.gpgSign", "true"), ("core.hooksPath", ".git/hooks"), ("gc.auto", "1")] {
        git(copy.root.path(), &["config", "--file", config.to_str().unwrap(), key, value]);
    }
    copy.write(".gitattributes", "* filter=x diff=x\n");
    copy.write("b.txt", "b\n");
    fs::write(copy.path().join(".git/index.lock"), "").unwrap();
    let harvest = copy.harvest().await;
    let head = harvest.found.clone().unwrap().head;
    assert_eq!(copy.published(&harvest, &["show", &format!("{head}:b.txt")]), "b");
    assert!(!trace.exists(), "a program that the repository names was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_filter_that_is_off_keeps_its_files_back() {
    let copy = Copy::new().await;
    copy.git(&["config", "filter.secret.clean", "cat"]);
    copy.git(&["config", "filter.secret.required", "true"]);
    copy.write(".gitattributes", "secret.txt filter=secret\n");
    copy.write("secret.txt", "plain text\n");
    copy.write("b.txt", "b\n");
    let harvest = copy.harvest().await;
    let head = harvest.found.clone().unwrap().head;
    assert_eq!(copy.published(&harvest, &["show", &format!("{head}:b.txt")]), "b");
    assert!(!try_git(&copy.plan.store, &["show", &format!("{head}:secret.txt")]).status.success());
    assert!(harvest.keep.is_some(), "{harvest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_common_directory_or_work_tree_is_not_followed() {
    let copy = Copy::new().await;
    let other = copy.root.path().join("other");
    fs::create_dir(&other).unwrap();
    git(&other, &["init", "-q", "-b", "sculpt/1-x"]);
    fs::write(other.join("stolen.txt"), "secret").unwrap();
    git(&other, &["add", "-A"]);
    git(&other, &["commit", "-qm", "secret"]);
    fs::write(copy.path().join(".git/commondir"), other.join(".git").to_str().unwrap()).unwrap();
    let config = copy.path().join(".git/config");
    git(copy.root.path(), &["config", "--file", config.to_str().unwrap(), "core.worktree", other.to_str().unwrap()]);
    copy.write("b.txt", "b\n");
    let harvest = copy.harvest().await;
    let head = harvest.found.clone().unwrap().head;
    assert_eq!(copy.published(&harvest, &["show", &format!("{head}:b.txt")]), "b");
    assert!(!try_git(&copy.plan.store, &["show", &format!("{head}:stolen.txt")]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_with_a_hole_is_not_believed() {
    let mut copy = Copy::new().await;
    copy.plan.commit = None;
    copy.write("b.txt", "lost content\n");
    copy.git(&["add", "-A"]);
    copy.git(&["commit", "-qm", "hole"]);
    let blob = copy.git(&["rev-parse", "HEAD:b.txt"]);
    let object = copy.path().join(".git/objects").join(&blob[..2]).join(&blob[2..]);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&object).unwrap();
    let error = harvest(&copy.plan).await.unwrap_err();
    assert!(matches!(error, HarvestError::Git(_) | HarvestError::Invalid(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_read_as_one_any_more_is_an_error_and_never_nothing() {
    let harms: [(&str, &str); 8] = [
        ("rm -rf .git", "its .git directory is gone"),
        ("mv .git ../elsewhere && ln -s ../elsewhere .git", "its .git directory is gone"),
        ("rm -rf .git/refs/heads", "all of its branches are gone"),
        ("rm -rf .git/refs", "all of its branches are gone"),
        ("rm .git/HEAD && mkfifo .git/HEAD", "\"HEAD\" in its .git directory"),
        ("rm .git/config && mkfifo .git/config", "\"config\" in its .git directory"),
        ("rm .git/config && ln -s /dev/zero .git/config", "\"config\" in its .git directory"),
        ("mkfifo .git/refs/heads/other", "\"other\" in its .git directory"),
    ];
    for (harm, why) in harms {
        let copy = Copy::new().await;
        copy.git(&["commit", "--quiet", "--allow-empty", "--message", "made"]);
        let harmed = std::process::Command::new("sh").args(["-c", harm]).current_dir(copy.path()).status().unwrap();
        assert!(harmed.success(), "{harm}");
        let begun = std::time::Instant::now();
        let error = harvest(&copy.plan).await.unwrap_err().to_string();
        assert!(error.contains(why), "{harm}: {error}");
        assert!(begun.elapsed().as_secs() < 60, "{harm}: nothing is waited for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_without_commits_beside_others_gives_nothing() {
    let copy = Copy::new().await;
    copy.git(&["checkout", "--quiet", "--orphan", "fresh"]);
    let plan = Plan { commit: None, ..copy.plan };
    let harvest = harvest(&plan).await.unwrap();
    assert!(harvest.found.is_none() && harvest.notes[0].contains("without commits"), "{harvest:?}");
}
