//! A call at one end of a tunnel: what comes in goes to the other end, what that sends goes out.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::ends::{Alone, End, Piece};

/// How long a caller may take to read the next message once nothing more follows.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How long a caller may take to read why the tunnel is over, and what one who has gone said before may be on its way.
const GOODBYE: Duration = Duration::from_secs(1);

/// Messages of a tunnel that are on their way to a caller: more wait where they come from.
pub const OUTBOX: usize = 1;

/// Why a tunnel is over at one end before both sides have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The other end went without a word.
    #[error(transparent)]
    Alone(#[from] Alone),
    /// This end did. A stream that was reset may look as if it had ended.
    #[error("the stream ended before the tunnel did")]
    Broken,
    /// The controller ends.
    #[error("the controller is shutting down; connect again")]
    Ending,
}

/// Carries bytes between a call and its end of a tunnel until both sides have ended, one has gone, or the controller ends.
/// Nothing is read faster than the other end takes it.
pub async fn carry<M: From<Piece>, E: From<Cut>>(
    end: End,
    inbound: impl Stream<Item = Result<Piece, E>> + Unpin,
    out: mpsc::Sender<Result<M, E>>,
    ending: CancellationToken,
) {
    let passed = tokio::select! {
        biased;
        () = ending.cancelled() => Err(Cut::Ending.into()),
        passed = pass(end, inbound, &out) => passed,
    };
    if let Err(error) = passed {
        // Who does not read finds the stream ended without an end of the tunnel.
        let _unread = timeout(GOODBYE, out.send(Err(error))).await;
    }
}

/// What comes to the caller is over.
enum Heard {
    /// All of it is said.
    All,
    /// The caller does not listen any more.
    No,
}

async fn pass<M: From<Piece>, E: From<Cut>>(
    End { mut from, to, alone }: End,
    inbound: impl Stream<Item = Result<Piece, E>> + Unpin,
    out: &mpsc::Sender<Result<M, E>>,
) -> Result<(), E> {
    let gone = CancellationToken::new();
    let mut inward = std::pin::pin!(inward(inbound, &to, &gone));
    let heard = {
        let mut outward = std::pin::pin!(outward(&mut from, out, &to, alone));
        tokio::select! {
            said = &mut inward => {
                said?;
                return outward.await.map(drop);
            }
            heard = &mut outward => heard?,
        }
    };
    match heard {
        Heard::All => inward.await,
        Heard::No => {
            from.close();
            gone.cancel();
            inward.await
        }
    }
}

/// What the caller says; once it has `gone`, what it had said before.
async fn inward<E: From<Cut>>(
    mut inbound: impl Stream<Item = Result<Piece, E>> + Unpin,
    to: &mpsc::Sender<Piece>,
    gone: &CancellationToken,
) -> Result<(), E> {
    // One span for all of it: who talks on without listening is not heard for ever.
    let mut silent = std::pin::pin!(async {
        gone.cancelled().await;
        sleep(GOODBYE).await;
    });
    loop {
        let piece = tokio::select! {
            piece = inbound.next() => piece,
            // What the other end said before it went is still told.
            () = to.closed() => return Ok(()),
            () = &mut silent => return Ok(()),
        };
        let piece = piece.unwrap_or_else(|| Err(Cut::Broken.into()))?;
        let ends = piece == Piece::End;
        let sent = tokio::select! {
            sent = to.send(piece) => sent.is_ok(),
            () = &mut silent => false,
        };
        if !sent || ends {
            return Ok(());
        }
    }
}

/// What the other end says.
async fn outward<M: From<Piece>, E: From<Cut>>(
    from: &mut mpsc::Receiver<Piece>,
    out: &mpsc::Sender<Result<M, E>>,
    to: &mpsc::Sender<Piece>,
    alone: Alone,
) -> Result<Heard, E> {
    loop {
        let piece = tokio::select! {
            piece = from.recv() => piece.ok_or(Cut::Alone(alone))?,
            () = out.closed() => return Ok(Heard::No),
        };
        let ends = piece == Piece::End;
        let mut sending = std::pin::pin!(out.send(Ok(piece.into())));
        let sent = tokio::select! {
            sent = &mut sending => sent.is_ok(),
            // Nobody waits for ever for a caller who does not read what the other end has left behind.
            () = to.closed() => timeout(LAST_WORDS, sending).await.is_ok_and(|sent| sent.is_ok()),
        };
        match (sent, ends) {
            (true, true) => return Ok(Heard::All),
            (true, false) => {}
            (false, _) => return Ok(Heard::No),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::{
        task::JoinHandle,
        time::{Instant, interval},
    };
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::relay::ends::{LARGEST, pair};

    /// A caller at one end.
    struct Caller {
        says: Option<mpsc::Sender<Result<Piece, Cut>>>,
        hears: mpsc::Receiver<Result<Piece, Cut>>,
        carried: JoinHandle<()>,
    }

    impl Caller {
        fn at(end: End, ending: &CancellationToken) -> Self {
            let (says, inbound) = mpsc::channel(1);
            let (out, hears) = mpsc::channel(OUTBOX);
            let carried = tokio::spawn(carry(end, ReceiverStream::new(inbound), out, ending.clone()));
            Self { says: Some(says), hears, carried }
        }

        async fn say(&self, piece: Piece) {
            self.says.as_ref().unwrap().send(Ok(piece)).await.unwrap();
        }

        async fn hear(&mut self) -> Piece {
            self.hears.recv().await.expect("it goes on").expect("it is well")
        }

        /// How it ended, if not well.
        async fn ended(mut self) -> Option<Cut> {
            let last = self.hears.recv().await.map(|last| last.expect_err("nothing more"));
            assert!(self.hears.recv().await.is_none());
            self.carried.await.unwrap();
            last
        }
    }

    fn data(text: &'static str) -> Piece {
        Piece::Data(Bytes::from_static(text.as_bytes()))
    }

    fn both() -> (Caller, Caller, CancellationToken) {
        let (ending, (near, far)) = (CancellationToken::new(), pair());
        (Caller::at(near, &ending), Caller::at(far, &ending), ending)
    }

    #[tokio::test]
    async fn each_side_ends_for_itself() {
        let (mut person, mut executor, _ending) = both();
        person.say(data("SSH-2.0")).await;
        person.say(Piece::End).await;
        assert_eq!(executor.hear().await, data("SSH-2.0"));
        assert_eq!(executor.hear().await, Piece::End);
        executor.say(data("bye")).await;
        executor.say(Piece::End).await;
        assert_eq!(person.hear().await, data("bye"));
        assert_eq!(person.hear().await, Piece::End);
        assert_eq!((person.ended().await, executor.ended().await), (None, None));
    }

    #[tokio::test]
    async fn what_was_said_before_leaving_is_heard() {
        let (mut person, executor, _ending) = both();
        executor.say(data("bye")).await;
        executor.say(Piece::End).await;
        drop(executor);
        assert_eq!(person.hear().await, data("bye"));
        assert_eq!(person.hear().await, Piece::End);
        assert_eq!(person.ended().await, None, "nobody is left who would hear more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_breaks_off_is_missed_at_once() {
        type Break = fn(&mut Caller);
        let breaks: [Break; 3] = [
            |caller| caller.hears.close(),
            |caller| caller.says = None,
            |caller| caller.says.take().unwrap().try_send(Err(Cut::Broken)).unwrap(),
        ];
        for break_off in breaks {
            let begun = Instant::now();
            let (mut person, executor, _ending) = both();
            break_off(&mut person);
            assert_eq!(executor.ended().await, Some(Cut::Alone(Alone::Executor)));
            let (person, mut executor, _ending) = both();
            break_off(&mut executor);
            assert_eq!(person.ended().await, Some(Cut::Alone(Alone::Person)));
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_talks_on_without_listening_is_heard_no_more() {
        let (mut person, mut executor, _ending) = both();
        person.hears.close();
        let talking = async {
            let mut pause = interval(GOODBYE / 2);
            let says = person.says.take().unwrap();
            while says.send(Ok(data("more"))).await.is_ok() {
                pause.tick().await;
            }
        };
        let listening = async { while executor.hears.recv().await.is_some() {} };
        let over = timeout(2 * GOODBYE, futures_util::future::join(talking, listening)).await;
        assert!(over.is_ok(), "it ends though they go on");
        let (mut person, _deaf, _ending) = both();
        person.hears.close();
        let says = person.says.take().unwrap();
        let talking = async { while says.send(Ok(data("more"))).await.is_ok() {} };
        assert!(timeout(2 * GOODBYE, talking).await.is_ok(), "also where nobody takes what they say");
    }

    #[tokio::test]
    async fn a_controller_that_ends_says_so_to_both() {
        let (person, executor, ending) = both();
        ending.cancel();
        assert_eq!((person.ended().await, executor.ended().await), (Some(Cut::Ending), Some(Cut::Ending)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_stops_the_other_and_keeps_nothing_once_that_has_gone() {
        let (ending, (near, far)) = (CancellationToken::new(), pair());
        let read = std::sync::atomic::AtomicUsize::new(0);
        let (out, unread) = mpsc::channel::<Result<Piece, Cut>>(OUTBOX);
        let deaf = tokio::spawn(carry(near, stream::pending(), out, ending.clone()));
        let endless = stream::repeat_with(|| {
            read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Piece::Data(vec![0; LARGEST].into()))
        });
        let (out, _heard) = mpsc::channel::<Result<Piece, Cut>>(OUTBOX);
        let sending = carry(far, endless, out, ending);
        assert!(timeout(Duration::from_secs(3600), sending).await.is_err(), "it waits for the other one");
        let read = read.load(std::sync::atomic::Ordering::Relaxed);
        assert!((5..=8).contains(&read), "{read} pieces were read for somebody who reads none");
        timeout(2 * LAST_WORDS, deaf).await.expect("it ends with the other one").unwrap();
        drop(unread);
    }
}
