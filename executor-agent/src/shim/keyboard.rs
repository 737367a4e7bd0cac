//! The agent's keyboard: people type on it through views, and messages to the agent are typed on it when it is their turn.
//!
//! That a message is being typed is on disk before its first byte is: one that was cut off by a death is never typed twice.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use uuid::Uuid;

use super::{
    baton::{Baton, Input, Turn, Why},
    files, lock,
    screen::Screen,
    shared::Shared,
    wire::{Delivery, Phase, Said},
};
use crate::host;

/// Messages that wait at a time; more are refused.
const WAITING: usize = 64;
/// Messages of one agent in all its life; more are refused.
const MESSAGES: usize = 10_000;
/// Longest message in bytes.
const LENGTH: usize = 1 << 20;
/// How many that were typed are still told of.
const TOLD: usize = 64;
/// How long a terminal may take to read what is typed.
const TYPING: Duration = Duration::from_secs(10);
/// How soon it is tried again to write down that one is typed.
const AGAIN: Duration = Duration::from_secs(5);

/// Who types, and what waits for its turn.
pub(super) struct Keyboard {
    screen: Arc<Screen>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    changed: Condvar,
    record: File,
}

struct State {
    baton: Baton,
    waiting: VecDeque<Message>,
    known: HashSet<Uuid>,
    /// The disk refused; not before this moment.
    refused: Option<Duration>,
}

struct Message {
    id: Uuid,
    text: String,
    enter: bool,
}

impl Keyboard {
    /// The keyboard of `screen`, with a thread for what waits.
    pub(super) fn start(
        screen: Arc<Screen>,
        shared: Arc<Shared>,
        attempt_dir: &Path,
        quiet: Duration,
    ) -> io::Result<Arc<Self>> {
        let path = attempt_dir.join(files::SAID);
        let record = File::options().create(true).append(true).mode(0o600).open(path)?;
        let state = State { baton: Baton::new(quiet), waiting: VecDeque::new(), known: HashSet::new(), refused: None };
        let keyboard = Arc::new(Self { screen, shared, state: Mutex::new(state), changed: Condvar::new(), record });
        let own = Arc::clone(&keyboard);
        thread::Builder::new().name("messages".into()).spawn(move || while own.see_to_the_next() {})?;
        Ok(keyboard)
    }

    /// What it is the keyboard of.
    pub(super) fn screen(&self) -> &Arc<Screen> {
        &self.screen
    }

    /// Types what came from a view.
    pub(super) fn press(&self, bytes: &[u8]) -> io::Result<()> {
        let hands = self.screen.hands();
        // Before the first byte is typed and with nobody between: a message that comes next knows of it.
        self.note(Input::Keys(bytes));
        hands.type_in(bytes, None)
    }

    /// Nobody is at it any more.
    pub(super) fn hand_back(&self) {
        self.note(Input::HandedBack);
    }

    /// The agent was paused, or goes on.
    pub(super) fn pause(&self, paused: bool) {
        self.note(Input::Paused(paused));
    }

    /// Takes a message, which is typed when it is its turn; the same `id` again is the same message.
    pub(super) fn say(&self, id: Uuid, text: String, enter: bool) -> Result<(), String> {
        if text.is_empty() || text.len() > LENGTH {
            return Err(format!("a message has 1 to {LENGTH} bytes, and this one {}", text.len()));
        }
        if text.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\t')) {
            return Err("the message holds control characters, which would do more than stand in it".into());
        }
        let mut state = lock(&self.state);
        if state.known.contains(&id) {
            return Ok(());
        }
        if state.waiting.len() >= WAITING {
            return Err(format!("{WAITING} messages wait already; wait until some of them are typed"));
        }
        if state.known.len() >= MESSAGES {
            return Err(format!("the agent has had {MESSAGES} messages and gets no more"));
        }
        state.known.insert(id);
        state.waiting.push_back(Message { id, text, enter });
        // Before it can be typed, so that what is told of it goes forward only.
        self.tell(id, Delivery::Queued { why: state.why(host::boottime()) });
        self.changed.notify_all();
        Ok(())
    }

    fn note(&self, input: Input<'_>) {
        let mut state = lock(&self.state);
        let is_key = matches!(input, Input::Keys(_));
        state.baton.apply(input, host::boottime());
        // A key matters only to messages that wait; to wake their thread for each would cost who types.
        if !is_key || !state.waiting.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Waits for the turn of the next message and types it; false when the agent has ended.
    fn see_to_the_next(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            if matches!(self.shared.state().phase, Phase::Ending | Phase::Ended(_)) {
                return false;
            }
            let now = host::boottime();
            let Some(id) = state.waiting.front().map(|message| message.id) else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let until = match state.turn(now) {
                Turn::Free => break,
                Turn::At(moment) => Some(moment.saturating_sub(now)),
                Turn::Later(_) => None,
            };
            self.tell(id, Delivery::Queued { why: state.why(now) });
            state = match until {
                Some(pause) => self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        drop(state);
        self.deliver();
        true
    }

    /// Types the next message, if it is still its turn once nobody else can type.
    fn deliver(&self) {
        let hands = self.screen.hands();
        let message = {
            let mut state = lock(&self.state);
            match state.turn(host::boottime()) {
                Turn::Free => state.waiting.pop_front(),
                Turn::At(_) | Turn::Later(_) => None,
            }
        };
        let Some(message) = message else { return };
        if self.write_down(message.id, Delivery::Typing).is_err() {
            let mut state = lock(&self.state);
            state.refused = Some(host::boottime().saturating_add(AGAIN));
            state.waiting.push_front(message);
            return;
        }
        self.tell(message.id, Delivery::Typing);
        let typed = hands.type_in(&written(&message.text, self.screen.takes_pastes()), Some(TYPING)).and_then(|()| {
            // Apart from the text: an Enter that comes with it may be taken for a part of it.
            if message.enter { hands.type_in(b"\r", Some(TYPING)) } else { Ok(()) }
        });
        let (delivery, input) = match typed {
            Ok(()) => (Delivery::Typed, Input::Said { enter: message.enter }),
            Err(_) => (Delivery::Uncertain, Input::Stuck),
        };
        self.note(input);
        // What cannot be written down now is uncertain only to those who ask after this process has gone.
        let _ = self.write_down(message.id, delivery);
        self.tell(message.id, delivery);
    }

    fn write_down(&self, id: Uuid, delivery: Delivery) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Said { id, delivery })?;
        line.push(b'\n');
        let length = self.record.metadata()?.len();
        let written = (&self.record).write_all(&line).and_then(|()| self.record.sync_data());
        if written.is_err() {
            // A part of it must not join with the next line.
            let _torn = self.record.set_len(length);
        }
        written
    }

    fn tell(&self, id: Uuid, delivery: Delivery) {
        if self.shared.state().said.contains(&Said { id, delivery }) {
            return;
        }
        self.shared.update(|state| {
            state.said.retain(|said| said.id != id);
            state.said.push(Said { id, delivery });
            let done = state.said.iter().filter(|said| !said.delivery.waits()).count();
            if done > TOLD
                && let Some(oldest) = state.said.iter().position(|said| !said.delivery.waits())
            {
                state.said.remove(oldest);
            }
        });
    }
}

impl State {
    fn turn(&self, now: Duration) -> Turn {
        let refused = self.refused.filter(|again| now < *again);
        match (self.baton.turn(now), refused) {
            (Turn::Free, Some(again)) => Turn::At(again),
            (turn, _) => turn,
        }
    }

    /// Why a message waits that could go out at `now` for all else.
    fn why(&self, now: Duration) -> Option<Why> {
        match self.baton.turn(now) {
            Turn::Later(why) => Some(why),
            Turn::At(_) => Some(Why::Typing),
            Turn::Free => self.refused.filter(|again| now < *again).map(|_| Why::Disk),
        }
    }
}

/// A text as the terminal is to get it: whole, where the agent can tell what is pasted from what is typed.
fn written(text: &str, pasted: bool) -> Vec<u8> {
    if pasted { format!("\x1b[200~{text}\x1b[201~").into_bytes() } else { text.as_bytes().to_vec() }
}

/// What became of the messages that were typed, in their order. One that a shim, gone since, was still typing is uncertain.
pub fn said(attempt_dir: &Path) -> io::Result<Vec<Said>> {
    let content = match fs::read(attempt_dir.join(files::SAID)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let mut all: Vec<Said> = Vec::new();
    // A torn line was never acted upon.
    let whole = content.rsplitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
    for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let said: Said = serde_json::from_slice(line)?;
        match all.iter_mut().find(|known| known.id == said.id) {
            Some(known) => *known = said,
            None => all.push(said),
        }
    }
    Ok(all)
}
