//! Certificates that last seconds instead of a day: they are renewed under running agents, by hosts that come back late, and
//! a copy of the key gives itself away. And an authority that takes over from another.

use std::{fs, path::Path, time::SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{Cli, DEADLINE, Options, Stack, again, eventually};
use sculpt_tls::{Subject, Trust, validity};

/// How long certificates are good here. Two thirds of it are left to see one that is still good.
const LIFE: &str = "15s";

pub(crate) fn short_lived() -> Options {
    Stack::options().env("SCULPT_CONTROLLER_CERTIFICATE_LIFE", LIFE)
}

/// The certificate of the executor on `data`: whom it names, and until when.
pub(crate) fn certificate(data: &Path) -> Result<(Subject, SystemTime)> {
    let pem = fs::read(data.join("identity/certificate.pem")).context("read the certificate")?;
    let chain = Trust::from_pem(&pem)?;
    let own = chain.certificates().next().context("a certificate")?;
    Ok((Subject::of(own)?, validity(own).context("its time")?.1))
}

/// Waits until the certificate of the executor on `data` is `more` generations further.
async fn renews(data: &Path, more: u64) -> Result<()> {
    let wanted = certificate(data)?.0.generation + more;
    let there = || Ok((certificate(data)?.0.generation >= wanted).then_some(()));
    eventually(&format!("generation {wanted} of the certificate"), there).await
}

/// Waits until a certificate that is good until then is not any more.
pub(crate) async fn runs_out(until: SystemTime) -> Result<()> {
    eventually("the certificate to run out", || Ok((SystemTime::now() > until).then_some(()))).await
}

#[tokio::test]
async fn certificates_run_out_under_a_running_agent_and_nobody_notices() -> Result<()> {
    let stack = short_lived().parts().await?;
    let key = fs::read(stack.executor_data().join("identity/key.pem"))?;
    let running = stack.counting(&[]).await?;
    // At its start it renews at once: so short a life is nearly over for a clock that may be an hour behind.
    renews(&stack.executor_data(), 1).await?;
    let (_, until) = certificate(&stack.executor_data())?;
    running.arrives(&stack).await?;
    let told = || fs::read_to_string(stack.root().join("executor.log"));
    let before = told()?.len();
    renews(&stack.executor_data(), 2).await?;
    runs_out(until).await?;
    running.arrives(&stack).await?;
    ensure!(fs::read(stack.executor_data().join("identity/key.pem"))? == key, "the key is another one");
    // The session has stood for longer than the certificate with which it began.
    let log = told()?;
    ensure!(!log[before..].contains("no session"), "the session was cut: {log}");
    running.ends_well(&stack).await?;
    stack.finish().await
}

#[tokio::test]
async fn a_host_that_was_off_for_longer_renews_and_its_spool_arrives() -> Result<()> {
    let mut stack = short_lived().parts().await?;
    let running = stack.counting(&["--no-tty"]).await?;
    let (before, until) = certificate(&stack.executor_data())?;
    stack.executor()?.end(Signal::TERM, DEADLINE).await?;
    running.counter.prints(100).await?;
    runs_out(until).await?;
    stack.start_executor().await?;
    let (after, _) = certificate(&stack.executor_data())?;
    ensure!(after.executor == before.executor && after.generation > before.generation, "{before:?} became {after:?}");
    running.arrives(&stack).await?;
    running.ends_well(&stack).await?;
    stack.finish().await
}

/// Of two that hold one key only one has the newest certificate; the other's renewal locks both, until a person has looked.
#[tokio::test]
async fn a_copy_of_the_key_locks_both() -> Result<()> {
    let stack = short_lived().parts().await?;
    let running = stack.counting(&[]).await?;
    let copy = stack.data().join("copy");
    stack.copy_identity(&copy)?;
    renews(&stack.executor_data(), 1).await?;
    let mut thief = stack.executor_command(&stack.executor_url()?, &copy, "thief")?;
    let thief = thief
        .kill_on_drop(true)
        .stderr(fs::File::create(stack.root().join("thief.log"))?)
        .spawn()
        .context("start the copy")?;
    stack.recorded("executor.lock").await?;
    let shown = stack.sculpt(["executor", "show", "worker", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(shown["locked"] == true, "{shown:#}");
    let locks = stack.sculpt(["locks", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(locks.as_array().is_some_and(|all| all.len() == 1), "{locks:#}");
    running.counter.prints(50).await?;
    running.lives_on()?;
    // The copy is found and ended; what it could do ends with it.
    drop(thief);
    fs::remove_dir_all(&copy)?;
    stack.sculpt(["unlock", "executor", "worker"]).run().await?.done()?;
    running.arrives(&stack).await?;
    running.ends_well(&stack).await?;
    stack.finish().await
}

/// `sculpt-controller authority STEP` on the controller's host.
fn authority(stack: &Stack, step: &str) -> Cli {
    let data = stack.data().join("controller").display().to_string();
    stack.shell("sculpt-controller", ["authority", step, "--data-dir", &data])
}

/// Who carries the pin of one authority and was away while another took over is let in until the first is retired: by an old
/// token, an old token for joining, in the middle of following, and by tools that know its certificate alone.
#[tokio::test]
async fn another_authority_takes_over_and_who_was_away_comes_back() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let project = stack.sculpt(["project", "add", "-o", "json"]).dir(repo.path()).run().await?.done()?.json()?;
    let running = stack.counting(&[]).await?;
    let (join, before) = (stack.join_token("default").await?, stack.root().join("before.pem"));
    fs::copy(stack.data().join("controller/trust.pem"), &before)?;
    let following = stack.following(&running).await?;

    authority(&stack, "prepare").run().await?.done()?.says("the present one vouches for it")?;
    authority(&stack, "activate").run().await?.done()?;
    stack.controller()?.end(Signal::TERM, DEADLINE).await?;
    stack.start_controller().await?;
    ensure!(stack.trust()?.pins().len() == 2, "one of them is not trusted");

    let home = stack.fresh("homes");
    fs::create_dir_all(&home)?;
    let url = stack.url()?;
    let signs_in = stack.sculpt(["login", &url]).env("HOME", &home).stdin(stack.token()?);
    signs_in.run().await?.done()?;
    let kept = fs::read_dir(home.join(".config/sculpt/authorities"))?.next().context("an authority is kept")??;
    ensure!(fs::read_to_string(kept.path())? == stack.trust()?.to_pem(), "not all of them are kept");
    stack.sculpt(["git-credential", "setup"]).env("HOME", &home).run().await?.done()?;
    let clone = format!("{url}{}", project["git_path"].as_str().context("the path of a project")?);
    let lists = stack.shell("git", ["ls-remote", &clone]).env("HOME", &home).env("GIT_SSL_CAINFO", &before);
    lists.run().await?.done()?;
    if stack.shell("curl", ["--version"]).run().await.is_ok() {
        let before = before.display().to_string();
        stack.shell("curl", ["-sS", "-o", "/dev/null", "--cacert", &before, &url]).run().await?.done()?;
    }
    let late = stack.fresh("executors");
    let (data, executors) = (late.display().to_string(), stack.executor_url()?);
    let joins = ["join", &executors, "--token-file", "-", "--data-dir", &data, "--name", "late"];
    stack.shell("sculpt-executor", joins).stdin(join).run().await?.done()?;
    stack.executor_made(&late);
    following.saw_all(&stack, running).await?;

    // The executor that runs renews by itself, and nobody needs the first one any more.
    let retires = async || {
        let retired = authority(&stack, "retire").run().await?;
        if retired.code == 0 { Ok(Some(())) } else { retired.says("that have not renewed since").map(|_| None) }
    };
    again(DEADLINE, "the first authority to be retired", retires).await?;
    let alone = || Ok((stack.trust()?.pins().len() == 1).then_some(()));
    eventually("the controller to see it", alone).await?;
    let stranger = stack.fresh("homes");
    fs::create_dir_all(&stranger)?;
    let refused = stack.sculpt(["whoami"]).env("HOME", &stranger).run().await?.exits(77)?;
    refused.says("another authority has taken over there")?.says("new token")?;
    stack.sculpt(["whoami"]).env("HOME", &home).run().await?.done()?;
    stack.sculpt(["whoami"]).run().await?.done()?;
    stack.finish().await
}
