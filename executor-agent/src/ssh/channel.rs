//! One session channel: what is asked of it, and what then runs in it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use russh::ChannelMsg;
use sculpt_pairing::Role;
use sculpt_proto::id::SeatId;

use super::{
    door::Entered,
    place::NoPlace,
    process::{Ending, Process},
    relay::{HUNG_UP, Line, Over},
    reports::{Presence, Reports},
    request::{self, MOST_VARIABLES, Request, Service, service},
    seat::{self, Sitting, describes, patiently},
};
use crate::{
    host,
    pty::Size,
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

/// What was said of a channel before anything runs in it.
#[derive(Debug, Default)]
struct Said {
    variables: BTreeMap<String, String>,
    terminal: Option<(String, Size)>,
}

/// Serves the channel until it is closed.
pub(super) async fn serve(mut line: Line, entered: Arc<Entered>, reports: Reports) {
    let mut said = Said::default();
    let Some(request) = listen(&mut line, &mut said).await else { return };
    let (term, unknown) = said.terminal.as_ref().map(|(term, _)| request::term(term, describes)).unzip();
    if let Some(words) = unknown.flatten() {
        line.say(&words).await;
    }
    if let Some(term) = term {
        said.variables.insert("TERM".to_owned(), term);
    }
    let size = said.terminal.map(|(_, size)| size);
    let service = match entered.place.lives() {
        true => service(request, entered.pass.rights),
        false => Service::Refused(NoPlace::Ended(entered.pass.attempt).to_string()),
    };
    let ending = match argv(&service) {
        Ok(None) => match service {
            Service::Seat { read_only } => sit(&mut line, &entered, read_only, &said.variables, size, reports).await,
            Service::Refused(why) => {
                line.say(&format!("sculpt: {why}")).await;
                Some(Ending::Code(NOT_ALLOWED))
            }
            Service::Shell | Service::Command(_) | Service::Sftp => None,
        },
        Ok(Some(argv)) => {
            let env = environment(&entered, &said.variables, size.is_some());
            let stage = entered.place.stage(argv, env);
            // Who has no terminal sits nowhere: copies, and programs that others run.
            let here = match size {
                Some(_) => match patiently(&line, Presence::begin(&entered.pass, Role::Shell, reports)).await {
                    Some(here) => Some(here),
                    None => return,
                },
                None => None,
            };
            let ending = run(&mut line, entered.place.program(), &stage, size, None).await;
            if let Some(here) = here {
                here.end(line.why()).await;
            }
            ending
        }
        Err(why) => {
            line.say(&format!("sculpt: {why}")).await;
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
                line.say_lost(&lost).await;
                line.close(HUNG_UP).await;
                return None;
            }
        };
        match message {
            ChannelMsg::SetEnv { variable_name: name, variable_value: value, .. }
                if request::passes(&name, &value) && said.variables.len() < MOST_VARIABLES =>
            {
                said.variables.insert(name, value);
            }
            ChannelMsg::RequestPty { term, col_width, row_height, .. } => {
                said.terminal = Some((term, request::size(col_width, row_height)));
            }
            ChannelMsg::WindowChange { col_width, row_height, .. } => {
                if let Some((_, size)) = &mut said.terminal {
                    *size = request::size(col_width, row_height);
                }
            }
            ChannelMsg::RequestShell { .. } => return Some(Request::Shell),
            ChannelMsg::Exec { command, .. } => return Some(Request::Exec(command)),
            ChannelMsg::RequestSubsystem { name, .. } => return Some(Request::Subsystem(name)),
            ChannelMsg::Close => return None,
            _ => {}
        }
    }
}

/// The program behind a service; none where that is no single program.
fn argv(service: &Service) -> Result<Option<Vec<ByteText>>, String> {
    let shell = host::shell();
    Ok(Some(match service {
        Service::Shell => vec![shell.into(), "-l".into()],
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
    size: Option<Size>,
    sitting: Option<&mut Sitting>,
) -> Option<Ending> {
    let (mut process, streams) = match Process::start(program, stage, size).await {
        Ok(started) => started,
        Err(error) => {
            line.say(&format!("sculpt: could not start a process beside the agent: {error}")).await;
            return Some(Ending::Code(stage::FAILED.into()));
        }
    };
    let over = line.relay(&mut process, streams, sitting).await;
    process.end(line.ends()).await;
    match over {
        Over::Ended(ending) => Some(ending),
        Over::Left => Some(Ending::Code(0)),
        Over::Gone => None,
    }
}

/// Takes the person to the agent's terminal.
async fn sit(
    line: &mut Line,
    entered: &Entered,
    read_only: bool,
    brought: &BTreeMap<String, String>,
    size: Option<Size>,
    reports: Reports,
) -> Option<Ending> {
    if !entered.place.has_terminal() {
        line.say("sculpt: this agent has no terminal to sit at; `sculpt logs` shows what it prints").await;
        return Some(Ending::Code(NOT_HERE));
    }
    let Some(size) = size else {
        line.say("sculpt: to sit at the agent's terminal you need one of your own; use `ssh -t`").await;
        return Some(Ending::Code(NOT_HERE));
    };
    let (view, pass) = (entered.place.view(), &entered.pass);
    let there = tokio::select! {
        () = line.cut.cancelled() => return None,
        there = seat::appears(&view) => there,
    };
    if !there {
        let (words, code) = gone(entered.place.lives());
        line.say(words).await;
        return Some(Ending::Code(code));
    }
    // One of them may sit there more than once.
    let (sits, hands) = seat::sits(pass, read_only, || format!("seat-{}", SeatId::fresh()));
    let told = brought.iter().filter(|(name, _)| TOLD.contains(&name.as_str()));
    let stage = view.seat(&sits, told.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect());
    let mut sitting = patiently(line, Sitting::down(pass, hands, reports)).await?;
    let ending = run(line, entered.place.program(), &stage, Some(size), Some(&mut sitting)).await;
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
    let (words, code) = gone(entered.place.lives());
    sitting.up(words.trim_start_matches("sculpt: ").to_owned()).await;
    line.say(words).await;
    Some(Ending::Code(code))
}

/// What a person hears whose terminal is not there, and the exit code, by whether its agent lives.
fn gone(lives: bool) -> (&'static str, u32) {
    if lives {
        ("sculpt: the agent's terminal was lost and is made anew; the agent goes on, so come again", LOST)
    } else {
        ("sculpt: the agent's terminal has closed", CLOSED)
    }
}
