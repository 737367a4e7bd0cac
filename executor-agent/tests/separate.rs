//! Attempts under accounts of their own, which only root can give them.

use std::{fs, os::unix::fs::MetadataExt as _};

use sculpt_proto::executor::v1::ended::Outcome;

use crate::{
    git::{git, project},
    host::{Account, Host},
    life::wait_for,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_separated_attempt_reaches_nothing_but_its_own() {
    let Some(mut host) = Host::separated("").await else { return };
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let data = host.data();
    let data = data.display();
    let script = format!(
        "id -un; echo $HOME; ls {data}/attempts {data}/stores {data} 2>/dev/null; cat {data}/executor.json 2>/dev/null
         touch $HOME/x && git --no-pager log --format=%s && echo two > a.txt && git commit -qam two && echo left > left.txt"
    );
    let mut spec = host.on_base(host.shell(&script), &base);
    spec.commit_changes = true;
    spec.task.as_mut().unwrap().tty = true;
    host.controller.offer(&spec);
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    let log = String::from_utf8_lossy(host.controller.memory().log(&spec.attempt_id)).into_owned();
    let (name, home) = log.split_once("\r\n").unwrap();
    let _account = Account(name.to_owned());
    assert!(name.starts_with("sculpt-a"), "{log}");
    assert_eq!(home, format!("{data}/homes/{name}\r\nbase\r\n"));
    assert_eq!(ended.outcome(), Outcome::Completed, "{ended:?}");
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("{}:a.txt", ended.head)]), "two");
    assert_eq!(git(&repository, &["show", &format!("{}:left.txt", ended.head)]), "left");
    let workspace = host.workspace(&spec.attempt_id);
    wait_for("the workspace to be closed", || fs::metadata(&workspace).is_ok_and(|it| it.uid() == 0)).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_separated_attempt_has_its_view_and_cannot_reach_what_is_ours_or_anothers() {
    let Some(mut host) = Host::separated("").await else { return };
    host.start().await;
    let mut first = host.shell("id -un; pwd; echo secret > secret; stty -echo; read -r line; echo \"typed $line\"");
    first.task.as_mut().unwrap().tty = true;
    let id = first.attempt_id.clone();
    host.controller.offer(&first);
    let log = host.controller.wait("the log", |memory| {
        let log = String::from_utf8_lossy(memory.log(&id)).into_owned();
        (log.lines().count() == 2).then_some(log)
    });
    let log = log.await;
    let _account = Account(log.lines().next().unwrap().to_owned());
    let socket = host.controller.memory().tmux_socket(&id);
    let tmux = |arguments: &[&str]| {
        let output = std::process::Command::new("tmux").arg("-S").arg(&socket).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_for("the view", || tmux(&["capture-pane", "-p"]).contains(&log.replace("\r\n", "\n"))).await;

    let data = host.data();
    let (attempts, run) = (data.join("attempts").join(&id), data.join("run").join(&id));
    let shim = match sculpt_executor::shim::probe(&attempts).await {
        sculpt_executor::shim::Liveness::Present(status) => status,
        other => panic!("no shim: {other:?}"),
    };
    let paths = [
        run.join("control/shim"),
        run.join("view/shim"),
        run.join("view/tmux"),
        attempts.join("spool/00000000000000000000.spool"),
        attempts.join("journal"),
        attempts.join("launch.json"),
        data.join("attempts"),
        data.join("stores"),
        data.join("executor.json"),
        data.join("identity/key.pem"),
        data.join("identity/certificate.pem"),
        host.workspace(&id),
        host.workspace(&id).join("secret"),
        format!("/proc/{}/environ", shim.agent.unwrap().pid).into(),
        format!("/proc/{}/environ", shim.shim.pid).into(),
    ];
    for path in &paths {
        assert!(fs::symlink_metadata(path).is_ok(), "{path:?} is there to be reached");
    }
    // Its own control socket is the executor's, too.
    let own = format!("{}/run/$SCULPT_ATTEMPT/control/shim", data.display());
    let probe = |path: &str| format!("test -r \"{path}\" -o -w \"{path}\" && echo \"reached {path}\"; ");
    let script: String = paths.iter().map(|path| probe(path.to_str().unwrap())).chain([probe(&own)]).collect();
    let kills = format!("kill -9 {} {} 2>/dev/null && echo killed; id -un", shim.agent.unwrap().pid, shim.shim.pid);
    let second = host.shell(&(script + &kills));
    host.controller.offer(&second);
    host.controller.wait_ended(&second.attempt_id).await;
    let said = String::from_utf8_lossy(host.controller.memory().log(&second.attempt_id)).into_owned();
    let other = Account(said.trim().to_owned());
    assert!(other.0.starts_with("sculpt-a") && other.0 != _account.0, "{said}");

    tmux(&["send-keys", "-l", "from the view"]);
    tmux(&["send-keys", "Enter"]);
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert!(String::from_utf8_lossy(host.controller.memory().log(&id)).ends_with("typed from the view\r\n"));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_runs_as_its_owner_gives_no_attempt_another_ones_account() {
    let Some(mut host) = Host::separated("").await else { return };
    host.start().await;
    let left = std::env::temp_dir().join(format!("sculpt-left-{}", uuid::Uuid::now_v7()));
    let left = left.display();
    let first = host.shell(&format!("cp /bin/bash {left} && chmod 6755 {left} && id -un; exec sleep 600"));
    host.controller.offer(&first);
    let named = |memory: &crate::controller::Memory| {
        let log = String::from_utf8_lossy(memory.log(&first.attempt_id)).into_owned();
        log.strip_suffix('\n').map(str::to_owned)
    };
    let owner = Account(host.controller.wait("the program", named).await);
    let mode = fs::metadata(left.to_string()).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o6755, "it is marked");
    let second = host.shell(&format!("id -un; {left} -p -c 'id -un; id -gn'; grep NoNewPrivs /proc/self/status"));
    host.controller.offer(&second);
    host.controller.wait_ended(&second.attempt_id).await;
    let log = String::from_utf8_lossy(host.controller.memory().log(&second.attempt_id)).into_owned();
    let other = Account(log.lines().next().unwrap().to_owned());
    assert_eq!(log, format!("{0}\n{0}\n{0}\nNoNewPrivs:\t1\n", other.0));
    assert_ne!(owner.0, other.0);
    host.controller.want(&first.attempt_id, sculpt_proto::executor::v1::Phase::Stop);
    host.controller.wait_ended(&first.attempt_id).await;
    host.stop();
    // Whoever has got the account since has swept it.
    let _swept = fs::remove_file(left.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_attempts_cannot_be_kept_from_is_said() {
    let Some(mut host) = Host::separated("").await else { return };
    host.via.extend(["setpriv", "--bounding-set=-sys_admin"]);
    host.start().await;
    let hello = host.controller.memory().hellos.last().unwrap().clone();
    assert!(hello.separates && hello.notes.iter().any(|note| note.contains("System V")), "{hello:?}");
    host.stop();
}
