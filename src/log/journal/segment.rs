//! The files of a journal: `journal/<segment>`, each with a header that names the journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::os;
use crate::types::{JournalId, MIB, Seq};

/// A segment is followed by the next once it is this long.
pub(super) const SEGMENT_BYTES: u64 = 16 * MIB;
/// What a segment is called until it is one.
const MAKING: &str = "making";

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
    /// Up to where the disk has room for it: never before its end.
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
    /// A new segment with its header and first record, which is sealed for byte `HEADER` of it. It is none before it
    /// has its name; one that was left by a failure or a crash is nobody's.
    pub(super) fn make(
        dir: &Path,
        journal: JournalId,
        number: u64,
        first: Seq,
        first_record: &[u8],
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(dir.join(MAKING))?;
        file.write_all_at(&header(journal, number), 0)?;
        file.write_all_at(first_record, HEADER)?;
        let end = HEADER + first_record.len() as u64;
        let path = path(dir, number);
        Ok(Self { number, first, file: Arc::new(file), path, end, room: end })
    }

    /// It has its name from now on.
    pub(super) fn name(&self) -> io::Result<()> {
        fs::rename(self.path.with_file_name(MAKING), &self.path)
    }

    /// What was made for a segment goes.
    pub(super) fn unmake(dir: &Path) {
        // What cannot be removed is overwritten the next time.
        drop(fs::remove_file(dir.join(MAKING)));
    }

    /// One that was found, whole up to `end`: what follows is dropped.
    pub(super) fn found(path: PathBuf, number: u64, first: Seq, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let metadata = file.metadata()?;
        // What the disk keeps for it beyond its end is still there, unless it has to be cut.
        let room = metadata.blocks() * 512;
        let mut segment = Self { number, first, file: Arc::new(file), path, end, room };
        segment.room = segment.room.max(end);
        if metadata.len() != end {
            segment.cut()?;
        }
        Ok(segment)
    }

    /// Takes room on the disk up to byte `wanted`, so that a full disk is told apart from a failed write.
    pub(super) fn extend(&mut self, wanted: u64) -> io::Result<()> {
        // Where there is no such thing, the write itself finds out.
        os::take_room(&self.file, self.room, wanted.saturating_sub(self.room))?;
        self.room = wanted;
        Ok(())
    }

    /// Gives back what lies beyond its end: a part of a frame, and room that was taken ahead.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.room = self.end;
        Ok(())
    }

    /// Writes at the end.
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
