//! The files of a journal, `journal/<segment>`. Each has a header that names the journal.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::os::{self, Disk, DiskFile};
use crate::types::{JournalId, KIB, MIB, Seq};

/// The longest length at which a segment is followed by the next.
pub(super) const SEGMENT_BYTES: u64 = 16 * MIB;
/// How many zeros are written ahead of a segment's end, once fewer than `ZEROS_LOW` are left.
const ZEROS_AHEAD: u64 = if cfg!(test) { 16 * KIB } else { 256 * KIB }; // tests look at every byte, often
const ZEROS_LOW: u64 = ZEROS_AHEAD / 16;
/// The file name of a segment until it is published.
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
    pub file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub end: u64,
    /// Up to where the disk has room for it; never below `end`.
    pub room: u64,
    /// The length of the file. From `end` to here there are zeros, written ahead.
    pub length: u64,
}

pub(super) fn name(number: u64) -> String {
    format!("{number:016x}")
}

fn parse_name(name: &str) -> Option<u64> {
    Some(name).filter(|name| name.len() == 16).and_then(|name| u64::from_str_radix(name, 16).ok())
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(name(number))
}

fn header(journal: JournalId, number: u64) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(&journal.0);
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    bytes
}

impl Segment {
    /// A new segment with its header and first record, which is sealed for byte `HEADER`. It joins the journal when it is
    /// published. A failure or a crash before that leaves a file that belongs to nothing.
    pub(super) fn make(
        disk: &dyn Disk,
        journal: JournalId,
        number: u64,
        first: Seq,
        first_record: &[u8],
    ) -> io::Result<Self> {
        Self::unmake(disk);
        let file = disk.create(MAKING)?;
        file.write_at(&header(journal, number), 0)?;
        file.write_at(first_record, HEADER)?;
        let end = HEADER + first_record.len() as u64;
        Ok(Self { number, first, file, end, room: end, length: end })
    }

    /// Gives the file its name.
    pub(super) fn publish(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.rename(MAKING, &name(self.number))
    }

    /// Removes the file of a segment that was not published.
    pub(super) fn unmake(disk: &dyn Disk) {
        // Mostly there is none. If it cannot be removed, the next `make` fails and says so.
        drop(disk.remove(MAKING));
    }

    /// Opens an existing segment that is whole up to `end`. Anything after that is cut, unless it is all zeros.
    pub(super) fn found(disk: &dyn Disk, number: u64, first: Seq, end: u64) -> io::Result<Self> {
        let file = disk.open(&name(number))?;
        // The disk room beyond its end is still reserved, unless it has to be cut.
        let room = file.allocated()?.max(end);
        let length = file.length()?;
        let has_only_zeros = length >= end && is_zero(&*file, end..length)?;
        let mut segment = Self { number, first, file, end, room, length };
        if !has_only_zeros {
            segment.cut()?;
        }
        Ok(segment)
    }

    /// Writes zeros ahead of the end, as far as there is room. An fsync of records written over them changes neither the
    /// file's length nor its blocks, so the file system has no metadata to commit.
    pub(super) fn write_zeros_ahead(&mut self) -> io::Result<()> {
        let to = (self.end + ZEROS_AHEAD).min(self.room);
        if self.length >= self.end + ZEROS_LOW || to <= self.length {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(to - self.length).map_err(io::Error::other)?];
        self.file.write_at(&zeros, self.length)?;
        self.length = to;
        Ok(())
    }

    /// Reserves disk room up to byte `wanted`, so that a full disk can be told from a failed write.
    pub(super) fn extend(&mut self, wanted: u64) -> io::Result<()> {
        // If the file system cannot reserve room, the write itself finds out.
        self.file.take_room(self.room, wanted.saturating_sub(self.room))?;
        self.room = wanted;
        Ok(())
    }

    /// Cuts the file at its end: drops a partial frame, zeros and reserved room.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        self.file.set_length(self.end)?;
        (self.room, self.length) = (self.end, self.end);
        Ok(())
    }

    /// Writes at the end.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_at(frame, self.end)?;
        self.end += frame.len() as u64;
        self.length = self.length.max(self.end);
        Ok(())
    }
}

/// Whether this part of a file is all zeros.
pub(super) fn is_zero(file: &dyn DiskFile, mut part: Range<u64>) -> io::Result<bool> {
    let mut buffer = [0; 16 * KIB as usize];
    while !part.is_empty() {
        let length = usize::try_from(part.end - part.start).unwrap_or(usize::MAX).min(buffer.len());
        file.read_at(&mut buffer[..length], part.start)?;
        if buffer[..length].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        part.start += length as u64;
    }
    Ok(true)
}

/// The numbers of the segments on a disk, ascending.
pub(super) fn numbers(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<_> =
        disk.list()?.iter().filter_map(|(name, _)| parse_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segment files in a directory, by number: number, the journal that it names, and length. A file with a short or
/// foreign header names no journal.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, Option<JournalId>, u64)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(parse_name) else { continue };
        let file = os::open_to_read(&entry.path())?;
        let mut bytes = [0; HEADER as usize];
        let journal = match file.read_at(&mut bytes, 0) {
            Ok(()) => {
                let mut id = [0; 16];
                id.copy_from_slice(&bytes[8..24]);
                Some(JournalId(id)).filter(|id| header(*id, number) == bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        found.push((number, journal, file.length()?));
    }
    found.sort_unstable_by_key(|(number, ..)| *number);
    Ok(found)
}
