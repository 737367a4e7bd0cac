//! How many files the executor and what it starts may have open.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::host::Host;

#[tokio::test(flavor = "multi_thread")]
async fn the_executor_has_as_many_files_as_it_may_and_an_agent_as_many_as_before() {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap().to_string();
    let mut host = Host::new().await;
    host.via = vec!["sh", "-c", "ulimit -Sn 777; exec \"$@\"", "sh"];
    host.start().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.executor.as_ref().unwrap().id())).unwrap();
    let open: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(open[3..5], [hard.as_str(); 2], "{limits}");
    let spec = host.shell("ulimit -Sn; ulimit -Hn; env | grep -c OPEN_FILES");
    host.controller.offer(&spec);
    host.controller.wait_ended(&spec.attempt_id).await;
    let said = String::from_utf8_lossy(host.controller.memory().log(&spec.attempt_id)).into_owned();
    assert_eq!(said, format!("777\n{hard}\n0\n"));
    host.stop();
}
