//! The end of a pack: a sealed list of its extents, enough to salvage files from packs alone.
//!
//! `extents ... | sealed footer | sealed trailer`. The footer's plaintext is one CBOR item followed by zeros (padding),
//! sealed for the place `Footer(pack)`. The trailer, sealed for `Trailer(pack)`, says where the footer begins (8 bytes,
//! big-endian). It is sealed because that tells where the extents end, and so the length that the padding hides.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::crypto::{Keys, Place, layout, padme};
use crate::types::{EXTENT_MAX, InodeNo, KIB, MIB, PackId, Reference};
use crate::upload::Staging;

/// The length of the trailer.
const TRAILER: u64 = layout::sealed_length(8);
/// The longest footer that is accepted: entries for 16 MiB of the smallest extents, and padding.
const FOOTER_MAX: u64 = 2 * EXTENT_MAX;
/// Sequential writes up to this length stay in a buffer, and go into the shared pack; longer ones stream into packs of
/// their own.
pub(super) const STREAM_MIN: u64 = MIB;
/// The least that follows the extent in a pack of one full extent: more than any one entry takes, so that all such
/// packs have the same length.
const FULL_PACK_END: u64 = 2 * KIB;

/// What a pack holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Footer {
    /// The extents, in the order in which they lie in the pack.
    #[n(0)]
    pub entries: Vec<FooterEntry>,
}

/// An extent as it was when it was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FooterEntry {
    /// Where the message is, and what opens it.
    #[n(0)]
    pub reference: Reference,
    /// The inode of the file.
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
    /// About how many bytes it takes in the footer.
    pub(super) fn weight(&self) -> u64 {
        180 + self.name.len() as u64
    }
}

/// The file whose bytes an extent holds, for the footer.
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

/// The bytes that end a pack whose first `end` bytes are extents. `before`: bytes of the same file, just before these,
/// that are in full packs of their own. The padding that hides the length of all of them is less than an eighth of it.
pub fn seal_footer(keys: &Keys, pack: PackId, footer: &Footer, end: u64, before: u64) -> Vec<u8> {
    let padding = match &footer.entries[..] {
        // A full extent: the pack's length shows only that, and nothing about the file.
        [one] if one.reference.plain_length == EXTENT_MAX => PackPadding::Full,
        // Only one file: the pack's length must not show the file's.
        [one, rest @ ..] if rest.iter().all(|entry| entry.inode == one.inode) => {
            let plain = footer.entries.iter().map(|entry| entry.reference.plain_length).sum();
            rest_of_class(plain, before).map_or(PackPadding::Class, PackPadding::AsIf)
        }
        _ => PackPadding::None,
    };
    sealed_end(keys, pack, footer, end, padding)
}

/// What the length of a pack is padded to.
#[derive(Clone, Copy)]
enum PackPadding {
    /// Not padded.
    None,
    /// The length of a pack with one full extent.
    Full,
    /// The next Padmé length.
    Class,
    /// The length of a pack with this much plaintext.
    AsIf(u64),
}

/// The plaintext that the longest file of the same class would have in its last pack: with it, the lengths of all the
/// packs show the class, and no more. It is at most that of a full pack or, for a short end, which is in the shared
/// pack, [`STREAM_MIN`].
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
        // Some lengths are not those of a message (none ends within a tag): take the next one.
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

/// Reads the footer of a pack. `read` returns a range of the pack's bytes; `length` is the pack's length.
///
/// # Errors
/// A sentence, if no footer opens, or if it names extents that cannot be there.
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

/// Checks and makes footers for `Staging::recover` (J7), which has no keys and does not know what a footer is.
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

    /// A footer without entries: what the lost one said of the extents is in the journal's records. Where the pack was
    /// cut would show how long the last file was, so it is padded, whatever is in it; with a full extent it gets the
    /// usual length.
    fn make(&self, pack: PackId, end: u64) -> Vec<u8> {
        let is_full = end == layout::sealed_length(EXTENT_MAX);
        let padding = if is_full { PackPadding::Full } else { PackPadding::Class };
        sealed_end(&self.0, pack, &Footer::default(), end, padding)
    }
}
