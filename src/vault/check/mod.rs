//! `check`: whether everything in the bucket that the map refers to is whole.
//!
//! Reads the newest checkpoint with all its pages and the log after it, compares every pack that they refer
//! to with a listing, and opens each pack's footer; with `read_data` every extent, too. Changes nothing. It
//! takes memory for the changes since the checkpoint, 40 bytes for each pack, and the references of one
//! round ([`REFERENCES`]).

mod findings;
mod footers;
mod map;
mod names;
mod rounds;
#[cfg(test)]
mod tests;
mod went_back;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub use findings::{CheckReport, Finding};

use super::{Result, Unlocked};
use crate::checkpoint::PackInfo;
use crate::crypto::Keys;
use crate::log::Seen;
use crate::records::{Key, decode_value, extent_of};
use crate::store::{Bucket, Lister};
use crate::types::{Generation, InodeNo, PackId};
use crate::upload::pack_object;
use map::{Map, MergedRecord};

/// References held at once while data is read: about 100 MiB.
const REFERENCES: usize = 500_000;

/// Called with the number of objects done, and the number to do.
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Checks a vault; see the module. `data_dir` is where this machine remembers what it saw of the vault (O2).
///
/// # Errors
/// When the bucket does not answer. What is wrong in it goes into the report.
pub async fn check(
    bucket: &Bucket,
    unlocked: &Unlocked,
    read_data: bool,
    data_dir: Option<&Path>,
    progress: OnProgress<'_>,
) -> Result<CheckReport> {
    let (keys, generation) = (&unlocked.keys, unlocked.generation);
    let seen = data_dir.map(|dir| Seen::load(dir, keys)).transpose()?.flatten();
    let check = Checker { bucket, keys, generation, seen, progress, references: REFERENCES };
    let mut report = check.run(read_data).await?;
    if let Some(path) = &unlocked.copied {
        let what = format!(
            "the superblock is gone, or does not open: that of {} was used; a machine without a copy cannot open the vault; a \
             mount for writing puts it back",
            path.display()
        );
        report.findings.push(Finding::of("superblock/", what));
    }
    Ok(report)
}

struct Checker<'a> {
    bucket: &'a Bucket,
    keys: &'a Keys,
    /// Generation of the superblock that the vault was unlocked with.
    generation: Generation,
    /// What this machine saw of the vault, if anything.
    seen: Option<Seen>,
    progress: OnProgress<'a>,
    references: usize,
}

/// What one walk over the map tells about the packs.
#[derive(Default)]
struct PackTally {
    /// Where the last needed byte of each pack is.
    ends: HashMap<PackId, u64>,
    /// What the checkpoint's records refer to: references and bytes by pack.
    counted: HashMap<PackId, (u64, u64)>,
    /// Packs whose row in the checkpoint's pack table differs.
    wrong_rows: Vec<PackId>,
}

/// Something wrong with a pack, or with its content.
struct Flaw {
    what: String,
    /// The files that cannot be read because of it; `None`: all that refer to the pack.
    inodes: Option<Vec<InodeNo>>,
}

type Flaws = BTreeMap<PackId, Flaw>;

impl Checker<'_> {
    async fn run(&self, read_data: bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let map = Map::open(self.bucket, self.keys, self.seen, &mut report.findings).await?;
        let newest = self.seen.map_or(map.generation, |seen| seen.generation.max(map.generation));
        if newest > self.generation {
            let what = "the newest superblock is gone: an older one was put in its place (O1)";
            report.findings.push(Finding::of(format!("superblock/{newest}"), what));
        }
        report.commits = map.commits;
        report.pages = map.pages().len() as u64;
        let survey = self.survey(&map, &mut report).await?;
        report.packs = survey.ends.len() as u64;
        let mut flaws = self.listed(&survey, &mut report).await?;
        self.footers(&survey, &mut flaws, read_data).await?;
        if read_data {
            self.read_data(&map, &mut flaws).await?;
        }
        self.name(&map, flaws, &mut report).await?;
        Ok(report)
    }

    /// Walks the map once: counts, and finds what is needed of each pack.
    async fn survey(&self, map: &Map<'_>, report: &mut CheckReport) -> Result<PackTally> {
        let mut survey = PackTally::default();
        let mut impossible = Vec::new();
        let (wanted, mut history) = (self.history_of_seen(map), None);
        let bad_pages = map
            .walk(|record| {
                went_back::catch(&record, wanted.as_ref(), &mut history);
                survey.count_base(&record)?;
                let Some(now) = record.now else { return Ok(()) };
                report.inodes += u64::from(matches!(Key::decode(record.key)?, Key::Inode(_)));
                let Some(extent) = extent_of(record.key, now)? else { return Ok(()) };
                report.extents += 1;
                report.bytes = report.bytes.saturating_add(extent.length);
                let reference = &extent.reference;
                let end = reference.offset.checked_add(reference.sealed_length);
                let inside = extent.skip.checked_add(extent.length);
                match end.filter(|_| inside.is_some_and(|end| end <= reference.plain_length)) {
                    Some(end) => {
                        let needed = survey.ends.entry(reference.pack).or_default();
                        *needed = end.max(*needed);
                    }
                    None => impossible.push(reference.pack),
                }
                Ok(())
            })
            .await?;
        // A record on a page that cannot be read may still exist.
        if bad_pages.is_empty() || wanted.is_none() || history.is_some() {
            report.went_back = self.went_back(map, history).await?;
        }
        if bad_pages.is_empty() {
            for id in survey.mismatches() {
                let what = "the checkpoint's table of packs counts its references wrongly: \
                            its space must not be given back";
                report.findings.push(Finding::of(pack_object(id), what));
            }
        }
        for (page, error) in bad_pages {
            let what = format!("{error}; up to {} records (names, files) are lost", page.records);
            report.findings.push(Finding::of(page.name(), what));
        }
        for id in impossible {
            let what = "a record refers to a part of it that cannot be";
            report.findings.push(Finding::of(pack_object(id), what));
        }
        Ok(survey)
    }

    /// Compares what is needed with what the bucket lists.
    async fn listed(&self, survey: &PackTally, report: &mut CheckReport) -> Result<Flaws> {
        let mut lister = Lister::of(self.bucket, "pack/");
        let mut flaws = Flaws::new();
        let mut lengths = HashMap::with_capacity(survey.ends.len());
        let mut unused = (0, 0_u64);
        while let Some((page, _)) = lister.next().await? {
            for object in page {
                let id = object.name.rsplit('/').next().and_then(|id| id.parse().ok());
                let Some(id) = id.filter(|id| pack_object(*id) == object.name) else { continue };
                if survey.ends.contains_key(&id) {
                    lengths.insert(id, object.length);
                } else {
                    unused = (unused.0 + 1, unused.1.saturating_add(object.length));
                }
            }
        }
        for (&id, &end) in &survey.ends {
            let what = match lengths.remove(&id) {
                None => "it is missing".to_owned(),
                Some(length) if length <= end => {
                    format!("it has {length} bytes, of which {end} and a footer are needed")
                }
                Some(_) => continue,
            };
            flaws.insert(id, Flaw { what, inodes: None });
        }
        report.unused = unused;
        Ok(flaws)
    }
}

impl PackTally {
    /// Checks K3. The rows of the pack table come after all records that refer to packs.
    fn count_base(&mut self, record: &MergedRecord<'_>) -> Result<()> {
        let Some(base) = record.base else { return Ok(()) };
        if let Key::Pack(id) = Key::decode(record.key)? {
            let row: PackInfo = decode_value("packs", base)?;
            let counted = self.counted.remove(&id).unwrap_or_default();
            if counted != (row.references, row.live) {
                self.wrong_rows.push(id);
            }
        } else if let Some(extent) = extent_of(record.key, base)? {
            let row = self.counted.entry(extent.reference.pack).or_default();
            *row = (row.0 + 1, row.1.saturating_add(extent.length));
        }
        Ok(())
    }

    /// Packs whose row is wrong or missing.
    fn mismatches(&mut self) -> Vec<PackId> {
        let mut ids: Vec<_> = self.wrong_rows.drain(..).collect();
        ids.extend(self.counted.drain().map(|(id, _)| id));
        ids.sort_unstable();
        ids
    }
}
