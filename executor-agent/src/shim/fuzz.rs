//! Fuzz targets: what an agent prints into its terminal, and what stands in the files and comes over the sockets of a shim.

use arbitrary::{Arbitrary, Unstructured};

use super::{
    files,
    launch::Launch,
    record::ExitRecord,
    strings::StringGuard,
    terminal::{Size, Terminal},
    wire,
};
use crate::{host, journal::Journal, report::Step};

#[derive(Debug, Arbitrary)]
enum Event<'a> {
    Print(&'a [u8]),
    Resize { columns: u8, rows: u8 },
    Repaint { history: bool },
}

/// What the agent prints is shown, sized and painted again without a panic, wherever the pieces are cut; and a picture asks
/// the terminal of whoever looks at it nothing.
pub fn terminal(data: &[u8]) {
    // Most of what is printed comes without events: the bytes alone make better seeds.
    let events = match data.split_first() {
        Some((0, rest)) => Vec::<Event<'_>>::arbitrary_take_rest(Unstructured::new(rest)).unwrap_or_default(),
        _ => vec![Event::Print(data), Event::Repaint { history: true }],
    };
    let mut terminal = Terminal::new(Size { columns: 20, rows: 6 });
    for event in events {
        match event {
            Event::Print(bytes) => {
                terminal.feed(bytes);
                same_in_pieces(bytes);
            }
            Event::Resize { columns, rows } => {
                terminal.resize(Size::clamped(u16::from(columns), u16::from(rows)));
            }
            Event::Repaint { history } => {
                let picture = terminal.repaint(history);
                let mut copy = Terminal::new(terminal.size());
                let answers = copy.feed(&picture);
                assert!(answers.is_empty(), "the picture asks: {:?}", picture.escape_ascii().to_string());
            }
        }
    }
}

fn same_in_pieces(bytes: &[u8]) {
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    StringGuard::default().pass(bytes, |piece| whole.extend_from_slice(piece));
    let mut guard = StringGuard::default();
    bytes.iter().for_each(|byte| guard.pass(&[*byte], |piece| pieces.extend_from_slice(piece)));
    assert_eq!(whole, pieces, "the borders of pieces must not matter");
}

/// Which reader gets the bytes.
#[derive(Debug, Arbitrary)]
enum Read<'a> {
    Journal { boot: bool, content: &'a [u8] },
    Exit(&'a [u8]),
    Launch(&'a [u8]),
    Control(&'a [u8]),
    View(&'a [u8]),
}

/// No file of an attempt and no message to a shim makes its reader panic; what was read is written and read again the same.
pub fn records(data: &[u8]) {
    let Ok(read) = Read::arbitrary_take_rest(Unstructured::new(data)) else { return };
    match read {
        Read::Journal { content, boot } => journal(content, boot),
        Read::Exit(content) => {
            if let Ok(record) = serde_json::from_slice::<ExitRecord>(content) {
                let written =
                    serde_json::to_vec(&record).unwrap_or_else(|error| panic!("write an exit record: {error}"));
                assert_eq!(
                    serde_json::from_slice::<ExitRecord>(&written)
                        .unwrap_or_else(|error| panic!("read it again: {error}")),
                    record
                );
            }
        }
        Read::Launch(content) => {
            let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("make a directory: {error}"));
            std::fs::write(directory.path().join(files::LAUNCH), content)
                .unwrap_or_else(|error| panic!("write a launch: {error}"));
            if let Ok(launch) = Launch::read(directory.path()) {
                launch.write(directory.path()).unwrap_or_else(|error| panic!("write it again: {error}"));
                assert_eq!(
                    Launch::read(directory.path()).unwrap_or_else(|error| panic!("read it again: {error}")),
                    launch
                );
            }
        }
        Read::Control(content) => {
            let mut rest = content;
            while let Ok(Some(request)) = wire::receive::<wire::Request>(&mut rest) {
                let written = wire::encode(&request).unwrap_or_else(|error| panic!("send it on: {error}"));
                let again = wire::receive::<wire::Request>(&written[..])
                    .unwrap_or_else(|error| panic!("read it again: {error}"));
                assert_eq!(again, Some(request));
            }
            let _answer = wire::receive::<wire::Response>(content);
        }
        Read::View(content) => {
            let mut rest = content;
            while let Ok(Some(message)) = wire::receive_view(&mut rest) {
                let mut written = Vec::new();
                wire::send_view(&mut written, &message).unwrap_or_else(|error| panic!("send it on: {error}"));
                assert_eq!(
                    wire::receive_view(&written[..]).unwrap_or_else(|error| panic!("read it again: {error}")),
                    Some(message)
                );
            }
        }
    }
}

/// A journal is taken whole, with its torn end cut off, or not at all; and it goes on where it ended.
fn journal(content: &[u8], same_boot: bool) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("make a directory: {error}"));
    let path = directory.path().join("journal");
    std::fs::write(&path, content).unwrap_or_else(|error| panic!("write a journal: {error}"));
    let boot = if same_boot { host::boot_id().unwrap_or_default() } else { "another".to_owned() };
    let Ok(journal) = Journal::open(&path, &boot) else { return };
    let (last, entries) = (journal.last(), journal.range(0, u64::MAX));
    assert_eq!(entries.len() as u64, last, "sequences have no hole");
    assert_eq!(journal.append(Step::Preparing).unwrap_or_else(|error| panic!("append: {error}")), last + 1);
    drop(journal);
    let again = Journal::open(&path, &boot).unwrap_or_else(|error| panic!("open it again: {error}"));
    assert_eq!(again.range(0, last), entries);
    assert_eq!(again.last(), last + 1);
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("terminal", super::terminal);
        sculpt_fuzz::replay("records", super::records);
    }
}
