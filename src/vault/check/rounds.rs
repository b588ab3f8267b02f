//! Reads all data: every extent that the map refers to must open.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt, stream};

use super::findings::is_finding;
use super::map::Map;
use super::{Checker, Flaw, Flaws, Result};
use crate::content::{extent_opens, open_footer, part_opens};
use crate::crypto::Keys;
use crate::types::{Extent, InodeNo, PackId, Reference};
use crate::upload::pack_object;

/// How many packs are read at once: 64 MiB of memory.
const PARALLEL: usize = 4;

/// What the map refers to in some packs, and which files do.
type WantedPacks = BTreeMap<PackId, References>;

/// What the map refers to in one pack, and which files do.
type References = HashMap<Reference, Vec<PartOfFile>>;

/// A file's part of an extent. It may be readable even if the extent as a whole does not open.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PartOfFile {
    ino: InodeNo,
    skip: u64,
    length: u64,
}

/// The packs of one round: as many as fit, from a given id on.
struct Round {
    wanted: WantedPacks,
    references: usize,
    until: Option<PackId>,
}

impl Checker<'_> {
    /// Reads in rounds, by the order of pack ids. Each round has as many references as fit into memory.
    pub(super) async fn read_data(&self, map: &Map<'_>, flaws: &mut Flaws) -> Result<()> {
        let (mut from, mut done) = (Some(PackId([0; 16])), 0);
        while let Some(start) = from {
            let round = self.gather(map, start).await?;
            let wanted = round.wanted.into_iter().filter(|(id, _)| !flaws.contains_key(id));
            let wanted: Vec<_> = wanted.collect();
            let mut read = stream::iter(wanted)
                .map(|(id, wanted)| async move { (id, self.read_twice(id, &wanted).await) })
                .buffer_unordered(PARALLEL);
            while let Some((id, flaw)) = read.next().await {
                if let Some(flaw) = flaw? {
                    flaws.insert(id, flaw);
                }
                done += 1;
                (self.progress)(done, done);
            }
            from = round.until;
        }
        Ok(())
    }

    async fn gather(&self, map: &Map<'_>, from: PackId) -> Result<Round> {
        let mut round = Round { wanted: WantedPacks::new(), references: 0, until: None };
        map.walk(|record| {
            let Some((ino, extent)) = record.extent()? else { return Ok(()) };
            let pack = extent.reference.pack;
            if pack >= from && round.until.is_none_or(|until| pack < until) {
                let part = PartOfFile { ino, skip: extent.skip, length: extent.length };
                round.take(extent.reference, part, self.references);
            }
            Ok(())
        })
        .await?;
        Ok(round)
    }

    /// What is wrong with a pack. It is read again before that is believed: it may have changed on the way.
    async fn read_twice(&self, id: PackId, wanted: &References) -> Result<Option<Flaw>> {
        match self.read_pack(id, wanted).await? {
            None => Ok(None),
            Some(_) => self.read_pack(id, wanted).await,
        }
    }

    /// Reads a pack whole, and returns what is wrong with it.
    async fn read_pack(&self, id: PackId, wanted: &References) -> Result<Option<Flaw>> {
        let bytes = match self.bucket.get(&pack_object(id), None).await {
            Ok(bytes) => bytes,
            Err(error) if is_finding(&error) => {
                return Ok(Some(Flaw { what: error.to_string(), inodes: None }));
            }
            Err(error) => return Err(error.into()),
        };
        let slice = |from: u64, to: u64| {
            let range = usize::try_from(from).ok()?..usize::try_from(to).ok()?;
            (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range))
        };
        let (mut inodes, mut bad) = (Vec::new(), 0u64);
        let all = wanted.len();
        for (reference, by) in wanted {
            let end = reference.offset.saturating_add(reference.sealed_length);
            let sealed = slice(reference.offset, end);
            if sealed.as_ref().is_some_and(|sealed| extent_opens(self.keys, reference, sealed)) {
                continue;
            }
            bad += 1;
            let is_lost = |part: &&PartOfFile| {
                !sealed.as_ref().is_some_and(|s| part.opens(self.keys, reference, s))
            };
            inodes.extend(by.iter().filter(is_lost).map(|part| part.ino));
        }
        if bad > 0 {
            let mut what = format!("{bad} of its {all} extents do not open whole: it was changed");
            if inodes.is_empty() {
                what += ", but not where a file needs it";
            }
            return Ok(Some(Flaw { what, inodes: Some(inodes) }));
        }
        let read = |range: std::ops::Range<u64>| slice(range.start, range.end).ok_or("not there");
        let footer = open_footer(self.keys, id, bytes.len() as u64, read);
        Ok(footer.err().map(|why| {
            let what = format!("its footer is bad ({why}); its data opens");
            Flaw { what, inodes: Some(Vec::new()) }
        }))
    }
}

impl PartOfFile {
    /// Whether this part can be read from `sealed`, the available bytes of the extent.
    fn opens(self, keys: &Keys, reference: &Reference, sealed: &[u8]) -> bool {
        let Self { skip, length, .. } = self;
        part_opens(keys, &Extent { skip, length, reference: reference.clone() }, sealed)
    }
}

impl Round {
    fn take(&mut self, reference: Reference, part: PartOfFile, budget: usize) {
        let by = self.wanted.entry(reference.pack).or_default().entry(reference).or_default();
        if by.last() != Some(&part) {
            by.push(part);
            self.references += 1;
        }
        while self.references > budget && self.wanted.len() > 1 {
            let Some((pack, dropped)) = self.wanted.pop_last() else { break };
            self.references -= dropped.values().map(Vec::len).sum::<usize>();
            self.until = Some(pack);
        }
    }
}
