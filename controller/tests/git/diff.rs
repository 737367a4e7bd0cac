//! What lies between two commits.

use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _};

use sculpt_controller::git::{Change, ChangeKind, Diff, DiffLimits, DiffPart, GitError};

use super::{
    World,
    repo::{Repo, try_git},
};

struct Seen {
    summary: Diff,
    patch: Vec<u8>,
    truncated: Option<String>,
}

async fn diff(world: &World, base: &str, head: &str, limits: DiffLimits) -> Result<Seen, GitError> {
    let mut parts = world.repositories.diff(world.project, base, head, limits).await?;
    let mut seen = Seen { summary: Diff::default(), patch: Vec::new(), truncated: None };
    let mut first = true;
    while let Some(part) = parts.recv().await {
        match part? {
            DiffPart::Summary(summary) => {
                assert!(first, "the summary comes first");
                seen.summary = summary;
            }
            DiffPart::Patch(bytes) => seen.patch.extend_from_slice(&bytes),
            DiffPart::Truncated(text) => seen.truncated = Some(text),
        }
        first = false;
    }
    Ok(seen)
}

fn find<'a>(seen: &'a Seen, path: &[u8]) -> &'a Change {
    let found = seen.summary.changes.iter().find(|change| change.path == path);
    found.unwrap_or_else(|| panic!("{:?} in {:?}", String::from_utf8_lossy(path), seen.summary.changes))
}

/// A change of every kind; base and head.
async fn everything(world: &World, repo: &Repo) -> (String, String) {
    let write = |path: &[u8], text: &[u8]| {
        std::fs::write(repo.path().join(std::ffi::OsStr::from_bytes(path)), text).unwrap();
    };
    let long: String = (0..100).map(|line| format!("line {line}\n")).collect();
    write(b"moved.txt", long.as_bytes());
    write(b"gone.txt", b"bye\n");
    write(b"mode.sh", b"#!/bin/sh\n");
    write(b"type.txt", b"a file\n");
    write(b"caf\xe9 with space\nand newline.txt", b"odd\n");
    write(b"no newline at end.txt", b"one\ntwo");
    write(b"image.bin", b"\0\x01\x02");
    let base = repo.commit_all().await;
    std::fs::rename(repo.path().join("moved.txt"), repo.path().join("there.txt")).unwrap();
    write(b"there.txt", long.replace("line 50\n", "line fifty\n").as_bytes());
    std::fs::remove_file(repo.path().join("gone.txt")).unwrap();
    std::fs::set_permissions(repo.path().join("mode.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(repo.path().join("type.txt")).unwrap();
    std::os::unix::fs::symlink("there.txt", repo.path().join("type.txt")).unwrap();
    write(b"caf\xe9 with space\nand newline.txt", b"odder\n");
    write(b"no newline at end.txt", b"one\nthree");
    write(b"new.txt", b"1\n2\n3\n");
    write(b"image.bin", b"\0\x01\x03");
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},library", "b".repeat(40))]).await;
    std::fs::create_dir(repo.path().join("library")).unwrap();
    let head = repo.commit_all().await;
    world.send_all(repo, &head).await;
    (base, head)
}

#[tokio::test]
async fn every_kind_of_change_is_told() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let (base, head) = everything(&world, &repo).await;
    let seen = diff(&world, &base, &head, DiffLimits::default()).await.unwrap();
    let moved = find(&seen, b"there.txt");
    assert_eq!((moved.kind, moved.old_path.as_slice()), (ChangeKind::Renamed, &b"moved.txt"[..]));
    assert_eq!((moved.additions, moved.deletions), (1, 1));
    assert_eq!(find(&seen, b"gone.txt").kind, ChangeKind::Deleted);
    assert_eq!(find(&seen, b"type.txt").kind, ChangeKind::TypeChanged);
    assert_eq!(find(&seen, b"caf\xe9 with space\nand newline.txt").kind, ChangeKind::Modified);
    assert_eq!((find(&seen, b"new.txt").kind, find(&seen, b"new.txt").additions), (ChangeKind::Added, 3));
    assert!(find(&seen, b"image.bin").binary && !find(&seen, b"new.txt").binary);
    assert_eq!(find(&seen, b"library").kind, ChangeKind::Added);
    let mode = find(&seen, b"mode.sh");
    assert_eq!((mode.kind, mode.additions, mode.deletions), (ChangeKind::Modified, 0, 0));
    assert_eq!(seen.summary.omitted, 0);
    let total: u64 = seen.summary.changes.iter().map(|change| change.additions).sum();
    assert_eq!(seen.summary.additions, total);
    let text = String::from_utf8_lossy(&seen.patch);
    for line in [
        "rename from moved.txt",
        "new mode 100755",
        "new file mode 120000",
        "\\ No newline at end of file",
        "+Subproject commit bbb",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("\"a/caf\\351 with space\\nand newline.txt\""), "{text}");
}

#[tokio::test]
async fn the_patch_applies() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let (base, head) = everything(&world, &repo).await;
    // All but the binary file, whose contents a patch for reading leaves out.
    repo.git(&["checkout", "-q", &head]).await;
    repo.git(&["checkout", "-q", &base, "--", "image.bin"]).await;
    let head = repo.commit_all().await;
    world.send_all(&repo, &head).await;
    let seen = diff(&world, &base, &head, DiffLimits::default()).await.unwrap();
    repo.git(&["checkout", "-q", "-f", "--detach", &base]).await;
    try_git(repo.path(), &["apply", "--index", "-"], &seen.patch).await.unwrap();
    assert_eq!(repo.git(&["write-tree"]).await, repo.git(&["rev-parse", &format!("{head}^{{tree}}")]).await);
}

#[tokio::test]
async fn what_is_too_much_is_counted_and_cut() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let base = repo.commit_all().await;
    for file in 0..50 {
        std::fs::write(repo.path().join(format!("{file:02}.txt")), "a line of text\n".repeat(1000)).unwrap();
    }
    let head = repo.commit_all().await;
    world.send_all(&repo, &head).await;
    let seen = diff(&world, &base, &head, DiffLimits { files: 20, patch: 200_000 }).await.unwrap();
    assert_eq!((seen.summary.changes.len(), seen.summary.omitted, seen.summary.additions), (20, 30, 50_000));
    assert!(seen.patch.len() <= 200_000 && seen.patch.len() > 150_000 && seen.patch.ends_with(b"\n"));
    assert!(seen.truncated.unwrap().contains("200000"));
}

#[tokio::test]
async fn nobody_waits_for_a_reader_that_has_left() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let base = repo.commit_all().await;
    let head = repo.commit("long.txt", "a line of text\n".repeat(500_000)).await;
    world.send_all(&repo, &head).await;
    for _ in 0..40 {
        // More than there are seats: each left one gives its seat back.
        let parts = world.repositories.diff(world.project, &base, &head, DiffLimits::default()).await.unwrap();
        drop(parts);
    }
}

#[tokio::test]
async fn equal_commits_and_unknown_ones() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    let seen = diff(&world, &tip, &tip, DiffLimits::default()).await.unwrap();
    assert_eq!((seen.summary, seen.patch.len(), seen.truncated), (Diff::default(), 0, None));
    assert!(matches!(diff(&world, &tip, &"e".repeat(40), DiffLimits::default()).await, Err(GitError::Read(_))));
    assert!(matches!(diff(&world, "HEAD", &tip, DiffLimits::default()).await, Err(GitError::NotAnId(_))));
}
