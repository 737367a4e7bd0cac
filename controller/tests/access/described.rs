//! What is said of a task reaches who looks at its agent.

use sculpt_core::rights::Role;
use sculpt_proto::{
    executor::v1::{Milestone, report::Step},
    v1::{self, tasks_client::TasksClient},
};
use uuid::Uuid;

use super::guests::House;

impl House {
    async fn say(&self, token: &str, intent: Option<&str>, milestone: &str) {
        let request = v1::DescribeTaskRequest {
            request_id: Uuid::new_v4().to_string(),
            task: self.task.to_string(),
            intent: intent.map(str::to_owned),
            milestone: milestone.to_owned(),
        };
        TasksClient::new(self.world.stack.showing(token)).describe_task(request).await.expect("it is said");
    }

    /// What who looks at the attempt is to read next.
    async fn reads(&mut self) -> (String, String) {
        let told = self.executor.desired().await.attempts.pop().expect("the attempt");
        assert_eq!(told.attempt_id, self.attempt);
        (told.intent, told.milestone)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_through_the_controller_reaches_the_screen_of_the_attempt() {
    let mut house = House::new().await;
    let ben = house.world.user("ben", &[(Role::Driver, Some("web"))]).await;
    house.say(&ben, None, "half of it").await;
    let words = |intent: &str, milestone: &str| (intent.to_owned(), milestone.to_owned());
    assert_eq!(house.reads().await, words("", "half of it"));
    house.say(&ben, Some("ship it"), "").await;
    assert_eq!(house.reads().await, words("ship it", "half of it"));
    let said = Step::Milestone(Milestone { text: "most of it".into() });
    assert_eq!(house.executor.answer(&house.attempt, 4, said).await.through, 4);
    assert_eq!(house.reads().await, words("ship it", "most of it"), "its own is the last word");
    house.say(&ben, Some(""), "").await;
    assert_eq!(house.reads().await, words("", "most of it"), "as its spec says");
    house.world.stack.stop().await;
}
