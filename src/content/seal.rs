//! Sealing and opening extents. Only this file knows which key, which place and which codec an extent's message has. It
//! knows nothing of where the bytes lie and how they get there.

use std::ops::Range;

use super::{Error, Result};
use crate::crypto::{Keys, Opener, Place, Sealer, layout, random};
use crate::types::{Codec, EXTENT_MAX, Extent, ExtentId, KeyEpoch, PackId, Reference};

/// A sealed extent that has no place in a pack yet.
#[derive(Debug)]
pub struct SealedExtent {
    id: ExtentId,
    plain_length: u64,
    salt: [u8; 24],
    commitment: [u8; 32],
    epoch: KeyEpoch,
}

impl SealedExtent {
    /// The reference to this extent, whose message begins at byte `offset` of `pack`.
    pub fn at(self, pack: PackId, offset: u64) -> Reference {
        Reference {
            pack,
            offset,
            sealed_length: layout::sealed_length(self.plain_length),
            extent: self.id,
            plain_length: self.plain_length,
            codec: Codec::Plain,
            salt: self.salt,
            commitment: self.commitment,
            epoch: self.epoch,
        }
    }
}

/// Seals one extent as its bytes come. All that it appends to the callers' buffers, joined, is the message.
pub(super) struct ExtentSealer {
    id: ExtentId,
    epoch: KeyEpoch,
    sealer: Sealer,
}

impl ExtentSealer {
    /// Begins an extent with a new id; appends the message's header.
    pub(super) fn begin(keys: &Keys, out: &mut Vec<u8>) -> Self {
        let id = ExtentId(random());
        let (sealer, epoch) = keys.sealer(Place::Extent(id));
        out.extend_from_slice(&sealer.header());
        Self { id, epoch, sealer }
    }

    /// How many bytes of the file it has taken.
    pub(super) fn plain_length(&self) -> u64 {
        self.sealer.plain_length()
    }

    /// The last of those bytes, which do not fill a chunk yet.
    pub(super) fn pending(&self) -> &[u8] {
        self.sealer.pending()
    }

    /// Takes more bytes of the file; appends the chunks that they fill.
    pub(super) fn update(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.sealer.update(plain, out);
    }

    /// Appends the message's end.
    pub(super) fn finish(self, out: &mut Vec<u8>) -> SealedExtent {
        let (salt, commitment) = (self.sealer.salt(), self.sealer.commitment());
        let sealed = SealedExtent {
            id: self.id,
            plain_length: self.plain_length(),
            salt,
            commitment,
            epoch: self.epoch,
        };
        self.sealer.finish(out);
        sealed
    }

    /// An opener for the chunks that are full already, before the message ends.
    pub(super) fn opener(&self, keys: &Keys) -> Result<ExtentOpener> {
        let (salt, commitment) = (self.sealer.salt(), self.sealer.commitment());
        ExtentOpener::by_header(keys, self.id, &salt, &commitment)
    }
}

/// Seals the parts, joined, as one extent; appends its message to `out`.
pub fn seal_extent(keys: &Keys, parts: &[&[u8]], out: &mut Vec<u8>) -> SealedExtent {
    let plain_length: usize = parts.iter().map(|part| part.len()).sum();
    let sealed_length = layout::sealed_length(plain_length as u64);
    // The parts are in memory: their sum fits.
    out.reserve_exact(usize::try_from(sealed_length).unwrap_or(0));
    let mut sealer = ExtentSealer::begin(keys, out);
    parts.iter().for_each(|part| sealer.update(part, out));
    sealer.finish(out)
}

/// Why an extent's record is unusable, whatever the bucket holds; `None` if it is sound.
pub(super) fn flaw(extent: &Extent) -> Option<&'static str> {
    let reference = &extent.reference;
    let end = extent.skip.checked_add(extent.length);
    if reference.codec != Codec::Plain {
        Some("its codec is not known to this version")
    } else if reference.plain_length == 0 || reference.plain_length > EXTENT_MAX {
        Some("its length is out of bounds")
    } else if extent.length == 0 || end.is_none_or(|end| end > reference.plain_length) {
        Some("its part is out of bounds")
    } else if reference.sealed_length != layout::sealed_length(reference.plain_length) {
        Some("its lengths contradict each other")
    } else if reference.offset.checked_add(reference.sealed_length).is_none() {
        Some("its offset is out of bounds")
    } else {
        None
    }
}

/// Refuses an extent whose record is unusable, or whose key is unknown. The reader checks before it fetches anything.
pub(super) fn check(keys: &Keys, extent: &Extent) -> Result<()> {
    let other_key = || {
        let is_other = !keys.knows(extent.reference.epoch);
        is_other.then_some("it is sealed under another key")
    };
    match flaw(extent).or_else(other_key) {
        None => Ok(()),
        Some(reason) => Err(Error::BadExtent { extent: extent.reference.extent, reason }),
    }
}

/// Opens chunks of one extent in any order.
pub(super) struct ExtentOpener {
    id: ExtentId,
    opener: Opener,
}

impl ExtentOpener {
    /// Opens only the message that the reference means. The caller has `check`ed the extent.
    pub(super) fn new(keys: &Keys, reference: &Reference) -> Result<Self> {
        Self::by_header(keys, reference.extent, &reference.salt, &reference.commitment)
    }

    fn by_header(
        keys: &Keys,
        id: ExtentId,
        salt: &[u8; 24],
        commitment: &[u8; 32],
    ) -> Result<Self> {
        let opener = keys.opener(Place::Extent(id), salt, commitment);
        Ok(Self { id, opener: opener.map_err(|_| Error::Seal { extent: id })? })
    }

    /// Opens one chunk of an extent of `plain_length` bytes into `place`, which must have the chunk's plaintext length.
    /// After an error, `place` has none of the plaintext.
    pub(super) fn open_chunk_to(
        &self,
        index: u64,
        plain_length: u64,
        sealed: &[u8],
        place: &mut [u8],
    ) -> Result<()> {
        let last = index.checked_add(1) == Some(layout::chunk_count(plain_length));
        let fits = place.len() as u64 == layout::chunk_length(index, plain_length);
        let opened = fits.then(|| self.opener.open_chunk_to(index, last, sealed, place).ok());
        opened.flatten().ok_or(Error::Seal { extent: self.id })
    }

    /// Opens the chunks from `first` on that are in `sealed`, of an extent of `plain_length` bytes. Appends their
    /// plaintext to `into`, which is unchanged after an error.
    pub(super) fn open_chunks(
        &self,
        first: u64,
        plain_length: u64,
        sealed: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let opened = self.opener.open_chunks(first, plain_length, sealed, into);
        opened.map_err(|_| Error::Seal { extent: self.id })
    }
}

/// Whether `sealed` is exactly the message that the reference means, and all of it opens. For callers that have the
/// whole message: a check of the bucket, and a mount after a crash.
pub fn extent_opens(keys: &Keys, reference: &Reference, sealed: &[u8]) -> bool {
    let is_named = sealed.get(..24) == Some(&reference.salt)
        && sealed.get(24..56) == Some(&reference.commitment);
    let plain = keys.open(Place::Extent(reference.extent), sealed);
    is_named && plain.is_ok_and(|plain| plain.len() as u64 == reference.plain_length)
}

/// The chunks of the message that hold the extent's part.
pub(super) fn chunks(extent: &Extent) -> Range<u64> {
    layout::chunks_of(&(extent.skip..extent.skip + extent.length))
}

/// Whether the extent's part can be read from `sealed`, which is as long as the message. Like readers, this goes by the
/// record alone: the message's header and its other chunks may be anything.
pub fn part_opens(keys: &Keys, extent: &Extent, sealed: &[u8]) -> bool {
    if check(keys, extent).is_err() {
        return false;
    }
    let (reference, chunks) = (&extent.reference, chunks(extent));
    let within = layout::sealed_range(&chunks, reference.plain_length);
    let cut = usize::try_from(within.start).ok().zip(usize::try_from(within.end).ok());
    let Some(sealed) = cut.and_then(|(from, to)| sealed.get(from..to)) else { return false };
    let opener = ExtentOpener::new(keys, reference);
    let into = &mut Vec::new();
    opener.is_ok_and(|opener| {
        opener.open_chunks(chunks.start, reference.plain_length, sealed, into).is_ok()
    })
}
