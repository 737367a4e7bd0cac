//! Many packs become few, and nothing is lost.

use std::time::Duration;

use sculpt_controller::{
    background::{compact, dead_blobs},
    store::packs,
};

use super::{
    World,
    repo::{Repo, try_git},
};

async fn pack_count(world: &World) -> usize {
    packs::snapshot(&world.store, world.project).await.unwrap().unwrap().packs.len()
}

fn blob_count(world: &World) -> usize {
    std::fs::read_dir(world.data().join("blobs/packs")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_packs_is_rolled_up_while_others_come() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let mut tips = vec![repo.commit("a.txt", "base\n").await];
    world.send_all(&repo, &tips[0]).await;
    for round in 0..60 {
        let tip = repo.commit("a.txt", format!("{round}\n")).await;
        world.send(&tip, &repo.pack(&tip, &[&tips[round]]).await).await.unwrap();
        tips.push(tip);
    }
    assert_eq!(pack_count(&world).await, 61);
    let names = (0..2_000).map(|number| format!("refs/heads/sculpt/{number}-task")).collect();
    world.make_refs(names, &tips[3]).await;
    let last = repo.commit("b.txt", "meanwhile\n").await;
    let pack = repo.pack(&last, &[&tips[60]]).await;
    let (_, sent) = tokio::join!(compact::sweep(&world.store, &world.repositories), world.send(&last, &pack));
    sent.unwrap();
    assert!(pack_count(&world).await <= 3, "{}", pack_count(&world).await);

    // Dead blobs go after their grace, and what is left is whole.
    assert_eq!(dead_blobs::sweep(&world.store, &world.blobs, Duration::from_secs(3600)).await, 0);
    assert!(dead_blobs::sweep(&world.store, &world.blobs, Duration::ZERO).await >= 61);
    assert_eq!(blob_count(&world), pack_count(&world).await);
    std::fs::remove_dir_all(world.cache()).unwrap();
    let reading = world.repositories.open(world.project).await.unwrap();
    try_git(reading.directory(), &["fsck", "--strict"], b"").await.unwrap();
    tips.push(last);
    let here = world.repositories.has_commits(world.project, &tips).await.unwrap();
    assert_eq!(here.len(), tips.len());
}

#[tokio::test]
async fn a_reader_keeps_its_packs() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let mut before = repo.commit("a.txt", "base\n").await;
    world.send_all(&repo, &before).await;
    for round in 0..3 {
        let tip = repo.commit("a.txt", format!("{round}\n")).await;
        world.send(&tip, &repo.pack(&tip, &[&before]).await).await.unwrap();
        before = tip;
    }
    let files = || std::fs::read_dir(world.cache().join("objects/pack")).unwrap().count();
    let reading = world.repositories.open(world.project).await.unwrap();
    let old = files();
    world.repositories.compact(world.project).await.unwrap().unwrap();
    world.repositories.open(world.project).await.unwrap();
    assert!(files() >= old, "packs were removed under a reader");
    drop(reading);
    // The next change finds nobody reading.
    world.make_refs(vec!["refs/heads/main".to_owned()], &before).await;
    world.repositories.open(world.project).await.unwrap();
    assert_eq!(files(), 2 * pack_count(&world).await);
}

#[tokio::test]
async fn an_upload_without_a_row_is_swept() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let key = sculpt_controller::blobs::BlobKey::pack(uuid::Uuid::now_v7());
    packs::promise(&world.store, &key).await.unwrap();
    world.blobs.put(&key, "an upload that a crash cut off").await.unwrap();
    let tip = repo.commit("a.txt", "one\n").await;
    world.send_all(&repo, &tip).await;
    assert_eq!(blob_count(&world), 2);
    assert_eq!(dead_blobs::sweep(&world.store, &world.blobs, Duration::ZERO).await, 1);
    assert_eq!(blob_count(&world), 1);
    // What was swept can get no row any more.
    let late =
        packs::Pack { id: uuid::Uuid::now_v7(), blob: key.to_string(), checksum: "0".repeat(40), bytes: 1, objects: 1 };
    let project = world.project;
    let named = world.store.write(move |conn| Box::pin(async move { packs::insert(conn, project, &late).await })).await;
    assert!(matches!(named, Err(packs::PackError::Expired)));
}
