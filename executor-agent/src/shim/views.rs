//! The view socket: bytes of the terminal out, keys and sizes in.

use std::{
    io::{self, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{
    door::{Door, is_of},
    keyboard::Keyboard,
    screen::{Screen, View, Work},
    shared::{Event, Shared},
    wire::{self, ViewMessage},
};

/// Views at a time; more are closed.
const VIEWS: u32 = 16;
/// A view that takes nothing for so long is left behind and repainted when it takes something again.
const STALLED: Duration = Duration::from_secs(1);
/// A view says its size this soon.
const GREETING: Duration = Duration::from_secs(10);

/// Serves who comes in at `door` for the rest of the shim's life; `uid` is the agent's account.
pub(super) fn serve(mut door: Door, shared: Arc<Shared>, keyboard: Arc<Keyboard>, uid: Option<u32>) -> io::Result<()> {
    thread::Builder::new().name("views".into()).spawn(move || {
        loop {
            let stream = door.accept();
            if !is_of(&stream, uid) || shared.state().views >= VIEWS {
                continue;
            }
            shared.update(|state| state.views += 1);
            let (theirs, keys) = (Arc::clone(&shared), Arc::clone(&keyboard));
            let spawned = thread::Builder::new().name("view".into()).spawn(move || {
                // A view that breaks off has nobody to tell.
                let _ = connection(&stream, &keys);
                gone(&theirs, &keys);
            });
            if spawned.is_err() {
                gone(&shared, &keyboard);
            }
        }
    })?;
    Ok(())
}

fn gone(shared: &Shared, keyboard: &Keyboard) {
    shared.update(|state| state.views -= 1);
    if shared.state().views == 0 {
        keyboard.hand_back();
    }
    shared.tell(Event::Look);
}

fn connection(stream: &UnixStream, keyboard: &Keyboard) -> io::Result<()> {
    let screen = keyboard.screen();
    stream.set_read_timeout(Some(GREETING))?;
    let Some(ViewMessage::Size { columns, rows }) = wire::receive_view(stream)? else { return Ok(()) };
    stream.set_read_timeout(None)?;
    let view = screen.attach(columns, rows, stream.try_clone()?)?;
    let writer = {
        let (stream, view, screen) = (stream.try_clone()?, Arc::clone(&view), Arc::clone(screen));
        thread::Builder::new().name("view".into()).spawn(move || {
            if write(&stream, &view, &screen).is_err() {
                // Wakes the reader, which takes the view away.
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    };
    let read = writer.and_then(|writer| {
        let read = read(stream, keyboard);
        let _ = stream.shutdown(Shutdown::Both);
        screen.detach(&view);
        // It has been shut down, so it ends.
        let _ = writer.join();
        read
    });
    screen.detach(&view);
    read
}

fn read(stream: &UnixStream, keyboard: &Keyboard) -> io::Result<()> {
    while let Some(message) = wire::receive_view(stream)? {
        let done = match message {
            ViewMessage::Input(bytes) => keyboard.press(&bytes),
            ViewMessage::Size { columns, rows } => keyboard.screen().resize(columns, rows),
        };
        if let Err(error) = done
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
    }
    Ok(())
}

fn write(stream: &UnixStream, view: &View, screen: &Screen) -> io::Result<()> {
    stream.set_write_timeout(Some(STALLED))?;
    loop {
        match view.work() {
            Work::Nothing => return Ok(()),
            Work::Send(chunk) => send(stream, &chunk, view)?,
            Work::Repaint => {
                poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
                screen.repaint(view);
            }
            // It may look at the last picture for as long as it likes.
            Work::End => return stream.shutdown(Shutdown::Write),
        }
    }
}

fn send(mut stream: &UnixStream, mut chunk: &[u8], view: &View) -> io::Result<()> {
    while !chunk.is_empty() {
        match stream.write(chunk) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => chunk = &chunk[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                view.skip();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
