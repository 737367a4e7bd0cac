//! What is sent to a view by who has read it, and what by its own thread: all of it, in order, once.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{BEHIND, Mode, Queue, SMALL, View, Work, lock};

/// For what must happen, and soon.
const PATIENCE: Duration = Duration::from_secs(30);

fn view() -> (View, UnixStream) {
    let (stream, far) = UnixStream::pair().unwrap();
    (View { queue: Mutex::default(), changed: Condvar::new(), stream }, far)
}

fn is_idle(view: &View) -> bool {
    lock(&view.queue).is_idle()
}

/// Small chunks, of which each is another one.
fn chunks() -> impl Iterator<Item = Arc<[u8]>> {
    (0_u32..).map(|number| number.to_be_bytes().repeat(SMALL / 4).into())
}

/// Pushes until the view takes nothing more by itself.
fn fill(view: &View, chunks: &mut impl Iterator<Item = Arc<[u8]>>, pushed: &mut Vec<u8>) {
    while is_idle(view) {
        let chunk = chunks.next().unwrap();
        assert!(view.push(&chunk));
        pushed.extend_from_slice(&chunk);
    }
}

/// Reads what is there.
fn drain(far: &mut UnixStream, heard: &mut Vec<u8>) {
    far.set_nonblocking(true).unwrap();
    let blocks = far.read_to_end(heard).unwrap_err();
    assert_eq!(blocks.kind(), std::io::ErrorKind::WouldBlock);
    far.set_nonblocking(false).unwrap();
}

fn taken(view: &View) -> Arc<[u8]> {
    match view.work() {
        Work::Send(chunk) => chunk,
        _ => panic!("there is something to send"),
    }
}

#[test]
fn nothing_overtakes_what_is_being_sent() {
    let (view, mut far) = view();
    let (mut chunks, mut pushed, mut heard) = (chunks(), Vec::new(), Vec::new());
    fill(&view, &mut chunks, &mut pushed);
    let first = taken(&view);
    // There is room again, and nothing waits but what is on its way.
    drain(&mut far, &mut heard);
    let second = chunks.next().unwrap();
    assert!(view.push(&second));
    pushed.extend_from_slice(&second);
    assert_eq!(lock(&view.queue).chunks, [Arc::clone(&second)], "it waits");
    drain(&mut far, &mut heard);
    (&view.stream).write_all(&first).unwrap();
    assert!(Arc::ptr_eq(&taken(&view), &second));
    (&view.stream).write_all(&second).unwrap();
    drain(&mut far, &mut heard);
    assert!(heard == pushed, "{} bytes of {}", heard.len(), pushed.len());
}

#[test]
fn a_view_that_has_caught_up_is_sent_to_at_once_again() {
    let (view, mut far) = view();
    let view = Arc::new(view);
    let (mut chunks, mut pushed, mut heard) = (chunks(), Vec::new(), Vec::new());
    let reader = {
        let mut far = far.try_clone().unwrap();
        fill(&view, &mut chunks, &mut pushed);
        let expected = pushed.len();
        thread::spawn(move || {
            let mut heard = vec![0; expected];
            far.read_exact(&mut heard).unwrap();
            heard
        })
    };
    let worker = {
        let view = Arc::clone(&view);
        thread::spawn(move || {
            while let Work::Send(chunk) = view.work() {
                (&view.stream).write_all(&chunk).unwrap();
            }
        })
    };
    assert!(reader.join().unwrap() == pushed);
    let begun = Instant::now();
    while !is_idle(&view) {
        assert!(begun.elapsed() < PATIENCE, "what was sent is still being sent");
        thread::yield_now();
    }
    pushed.clear();
    for chunk in chunks.take(3) {
        assert!(view.push(&chunk));
        pushed.extend_from_slice(&chunk);
    }
    drain(&mut far, &mut heard);
    assert!(heard == pushed, "it has gone without the other thread");
    view.leave();
    worker.join().unwrap();
}

#[test]
fn only_what_was_not_sent_waits() {
    let chunk: Arc<[u8]> = (*b"abcdef").into();
    let mut queue = Queue::default();
    queue.keep(&chunk, 0);
    queue.keep(&chunk, 4);
    let kept: VecDeque<Arc<[u8]>> = [chunk.clone(), (*b"ef").into()].into();
    assert_eq!((&queue.chunks, queue.bytes), (&kept, 8));
    // What would be too much is not kept, but drawn anew.
    queue.bytes = BEHIND - 1;
    queue.keep(&chunk, 5);
    assert!(queue.mode == Mode::Live && queue.bytes == BEHIND);
    queue.keep(&chunk, 5);
    assert!(queue.mode == Mode::Skipping && queue.chunks.is_empty() && queue.bytes == 0);
}
