//! `sculpt-controller authority` on the directory alone, with no controller and no database.

use clap::Parser as _;
use sculpt_controller::{
    commands::{CommandError, Told},
    config::{Cli, Command},
    pki::{Authority, AuthorityError, Phase, SshAuthorities},
};

use super::given;

async fn run(directory: &std::path::Path, verb: &[&str]) -> Result<Told, CommandError> {
    let directory = directory.display().to_string();
    let place = ["--authority-dir", &directory, "--data-dir", &directory];
    let arguments = ["sculpt-controller", "authority"].iter().chain(verb).chain(&place);
    match Cli::try_parse_from(arguments).expect("arguments are right").command {
        Command::Authority(arguments) => arguments.run().await,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_change_is_told_step_by_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let error = run(path, &["show"]).await.expect_err("there is none").to_string();
    assert!(error.contains("makes it at its first start"), "{error}");
    Authority::open(path).expect("it is made");
    assert_eq!(run(path, &["show"]).await.expect("it is shown").answer.lines().count(), 1);
    SshAuthorities::open(path).expect("they are made");
    for (verb, lines, next) in [
        (&["show"][..], 1, "prepare"),
        (&["prepare"], 2, "activate"),
        (&["activate", "--force"], 2, "retire"),
        (&["retire", "--force"], 1, "prepare"),
    ] {
        let said = run(path, verb).await.expect("it is done");
        let ssh = said.answer.lines().filter(|line| line.contains(" ssh-ed25519 ")).count();
        assert_eq!((said.answer.lines().count(), ssh), (lines + 2, 2), "{said:?}");
        assert!(said.note.contains(next), "{said:?}");
    }
    let again = run(path, &["retire"]).await;
    assert!(matches!(again, Err(CommandError::Authority(AuthorityError::Order(_)))), "{again:?}");
}

#[tokio::test]
async fn nobody_is_left_out_by_one_that_is_vouched_for() {
    for (outside, vouches) in [(false, true), (true, false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        if outside {
            given(path);
        }
        Authority::open(path).expect("it is there");
        let said = run(path, &["prepare"]).await.expect("it is prepared").note;
        assert_eq!(said.contains("cannot vouch for it: its certificate forbids it"), !vouches, "{said}");
        assert_eq!(run(path, &["activate"]).await.is_ok(), vouches, "nobody needs to be asked for");
        let said = run(path, if vouches { &["show"] } else { &["activate", "--force"] }).await.expect("it is").note;
        assert_eq!(said.contains("does not vouch for this one"), !vouches, "{said}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_neither_activated_nor_retired() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    given(path);
    run(path, &["prepare"]).await.expect("it is prepared");
    let error = run(path, &["activate"]).await.expect_err("there is no database").to_string();
    assert!(error.contains("there is no database in") && error.contains("--force"), "{error}");
    assert_eq!(Authority::open(path).expect("it is there").phase(), Phase::Prepared, "nothing has happened");
    run(path, &["activate", "--force"]).await.expect("it is activated");
    let error = run(path, &["retire"]).await.expect_err("there is no database").to_string();
    assert!(error.contains("there is no database in") && error.contains("--force"), "{error}");
    assert_eq!(Authority::open(path).expect("it is there").phase(), Phase::Activated, "nothing has happened");
}
