//! Between a channel and a program: bytes both ways, each side no faster than the other takes them.

use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    io,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::{Buf as _, Bytes, BytesMut};
use russh::{
    ChannelMsg, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    cut::Cut,
    intake::{Asked, Lost, Pieces},
    process::{Ending, Ends, Process, Streams},
    request,
    seat::Sitting,
};

/// What is read of a program at once; a packet takes no more.
const CHUNK: usize = 32 * 1024;

/// How much is taken for a program that does not read. Beyond it nothing is taken of what comes in.
const BACKLOG: usize = 64 * 1024;

/// How long what a seat's client has written may take to be read, once it has ended: an agent can hold its terminal open.
const LINGERS: Duration = Duration::from_secs(2);

/// How long a person may take to hear what no program says.
const HEARS_WITHIN: Duration = Duration::from_secs(2);

/// How long a program may take for what was sent before the channel was closed.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// The code of a refusal for what nobody may.
pub(super) const PROHIBITED: u32 = 1;

/// The number of the stream for errors.
const ERRORS: u32 = 1;

/// How a program ends that loses its person or its attempt.
pub(super) const HUNG_UP: Ending = Ending::Signal(Signal::HUP.as_raw());

/// A session channel, opened.
pub(super) struct Line {
    /// All but the data.
    pub(super) asked: Asked,
    pub(super) pieces: Pieces,
    pub(super) writer: ChannelWriteHalf<Msg>,
    pub(super) handle: Handle,
    /// Cancelled when the person is to go.
    pub(super) cut: CancellationToken,
    /// Cancelled when the attempt is over.
    pub(super) over: CancellationToken,
    /// Why they are to go.
    pub(super) why: Arc<OnceLock<Cut>>,
}

/// Why a relay is over.
#[derive(Debug)]
pub(super) enum Over {
    /// The program has ended, and everything that it wrote was sent.
    Ended(Ending),
    /// The person got up from their seat.
    Left,
    /// The channel was closed, or the connection is gone.
    Gone,
}

impl Line {
    /// Connects the person with `process` until one of them has had enough.
    pub(super) async fn relay(
        &mut self,
        process: &mut Process,
        streams: Streams,
        mut sitting: Option<&mut Sitting>,
    ) -> Over {
        let outputs = async {
            tokio::try_join!(
                self::send(streams.output, &self.writer, None),
                self::send(streams.errors, &self.writer, Some(ERRORS))
            )
        };
        tokio::pin!(outputs);
        let mut input = Some(streams.input);
        let mut backlog = Backlog::default();
        let (mut sent, mut left, mut ending) = (false, false, None);
        let mut lingers = Instant::now();
        // What was sent to a program without a terminal is its own, also when the channel was closed right after.
        let (mut fed, mut closes) = (false, None);
        loop {
            if let (true, Some(ending)) = (sent, ending) {
                return if left { Over::Left } else { Over::Ended(ending) };
            }
            if backlog.is_over() {
                // The program sees the end of its input.
                input = None;
                if closes.is_some() && !fed {
                    return Over::Gone;
                }
            }
            tokio::select! {
                biased;
                () = self.cut.cancelled(), if !left => {
                    if sitting.is_none() {
                        return Over::Gone;
                    }
                    (left, backlog) = (true, Backlog { closed: true, ..Backlog::default() });
                    process.signal(Signal::TERM).await;
                }
                () = self.over.cancelled(), if sitting.is_none() => {
                    self.say("the attempt has ended").await;
                    return Over::Ended(HUNG_UP);
                }
                () = sleep_until(closes.unwrap_or(lingers)), if closes.is_some() => return Over::Gone,
                message = self.asked.recv(), if closes.is_none() => match hear(message, process, sitting.as_deref()).await {
                    Heard::More => {}
                    Heard::Gone if !process.has_terminal() => closes = Some(Instant::now() + DELIVERED_WITHIN),
                    Heard::Gone => return Over::Gone,
                    Heard::Lost(lost) => {
                        self.say(lost).await;
                        return Over::Ended(HUNG_UP);
                    }
                },
                piece = self.pieces.recv(), if backlog.has_room() => {
                    fed |= piece.is_some();
                    if take(piece, &mut backlog, sitting.as_deref_mut().filter(|_| !left)) == Hand::Leaves {
                        (left, backlog.closed) = (true, true);
                        // tmux's client then leaves the person's terminal as it was.
                        process.signal(Signal::TERM).await;
                    }
                }
                written = write(&mut input, &backlog) => match written {
                    Ok(length) => backlog.drop_front(length),
                    // It reads no more; what still comes is for nobody.
                    Err(_) => (input, backlog) = (None, Backlog { closed: true, ..Backlog::default() }),
                },
                result = &mut outputs, if !sent => match result {
                    Ok(_) => sent = true,
                    Err(_) if closes.is_some() => sent = true,
                    Err(_) => return Over::Gone,
                },
                ended = process.wait(), if ending.is_none() => {
                    ending = Some(ended.unwrap_or(Ending::Code(1)));
                    lingers = Instant::now() + LINGERS;
                }
                () = sleep_until(lingers), if ending.is_some() && sitting.is_some() => sent = true,
                () = quiet(sitting.as_deref()) => {
                    if let Some(sitting) = sitting.as_deref_mut() {
                        sitting.rest(SystemTime::now());
                    }
                }
            }
        }
    }

    /// Why the person is made to go; empty when they are not.
    pub(super) fn why(&self) -> String {
        self.why.get().map(Cut::to_string).unwrap_or_default()
    }

    /// How much of what runs for them ends with the channel.
    pub(super) fn ends(&self) -> Ends {
        let barred = self.over.is_cancelled() || self.why.get() == Some(&Cut::Withdrawn);
        if barred { Ends::All } else { Ends::Program }
    }

    /// Tells the person something that no program says. Who reads nothing else may not read this either.
    pub(super) async fn say(&self, words: impl fmt::Display) {
        let said = self.writer.extended_data_bytes(ERRORS, format!("sculpt: {words}\r\n"));
        let _unheard = timeout(HEARS_WITHIN, self.unless_cut(said)).await;
    }

    /// Says how it ended, and closes the channel.
    pub(super) async fn close(&self, ending: Ending) {
        match ending {
            Ending::Code(code) => self.unless_cut(self.writer.exit_status(code)).await,
            Ending::Signal(number) => {
                // OpenSSH's client knows nothing of signals.
                self.unless_cut(self.writer.exit_status(number.unsigned_abs().saturating_add(128))).await;
                let (id, name) = (self.writer.id(), signal_name(number));
                self.unless_cut(self.handle.exit_signal_request(id, name, false, String::new(), String::new())).await;
            }
        }
        self.unless_cut(self.writer.eof()).await;
        self.unless_cut(self.writer.close()).await;
    }

    /// Says something, as long as somebody may hear it: why they are cut is said by who cuts them, and nothing before.
    async fn unless_cut<T>(&self, saying: impl Future<Output = T>) {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {}
            _said = saying => {}
        }
    }
}

/// What a message means for a relay.
enum Heard {
    More,
    Gone,
    Lost(Lost),
}

/// Hears what the person's side says beside its data.
async fn hear(message: Option<Result<ChannelMsg, Lost>>, process: &Process, sitting: Option<&Sitting>) -> Heard {
    let message = match message.transpose() {
        Ok(message) => message,
        Err(lost) => return Heard::Lost(lost),
    };
    match (message, sitting) {
        (Some(ChannelMsg::WindowChange { col_width, row_height, .. }), sitting) => {
            if sitting.is_none_or(Sitting::resizes) {
                process.resize(request::size(col_width, row_height));
            }
        }
        (Some(ChannelMsg::Signal { signal }), None) => {
            if let Some(signal) = signal_of(&signal) {
                process.signal(signal).await;
            }
        }
        (Some(ChannelMsg::Close) | None, _) => return Heard::Gone,
        (Some(_), _) => {}
    }
    Heard::More
}

/// What a person does with what they type.
#[derive(PartialEq)]
enum Hand {
    Stays,
    Leaves,
}

/// Takes a piece of what the person's side sends, or its end.
fn take(piece: Option<Bytes>, backlog: &mut Backlog, sitting: Option<&mut Sitting>) -> Hand {
    match (piece, sitting) {
        (None, _) => backlog.ended = true,
        (Some(data), None) => backlog.push(data),
        (Some(data), Some(sitting)) => {
            let pressed = sitting.press(&data, SystemTime::now());
            backlog.push(pressed.passed.into());
            if pressed.leaves {
                return Hand::Leaves;
            }
        }
    }
    Hand::Stays
}

/// Sends what a program writes, as fast as the person takes it.
pub(super) async fn send(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    to: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
) -> io::Result<()> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if from.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        let sent = match stream {
            None => to.data_bytes(chunk).await,
            Some(stream) => to.extended_data_bytes(stream, chunk).await,
        };
        sent.map_err(io::Error::other)?;
    }
}

/// Writes the beginning of the backlog, when there is something and somebody to take it.
async fn write(input: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>, backlog: &Backlog) -> io::Result<usize> {
    match (input, backlog.pieces.front()) {
        (Some(input), Some(piece)) => input.write(piece).await,
        (None, _) | (_, None) => pending().await,
    }
}

async fn quiet(sitting: Option<&Sitting>) {
    match sitting.and_then(Sitting::due) {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// What a person has sent and the program has not read.
#[derive(Debug, Default)]
struct Backlog {
    pieces: VecDeque<Bytes>,
    held: usize,
    /// Nothing more comes.
    ended: bool,
    /// Nothing more is wanted.
    closed: bool,
}

impl Backlog {
    fn has_room(&self) -> bool {
        self.held < BACKLOG && !self.ended
    }

    fn is_over(&self) -> bool {
        self.ended && self.pieces.is_empty()
    }

    fn push(&mut self, piece: Bytes) {
        if !self.closed && !piece.is_empty() {
            self.held += piece.len();
            self.pieces.push_back(piece);
        }
    }

    fn drop_front(&mut self, length: usize) {
        self.held -= length;
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(length);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

/// Signals by the names that SSH has for them.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

fn signal_of(asked: &Sig) -> Option<Signal> {
    // Their own names are shown by no other means.
    let name = match asked {
        Sig::Custom(name) => name.clone(),
        plain => format!("{plain:?}"),
    };
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

fn signal_name(number: i32) -> Sig {
    match SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number) {
        Some((name, _)) => Sig::Custom((*name).to_owned()),
        None => Sig::Custom(format!("{number}@sculpt")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_bounded_and_loses_nothing() {
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"abc"));
        backlog.push(Bytes::new());
        backlog.push(Bytes::from_static(b"de"));
        assert!(backlog.has_room());
        backlog.ended = true;
        let mut read = Vec::new();
        while let Some(piece) = backlog.pieces.front() {
            assert!(!backlog.is_over());
            let length = piece.len().min(2);
            read.extend_from_slice(&piece[..length]);
            backlog.drop_front(length);
        }
        assert_eq!(read, b"abcde");
        assert!(backlog.is_over() && backlog.held == 0 && !backlog.has_room());
        let mut backlog = Backlog::default();
        backlog.push(vec![0; BACKLOG].into());
        assert!(!backlog.has_room());
    }

    #[test]
    fn signals_have_the_names_of_ssh() {
        assert_eq!(signal_of(&Sig::INT), Some(Signal::INT));
        assert_eq!(signal_of(&Sig::Custom("USR2".into())), Some(Signal::USR2));
        assert_eq!(signal_of(&Sig::Custom("STOP".into())), None);
        assert!(matches!(signal_name(9), Sig::Custom(name) if name == "KILL"));
    }
}
