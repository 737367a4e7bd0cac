//! One session channel: what is asked of it, and what then runs in it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use russh::ChannelMsg;
use sculpt_pairing::{Pass, Role};
use sculpt_proto::id::SeatId;

use super::{
    door::Entered,
    place::NoPlace,
    process::{Ending, Process, Window},
    relay::{HUNG_UP, Line, Over},
    reports::Presence,
    request::{self, MOST_VARIABLES, Request, Service, service},
    seat::{self, Sitting, describes, patiently},
    shown::shown,
    visit::Visit,
};
use crate::{
    host,
    stage::{self, Stage},
    text::ByteText,
    tmux::{self, Liveness},
};

/// Exit code of what somebody may not do.
const NOT_ALLOWED: u32 = 77;

/// Exit code of what cannot be had here.
const NOT_HERE: u32 = 69;

/// Exit code when the terminal has closed, and not the person left it.
const CLOSED: u32 = 10;

/// Exit code when the terminal was lost under a person, and is made anew.
const LOST: u32 = 75;

/// Where OpenSSH's packages put the program that copies files.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// What tmux is told of the person's own environment.
const TOLD: [&str; 4] = ["TERM", "COLORTERM", "LANG", "LC_ALL"];

/// Set for agents because nobody may be there to leave a pager.
const PAGERS: [&str; 2] = ["PAGER", "GIT_PAGER"];

/// What a shell does that somebody gets who logs in. Profiles of hosts set PATH anew, so what the agent finds comes before what
/// they have set: the same programs as without a terminal, ours among them.
const LOGIN: &str = r#"PATH=$1${PATH:+:$PATH}; export PATH; exec "$0""#;

/// What was said of a channel before anything runs in it.
#[derive(Debug, Default)]
struct Said {
    variables: BTreeMap<String, String>,
    terminal: Option<(String, Window)>,
}

/// Serves the channel until it is closed.
pub(super) async fn serve(mut line: Line, entered: Arc<Entered>, visit: Arc<Visit>) {
    let mut said = Said::default();
    let Some(request) = listen(&mut line, &mut said).await else { return };
    let (term, unknown) = said.terminal.as_ref().map(|(term, _)| request::term(term, describes)).unzip();
    if let Some(term) = term {
        said.variables.insert("TERM".to_owned(), term);
    }
    let (window, unknown) = (said.terminal.map(|(_, window)| window), unknown.flatten());
    let service = match entered.lives().await {
        true => service(request, entered.pass.rights),
        false => Service::Refused(NoPlace::Ended(entered.pass.attempt).to_string()),
    };
    if let (Some(words), Service::Shell | Service::Command(_)) = (&unknown, &service) {
        line.say(words).await;
    }
    let ending = match argv(&service, entered.place.path()) {
        Ok(None) => match service {
            Service::Seat { read_only } => {
                let theirs = Theirs { read_only, brought: &said.variables, window, unknown: unknown.is_some() };
                sit(&mut line, &entered, theirs, &visit).await
            }
            Service::Refused(why) => {
                line.say(why).await;
                Some(Ending::Code(NOT_ALLOWED))
            }
            Service::Shell | Service::Command(_) | Service::Sftp => None,
        },
        Ok(Some(argv)) => {
            let env = environment(&entered, &said.variables, window.is_some());
            let stage = entered.place.stage(argv, env);
            let coming = comes(&entered.pass, &service, window.is_some(), &visit);
            let Some(here) = patiently(&line, coming).await else { return };
            let ending = run(&mut line, entered.place.program(), &stage, window.as_ref(), None).await;
            if let Some(here) = here {
                here.end(line.why()).await;
            }
            ending
        }
        Err(why) => {
            line.say(why).await;
            Some(Ending::Code(NOT_HERE))
        }
    };
    // Who has closed the channel hears no more of it.
    if let Some(ending) = ending {
        line.close(ending).await;
    }
}

/// Waits for what is to run. None: the channel was closed before.
async fn listen(line: &mut Line, said: &mut Said) -> Option<Request> {
    loop {
        let message = tokio::select! {
            () = line.cut.cancelled() => return None,
            message = line.asked.recv() => message?,
        };
        let message = match message {
            Ok(message) => message,
            Err(lost) => {
                line.say(lost).await;
                line.close(HUNG_UP).await;
                return None;
            }
        };
        if let Some(request) = Request::of(&message) {
            return Some(request);
        }
        match message {
            ChannelMsg::SetEnv { variable_name: name, variable_value: value, .. }
                if request::passes(&name, &value) && said.variables.len() < MOST_VARIABLES =>
            {
                said.variables.insert(name, value);
            }
            ChannelMsg::RequestPty { term, col_width, row_height, terminal_modes: modes, .. } => {
                said.terminal = Some((term, Window { size: request::size(col_width, row_height), modes }));
            }
            ChannelMsg::WindowChange { col_width, row_height, .. } => {
                if let Some((_, window)) = &mut said.terminal {
                    window.size = request::size(col_width, row_height);
                }
            }
            ChannelMsg::Close => return None,
            _ => {}
        }
    }
}

/// Tells that somebody is there: each time where they have a terminal, else once for all that they do.
async fn comes(pass: &Pass, service: &Service, has_terminal: bool, visit: &Visit) -> Option<Presence> {
    if has_terminal {
        return Some(Presence::begin(pass, Role::Shell, visit.reports.clone()).await);
    }
    visit.begins(pass, if *service == Service::Sftp { Role::Files } else { Role::Command }).await;
    None
}

/// The program behind a service, for who finds programs by the agent's `path`; none where that is no single program.
fn argv(service: &Service, path: Option<&ByteText>) -> Result<Option<Vec<ByteText>>, String> {
    let shell = host::shell();
    Ok(Some(match service {
        Service::Shell => match path {
            None => vec![shell.into(), "-l".into()],
            Some(path) => vec![shell.into(), "-l".into(), "-c".into(), LOGIN.into(), shell.into(), path.clone()],
        },
        Service::Command(line) => vec![shell.into(), "-c".into(), ByteText(line.clone())],
        Service::Sftp => match SFTP_SERVERS.iter().find(|path| Path::new(path).exists()) {
            Some(server) => vec![(*server).into()],
            None => {
                return Err("files cannot be copied: install the package openssh-sftp-server on this host".to_owned());
            }
        },
        Service::Seat { .. } | Service::Refused(_) => return Ok(None),
    }))
}

/// The agent's, and what the person has brought along.
fn environment(entered: &Entered, brought: &BTreeMap<String, String>, terminal: bool) -> BTreeMap<ByteText, ByteText> {
    let mut env = tmux::guests(&entered.place.launch);
    env.retain(|key, value| !(PAGERS.map(ByteText::from).contains(key) && *value == ByteText::from("cat")));
    if !terminal {
        env.remove(&"TERM".into());
    }
    env.insert("SHELL".into(), host::shell().into());
    env.extend(brought.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())));
    env
}

/// Runs a program in the channel. None: the person has gone.
async fn run(
    line: &mut Line,
    program: &Path,
    stage: &Stage,
    window: Option<&Window>,
    sitting: Option<&mut Sitting>,
) -> Option<Ending> {
    let (mut process, mut streams) = match Process::start(program, stage, window).await {
        Ok(started) => started,
        Err(error) => {
            line.say(format!("could not start a process beside the agent: {error}")).await;
            return Some(Ending::Code(stage::FAILED.into()));
        }
    };
    if let Some(sitting) = &sitting {
        streams.output = shown(streams.output, sitting.gets_up());
    }
    let over = line.relay(&mut process, streams, sitting).await;
    process.end(line.ends()).await;
    match over {
        Over::Ended(ending) => Some(ending),
        Over::Left => Some(Ending::Code(0)),
        Over::Gone => None,
    }
}

/// What somebody brings to the agent's terminal.
struct Theirs<'a> {
    read_only: bool,
    brought: &'a BTreeMap<String, String>,
    window: Option<Window>,
    /// Whether nobody here knows their terminal.
    unknown: bool,
}

/// Takes the person to the agent's terminal.
async fn sit(line: &mut Line, entered: &Arc<Entered>, theirs: Theirs<'_>, visit: &Visit) -> Option<Ending> {
    let Theirs { read_only, brought, window, unknown } = theirs;
    if !entered.place.has_terminal() {
        line.say("this agent has no terminal to sit at; `sculpt logs` shows what it prints").await;
        return Some(Ending::Code(NOT_HERE));
    }
    let Some(window) = window else {
        line.say("to sit at the agent's terminal you need one of your own; use `ssh -t`").await;
        return Some(Ending::Code(NOT_HERE));
    };
    let (view, pass) = (entered.place.view(), &entered.pass);
    let there = tokio::select! {
        () = line.cut.cancelled() => return None,
        there = seat::appears(&view) => there,
    };
    if !there {
        let (words, code) = gone(entered.lives().await);
        line.say(words).await;
        return Some(Ending::Code(code));
    }
    // One of them may sit there more than once.
    let (sits, hands) = seat::sits(pass, read_only, || format!("seat-{}", SeatId::fresh()));
    let told = brought.iter().filter(|(name, _)| TOLD.contains(&name.as_str()));
    let env = told.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
    let stage = view.seat(&sits, unknown, env);
    let coming = Sitting::down(pass, hands, visit.reports.clone(), &line.cut);
    let mut sitting = patiently(line, coming).await?;
    let ending = run(line, entered.place.program(), &stage, Some(&window), Some(&mut sitting)).await;
    // What tmux's client says with another code than 0 is that it has lost its server.
    let lost = match ending {
        None => false,
        Some(_) if line.cut.is_cancelled() => false,
        Some(Ending::Code(0)) => view.alive().await == Liveness::Absent,
        Some(_) => true,
    };
    if !lost {
        sitting.up(line.why()).await;
        return ending;
    }
    let (words, code) = gone(entered.lives().await);
    sitting.up(words.to_owned()).await;
    line.say(words).await;
    Some(Ending::Code(code))
}

/// What a person hears whose terminal is not there, and the exit code, by whether its agent lives.
fn gone(lives: bool) -> (&'static str, u32) {
    if lives {
        ("the agent's terminal was lost and is made anew; the agent goes on, so come again", LOST)
    } else {
        ("the agent's terminal has closed", CLOSED)
    }
}
