//! Questions about what can be removed, on their way from the controller to whoever answers and back.

use std::{collections::VecDeque, io, path::Path};

use sculpt_proto::{
    executor::v1::{Collect, Collected},
    v1::GarbageItem,
};
use tokio::sync::oneshot;

use crate::{
    attempts::files,
    gc::{Door, Line, Occasion, Subject},
    layout::Layout,
};

/// Lines in one message: far below 256 KiB.
const PIECE: usize = 200;

/// Longest text of a line, in characters.
const TEXT: usize = 300;

/// Questions of one session that wait for an answer; more are not put.
const WAITING: usize = 8;

type Answer = oneshot::Receiver<io::Result<Vec<Line>>>;

/// The questions of one session that were not answered yet, in order.
#[derive(Debug, Default)]
pub(super) struct Collecting(VecDeque<(u64, Answer)>);

impl Collecting {
    pub(super) fn ask(&mut self, door: &Door, collect: Collect) {
        if self.0.len() < WAITING {
            let occasion = if collect.all { Occasion::AskedForAll } else { Occasion::Asked };
            self.0.push_back((collect.request, door.ask(occasion, collect.dry_run)));
        }
    }

    /// The next answer; never comes while nothing was asked. May be dropped and asked for again.
    pub(super) async fn answered(&mut self, layout: &Layout) -> Vec<Collected> {
        let Some((request, answer)) = self.0.front_mut() else { return std::future::pending().await };
        let (request, answer) = (*request, answer.await);
        self.0.pop_front();
        let items = match answer {
            Ok(Ok(lines)) => lines.into_iter().map(|line| item(line, layout)).collect(),
            Ok(Err(error)) => vec![failed(format!("the executor could not look at its disk: {error}"))],
            Err(_) => vec![failed("the executor has other such requests to answer; ask again in a moment".to_owned())],
        };
        pieces(request, items)
    }
}

fn item(line: Line, layout: &Layout) -> GarbageItem {
    let (kind, id, path) = match &line.decision.subject {
        Subject::Workspace(id) => ("workspace", id.to_string(), layout.workspace(*id)),
        Subject::Record(id) => ("record", id.to_string(), layout.attempt(*id)),
        Subject::Pack(id) => ("pack", id.to_string(), layout.attempt(*id).join(files::PACK)),
        Subject::Loose(path) if path.starts_with(layout.quarantine()) => ("quarantine", String::new(), path.clone()),
        Subject::Loose(path) if path.starts_with(layout.homes()) => ("home", String::new(), path.clone()),
        Subject::Loose(path) => ("workspace", String::new(), path.clone()),
    };
    let (task_number, attempt) = line.whose.unwrap_or_default();
    GarbageItem {
        kind: kind.to_owned(),
        attempt_id: id,
        task_number,
        attempt,
        bytes: line.decision.bytes,
        removed: line.decision.removes(),
        why: short(&line.decision.verdict.to_string()),
        path: short(&below(&path, layout.data())),
        error: short(&line.error.unwrap_or_default()),
    }
}

/// A line that tells of a failure alone.
fn failed(error: String) -> GarbageItem {
    GarbageItem { error: short(&error), ..GarbageItem::default() }
}

fn below(path: &Path, data: &Path) -> String {
    path.strip_prefix(data).unwrap_or(path).to_string_lossy().into_owned()
}

fn short(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

fn pieces(request: u64, items: Vec<GarbageItem>) -> Vec<Collected> {
    let mut pieces: Vec<Collected> =
        items.chunks(PIECE).map(|items| Collected { request, items: items.to_vec(), last: false }).collect();
    match pieces.last_mut() {
        Some(piece) => piece.last = true,
        None => pieces.push(Collected { request, items: Vec::new(), last: true }),
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_says_so_also_when_there_is_nothing() {
        for (count, expected) in [(0, vec![0]), (200, vec![200]), (450, vec![200, 200, 50])] {
            let pieces = pieces(7, vec![GarbageItem::default(); count]);
            assert_eq!(pieces.iter().map(|piece| piece.items.len()).collect::<Vec<_>>(), expected);
            let last: Vec<bool> = pieces.iter().map(|piece| piece.last).collect();
            assert!(last.iter().rev().skip(1).all(|last| !last) && last.last() == Some(&true));
            assert!(pieces.iter().all(|piece| piece.request == 7));
        }
    }
}
