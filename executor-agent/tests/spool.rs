//! The recording on disk.

use std::{fs, io::ErrorKind, path::Path, sync::mpsc, thread, time::Duration};

use sculpt_executor::spool::{Error, Frame, Options, Reader, Reserve, Size, Stream, Writer, extent, recover};

use crate::{attempt::PATIENCE, disk::Disk};

const SMALL: Options = Options { segment_bytes: 200, flush_after: Duration::from_millis(10), reserve_bytes: 1000 };

fn writer(directory: &Path, options: Options) -> Writer {
    Writer::create(
        directory,
        options,
        Box::new(|error| {
            assert!(error.is_none());
            Reserve::Keep
        }),
    )
    .unwrap()
}

fn everything(directory: &Path, from: u64, step: usize) -> Vec<u8> {
    let mut reader = Reader::open(directory, from).unwrap();
    let mut read = Vec::new();
    while let Some(chunk) = reader.read(step).unwrap() {
        assert_eq!(chunk.offset, from + read.len() as u64);
        assert!(chunk.data.len() <= step);
        assert_eq!(chunk.frames.iter().map(|frame| frame.length as usize).sum::<usize>(), chunk.data.len());
        read.extend(chunk.data);
        assert_eq!(reader.offset(), from + read.len() as u64);
    }
    read
}

/// Frames of many sizes over several segments; their bytes.
fn sample(directory: &Path) -> Vec<u8> {
    let mut writer = writer(directory, SMALL);
    let mut all = Vec::new();
    for n in 0..60_u64 {
        let data: Vec<u8> = (0..n * 7 % 90).map(|at| (n + at) as u8).collect();
        writer.append([Stream::Terminal, Stream::Stdout, Stream::Stderr][n as usize % 3], n, &data);
        if n % 10 == 0 {
            writer.resize(80, n as u16, n);
        }
        all.extend(data);
    }
    writer.sync();
    assert_eq!(writer.end(), all.len() as u64);
    all
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn the_format_is_frozen() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), Options::default());
    writer.resize(200, 50, 0);
    writer.append(Stream::Terminal, 7, b"hello\r\n");
    writer.append(Stream::Stdout, 1_000, b"out");
    writer.append(Stream::Stderr, u64::from(u32::MAX) + 1, b"\0\xff");
    writer.sync();
    let written = fs::read(directory.path().join("00000000000000000000.spool")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spool-v1.spool");
    assert!(written == fs::read(golden).unwrap(), "{written:02x?}");
}

#[test]
fn any_part_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let all = sample(directory.path());
    assert!(segments(directory.path()).len() > 5);
    for from in 0..=all.len() {
        assert_eq!(everything(directory.path(), from as u64, 64), all[from..]);
    }
    for step in [1, 2, 33, 1 << 20] {
        assert_eq!(everything(directory.path(), 0, step), all);
    }
    let beyond = Reader::open(directory.path(), all.len() as u64 + 1).unwrap_err();
    assert!(matches!(beyond, Error::Missing { .. }), "{beyond}");
}

#[test]
fn frames_say_what_they_hold() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), SMALL);
    let mut reader = Reader::open(directory.path(), 0).unwrap();
    assert_eq!(reader.read(10).unwrap(), None);
    writer.resize(200, 50, 1);
    writer.append(Stream::Stdout, 2, b"abcdef");
    let chunk = reader.read(4).unwrap().unwrap();
    assert_eq!(chunk.data, b"abcd");
    let part = |length, size| Frame { stream: Stream::Stdout, length, time_ms: 2, size };
    assert_eq!(chunk.frames, [part(4, Some(Size { columns: 200, rows: 50 }))]);
    assert_eq!(reader.read(4).unwrap().unwrap().frames, [part(2, None)]);
    assert_eq!(reader.read(4).unwrap(), None);
    for n in 0..20 {
        writer.append(Stream::Stdout, n, &[n as u8; 50]);
        assert_eq!(reader.read(100).unwrap().unwrap().data, [n as u8; 50], "it follows over segments");
    }
}

#[test]
fn a_size_comes_with_the_first_byte_that_was_written_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), SMALL);
    let mut follower = Reader::open(directory.path(), 0).unwrap();
    let (mut sizes, mut followed) = (Vec::new(), Vec::new());
    for n in 0..40_u16 {
        // Of several sizes only the last counts: nothing was written in the others.
        for columns in 0..n % 4 {
            writer.resize(80 + columns, n, n.into());
            assert_eq!(follower.read(1 << 20).unwrap(), None, "a size alone is nothing to read");
        }
        sizes.extend((n % 4 > 0).then(|| (writer.end(), Size { columns: 79 + n % 4, rows: n })));
        writer.append(Stream::Terminal, n.into(), &vec![b'x'; usize::from(10 + n)]);
        let chunk = follower.read(1 << 20).unwrap().unwrap();
        followed.extend(chunk.frames[0].size.map(|size| (chunk.offset, size)));
    }
    assert!(segments(directory.path()).len() > 5);
    assert_eq!(followed, sizes);
    for from in 0..=writer.end() {
        for step in [7, 1 << 20] {
            let wanted: Vec<_> = sizes.iter().copied().filter(|(at, _)| *at >= from).collect();
            assert_eq!(sizes_from(directory.path(), from, step), wanted, "from {from} by {step}");
        }
    }
}

/// The sizes that a reader meets, each with the offset of its first byte.
fn sizes_from(directory: &Path, from: u64, step: usize) -> Vec<(u64, Size)> {
    let mut reader = Reader::open(directory, from).unwrap();
    let mut sizes = Vec::new();
    while let Some(chunk) = reader.read(step).unwrap() {
        let mut at = chunk.offset;
        for frame in chunk.frames {
            sizes.extend(frame.size.map(|size| (at, size)));
            at += u64::from(frame.length);
        }
    }
    sizes
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let whole = tempfile::tempdir().unwrap();
    let all = sample(whole.path());
    let paths = segments(whole.path());
    let (last, before) = (paths.last().unwrap(), &paths[..paths.len() - 1]);
    let bytes = fs::read(last).unwrap();
    for cut in 0..=bytes.len() {
        let torn = tempfile::tempdir().unwrap();
        for path in before {
            fs::copy(path, torn.path().join(path.file_name().unwrap())).unwrap();
        }
        fs::write(torn.path().join(last.file_name().unwrap()), &bytes[..cut]).unwrap();
        let recovered = recover(torn.path()).unwrap();
        assert_eq!(everything(torn.path(), 0, 1000), all[..recovered.end as usize]);
        let again = recover(torn.path()).unwrap();
        assert_eq!((again.end, again.torn_bytes), (recovered.end, 0));
        assert!(recovered.quarantined.is_empty(), "{cut}: a tail that is torn is no damage");
        if cut == bytes.len() {
            assert_eq!((recovered.end, recovered.torn_bytes), (all.len() as u64, 0));
        }
    }
    let nothing = recover(&whole.path().join("none")).unwrap();
    assert_eq!((nothing.end, nothing.torn_bytes), (0, 0));
}

#[test]
fn damage_is_named_and_not_read_over() {
    let directory = tempfile::tempdir().unwrap();
    let all = sample(directory.path());
    let paths = segments(directory.path());
    let mut bytes = fs::read(&paths[2]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&paths[2], &bytes).unwrap();
    let read = |directory: &Path| {
        let mut reader = Reader::open(directory, 0)?;
        while reader.read(1 << 20)?.is_some() {}
        Ok(reader.offset())
    };
    let before = everything_before_damage(directory.path());
    assert!(!before.is_empty() && all.starts_with(&before), "what stands before the damage is given out");
    assert!(matches!(read(directory.path()), Err(Error::Damaged { ref path, .. }) if *path == paths[2]));
    fs::remove_file(&paths[2]).unwrap();
    assert!(matches!(read(directory.path()), Err(Error::Missing { .. })));
    assert_eq!(recover(directory.path()).unwrap().end, all.len() as u64, "the tail is sound");
}

#[test]
fn what_can_be_read_is_a_beginning_and_its_end_is_known() {
    let whole = tempfile::tempdir().unwrap();
    let all = sample(whole.path());
    let paths = segments(whole.path());
    for (index, path) in paths.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        // Every seventh byte, so that headers and data of all frames are met; and the segment as a whole.
        for flipped in (0..bytes.len()).step_by(7).map(Some).chain([None]) {
            match flipped {
                Some(at) => {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 0x10;
                    fs::write(path, damaged).unwrap();
                }
                None => fs::remove_file(path).unwrap(),
            }
            let found = extent(whole.path(), 0).unwrap();
            let read = everything_before_damage(whole.path());
            assert!(all.starts_with(&read) && read.len() < all.len(), "{path:?} at {flipped:?}");
            assert_eq!(found.end, read.len() as u64);
            // At the very end a torn frame, or one that is gone, cannot be told from one that was never written.
            assert!(found.damage.is_some() || index + 1 == paths.len(), "{path:?} at {flipped:?}");
            let text = found.damage.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.is_empty() || text.contains(whole.path().to_str().unwrap()), "{text}");
            if let Some(next) = paths.get(index + 1) {
                let start = next.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                let behind = extent(whole.path(), start).unwrap();
                assert_eq!(
                    (behind.end, behind.damage.is_none()),
                    (all.len() as u64, true),
                    "what is held is not needed"
                );
            }
            fs::write(path, &bytes).unwrap();
        }
    }
    let sound = extent(whole.path(), 7).unwrap();
    assert_eq!((sound.end, sound.damage.is_none()), (all.len() as u64, true));
}

fn everything_before_damage(directory: &Path) -> Vec<u8> {
    let Ok(mut reader) = Reader::open(directory, 0) else { return Vec::new() };
    let mut read = Vec::new();
    while let Ok(Some(chunk)) = reader.read(1 << 20) {
        read.extend(chunk.data);
    }
    read
}

#[test]
fn damage_before_sound_frames_is_set_aside_and_named() {
    let whole = tempfile::tempdir().unwrap();
    let all = sample(whole.path());
    let last = segments(whole.path()).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let frames = |bytes: &[u8]| -> Vec<usize> {
        let mut starts = vec![24];
        while let Some(at) = starts.last().copied().filter(|at| at + 32 <= bytes.len()) {
            starts.push(at + 32 + u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize);
        }
        starts
    };
    let starts = frames(&bytes);
    let last_frame = starts[starts.len() - 2];
    assert!(last_frame > 24, "the last segment has several frames");
    for at in 0..bytes.len() {
        let damaged = tempfile::tempdir().unwrap();
        for path in segments(whole.path()) {
            fs::copy(&path, damaged.path().join(path.file_name().unwrap())).unwrap();
        }
        let target = damaged.path().join(last.file_name().unwrap());
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&target, &flipped).unwrap();
        let recovered = recover(damaged.path()).unwrap();
        assert!(recovered.end < all.len() as u64, "{at}: nothing damaged is believed");
        assert_eq!(everything(damaged.path(), 0, 1000), all[..recovered.end as usize], "{at}");
        // The last frame alone, damaged, looks like a tail that was torn.
        assert_eq!(recovered.quarantined.is_empty(), at >= last_frame, "{at}");
        for kept in &recovered.quarantined {
            assert!(fs::read(kept).unwrap() == flipped, "{at}: it is kept as it was found");
        }
        let again = recover(damaged.path()).unwrap();
        assert_eq!((again.end, again.torn_bytes, &again.quarantined), (recovered.end, 0, &recovered.quarantined));
    }
}

#[test]
fn a_spool_is_never_written_over() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path());
    assert!(Writer::create(directory.path(), SMALL, Box::new(|_| Reserve::Keep)).is_err());
}

#[test]
fn a_full_disk_blocks_the_writer_and_loses_nothing() {
    let place = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(place.path(), 1 << 20) else { return };
    let filler = place.path().join("filler");
    fs::write(&filler, vec![0; 512 << 10]).unwrap();
    let directory = place.path().join("spool");
    let all: Vec<u8> = (0..900_u32 << 10).map(|n| (n % 251) as u8).collect();
    let (sender, blocked) = mpsc::channel();
    let options = Options { segment_bytes: 100_000, reserve_bytes: 50_000, ..Options::default() };
    let tell = Box::new(move |error: Option<&std::io::Error>| {
        sender.send(error.map(std::io::Error::kind)).unwrap();
        Reserve::Keep
    });
    let mut writer = Writer::create(&directory, options, tell).unwrap();
    thread::scope(|scope| {
        let written = scope.spawn(|| {
            for piece in all.chunks(30_000) {
                writer.append(Stream::Terminal, 0, piece);
            }
            writer.sync();
        });
        assert_eq!(blocked.recv_timeout(PATIENCE).unwrap(), Some(ErrorKind::StorageFull));
        let before = everything(&directory, 0, 1 << 20);
        assert_eq!(before, all[..before.len()], "what is there can be read");
        assert!(!written.is_finished());
        fs::remove_file(&filler).unwrap();
        written.join().unwrap();
    });
    assert_eq!(blocked.try_iter().last(), Some(None), "it tells that the disk takes more");
    assert!(everything(&directory, 0, 1 << 20) == all);
    drop(writer);
}

#[test]
fn the_reserve_of_a_full_disk_takes_the_last_words() {
    let place = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(place.path(), 1 << 20) else { return };
    let directory = place.path().join("spool");
    let options = Options { segment_bytes: 100_000, reserve_bytes: 300_000, ..Options::default() };
    let (sender, blocked) = mpsc::channel();
    let spend = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let may = std::sync::Arc::clone(&spend);
    let tell = Box::new(move |error: Option<&std::io::Error>| {
        sender.send(error.is_some()).unwrap();
        if may.load(std::sync::atomic::Ordering::Relaxed) { Reserve::Spend } else { Reserve::Keep }
    });
    let mut writer = Writer::create(&directory, options, tell).unwrap();
    let all = vec![b'x'; 900_000];
    thread::scope(|scope| {
        let written = scope.spawn(|| {
            for piece in all.chunks(20_000) {
                writer.append(Stream::Terminal, 0, piece);
            }
        });
        assert!(blocked.recv_timeout(PATIENCE).unwrap(), "with the reserve it does not fit");
        assert!(everything(&directory, 0, 1 << 20).len() < 750_000);
        spend.store(true, std::sync::atomic::Ordering::Relaxed);
        written.join().unwrap();
    });
    drop(writer);
    assert!(everything(&directory, 0, 1 << 20) == all);
}
