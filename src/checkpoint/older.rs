//! What older key epochs sealed and a checkpoint still refers to (K8).

use std::ops::Range;

use super::Result;
use super::base::Base;
use super::kept_rows::scan;
use super::pack_rows::PackInfo;
use super::page_io::open_page;
use crate::records::{Key, Pin, Tag, decode_value, extent_of};
use crate::types::{CommitNo, InodeNo, KeyEpoch};

/// A part of a file whose content an older key epoch sealed.
pub type OlderPart = (InodeNo, Range<u64>);

/// What [`older_packs`] needs to tell, by the table of packs alone, which packs older key epochs sealed.
#[derive(Clone, Debug)]
pub struct OlderPacksOf {
    /// The last commit of these epochs.
    pub last: CommitNo,
    /// The commit from which on nothing live refers to what they sealed, if there is one.
    pub since: Option<CommitNo>,
    /// Packs that died up to this commit are gone, except for those that a snapshot holds.
    pub emptied: CommitNo,
    /// The snapshots.
    pub pins: Vec<Pin>,
}

/// What packs still hold of older key epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OlderPacks {
    /// Bytes of content that the map refers to, approximately: those of packs from before the epochs' last commit.
    pub live: u64,
    /// Packs that died since, and are kept for old states.
    pub kept: u64,
}

/// The parts of files that epochs before `before` sealed, as page `number` of the map lists them; `None`: there is no such
/// page. Reads the whole page.
///
/// # Errors
/// A page that cannot be fetched, or does not open.
pub async fn older_parts(
    base: &Base,
    number: usize,
    before: KeyEpoch,
) -> Result<Option<Vec<OlderPart>>> {
    let Some(opened) = &base.0 else { return Ok(None) };
    let pages = &opened.manifest.pages;
    let Some(page) = pages.get(number) else { return Ok(None) };
    let may_refer = |tag: Tag| {
        let end = pages.get(number + 1).map(|next| next.first_key.as_slice());
        page.first_key[..] < tag.end()[..] && end.is_none_or(|end| end > &tag.begin()[..])
    };
    let mut parts = Vec::new();
    if !may_refer(Tag::Inode) && !may_refer(Tag::Extent) {
        return Ok(Some(parts));
    }
    let (name, range) = (page.name(), 0..page.sealed_length);
    let sealed = opened.cache.sealed(&name, range.clone()).await?;
    let mut records = match open_page(&opened.keys, page, &sealed) {
        Ok(records) => records,
        // The local copy may be damaged.
        Err(_) => open_page(&opened.keys, page, &opened.cache.sealed_anew(&name, range).await?)?,
    };
    while let Some((key, value)) = records.next()? {
        let Some(extent) = extent_of(&key, &value)? else { continue };
        if extent.reference.epoch >= before {
            continue;
        }
        match Key::decode(&key)? {
            Key::Inode(ino) => parts.push((ino, 0..extent.length)),
            Key::Extent(ino, offset) => {
                parts.push((ino, offset..offset.saturating_add(extent.length)));
            }
            _ => {}
        }
    }
    Ok(Some(parts))
}

/// Counts the packs of older key epochs by the table of packs.
///
/// # Errors
/// As [`older_parts`].
pub async fn older_packs(base: &Base, of: &OlderPacksOf) -> Result<OlderPacks> {
    let mut found = OlderPacks::default();
    scan(base, Tag::Pack, |_, value| {
        let row: PackInfo = decode_value("packs", value)?;
        if row.references > 0 {
            let is_theirs = of.since.is_none() && row.birth <= of.last;
            found.live += if is_theirs { row.live } else { 0 };
        } else if of.since.is_none_or(|since| row.is_dead_at(since)) {
            let is_there =
                !row.is_dead_at(of.emptied) || of.pins.iter().any(|pin| row.lived_at(pin.commit));
            found.kept += u64::from(is_there);
        }
        Ok(true)
    })
    .await?;
    Ok(found)
}
