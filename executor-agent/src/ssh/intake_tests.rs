use std::pin::pin;

use futures_util::poll;

use super::*;

const SMALL: Limits = Limits { held: 1000, part: Some(3000), rate: 1 << 30 };

fn intake() -> (Intake, Pieces, watch::Sender<Standing>, tempfile::TempDir) {
    let (directory, disk) = (tempfile::tempdir().unwrap(), watch::Sender::new(Standing::default()));
    let intakes =
        Intakes { disk: disk.subscribe(), tasks: TaskTracker::new(), slow: Slow::default(), stores: Stores::default() };
    let (intake, pieces) = intakes.begin(directory.path(), "ada", SMALL);
    (intake, pieces, disk, directory)
}

fn numbers(range: std::ops::Range<u32>) -> Bytes {
    range.flat_map(u32::to_be_bytes).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn everything_is_taken_in_order_and_little_of_it_is_held() {
    let (mut intake, mut pieces, _disk, _directory) = intake();
    let mut taken = BytesMut::new();
    for round in 0..200 {
        intake.receive(numbers(round * 50..round * 50 + 50)).await.unwrap();
        assert!(intake.held.len() <= SMALL.held && intake.held.capacity() <= 4 * SMALL.held);
        // Now slowly, now fast.
        for _ in 0..round / 20 % 3 {
            if let Ok(piece) = pieces.try_recv() {
                taken.extend_from_slice(&piece);
                intake.give().await.unwrap();
            }
        }
    }
    assert!(!intake.spill.is_empty());
    while !intake.is_empty() {
        while let Ok(piece) = pieces.try_recv() {
            taken.extend_from_slice(&piece);
        }
        intake.give().await.unwrap();
    }
    drop(intake);
    while let Some(piece) = pieces.recv().await {
        taken.extend_from_slice(&piece);
    }
    assert!(taken == numbers(0..200 * 50));
}

#[tokio::test]
async fn who_takes_is_waited_for_and_nothing_is_written() {
    let (mut intake, mut pieces, _disk, _directory) = intake();
    intake.limits.rate = 1;
    let taking = tokio::spawn(async move { while pieces.recv().await.is_some() {} });
    for _ in 0..100 {
        intake.receive(numbers(0..250)).await.unwrap();
        assert!(intake.spill.is_empty());
    }
    assert_eq!(intake.slow.window(), WINDOW);
    drop(intake);
    taking.await.unwrap();
}

#[tokio::test]
async fn who_is_waited_for_narrows_what_is_on_its_way() {
    let (mut intake, mut pieces, _disk, _directory) = intake();
    (intake.limits.rate, intake.limits.part) = (1, None);
    let slow = intake.slow.clone();
    for _ in 0..PIECES + 1 {
        intake.receive(numbers(0..250)).await.unwrap();
    }
    assert_eq!(slow.window(), WINDOW, "there was room for all of it");
    let mut receiving = pin!(intake.receive(numbers(0..250)));
    assert!(poll!(&mut receiving).is_pending());
    assert_eq!(slow.window(), NARROW);
    pieces.recv().await.unwrap();
    receiving.await.unwrap();
    assert_eq!(slow.window(), WINDOW);
}

#[tokio::test]
async fn little_is_kept_of_what_is_typed_and_nearly_nothing_for_nobody() {
    let (mut intake, mut pieces, _disk, directory) = intake();
    intake.limits = Limits { part: None, ..SMALL };
    let mut sent = 0;
    let lost = loop {
        match intake.receive(numbers(0..25)).await {
            Ok(()) => sent += 100,
            Err(lost) => break lost,
        }
    };
    assert!(matches!(lost, Lost::Typed) && sent == SMALL.held + 100 * PIECES, "{lost} {sent}");
    (intake.limits, intake.unasked) = (Limits::UNASKED, Some(Rights::NONE));
    intake.forget();
    while pieces.try_recv().is_ok() {}
    intake.receive(vec![0; Limits::UNASKED.held].into()).await.unwrap();
    assert!(matches!(intake.receive(vec![0].into()).await, Err(Lost::Unasked)));
    assert!(pieces.try_recv().is_err(), "nothing is handed on before somebody is there");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn without_memory_what_is_read_later_goes_to_disk() {
    let (mut intake, mut pieces, _disk, _directory) = intake();
    let mut others = Memory::of(intake.memory.store());
    while others.grow(1 << 20) {}
    for round in 0..4 {
        intake.receive(numbers(round..round + 1)).await.unwrap();
    }
    assert!(intake.held.is_empty() && intake.spill.length() == 8);
    for round in 0..2 {
        assert_eq!(pieces.recv().await.unwrap(), numbers(round..round + 1));
    }
    intake.give().await.unwrap();
    assert_eq!(pieces.recv().await.unwrap(), numbers(2..4));
}

#[tokio::test]
async fn what_nobody_takes_is_lost_beyond_a_bound_and_on_a_full_disk() {
    let (mut intake, _pieces, _disk, _directory) = intake();
    let mut sent = 0;
    let lost = loop {
        match intake.receive(numbers(0..250)).await {
            Ok(()) => sent += 1000,
            Err(lost) => break lost,
        }
    };
    assert!(
        matches!(lost, Lost::Full) && sent == 3000 * (FILES as u64 + 1) && intake.spill.length() == sent - 3000,
        "{lost} {sent}"
    );
    intake.discard();
    assert!(intake.is_empty() && intake.receive(numbers(0..250)).await.is_ok());
    let (mut intake, _pieces, disk, _directory) = self::intake();
    disk.send_replace(Standing { level: Level::Full, ..Standing::default() });
    let mut lost = Ok(());
    while lost.is_ok() {
        lost = intake.receive(numbers(0..250)).await;
    }
    assert!(matches!(lost, Err(Lost::NoRoom(_))) && intake.spill.is_empty());
}
