//! The journal's parsers, for hostile bytes (`tests/fuzz`).

use std::io;

use super::frame::{Frames, JournalRecord, seal};
use super::segment;
use crate::crypto::fuzz_keys;
use crate::os::DiskFile;
use crate::types::JournalId;

const JOURNAL: JournalId = JournalId([7; 16]);

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here.
pub(in crate::log) fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "journal" => read(bytes.to_vec()),
        // Records, each with its length before it, are sealed for their places. The remaining bytes follow them.
        "journal-records" => {
            let (mut file, mut rest) = (vec![0; start()], bytes);
            while let Some((length, more)) = rest.split_first()
                && let Some((plain, more)) = more.split_at_checked(usize::from(*length))
            {
                rest = more;
                if let Ok(record) = JournalRecord::parse(plain) {
                    file.extend(seal(fuzz_keys(), JOURNAL, 1, file.len() as u64, &record));
                }
            }
            file.extend_from_slice(rest);
            read(file)
        }
        "journal-record" => JournalRecord::parse(bytes).is_ok(),
        _ => return None,
    })
}

fn start() -> usize {
    usize::try_from(segment::HEADER).unwrap_or(0)
}

/// Reads a segment, record by record and then by its markers.
fn read(bytes: Vec<u8>) -> bool {
    let end = bytes.len() as u64;
    let file = BytesFile(bytes);
    let mut frames = Frames::new(fuzz_keys(), JOURNAL, 1, &file, end);
    let (mut at, mut found) = (segment::HEADER, false);
    while let Ok(Some((_, next))) = frames.at(at) {
        (at, found) = (next, true);
    }
    found | frames.barrier_beyond(at).unwrap_or(false)
}

/// A read-only file of these bytes.
#[derive(Debug)]
struct BytesFile(Vec<u8>);

impl DiskFile for BytesFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let end = at.checked_add(into.len()).ok_or(io::ErrorKind::InvalidInput)?;
        into.copy_from_slice(self.0.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }
    fn take_room(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }
    fn set_length(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
