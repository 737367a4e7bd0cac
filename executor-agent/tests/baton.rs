//! Messages to an agent, beside people who type into its terminal.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use sculpt_executor::shim::{self, Client, Delivery, Mode, Said, Subscription, Why};
use uuid::Uuid;

use crate::attempt::{Attempt, PATIENCE, ended};

const TERMINAL: Mode = Mode::Terminal { columns: 200, rows: 50 };
/// An agent that says what each line that is handed in holds.
const REPEATS: &str = "echo ready; while read -r line; do echo \"<$line>\"; done";
/// Nobody rests for so long in a test.
const NEVER: Duration = Duration::from_secs(3_600);

struct Person(UnixStream);

impl Person {
    async fn at(attempt: &Attempt) -> Self {
        let mut view = UnixStream::connect(&attempt.launch.view_socket).unwrap();
        view.set_read_timeout(Some(PATIENCE)).unwrap();
        view.write_all(&[2, 0, 0, 0, 4, 0, 200, 0, 50]).unwrap();
        // What it is shown first comes when it is a view.
        assert!(view.read(&mut [0; 4096]).unwrap() > 0);
        Self(view)
    }

    fn types(&mut self, text: &[u8]) {
        let length = u32::try_from(text.len()).unwrap();
        self.0.write_all(&[&[1][..], &length.to_be_bytes(), text].concat()).unwrap();
    }
}

async fn agent(quiet: Duration, script: &str) -> (Attempt, Client) {
    let mut attempt = Attempt::new(TERMINAL, script);
    attempt.launch.quiet = Some(quiet);
    let client = attempt.start().await;
    attempt.says(&client, "ready").await;
    (attempt, client)
}

/// The lines that were handed in.
fn handed_in(attempt: &Attempt) -> Vec<String> {
    let log = String::from_utf8(attempt.log(None)).unwrap();
    log.lines().filter(|line| line.starts_with('<')).map(str::to_owned).collect()
}

/// Waits until that has become of a message.
async fn becomes(news: &mut Subscription, id: Uuid, delivery: Delivery) {
    let wanted = Said { id, delivery };
    let seen = async { while !news.next().await.unwrap().unwrap().said.contains(&wanted) {} };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{wanted:?} does not come"));
}

#[tokio::test]
async fn a_message_goes_out_at_once_when_nobody_types_and_once_however_often_it_is_said() {
    let (attempt, client) = agent(NEVER, REPEATS).await;
    let (id, last) = (Uuid::new_v4(), Uuid::new_v4());
    let mut news = client.subscribe().await.unwrap();
    for _ in 0..3 {
        client.say(id, "once", true).await.unwrap();
    }
    becomes(&mut news, id, Delivery::Typed).await;
    client.say(id, "once", true).await.unwrap();
    client.say(last, "last", true).await.unwrap();
    attempt.says(&client, "<last>").await;
    assert_eq!(handed_in(&attempt), ["<once>", "<last>"]);
    becomes(&mut news, last, Delivery::Typed).await;
    let typed = |id| Said { id, delivery: Delivery::Typed };
    assert_eq!(shim::said(&attempt.directory()).unwrap(), [typed(id), typed(last)]);
    client.stop(Duration::from_secs(1)).await.unwrap();
    ended(&client).await;
    assert!(client.say(Uuid::new_v4(), "late", true).await.unwrap_err().to_string().contains("has ended"));
}

#[tokio::test]
async fn a_message_waits_for_who_types_and_goes_out_when_they_hand_back() {
    let (attempt, client) = agent(NEVER, REPEATS).await;
    let mut news = client.subscribe().await.unwrap();
    let mut person = Person::at(&attempt).await;
    person.types(b"mine\r");
    attempt.says(&client, "<mine>").await;
    let id = Uuid::new_v4();
    client.say(id, "theirs", true).await.unwrap();
    becomes(&mut news, id, Delivery::Queued { why: Some(Why::Typing) }).await;
    client.hand_back().await.unwrap();
    becomes(&mut news, id, Delivery::Typed).await;
    // The view that goes takes its keyboard along.
    person.types(b"more\r");
    attempt.says(&client, "<more>").await;
    let next = Uuid::new_v4();
    client.say(next, "again", true).await.unwrap();
    becomes(&mut news, next, Delivery::Queued { why: Some(Why::Typing) }).await;
    drop(person);
    attempt.says(&client, "<again>").await;
    assert_eq!(handed_in(&attempt), ["<mine>", "<theirs>", "<more>", "<again>"]);
}

#[tokio::test]
async fn a_message_goes_out_when_they_have_rested() {
    let (attempt, client) = agent(Duration::from_millis(50), REPEATS).await;
    let mut person = Person::at(&attempt).await;
    person.types(b"mine\r");
    attempt.says(&client, "<mine>").await;
    client.say(Uuid::new_v4(), "theirs", true).await.unwrap();
    attempt.says(&client, "<theirs>").await;
}

#[tokio::test]
async fn a_draft_is_never_handed_in() {
    let (attempt, client) = agent(Duration::ZERO, REPEATS).await;
    let mut news = client.subscribe().await.unwrap();
    let mut person = Person::at(&attempt).await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    person.types(b"half");
    attempt.says(&client, "half").await;
    client.say(first, "message", true).await.unwrap();
    becomes(&mut news, first, Delivery::Queued { why: Some(Why::Draft) }).await;
    client.hand_back().await.unwrap();
    drop(person);
    client.say(second, "another", true).await.unwrap();
    becomes(&mut news, second, Delivery::Queued { why: Some(Why::Draft) }).await;
    let mut person = Person::at(&attempt).await;
    person.types(b" a line\r");
    attempt.says(&client, "<another>").await;
    assert_eq!(handed_in(&attempt), ["<half a line>", "<message>", "<another>"]);
}

#[tokio::test]
async fn a_message_of_several_lines_is_pasted_where_the_agent_takes_it_so() {
    let script = "stty raw -echo; printf '\\033[?2004hready\\r\\n'; dd bs=1 count=21 2>/dev/null | od -An -c -w21";
    let (attempt, client) = agent(NEVER, script).await;
    client.say(Uuid::new_v4(), "one\ntwo!", true).await.unwrap();
    let pasted = "033   [   2   0   0   ~   o   n   e  \\n   t   w   o   ! 033   [   2   0   1   ~  \\r";
    attempt.says(&client, pasted).await;
}

#[tokio::test]
async fn what_a_message_may_not_be_is_said() {
    let (_attempt, client) = agent(NEVER, REPEATS).await;
    for (text, why) in [("", "1 to"), ("\x1b[201~", "control characters"), ("a\rb", "control characters")] {
        let refused = client.say(Uuid::new_v4(), text, true).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    client.say(Uuid::new_v4(), "unsent", false).await.unwrap();
    for _ in 0..64 {
        client.say(Uuid::new_v4(), "waits", true).await.unwrap();
    }
    let refused = client.say(Uuid::new_v4(), "too many", true).await.unwrap_err().to_string();
    assert!(refused.contains("wait already"), "{refused}");
}

#[tokio::test]
async fn a_paused_agent_gets_its_messages_when_it_goes_on() {
    let (attempt, client) = agent(NEVER, REPEATS).await;
    let mut news = client.subscribe().await.unwrap();
    client.hold().await.unwrap();
    let id = Uuid::new_v4();
    client.say(id, "later", true).await.unwrap();
    becomes(&mut news, id, Delivery::Queued { why: Some(Why::Paused) }).await;
    client.resume().await.unwrap();
    attempt.says(&client, "<later>").await;
}

#[tokio::test]
async fn what_was_being_typed_at_a_death_is_known_and_a_torn_line_is_not() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(shim::said(directory.path()).unwrap(), []);
    let [first, second] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let lines = format!(
        "{{\"id\":\"{first}\",\"is\":\"typing\"}}\n{{\"id\":\"{first}\",\"is\":\"typed\"}}\n\
         {{\"id\":\"{second}\",\"is\":\"typing\"}}\n{{\"id\":\"00"
    );
    std::fs::write(directory.path().join(shim::files::SAID), lines).unwrap();
    let expected = [(first, Delivery::Typed), (second, Delivery::Typing)].map(|(id, delivery)| Said { id, delivery });
    assert_eq!(shim::said(directory.path()).unwrap(), expected);
}
