//! Finds the rows of the table of packs that a checkpoint leaves out: those of packs that were
//! deleted (K5).

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::base::{Base, Found, Pins};
use super::changes::{Changed, PinChanges};
use super::pack_rows::PackInfo;
use super::{Error, Result};
use crate::records::{Horizon, Key, Pin, Tag, decode_value};
use crate::types::{CommitNo, PackId};

/// The most rows that one checkpoint leaves out: some 30 MB of memory. The rest waits for the next.
const ROWS_MAX: usize = 100_000;

/// The row of a pack in a checkpoint's table of packs.
///
/// # Errors
/// A page that cannot be fetched or does not open.
pub async fn pack_row(base: &Base, id: PackId, pins: &mut Pins) -> Result<Option<PackInfo>> {
    let row = get(base, &Key::Pack(id).encode(), pins).await?;
    Ok(row.map(|row| decode_value("packs", &row)).transpose()?)
}

async fn get(base: &Base, key: &[u8], pins: &mut Pins) -> Result<Option<Bytes>> {
    loop {
        match base.get(key, pins) {
            Ok(Found::Value(value)) => return Ok(Some(value)),
            Ok(Found::Absent) => return Ok(None),
            Err(miss) => base.fetch(&miss, pins).await?,
        }
    }
}

/// Goes over a table in order, as long as `each` returns true.
pub(super) async fn scan(
    base: &Base,
    tag: Tag,
    mut each: impl FnMut(&[u8], &Bytes) -> Result<bool>,
) -> Result<()> {
    let mut pins = Pins::new();
    let mut scan = base.range(Bound::Included(&tag.begin()), Bound::Excluded(&tag.end()));
    loop {
        match scan.next(&pins) {
            Ok(None) => return Ok(()),
            Ok(Some((key, value))) if each(&key, &value)? => {}
            Ok(Some(_)) => return Ok(()),
            Err(miss) => {
                pins = Pins::new();
                base.fetch(&miss, &mut pins).await?;
            }
        }
    }
}

/// If the horizon moved since the previous checkpoint: the rows of packs that are gone, as deletes.
pub(super) async fn rows_to_drop(
    previous: &Base,
    changes: &PinChanges,
) -> Result<BTreeMap<Vec<u8>, Changed>> {
    let mut dropped = BTreeMap::new();
    let horizon = Horizon::key().encode();
    let Some(Some(now)) = changes.get(&horizon) else { return Ok(dropped) };
    let emptied = decode_value::<Horizon>("pin", now)?.emptied;
    let before = get(previous, &horizon, &mut Pins::new()).await?;
    let before = before.map(|value| decode_value::<Horizon>("pin", &value)).transpose()?;
    if before.is_some_and(|before| before.emptied >= emptied) {
        return Ok(dropped);
    }
    let held = held_commits(previous, changes).await?;
    scan(previous, Tag::Pack, |key, value| {
        let row: PackInfo = decode_value("packs", value)?;
        if row.is_dead_at(emptied) && !held.iter().any(|commit| row.lived_at(*commit)) {
            dropped.insert(key.to_vec(), Changed::Record { versions: Vec::new(), last: None });
        }
        Ok(dropped.len() < ROWS_MAX)
    })
    .await?;
    Ok(dropped)
}

/// The commits that pins hold.
async fn held_commits(previous: &Base, changes: &PinChanges) -> Result<Vec<CommitNo>> {
    let mut all = BTreeMap::new();
    scan(previous, Tag::Pin, |key, value| {
        all.insert(key.to_vec(), Some(value.clone()));
        Ok(true)
    })
    .await?;
    all.extend(changes.clone());
    all.remove(&Horizon::key().encode());
    let pins = all.into_values().flatten();
    pins.map(|value| Ok::<_, Error>(decode_value::<Pin>("pin", &value)?.commit)).collect()
}
