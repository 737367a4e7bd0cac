//! Repositories on disk are caches.

use sculpt_controller::git::{GitError, GitSettings, Repositories};
use sculpt_proto::id::ProjectId;

use super::{World, repo::Repo};

#[tokio::test]
async fn a_deleted_cache_is_made_again() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    for _ in 0..3 {
        world.repositories.open(world.project).await.unwrap();
        std::fs::remove_dir_all(world.cache()).unwrap();
        assert!(world.has(&repo.git(&["rev-parse", "HEAD"]).await).await);
    }
    // Also one that lost a part while nobody looked.
    let packs = world.cache().join("objects/pack");
    world.repositories.open(world.project).await.unwrap();
    std::fs::remove_dir_all(packs).unwrap();
    let reading = world.restarted().open(world.project).await.unwrap();
    super::repo::try_git(reading.directory(), &["fsck", "--strict"], b"").await.unwrap();
}

#[tokio::test]
async fn what_a_process_left_half_done_is_gone_at_the_next_start() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    let mut half = world.repositories.receive().await.unwrap();
    half.write(b"PACK").await.unwrap();
    std::mem::forget(half);
    std::fs::create_dir(world.data().join("tmp/git/work-old")).unwrap();
    std::fs::write(world.cache().join("objects/pack/tmp_old.pack"), "half").unwrap();
    let again = world.restarted();
    assert_eq!(world.half_done(), Vec::<String>::new());
    again.open(world.project).await.unwrap();
    assert!(!world.cache().join("objects/pack/tmp_old.pack").exists());
}

#[tokio::test]
async fn another_replica_sees_what_this_one_took_in() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let other_data = tempfile::tempdir().unwrap();
    let settings = GitSettings::below(other_data.path());
    let other = Repositories::new(world.store.clone(), world.blobs.clone(), settings).unwrap();
    let mut tips = Vec::new();
    for round in 0..3 {
        let tip = repo.commit("a.txt", format!("{round}\n")).await;
        world.send_all(&repo, &tip).await;
        tips.push(tip);
        // The refs say enough; the history below them needs the objects.
        let reading = other.open(world.project).await.unwrap();
        let all = [&["fsck", "--no-dangling"][..], &tips.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        super::repo::try_git(reading.directory(), &all, b"").await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_blob_is_named() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    let other = Repo::new().await;
    let strange = other.commit("b.txt", "another\n").await;
    let blob = std::fs::read_dir(world.data().join("blobs/packs")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&blob, other.pack(&strange, &[]).await).unwrap();
    std::fs::remove_dir_all(world.cache()).unwrap();
    let error = world.repositories.open(world.project).await.unwrap_err();
    assert!(matches!(&error, GitError::Damaged { blob } if blob.ends_with(".pack")), "{error}");
    std::fs::remove_file(&blob).unwrap();
    let error = world.repositories.open(world.project).await.unwrap_err();
    assert!(error.to_string().contains("missing from the blob store"), "{error}");
}

#[tokio::test]
async fn an_unknown_project_has_no_repository() {
    let world = World::new().await;
    let unknown = ProjectId::fresh();
    assert!(matches!(world.repositories.open(unknown).await, Err(GitError::NoProject(id)) if id == unknown));
}
