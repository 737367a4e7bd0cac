//! How far an attempt has come, as somebody within it says.

use sculpt_controller::store::milestones;
use sculpt_proto::executor::v1::{Milestone, report::Step, report_ack::Refusal};

use super::{
    Stack,
    executor::{Scripted, hello},
};
use crate::make;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_the_task_went_on_without_it_is_kept_all_the_same() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let task = make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    stack.run("UPDATE attempts SET fenced_at = now()").await;
    for (sequence, text) in [(4, "tests pass"), (4, "tests pass"), (5, "done"), (3, "from before")] {
        let said = Step::Milestone(Milestone { text: text.to_owned() });
        let ack = executor.answer(&attempt, sequence, said).await;
        assert_eq!((ack.through, ack.refusal()), (sequence, Refusal::Fenced), "{text}");
    }
    let kept = milestones::of(&mut stack.store.read().await.unwrap(), task).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|kept| (kept.attempt, kept.text.as_str())).collect();
    assert_eq!(kept, [(Some(1), "tests pass"), (Some(1), "done")], "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn milestones_are_kept_once_and_the_last_of_them_beside_the_journal() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let task = make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    let said = |text: &str| Step::Milestone(Milestone { text: text.to_owned() });
    let revision = "SELECT revision FROM tasks";
    let before: i64 = stack.value(revision).await;
    for sequence in 4..=28 {
        for _ in 0..2 {
            let ack = executor.answer(&attempt, sequence, said(&format!("step {sequence}\u{1b}\n"))).await;
            assert_eq!((ack.through, ack.refusal()), (sequence, Refusal::Unspecified), "{}", ack.text);
        }
    }
    // Nothing is left of it, and nothing waits behind it.
    assert_eq!(executor.answer(&attempt, 29, said("\u{7}")).await.through, 29);
    let kept = milestones::of(&mut stack.store.read().await.unwrap(), task).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|kept| (kept.attempt, kept.user_name.as_str(), kept.text.as_str())).collect();
    let expected: Vec<String> = (9..=28).map(|sequence| format!("step {sequence}")).collect();
    assert_eq!(kept, expected.iter().map(|text| (Some(1), "", text.as_str())).collect::<Vec<_>>());
    let told: i64 = stack.value("SELECT count(*) FROM events WHERE kind = 'task.milestone'").await;
    assert_eq!(told, 25);
    assert_eq!(stack.value::<i64>(revision).await, before, "it moves nothing");
}
