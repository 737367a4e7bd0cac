//! Workspaces from real repositories.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use sculpt_executor::{
    accounts::Account,
    blocking::Blocking,
    spec::{Repository, Requester},
    workspace::{self, Ready},
};
use sculpt_proto::id::ProjectId;

use crate::git::{git, project};

fn repository(base: &str, subdirectory: &str) -> Repository {
    Repository {
        project: ProjectId::fresh(),
        name: "p".into(),
        base: base.into(),
        branch: "sculpt/17-fix".into(),
        git_path: "/git/x.git".into(),
        subdirectory: subdirectory.into(),
    }
}

async fn check_out(root: &Path, store: &Path, repository: &Repository, account: Option<&Account>) -> (PathBuf, Ready) {
    let path = root.join("copy");
    let requester = Requester { name: "Ann".into(), email: "ann@x".into() };
    let ready =
        workspace::check_out(&path, store, repository, &requester, account, &Blocking::default()).await.unwrap();
    (path, ready)
}

#[tokio::test]
async fn every_file_name_that_git_takes_is_checked_out() {
    let root = tempfile::tempdir().unwrap();
    let names: [&[u8]; 4] = [b"with space", b"new\nline", b"\xff\xfe.bin", "\u{fc}mlaut/\"quoted\"".as_bytes()];
    let files: Vec<(&[u8], &str)> = names.into_iter().map(|name| (name, "x\n")).collect();
    let (store, base) = project(root.path(), &files);
    let (path, ready) = check_out(root.path(), &store, &repository(&base, ""), None).await;
    assert_eq!(ready, Ready { cwd: path.clone(), notes: vec![] });
    for name in names {
        assert_eq!(fs::read_to_string(path.join(OsStr::from_bytes(name))).unwrap(), "x\n");
    }
    assert_eq!(git(&path, &["status", "--porcelain"]), "");
    assert_eq!(git(&path, &["symbolic-ref", "HEAD"]), "refs/heads/sculpt/17-fix");
    assert_eq!(git(&path, &["rev-parse", "HEAD"]), base);
    assert_eq!(git(&path, &["config", "user.name"]), "Ann");
    assert_eq!(git(&path, &["config", "user.email"]), "ann@x");
    // Nothing is copied: the objects are the store's.
    assert_eq!(git(&path, &["count-objects"]), "0 objects, 0 kilobytes");
}

#[tokio::test]
async fn a_half_made_workspace_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let (store, base) = project(root.path(), &[(b"a", "x")]);
    fs::create_dir_all(root.path().join("copy/.git/objects")).unwrap();
    fs::write(root.path().join("copy/left-over"), "x").unwrap();
    let (path, _) = check_out(root.path(), &store, &repository(&base, ""), None).await;
    assert_eq!(git(&path, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn the_starting_point_stays_inside() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = project(root.path(), &[(b"sub/dir/a", "x")]);
    let work = root.path().join("work");
    std::os::unix::fs::symlink("/etc", work.join("out")).unwrap();
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-qm", "link"]);
    git(&store, &["fetch", "-q", work.to_str().unwrap(), "+main:main"]);
    let base = git(&work, &["rev-parse", "HEAD"]);
    for (wished, inside) in [("sub/dir", true), ("absent", false), ("out", false), ("sub/dir/a", false)] {
        let (path, ready) = check_out(root.path(), &store, &repository(&base, wished), None).await;
        assert_eq!(ready.cwd, if inside { path.join(wished) } else { path }, "{wished}");
        assert_eq!(ready.notes.is_empty(), inside, "{wished}");
    }
}

#[tokio::test]
async fn submodules_and_lfs_pointers_are_left_and_told() {
    let root = tempfile::tempdir().unwrap();
    let (store, base) = project(root.path(), &[(b".gitattributes", "*.bin filter=lfs\n"), (b"x.bin", "version lfs\n")]);
    let work = root.path().join("work");
    git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{base},module")]);
    git(&work, &["commit", "-qm", "module"]);
    git(&store, &["fetch", "-q", work.to_str().unwrap(), "+main:main"]);
    let base = git(&work, &["rev-parse", "HEAD"]);
    let (path, ready) = check_out(root.path(), &store, &repository(&base, ""), None).await;
    assert_eq!(fs::read_to_string(path.join("x.bin")).unwrap(), "version lfs\n");
    assert_eq!(ready.notes.len(), 2, "{ready:?}");
    assert!(ready.notes[0].contains("submodules") && ready.notes[1].contains("LFS"), "{ready:?}");
}

#[tokio::test]
async fn a_base_that_is_not_there_fails_with_gits_words() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = project(root.path(), &[(b"a", "x")]);
    let requester = Requester { name: "Ann".into(), email: "ann@x".into() };
    let absent = repository(&"1".repeat(40), "");
    let error =
        workspace::check_out(&root.path().join("copy"), &store, &absent, &requester, None, &Blocking::default())
            .await
            .unwrap_err();
    assert!(error.to_string().contains("git could not set the branch"), "{error}");
}

#[tokio::test]
async fn a_separated_account_owns_its_copy_and_not_what_it_borrows() {
    if !sculpt_executor::host::is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (store, base) = project(root.path(), &[(b"a", "x")]);
    git(&store, &["repack", "-adq"]);
    let account = Account { name: "nobody".into(), uid: 65_534, gid: 65_534, home: "/nonexistent".into() };
    let (path, _) = check_out(root.path(), &store, &repository(&base, ""), Some(&account)).await;
    assert_eq!(git(&path, &["rev-parse", "HEAD"]), base);
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    assert_eq!((owner(&path), owner(&path.join("a")), owner(&path.join(".git/config"))), (65_534, 65_534, 65_534));
    let packs: Vec<_> = fs::read_dir(path.join(".git/objects/pack")).unwrap().flatten().collect();
    assert!(packs.len() >= 2 && packs.iter().all(|pack| owner(&pack.path()) == 0), "{packs:?}");
    assert!(!path.join(".git/objects/info/alternates").exists());
}

#[tokio::test]
async fn packs_are_joined_under_a_workspace_and_no_object_goes() {
    let root = tempfile::tempdir().unwrap();
    let (origin, base) = project(root.path(), &[(b"a", "x")]);
    let store = root.path().join("store.git");
    git(root.path(), &["init", "-q", "--bare", store.to_str().unwrap()]);
    let work = root.path().join("work");
    let fetch = |commit: &str, reference: &str| {
        git(&origin, &["fetch", "-q", work.to_str().unwrap(), "+main:main"]);
        let arguments = ["-c", "fetch.unpackLimit=1", "-c", "gc.auto=0", "fetch", "-q", origin.to_str().unwrap()];
        git(&store, &[&arguments[..], &[&format!("+{commit}:{reference}")]].concat());
    };
    fetch(&base, &format!("refs/sculpt/bases/{base}"));
    let (path, _) = check_out(root.path(), &store, &repository(&base, ""), None).await;
    let mut commits = Vec::new();
    for n in 0..25 {
        git(&work, &["commit", "-q", "--allow-empty", "-m", &format!("commit {n}")]);
        commits.push(git(&work, &["rev-parse", "HEAD"]));
        fetch(&commits[n], "refs/sculpt/last");
    }
    git(&store, &["update-ref", "-d", "refs/sculpt/last"]);
    let packs = || {
        fs::read_dir(store.join("objects/pack"))
            .unwrap()
            .flatten()
            .filter(|it| it.path().extension().is_some_and(|kind| kind == "pack"))
            .count()
    };
    assert!(packs() >= 25);
    assert!(workspace::compact::compact(&store).await.unwrap());
    assert!(packs() < 5, "{}", packs());
    assert!(!workspace::compact::compact(&store).await.unwrap(), "few packs are left alone");
    assert_eq!(git(&path, &["status", "--porcelain"]), "");
    for commit in &commits {
        assert_eq!(git(&path, &["cat-file", "-t", commit]), "commit", "a workspace may borrow what no ref leads to");
    }
}
