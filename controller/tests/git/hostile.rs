//! Repositories made to do harm, and old ones that only look odd.

use sculpt_controller::git::GitError;

use super::{World, repo::Repo};

async fn refused(world: &World, repo: &Repo, tree: &str, objects: &[&str]) -> String {
    let tip = repo.git(&["commit-tree", "-m", "x", tree]).await;
    let mut all = vec![tip.as_str(), tree];
    all.extend(objects);
    let error = world.send(&tip, &repo.pack_of(&all).await).await.unwrap_err();
    assert!(matches!(error, GitError::BadPack { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn names_that_lead_out_of_the_tree_are_refused() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let hook = repo.object("blob", b"#!/bin/sh\ntouch /tmp/owned\n").await;
    let hooks = repo.tree("100755", "post-checkout", &hook).await;
    let folder = repo.tree("40000", "hooks", &hooks).await;
    for name in [".git", ".GIT", "git~1", ".g\u{200c}it"] {
        let tree = repo.tree("40000", name, &folder).await;
        let text = refused(&world, &repo, &tree, &[&folder, &hooks, &hook]).await;
        assert!(text.contains("hasDotgit"), "{name}: {text}");
    }
    for (name, finding) in [("..", "hasDotdot"), (".", "hasDot"), ("../../etc/passwd", "fullPathname")] {
        let tree = repo.tree("100644", name, &hook).await;
        let text = refused(&world, &repo, &tree, &[&hook]).await;
        assert!(text.contains(finding), "{name}: {text}");
    }
}

#[tokio::test]
async fn hostile_submodule_settings_are_refused() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let modules = b"[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n";
    let file = repo.object("blob", modules).await;
    let tree = repo.tree("100644", ".gitmodules", &file).await;
    let text = refused(&world, &repo, &tree, &[&file]).await;
    assert!(text.contains("gitmodulesUrl"), "{text}");
    let tree = repo.tree("120000", ".gitmodules", &file).await;
    let text = refused(&world, &repo, &tree, &[&file]).await;
    assert!(text.contains("gitmodulesSymlink"), "{text}");
}

#[tokio::test]
async fn what_old_histories_are_full_of_is_let_in() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let file = repo.object("blob", b"old\n").await;
    let leaf = repo.tree("100664", "old.txt", &file).await;
    let tree = repo.tree("040000", "folder", &leaf).await;
    let bodies = [
        format!("tree {tree}\nauthor A <a@example.org> 1 +051800\ncommitter A <a@example.org> 1 +0000\n\nx\n"),
        format!("tree {tree}\nauthor A 1 +0000\ncommitter A <a@example.org> 1 +0000\n\nx\n"),
        format!("tree {tree}\nauthor <a@example.org> 1 +0000\ncommitter A <a@example.org> 01 +0000\n\nx\n"),
    ];
    for body in bodies {
        let tip = repo.object("commit", body.as_bytes()).await;
        let pack = repo.pack_of(&[&tip, &tree, &leaf, &file]).await;
        world.send(&tip, &pack).await.unwrap_or_else(|error| panic!("{body}: {error}"));
        assert!(world.has(&tip).await);
    }
}
