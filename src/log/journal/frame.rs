//! One record of a journal segment as bytes: a marker, a length, a sealed message.
//!
//! The message is bound to journal, segment and offset (J3). So a record that was moved, or belongs
//! to an older journal, does not open.

use std::io;

use minicbor::{Decode, Encode};

use super::segment::is_zero;
use crate::crypto::{Keys, Place};
use crate::log::{Error, Receipt, Result};
use crate::os::DiskFile;
use crate::records::{TRANSACTION_MAX, decode_value, encode_value};
use crate::types::{CommitNo, Hash, JournalId, KIB, PackId, Seq};

/// Begins every frame, so that frames after a damaged one can be found.
const MARKER: [u8; 4] = *b"\xf5S3J";
/// Marker and length.
pub(super) const FRAME_HEADER: usize = 8;
/// The most bytes of a sealed record: the largest transaction, and room for its seal.
const SEALED_MAX: usize = TRANSACTION_MAX + (64 * KIB) as usize;

/// The last commit that the journal knows to be in the bucket, and how far it reaches (J5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NotedCommit {
    #[n(0)]
    pub(in crate::log) upto: Seq,
    #[n(1)]
    pub(in crate::log) number: CommitNo,
    #[n(2)]
    pub(in crate::log) hash: Hash,
}

impl NotedCommit {
    /// What a new journal begins with: nothing of it is sent, and the log ends with this commit.
    pub fn head(number: CommitNo, hash: Hash) -> Self {
        Self { upto: Seq(0), number, hash }
    }

    /// Every transaction up to this one is in the bucket.
    pub fn upto(&self) -> Seq {
        self.upto
    }

    /// The commit that confirmed it.
    pub fn number(&self) -> CommitNo {
        self.number
    }

    /// SHA-256 of that commit's sealed bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

impl From<&Receipt> for NotedCommit {
    fn from(receipt: &Receipt) -> Self {
        Self { upto: receipt.upto(), number: receipt.number(), hash: receipt.hash() }
    }
}

/// A pack that nothing refers to any more, and that never goes to the bucket (C1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DroppedPack {
    /// The pack.
    #[n(0)]
    pub pack: PackId,
    /// The first transaction that refers to it.
    #[n(1)]
    pub first: Seq,
    /// The transaction after which nothing refers to it: a commit that holds `first` holds this one
    /// too.
    #[n(2)]
    pub last: Seq,
}

/// The first record of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Start {
    /// The count of the segment's first transaction.
    #[n(0)]
    pub first: Seq,
    /// The last known commit when the segment was begun.
    #[n(1)]
    pub noted: NotedCommit,
    /// The boot of the machine that wrote it.
    #[n(2)]
    pub boot: String,
}

/// Everything before this place was durable when the barrier was written (J2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct BarrierMark {
    #[n(0)]
    pub upto: Seq,
    #[n(1)]
    pub segment: u64,
    #[n(2)]
    pub offset: u64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JournalRecord {
    Start(Start),
    /// `staged`: the packs that were in staging then. They must be there as long as the transaction
    /// is unconfirmed (J3). Other packs that it refers to were already in the bucket.
    Transaction {
        staged: Vec<PackId>,
        bytes: Vec<u8>,
    },
    Barrier(BarrierMark),
    Confirmed(NotedCommit),
    /// A mount began, on this boot of the machine.
    Boot(String),
    /// A clean unmount: nothing follows, and everything before it is durable.
    Clean,
    /// These packs leave staging once a barrier covers this (J3).
    Dropped(Vec<DroppedPack>),
}

impl JournalRecord {
    fn plain(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Start(start) => (0, encode_value(start)),
            Self::Transaction { staged, bytes } => return plain_transaction(staged, bytes),
            Self::Barrier(mark) => (2, encode_value(mark)),
            Self::Confirmed(noted) => (3, encode_value(noted)),
            Self::Boot(id) => (4, encode_value(id)),
            Self::Clean => (5, bytes::Bytes::new()),
            Self::Dropped(packs) => (6, encode_value(packs)),
        };
        let mut plain = vec![kind];
        plain.extend_from_slice(&body);
        plain
    }

    pub(super) fn parse(plain: &[u8]) -> Result<Self> {
        let bad = || Error::malformed("a journal record", "no such kind");
        let (&kind, body) = plain.split_first().ok_or_else(bad)?;
        Ok(match kind {
            0 => Self::Start(decode_value("the journal", body)?),
            1 => parse_transaction(body).ok_or_else(bad)?,
            2 => Self::Barrier(decode_value("the journal", body)?),
            3 => Self::Confirmed(decode_value("the journal", body)?),
            4 => Self::Boot(decode_value("the journal", body)?),
            5 => Self::Clean,
            6 => Self::Dropped(decode_value("the journal", body)?),
            _ => return Err(bad()),
        })
    }
}

fn plain_transaction(staged: &[PackId], bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(5 + staged.len() * 16 + bytes.len());
    plain.push(1);
    plain.extend_from_slice(&u32::try_from(staged.len()).unwrap_or(u32::MAX).to_le_bytes());
    staged.iter().for_each(|pack| plain.extend_from_slice(&pack.0));
    plain.extend_from_slice(bytes);
    plain
}

fn parse_transaction(body: &[u8]) -> Option<JournalRecord> {
    let (count, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(16)?;
    let (packs, bytes) = rest.split_at_checked(length)?;
    let staged = packs.as_chunks::<16>().0.iter().map(|id| PackId(*id)).collect();
    Some(JournalRecord::Transaction { staged, bytes: bytes.to_vec() })
}

/// The frame of `record` at this place.
pub(super) fn seal(
    keys: &Keys,
    journal: JournalId,
    segment: u64,
    offset: u64,
    record: &JournalRecord,
) -> Vec<u8> {
    let place = Place::JournalRecord { journal, segment, offset };
    let sealed = keys.seal(place, &record.plain());
    let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(FRAME_HEADER + sealed.len());
    frame.extend_from_slice(&MARKER);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&sealed);
    frame
}

/// Reads the frames of one segment, in order or from a given place.
pub(super) struct Frames<'a> {
    keys: &'a Keys,
    journal: JournalId,
    segment: u64,
    file: &'a dyn DiskFile,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// How many bytes are read from a segment at once.
const READ_AHEAD: u64 = 256 * KIB;

impl<'a> Frames<'a> {
    /// The frames of `segment` that end at or before byte `end`.
    pub(super) fn new(
        keys: &'a Keys,
        journal: JournalId,
        segment: u64,
        file: &'a dyn DiskFile,
        end: u64,
    ) -> Self {
        Self { keys, journal, segment, file, end, buffer: Vec::new(), buffer_at: 0 }
    }

    /// Bytes `offset..offset + length`, if the segment has them.
    fn bytes(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(stop) = offset.checked_add(length as u64).filter(|stop| *stop <= self.end) else {
            return Ok(None);
        };
        let have = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if offset < have.start || stop > have.end {
            let wanted = (stop - offset).max(READ_AHEAD).min(self.end - offset);
            self.buffer.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
            self.file.read_at(&mut self.buffer, offset)?;
            self.buffer_at = offset;
        }
        let at = usize::try_from(offset - self.buffer_at).map_err(io::Error::other)?;
        Ok(Some(&self.buffer[at..at + length]))
    }

    /// The record at `offset` and the offset of the next one; `None` if there is no valid record
    /// for this place.
    pub(super) fn at(&mut self, offset: u64) -> io::Result<Option<(JournalRecord, u64)>> {
        let Some(header) = self.bytes(offset, FRAME_HEADER)? else { return Ok(None) };
        let Some(length) = header.strip_prefix(&MARKER) else { return Ok(None) };
        let Ok(length) = length.try_into().map(u32::from_le_bytes) else { return Ok(None) };
        let length = length as usize;
        if length > SEALED_MAX {
            return Ok(None);
        }
        let place = Place::JournalRecord { journal: self.journal, segment: self.segment, offset };
        let keys = self.keys;
        let Some(sealed) = self.bytes(offset + FRAME_HEADER as u64, length)? else {
            return Ok(None);
        };
        let Ok(plain) = keys.open(place, sealed) else { return Ok(None) };
        let next = offset + (FRAME_HEADER + length) as u64;
        Ok(JournalRecord::parse(&plain).ok().map(|record| (record, next)))
    }

    /// Whether nothing but zeros follows.
    pub(super) fn is_zero_from(&self, offset: u64) -> io::Result<bool> {
        is_zero(self.file, offset..self.end)
    }

    /// Whether a barrier that covers `offset`, where the record is bad, lies after it.
    pub(super) fn barrier_beyond(&mut self, offset: u64) -> io::Result<bool> {
        let mut at = offset;
        while at + (FRAME_HEADER as u64) < self.end {
            match self.at(at)? {
                Some((JournalRecord::Barrier(mark), _))
                    if mark.segment > self.segment
                        || mark.segment == self.segment && mark.offset > offset =>
                {
                    return Ok(true);
                }
                Some((_, next)) => at = next,
                None => match self.marker_after(at + 1)? {
                    Some(next) => at = next,
                    None => return Ok(false),
                },
            }
        }
        Ok(false)
    }

    fn marker_after(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + (FRAME_HEADER as u64) < self.end {
            let length = (self.end - at).min(READ_AHEAD);
            let Some(bytes) = self.bytes(at, usize::try_from(length).map_err(io::Error::other)?)?
            else {
                return Ok(None);
            };
            if let Some(found) = bytes.windows(MARKER.len()).position(|w| w == MARKER) {
                return Ok(Some(at + found as u64));
            }
            at += length - (MARKER.len() as u64 - 1).min(length - 1);
        }
        Ok(None)
    }
}
