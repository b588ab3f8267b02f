//! Names the files that a finding is about, by their paths.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::findings::printable;
use super::map::Map;
use super::{CheckReport, Checker, Finding, Flaws, Result};
use crate::records::{Entry, Key, decode_value};
use crate::types::{InodeNo, PackId};
use crate::upload::pack_object;

/// How many directories are held in memory to build paths; in a vault with more, some paths begin
/// with `.../`.
const DIRECTORIES: usize = 1_000_000;
/// How many files are named at most, in all.
const NAMED: usize = 1000;

/// A name, and the directory that it is in.
type ParentName = (InodeNo, Vec<u8>);

impl Checker<'_> {
    /// Turns flaws into findings: how many files each is about, and which.
    pub(super) async fn name(
        &self,
        map: &Map<'_>,
        flaws: Flaws,
        report: &mut CheckReport,
    ) -> Result<()> {
        if flaws.is_empty() {
            return Ok(());
        }
        let suffering = suffering(map, &flaws).await?;
        let wanted = suffering.values().flatten().copied().take(NAMED).collect();
        let places = places(map, &wanted).await?;
        for (id, flaw) in flaws {
            let inodes = suffering.get(&id).cloned().unwrap_or_default();
            let files = inodes.iter().filter_map(|ino| Some(printable(&path(*ino, &places)?)));
            let mut files: Vec<_> = files.take(NAMED).collect();
            files.sort();
            let inodes = inodes.len() as u64;
            report.findings.push(Finding {
                object: pack_object(id),
                what: flaw.what,
                inodes,
                files,
            });
        }
        Ok(())
    }
}

/// The files that each flaw is about.
async fn suffering(map: &Map<'_>, flaws: &Flaws) -> Result<HashMap<PackId, BTreeSet<InodeNo>>> {
    let mut found: HashMap<PackId, BTreeSet<InodeNo>> = HashMap::new();
    for (id, flaw) in flaws {
        if let Some(inodes) = &flaw.inodes {
            found.entry(*id).or_default().extend(inodes);
        }
    }
    if flaws.values().all(|flaw| flaw.inodes.is_some()) {
        return Ok(found);
    }
    map.walk(|record| {
        let Some((ino, extent)) = record.extent()? else { return Ok(()) };
        let pack = extent.reference.pack;
        if flaws.get(&pack).is_some_and(|flaw| flaw.inodes.is_none()) {
            found.entry(pack).or_default().insert(ino);
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Where the wanted files and all directories are.
async fn places(map: &Map<'_>, wanted: &HashSet<InodeNo>) -> Result<HashMap<InodeNo, ParentName>> {
    let (mut places, mut directories) = (HashMap::new(), 0);
    if wanted.is_empty() {
        return Ok(places);
    }
    map.walk(|record| {
        let (Key::Entry(parent, _), Some(now)) = (Key::decode(record.key)?, record.now) else {
            return Ok(());
        };
        let entry: Entry = decode_value("entry", now)?;
        let directory = entry.kind == libc::S_IFDIR && directories < DIRECTORIES;
        directories += usize::from(directory);
        if directory || wanted.contains(&entry.ino) {
            places.insert(entry.ino, (parent, entry.name));
        }
        Ok(())
    })
    .await?;
    Ok(places)
}

fn path(ino: InodeNo, places: &HashMap<InodeNo, ParentName>) -> Option<Vec<u8>> {
    let (mut parent, mut path) = places.get(&ino).cloned()?;
    // Deeper than any path: a cycle would be a damaged map.
    for _ in 0..4096 {
        if parent == InodeNo::ROOT {
            return Some(path);
        }
        let Some((next, name)) = places.get(&parent) else { break };
        path = [name, &b"/"[..], &path].concat();
        parent = *next;
    }
    Some([&b".../"[..], &path].concat())
}
