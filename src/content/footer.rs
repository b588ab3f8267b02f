//! The end of a pack: a sealed list of what is in it, enough to salvage files from packs alone.
//!
//! `extents ... | sealed footer | sealed trailer`. The footer's plaintext is one CBOR item and zeros after it (padding),
//! sealed for the place `Footer(pack)`. The trailer, sealed for `Trailer(pack)`, says where the footer begins (8 bytes,
//! big-endian): in the clear it would tell where the extents end, and so the length that the padding hides.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::crypto::{Keys, Place, layout, padme};
use crate::types::{EXTENT_MAX, InodeNo, KIB, MIB, PackId, Reference};
use crate::upload::Staging;

/// Bytes after the sealed footer: where it begins, sealed.
const TRAILER: u64 = layout::sealed_length(8);
/// A footer is refused beyond this: the entries of 16 MiB of the smallest extents, and padding.
const FOOTER_MAX: u64 = 2 * EXTENT_MAX;
/// Up to here a file is only a buffer, and goes into the shared pack; what runs on beyond it streams into packs of its own.
pub(super) const STREAM_MIN: u64 = MIB;
/// What follows the extent in a pack of one full extent, at least: more than any one entry takes, so all such packs
/// are of one length.
const FULL_PACK_END: u64 = 2 * KIB;

/// What a pack holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Footer {
    /// The extents, in the order in which they lie there.
    #[n(0)]
    pub entries: Vec<FooterEntry>,
}

/// What an extent was when it was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FooterEntry {
    /// Where the message lies and what opens it.
    #[n(0)]
    pub reference: Reference,
    /// The file.
    #[n(1)]
    pub inode: InodeNo,
    /// Where in the file its plaintext begins, in bytes.
    #[n(2)]
    pub offset: u64,
    /// The file's name at the time (the last part of one of its paths); empty if it was not known.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub name: Vec<u8>,
}

impl FooterEntry {
    /// About how long it is in the footer, in bytes.
    pub(super) fn weight(&self) -> u64 {
        180 + self.name.len() as u64
    }
}

/// Whose bytes an extent holds, for the footer.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub inode: InodeNo,
    /// Empty if not known.
    pub name: Arc<[u8]>,
}

impl Origin {
    pub(super) fn entry(&self, reference: Reference, offset: u64) -> FooterEntry {
        FooterEntry { reference, inode: self.inode, offset, name: self.name.to_vec() }
    }
}

/// The bytes that end a pack of which `end` bytes are extents. `before`: so many bytes of the same file, just before them, fill
/// packs of their own; what is added here to hide the length of them all is less than an eighth of them.
pub fn seal_footer(keys: &Keys, pack: PackId, footer: &Footer, end: u64, before: u64) -> Vec<u8> {
    let padding = match &footer.entries[..] {
        // A full extent: the pack's length says that, and nothing of the file.
        [one] if one.reference.plain_length == EXTENT_MAX => PackPadding::Full,
        // One file alone: the pack's length must not tell the file's.
        [one, rest @ ..] if rest.iter().all(|entry| entry.inode == one.inode) => {
            let plain = footer.entries.iter().map(|entry| entry.reference.plain_length).sum();
            rest_of_class(plain, before).map_or(PackPadding::Class, PackPadding::AsIf)
        }
        _ => PackPadding::None,
    };
    sealed_end(keys, pack, footer, end, padding)
}

/// How long a pack becomes.
#[derive(Clone, Copy)]
enum PackPadding {
    /// What is in it.
    None,
    /// Of one full extent.
    Full,
    /// The next length of Padmé.
    Class,
    /// That of one with so much plaintext.
    AsIf(u64),
}

/// The plaintext that a file of the same class would have in its last pack: so the lengths of all its packs tell its class, and
/// no more. Of a large file that is more than a pack holds: a full one. A short end, which lies in the shared pack, is as
/// one of [`STREAM_MIN`] at most.
fn rest_of_class(plain: u64, before: u64) -> Option<u64> {
    let most = if plain <= STREAM_MIN { STREAM_MIN } else { EXTENT_MAX };
    (before > 0 && plain <= EXTENT_MAX).then(|| (padme(before + plain) - before).min(most))
}

fn sealed_end(
    keys: &Keys,
    pack: PackId,
    footer: &Footer,
    end: u64,
    padding: PackPadding,
) -> Vec<u8> {
    let mut plain = Vec::new();
    // Writing to memory cannot fail.
    _ = minicbor::encode(footer, &mut plain);
    let bare = end + layout::sealed_length(plain.len() as u64) + TRAILER;
    let padded = match padding {
        PackPadding::None => None,
        PackPadding::Full => Some(bare.max(end + FULL_PACK_END)),
        PackPadding::Class => Some(padme(bare)),
        PackPadding::AsIf(rest) => Some(bare.max(layout::sealed_length(rest) + FULL_PACK_END)),
    };
    if let Some(mut total) = padded {
        // Not every length is a message's (none ends within a tag): then the next one.
        let length = loop {
            match layout::plain_length(total - end - TRAILER) {
                Some(length) => break length,
                None => total = padme(total + 1),
            }
        };
        plain.resize(usize::try_from(length).unwrap_or(plain.len()), 0);
    }
    let mut bytes = Vec::new();
    keys.seal_into(Place::Footer(pack), &plain, &mut bytes);
    keys.seal_into(Place::Trailer(pack), &end.to_be_bytes(), &mut bytes);
    bytes
}

/// Reads a pack's footer back. `read` gives a range of the pack's bytes; `length` is the pack's.
///
/// # Errors
/// A sentence, when there is no footer that opens, or it names what cannot be.
pub fn open_footer<E: std::fmt::Display>(
    keys: &Keys,
    pack: PackId,
    length: u64,
    read: impl Fn(std::ops::Range<u64>) -> Result<bytes::Bytes, E>,
) -> Result<Footer, String> {
    let failed = |error: E| format!("reading it: {error}");
    let body = length.checked_sub(TRAILER).ok_or("too short for a footer")?;
    let trailer = read(body..length).map_err(failed)?;
    let trailer = keys.open(Place::Trailer(pack), &trailer);
    let trailer = trailer.map_err(|error| format!("trailer: {error}"))?;
    let end = <[u8; 8]>::try_from(&trailer[..]).map_err(|_| "its trailer is too short")?;
    let end = u64::from_be_bytes(end);
    if end > body || body - end > FOOTER_MAX {
        return Err("its footer would begin before it, or be too long".to_owned());
    }
    let sealed = read(end..body).map_err(failed)?;
    let plain =
        keys.open(Place::Footer(pack), &sealed).map_err(|error| format!("footer: {error}"))?;
    let footer: Footer = minicbor::decode(&plain).map_err(|error| format!("footer: {error}"))?;
    let fits = |entry: &FooterEntry| {
        let reference = &entry.reference;
        reference.pack == pack
            && reference.sealed_length == layout::sealed_length(reference.plain_length)
            && reference.offset.checked_add(reference.sealed_length).is_some_and(|to| to <= end)
    };
    if footer.entries.iter().all(fits) {
        Ok(footer)
    } else {
        Err("its footer names extents that are not in it".to_owned())
    }
}

/// For `Staging::recover` (J7), which has no keys and does not know what a footer is.
#[derive(Clone)]
pub struct FooterKeys(pub Keys);

impl crate::upload::Footers for FooterKeys {
    fn is_good(&self, staging: &Staging, pack: PackId, length: u64) -> bool {
        let read = |range| match staging.read(pack, range) {
            Ok(bytes) => bytes.ok_or_else(|| "it is not there".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        open_footer(&self.0, pack, length, read).is_ok()
    }

    /// Without entries: what the lost one said of the extents is in the journal's records. Where it was cut tells how long the
    /// last file was, so it is padded, whatever is in it; one of a full extent is as long as if it had been closed.
    fn make(&self, pack: PackId, end: u64) -> Vec<u8> {
        let is_full = end == layout::sealed_length(EXTENT_MAX);
        let padding = if is_full { PackPadding::Full } else { PackPadding::Class };
        sealed_end(&self.0, pack, &Footer::default(), end, padding)
    }
}
