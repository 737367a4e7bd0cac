//! Finds the end of a spool whose writer is gone.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{Error, format, reader::Segment};

/// What a spool holds after its writer has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Offset after the last byte.
    pub end: u64,
    /// Bytes of the file that held no whole frame and were cut off.
    pub torn_bytes: u64,
}

/// Cuts a torn tail off and says where the spool ends. Only when no shim writes it any more. A directory that does
/// not exist is an empty spool.
pub fn recover(directory: &Path) -> Result<Recovered, Error> {
    let fail = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::Io { attempt, path, source }
    };
    let mut segments = format::segments(directory).map_err(fail("list the directory", directory))?;
    let mut torn_bytes = 0;
    while let Some((start, path)) = segments.pop() {
        let length = fs::metadata(&path).map_err(fail("look at", &path))?.len();
        let mut segment = Segment::open(path.clone(), start)?;
        let headed = match segment.headed() {
            Err(Error::Damaged { .. }) if segment.is_blank() => false,
            headed => headed?,
        };
        if headed {
            pass_whole_frames(&mut segment)?;
        }
        let (position, end) = segment.place();
        if !headed && start > 0 {
            torn_bytes += length;
            fs::remove_file(&path).map_err(fail("remove", &path))?;
            sync_directory(directory).map_err(fail("flush", directory))?;
            continue;
        }
        if !headed {
            torn_bytes += length;
            fs::write(&path, format::segment_header(0)).map_err(fail("repair", &path))?;
        } else if length > position {
            torn_bytes += length - position;
            let file = File::options().write(true).open(&path).map_err(fail("open", &path))?;
            file.set_len(position).map_err(fail("cut", &path))?;
            file.sync_all().map_err(fail("flush", &path))?;
        }
        return Ok(Recovered { end, torn_bytes });
    }
    Ok(Recovered { end: 0, torn_bytes })
}

/// Goes to the end of what can be trusted. Power loss can leave anything behind the last flush, so a bad frame ends a
/// spool as a short one does.
fn pass_whole_frames(segment: &mut Segment) -> Result<(), Error> {
    loop {
        match segment.frame() {
            Ok(Some(header)) => segment.pass(&header),
            Ok(None) | Err(Error::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
