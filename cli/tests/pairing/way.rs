//! The direct way, which may be opened late and be shut early.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
};

use super::{run, running, sculpt, tool};
use crate::{controller::Controller, sandbox::Sandbox};

/// Greets as a server of ssh does, and is gone: nobody gets further.
fn shut() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| stream.unwrap().write_all(b"SSH-2.0-x\r\n").unwrap());
    });
    address
}

async fn route(sandbox: &Sandbox) -> serde_json::Value {
    let printed = sculpt(sandbox, &["pair", "17", "--print", "-o", "json"]).await;
    serde_json::from_str::<serde_json::Value>(&printed.stdout).unwrap()["route"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_on_the_direct_way_goes_through_the_controller() {
    let (sandbox, controller) = Controller::known(running()).await;
    *controller.script.desk.address.lock().unwrap() = shut().to_string();
    assert_ne!(route(&sandbox).await, "tunnel");
    // What it is told says which way it goes.
    let ways = sandbox.path("ways");
    let script = "while read -r word rest; do [ \"$word\" = ProxyCommand ] && way=\"$rest\"; done < \"$6\"\n";
    let script =
        script.to_owned() + &format!("case $way in none) echo direct;; *) echo tunnel;; esac >> {}\n", ways.display());
    let script = script
        + "[ \"$way\" = none ] && { echo 'Connection reset by 127.0.0.1' >&2; exit 255; }\necho sculpt-is-in >&2\n";
    let tools = tool(&sandbox, "ssh", &script);
    let mut command = sandbox.sculpt(&sandbox.path("home"), &["port-forward", "17", "0:3000"]);
    command.env("PATH", &tools);
    let done = run(command).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_to_string(&ways).unwrap(), "direct\ntunnel\n");
    // As long as the certificate is used, nobody tries it again unasked.
    assert_eq!(route(&sandbox).await, "tunnel");
    assert_eq!(controller.script.desk.opened.lock().unwrap().len(), 1);
    assert_eq!(sculpt(&sandbox, &["pair", "17", "--print", "--via", "direct"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_way_that_was_opened_since_is_asked_for() {
    let (sandbox, controller) = Controller::known(running()).await;
    let direct = ["pair", "17", "--print", "--via", "direct"];
    for _ in 0..2 {
        sculpt(&sandbox, &direct).await.refuses(7, &["no port of its own"]);
    }
    let opened = || controller.script.desk.opened.lock().unwrap().len();
    assert_eq!(opened(), 1, "who tries again at once opens nothing more");
    *controller.script.desk.address.lock().unwrap() = shut().to_string();
    // As if it had been asked for a minute ago.
    let contexts = fs::read_dir(sandbox.path("home/.local/state/sculpt/ssh")).unwrap();
    let record = contexts.last().unwrap().unwrap().path().join(running().uuid).join("workspace.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    kept["opened"] = (kept["opened"].as_u64().unwrap() - 60).into();
    fs::write(&record, kept.to_string()).unwrap();
    let printed = sculpt(&sandbox, &direct).await;
    assert_eq!((printed.code, opened()), (0, 2), "{}", printed.stderr);
}
