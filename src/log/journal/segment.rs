//! The files of a journal: `journal/<segment>`, each with a header that names the journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::{JournalId, MIB, Seq};

/// A segment is followed by the next once it is this long.
pub(super) const SEGMENT_BYTES: u64 = 16 * MIB;
/// Room on the disk is taken in steps of this, before it is written to (J8).
const ROOM_STEP: u64 = 4 * MIB;

const MAGIC: [u8; 8] = *b"S3VJRNL1";
/// Magic, journal id, segment number: in the clear.
pub(super) const HEADER: u64 = 32;

/// One file of the journal.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub number: u64,
    /// The count of its first transaction.
    pub first: Seq,
    pub file: Arc<File>,
    pub path: PathBuf,
    /// Where the next frame goes.
    pub end: u64,
    /// Up to where the disk has room for it.
    pub room: u64,
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}"))
}

fn header(journal: JournalId, number: u64) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(&journal.0);
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    bytes
}

impl Segment {
    /// A new file, with its header written.
    pub(super) fn create(
        dir: &Path,
        journal: JournalId,
        number: u64,
        first: Seq,
    ) -> io::Result<Self> {
        let path = path(dir, number);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all_at(&header(journal, number), 0)?;
        Ok(Self { number, first, file: Arc::new(file), path, end: HEADER, room: 0 })
    }

    /// Writes at the end. A full disk is told apart from a failed write: nothing is written then.
    pub(super) fn ensure_room(&mut self, length: u64) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        if self.end + length <= self.room {
            return Ok(());
        }
        let wanted = (self.end + length).next_multiple_of(ROOM_STEP);
        let (from, to) = (self.end.cast_signed(), (wanted - self.end).cast_signed());
        // SAFETY: the descriptor is open for as long as `self`; no memory is passed.
        let result =
            unsafe { libc::fallocate(self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, to) };
        match (result, io::Error::last_os_error()) {
            (0, _) => self.room = wanted,
            // A file system without fallocate: the write itself finds out.
            (_, error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.room = u64::MAX,
            (_, error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all_at(frame, self.end)?;
        self.end += frame.len() as u64;
        Ok(())
    }
}

/// The segment files in a directory, by number: number, journal it names, length.
/// A file with a short or foreign header has no journal.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, Option<JournalId>, u64)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(number) = entry
            .file_name()
            .to_str()
            .filter(|name| name.len() == 16)
            .and_then(|name| u64::from_str_radix(name, 16).ok())
        else {
            continue;
        };
        let file = File::open(entry.path())?;
        let mut bytes = [0; HEADER as usize];
        let journal = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {
                let mut id = [0; 16];
                id.copy_from_slice(&bytes[8..24]);
                Some(JournalId(id)).filter(|id| header(*id, number) == bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        found.push((number, journal, file.metadata()?.len()));
    }
    found.sort_unstable_by_key(|(number, ..)| *number);
    Ok(found)
}
