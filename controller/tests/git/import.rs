//! Bases that are sent in.

use sculpt_controller::git::GitError;

use super::{World, repo::Repo};

#[tokio::test]
async fn a_base_is_here_with_its_history_and_sent_again_changes_nothing() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let first = repo.commit("a.txt", "one\n").await;
    let second = repo.commit("a.txt", "two\n").await;
    assert!(!world.has(&second).await);
    let pack = repo.pack(&second, &[]).await;
    assert_eq!(world.send(&second, &pack).await.unwrap(), 6);
    assert!(world.has(&second).await && world.has(&first).await);
    world.send(&second, &pack).await.unwrap();
    assert_eq!(world.send(&second, b"").await.unwrap(), 0);
    assert!(!world.has(&"a".repeat(40)).await);
    assert_eq!(world.half_done(), Vec::<String>::new());
}

#[tokio::test]
async fn a_thin_pack_is_completed_and_an_empty_one_is_enough_when_all_is_there() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let text: String = (0..2_000).map(|line| format!("line {line}\n")).collect();
    let first = repo.commit("long.txt", &text).await;
    world.send_all(&repo, &first).await;
    let second = repo.commit("long.txt", text.replace("line 77\n", "other\n")).await;
    let thin = repo.pack(&second, &[&first]).await;
    assert!(thin.len() < 2_000, "{} bytes are not a delta", thin.len());
    world.send(&second, &thin).await.unwrap();
    assert!(world.has(&second).await);
    let empty = repo.pack(&first, &[&second]).await;
    assert_eq!(world.send(&first, &empty).await.unwrap(), 0);
    // Each stored pack stands by itself: a new cache is made of them.
    std::fs::remove_dir_all(world.cache()).unwrap();
    let reading = world.repositories.open(world.project).await.unwrap();
    let shown = super::repo::try_git(reading.directory(), &["show", &format!("{second}:long.txt")], b"").await.unwrap();
    assert_eq!(shown, text.replace("line 77\n", "other\n").into_bytes());
}

#[tokio::test]
async fn damaged_packs_are_refused() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "text\n".repeat(1000)).await;
    let pack = repo.pack(&tip, &[]).await;
    let mut flipped = pack.clone();
    flipped[pack.len() / 2] ^= 0x10;
    for bad in [&flipped[..], &pack[..pack.len() - 30], b"this is not a pack at all, however long it may be"] {
        let error = world.send(&tip, bad).await.unwrap_err();
        assert!(matches!(error, GitError::BadPack { .. }), "{error}");
    }
    assert!(!world.has(&tip).await);
    assert_eq!(world.half_done(), Vec::<String>::new());
}

#[tokio::test]
async fn missing_objects_are_found_wherever_they_are() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let first = repo.commit("a.txt", "one\n").await;
    let second = repo.commit("b.txt", "two\n").await;
    // Without the first commit, as a shallow clone sends it.
    let error = world.send(&second, &repo.pack(&second, &[&first]).await).await.unwrap_err();
    assert!(matches!(error, GitError::BadPack { .. } | GitError::Incomplete { .. }), "{error}");
    // Without a file.
    let tree = repo.git(&["rev-parse", &format!("{first}^{{tree}}")]).await;
    let error = world.send(&first, &repo.pack_of(&[&first, &tree]).await).await.unwrap_err();
    assert!(matches!(error, GitError::BadPack { .. }), "{error}");
    // Nothing at all.
    let error = world.send(&second, b"").await.unwrap_err();
    assert!(matches!(&error, GitError::Incomplete { commit, .. } if *commit == second), "{error}");
    assert!(error.to_string().contains("--unshallow"), "{error}");
    // Something else than what is named.
    let blob = repo.git(&["rev-parse", &format!("{first}:a.txt")]).await;
    let error = world.send(&blob, &repo.pack(&first, &[]).await).await.unwrap_err();
    assert!(matches!(error, GitError::NotACommit(_)), "{error}");
}

#[tokio::test]
async fn a_submodule_is_not_missing() {
    let (world, repo) = (World::new().await, Repo::new().await);
    repo.commit("a.txt", "one\n").await;
    let link = format!("160000,{},library", "b".repeat(40));
    repo.git(&["update-index", "--add", "--cacheinfo", &link]).await;
    repo.git(&["commit", "-q", "-m", "Add a submodule"]).await;
    let tip = repo.git(&["rev-parse", "HEAD"]).await;
    world.send_all(&repo, &tip).await;
    assert!(world.has(&tip).await);
}

#[tokio::test]
async fn ids_of_other_lengths_are_refused_by_name() {
    let world = World::new().await;
    let error = world.send(&"c".repeat(64), b"").await.unwrap_err();
    assert!(matches!(error, GitError::Sha256(_)), "{error}");
    for id in ["main", "", "-x", &"C".repeat(40), &"c".repeat(39)] {
        assert!(matches!(world.send(id, b"").await, Err(GitError::NotAnId(_))), "{id:?}");
    }
}

#[tokio::test]
async fn a_pack_over_the_limit_is_cut_off() {
    let world = World::new().await;
    let mut settings = sculpt_controller::git::GitSettings::below(world.data());
    settings.max_pack = 1000;
    let repositories =
        sculpt_controller::git::Repositories::new(world.store.clone(), world.blobs.clone(), settings).unwrap();
    let mut pack = repositories.receive().await.unwrap();
    pack.write(&[0; 900]).await.unwrap();
    let error = pack.write(&[0; 101]).await.unwrap_err();
    assert!(matches!(error, GitError::TooLarge { limit: 1000 }), "{error}");
}

#[tokio::test]
async fn the_same_pack_sent_by_many_at_once_is_taken_once_or_more() {
    let (world, repo) = (World::new().await, Repo::new().await);
    let tip = repo.commit("a.txt", "one\n").await;
    let pack = repo.pack(&tip, &[]).await;
    let sent = futures_util::future::join_all((0..6).map(|_| world.send(&tip, &pack))).await;
    for result in sent {
        result.unwrap();
    }
    assert!(world.has(&tip).await);
}
