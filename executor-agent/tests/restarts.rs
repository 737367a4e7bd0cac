//! Executors, controllers and hosts that were away and are back.

use std::fs;

use sculpt_executor::shim;
use sculpt_proto::executor::v1::ended::Outcome;

use crate::{
    ends::kill_shim,
    git::project,
    host::Host,
    life::{STEPS, cause, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_executor_touches_no_agent() {
    let mut host = Host::new().await;
    let gate = host.root.path().join("gate");
    host.start().await;
    let spec = host.shell(&format!("echo begin; until [ -e '{}' ]; do sleep 0.05; done; echo end", gate.display()));
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid = host.controller.wait("the start", |memory| memory.pid(&id)).await;
    for kill in [true, false, true] {
        if kill {
            host.kill()
        } else {
            host.stop()
        }
        host.start().await;
        let seen = host.controller.wait("the report", |memory| memory.observed.first().cloned()).await;
        assert_eq!((seen.attempt_id.as_str(), seen.ended), (id.as_str(), false));
        assert!(sculpt_executor::tree::ProcessId::of(pid).is_some(), "the agent lives");
    }
    host.kill();
    fs::write(&gate, "").unwrap();
    wait_for("the agent's end", || sculpt_executor::tree::ProcessId::of(pid).is_none()).await;
    host.start().await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert_eq!(host.controller.memory().log(&id), b"begin\nend\n");
    assert_eq!(host.controller.memory().steps(&id), STEPS);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_away_gets_everything_once() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let gate = host.root.path().join("gate");
    let script = format!(
        "echo 1; until [ -e '{}' ]; do sleep 0.05; done; seq 2 20000; echo x > x && git add x && git commit -qm x",
        gate.display()
    );
    let spec = host.on_base(host.shell(&script), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid = host.controller.wait("the start", |memory| memory.pid(&id).filter(|_| memory.log(&id) == b"1\n")).await;
    host.controller.go_away().await;
    fs::write(&gate, "").unwrap();
    wait_for("the agent's end", || sculpt_executor::tree::ProcessId::of(pid).is_none()).await;
    host.controller.memory().refuse_publications = 2;
    host.controller.come_back().await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert!(!ended.head.is_empty());
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(host.controller.memory().log(&id) == expected.as_bytes());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_interrupts_an_attempt_and_its_log_is_whole() {
    // The second time somebody has written into the journal since the reboot, as one does who dies while finalizing.
    for written_since in [false, true] {
        let mut host = Host::new().await;
        let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
        host.start().await;
        let spec =
            host.on_base(host.shell("echo x > x && git add x && git commit -qm x; echo begin; exec sleep 600"), &base);
        let id = spec.attempt_id.clone();
        host.controller.offer(&spec);
        host.controller.wait("the log", |memory| (memory.log(&id) == b"begin\n").then_some(())).await;
        host.kill();
        kill_shim(&host, &id).await;
        // As if what is on disk were from an earlier boot.
        let directory = host.data().join("attempts").join(&id);
        let boot = sculpt_executor::host::boot_id().unwrap();
        let earlier = |text: &str| text.replace(&boot, "00000000-0000-4000-8000-000000000000");
        let launch = directory.join(shim::files::LAUNCH);
        fs::write(&launch, earlier(&fs::read_to_string(&launch).unwrap())).unwrap();
        if !written_since {
            let journal = directory.join("journal");
            let lines = fs::read_to_string(&journal).unwrap().lines().fold(String::new(), |all, line| {
                let json = earlier(line.split_once(' ').unwrap().1);
                format!("{all}{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
            });
            fs::write(&journal, lines).unwrap();
        }
        host.start().await;
        let ended = host.controller.wait_ended(&id).await;
        assert_eq!(
            cause(&ended),
            ("interrupted".into(), "the host was rebooted while the agent ran; retry the task".into())
        );
        assert_eq!((ended.log_length, host.controller.memory().log(&id)), (6, b"begin\n".as_slice()));
        assert!(!ended.head.is_empty(), "what was committed is published");
        host.stop();
    }
}
