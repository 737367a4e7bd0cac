//! The control socket: what the executor asks of a shim.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    door::{Door, is_of},
    keyboard::Keyboard,
    screen::Screen,
    shared::{Event, Shared},
    wire::{self, Phase, Progress, Request, Response},
};

/// Connections at a time; more are closed.
const CONNECTIONS: usize = 64;
/// A connection that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a quiet subscription looks whether its reader is still there.
const LOOK: Duration = Duration::from_secs(5);
/// How long a terminal may take to read what is typed.
const TYPING: Duration = Duration::from_secs(10);

/// Serves who comes in at `door` for the rest of the shim's life.
pub(super) fn serve(mut door: Door, shared: Arc<Shared>, keyboard: Option<Arc<Keyboard>>) -> io::Result<()> {
    let count = Arc::<AtomicUsize>::default();
    thread::Builder::new().name("control".into()).spawn(move || {
        loop {
            let stream = door.accept();
            if !is_of(&stream, None) || count.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
                count.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (shared, keyboard, open) = (Arc::clone(&shared), keyboard.clone(), Arc::clone(&count));
            let spawned = thread::Builder::new().name("control".into()).spawn(move || {
                // A peer that breaks off has nobody to tell.
                let _ = connection(&stream, &shared, keyboard.as_deref());
                open.fetch_sub(1, Ordering::AcqRel);
            });
            if spawned.is_err() {
                count.fetch_sub(1, Ordering::AcqRel);
            }
        }
    })?;
    Ok(())
}

fn connection(stream: &UnixStream, shared: &Shared, keyboard: Option<&Keyboard>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    while let Some(request) = wire::receive(stream)? {
        if request == Request::Subscribe {
            return subscription(stream, shared);
        }
        let released = request == Request::Release;
        let sent = wire::send(stream, &answer(request, shared, keyboard));
        if released {
            // After the answer, as the shim may be gone at once; and whether or not somebody waited for it.
            shared.update(|state| state.released = true);
            shared.tell(Event::Look);
        }
        sent?;
    }
    Ok(())
}

fn answer(request: Request, shared: &Shared, keyboard: Option<&Keyboard>) -> Response {
    let outcome = match request {
        Request::Status | Request::Subscribe => return Response::Status(Box::new(shared.status())),
        Request::Input { bytes } => with_screen(keyboard, |screen| screen.hands().type_in(&bytes.0, Some(TYPING))),
        Request::Resize { columns, rows } => with_screen(keyboard, |screen| screen.resize(columns, rows)),
        Request::Say { id, text, enter } => {
            living(shared).and_then(|()| of_terminal(keyboard)).and_then(|keyboard| keyboard.say(id, text, enter))
        }
        Request::HandBack => of_terminal(keyboard).map(Keyboard::hand_back),
        Request::Stop { grace } => living(shared).map(|()| shared.tell(Event::Stop(grace))),
        Request::Hold => living(shared).and_then(|()| hold(shared, true)),
        Request::Resume => living(shared).and_then(|()| hold(shared, false)),
        Request::Lease { confirmed } => {
            shared.renew(confirmed);
            Ok(())
        }
        Request::Release => Ok(()),
    };
    match outcome {
        Ok(()) => Response::Done,
        Err(why) => Response::Refused { why },
    }
}

fn of_terminal(keyboard: Option<&Keyboard>) -> Result<&Keyboard, String> {
    keyboard.ok_or_else(|| "the agent has no terminal".to_owned())
}

fn with_screen(keyboard: Option<&Keyboard>, act: impl FnOnce(&Screen) -> io::Result<()>) -> Result<(), String> {
    act(of_terminal(keyboard)?.screen()).map_err(|error| format!("the agent's terminal: {error}"))
}

fn living(shared: &Shared) -> Result<(), String> {
    match shared.state().phase {
        Phase::Running | Phase::Held | Phase::Ending => Ok(()),
        Phase::Ended(_) => Err("the agent has ended".into()),
    }
}

fn hold(shared: &Shared, held: bool) -> Result<(), String> {
    let (reply, replied) = mpsc::channel();
    shared.tell(Event::Hold(held, reply));
    replied.recv_timeout(TYPING).unwrap_or_else(|_| Err("the shim is busy ending the agent".into()))
}

fn subscription(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut known: Option<Progress> = None;
    loop {
        if let Some(progress) = shared.progress(known.as_ref(), LOOK) {
            wire::send(stream, &Response::Progress(Box::new(progress.clone())))?;
            known = Some(progress);
        } else if has_gone(stream)? {
            return Ok(());
        }
    }
}

fn has_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut descriptors, Some(&Timespec::default()))?;
    Ok(!descriptors[0].revents().is_empty())
}
