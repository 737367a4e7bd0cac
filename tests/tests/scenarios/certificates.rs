//! Certificates that last seconds instead of a day: they are renewed under running agents, by hosts that come back late, and
//! a copy of the key gives itself away.

use std::{fs, path::Path, time::SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{DEADLINE, Stack, eventually};
use sculpt_tls::{Subject, Trust, validity};

/// How long certificates are good here. Two thirds of it are left to see one that is still good.
const LIFE: &str = "15s";

async fn short_lived() -> Result<Stack> {
    Stack::options().env("SCULPT_CONTROLLER_CERTIFICATE_LIFE", LIFE).parts().await
}

/// The certificate of the executor on `data`: whom it names, and until when.
fn certificate(data: &Path) -> Result<(Subject, SystemTime)> {
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
async fn runs_out(until: SystemTime) -> Result<()> {
    eventually("the certificate to run out", || Ok((SystemTime::now() > until).then_some(()))).await
}

#[tokio::test]
async fn certificates_run_out_under_a_running_agent_and_nobody_notices() -> Result<()> {
    let stack = short_lived().await?;
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
    let mut stack = short_lived().await?;
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
    let stack = short_lived().await?;
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
    stack.executor_until("worker", "locked", DEADLINE, |found| found.locked).await?;
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
