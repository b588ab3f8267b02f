//! The disk tier: sealed byte ranges, one file each, named after the object and the range. So after a restart a listing of the
//! directory tells everything.
//!
//! Nothing here is fsynced: whoever reads a range opens its seal, and what does not open is dropped and fetched again. A
//! rename makes each file appear whole.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

use super::range_table::{CachedRange, RANGES_MAX, RangeTable};
use crate::os::{self, Buffers};
use crate::types::GIB;

/// How much more of the disk the cache leaves free than staging does, as a fraction (`PROTOCOL.md`, "Settled details"): what
/// can be fetched again gives way to what is written.
const CACHE_KEEPS: (u64, u64) = (3, 2);
/// The alignment of memory, offset and length for `O_DIRECT`: no disk asks for more (open(2)).
const DIRECT: usize = 4096;
/// Reads and writes below this go through the page cache: a second open does not pay.
const DIRECT_MIN: usize = 256 << 10;
/// The most characters of a range in a file's name: `@`, two numbers and what is between them.
const LONGEST_RANGE: usize = 2 * (1 + 20);
/// The prefix of a file that is not published yet.
const UNFINISHED: &str = "new-";

#[derive(Debug)]
pub(super) struct DiskTier {
    dir: PathBuf,
    ranges: Mutex<RangeTable>,
    /// Held from the check whether a file is still wanted until it has its name and is in the table, and while an object is
    /// forgotten. So a forgotten range does not come back. Taken before `ranges`; look-ups do not take it.
    publishing: Mutex<()>,
    next: AtomicU64,
    keep_free: u64,
    /// Buffers for what is read.
    buffers: Buffers,
}

impl DiskTier {
    /// Opens the directory, makes it if it does not exist, and lists its files.
    pub(super) fn open(dir: &Path, budget: u64) -> io::Result<Self> {
        let kept = os::space(dir).map_or(GIB, |space| os::keep_free(space.total));
        Self::open_keeping(dir, budget, kept.saturating_mul(CACHE_KEEPS.0) / CACHE_KEEPS.1)
    }

    fn open_keeping(dir: &Path, budget: u64, keep_free: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut ranges = RangeTable::new(budget);
        for (_, part) in list(dir)? {
            for gone in ranges.insert(&part) {
                remove(&dir.join(file_name(&gone)));
            }
        }
        let (dir, ranges, next) = (dir.to_owned(), Mutex::new(ranges), AtomicU64::new(0));
        let (publishing, buffers) = (Mutex::new(()), Buffers::shared());
        Ok(Self { dir, ranges, publishing, next, keep_free, buffers })
    }

    /// Whether every byte of `range` is here; the bytes may be wrong.
    pub(super) fn has(&self, object: &str, range: &Range<u64>) -> bool {
        self.ranges.lock().covers(object, range)
    }

    /// The bytes of `range`, if all are here. Local I/O, blocking.
    pub(super) fn read(&self, object: &str, range: &Range<u64>) -> Option<Bytes> {
        let parts = self.ranges.lock().cover(object, range)?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let read = match &parts[..] {
            [(part, piece)] if length >= DIRECT_MIN => self.read_past_the_page_cache(part, piece),
            _ => self.read_parts(&parts, length),
        };
        match read {
            Ok(bytes) => {
                os::ProcessTally::DiskHits.add(1);
                Some(bytes)
            }
            // Somebody deleted or cut the file, so the range is not here.
            Err(error) => {
                tracing::warn!(object, %error, "cached range is unreadable: dropped");
                self.forget(object);
                None
            }
        }
    }

    fn read_parts(&self, parts: &[(CachedRange, Range<u64>)], length: usize) -> io::Result<Bytes> {
        let mut bytes = self.buffers.take(length);
        for (part, piece) in parts {
            let file = File::open(self.dir.join(file_name(part)))?;
            bytes.push_with(length_of(piece), |place| {
                file.read_exact_at(place, piece.start - part.range.start)
            })?;
        }
        Ok(bytes.freeze())
    }

    /// Reads a large range with `O_DIRECT`. The kernel keeps what is read from the mount, decrypted; it need not keep the
    /// sealed bytes as well, or copy them.
    fn read_past_the_page_cache(
        &self,
        part: &CachedRange,
        piece: &Range<u64>,
    ) -> io::Result<Bytes> {
        let by_the_page_cache =
            || self.read_parts(&[(part.clone(), piece.clone())], length_of(piece));
        let path = self.dir.join(file_name(part));
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return by_the_page_cache();
            }
            file => file?,
        };
        // From the start of the first disk block to the end of the last.
        let (at, length) = (piece.start - part.range.start, length_of(piece));
        let begin = at / DIRECT as u64 * DIRECT as u64;
        let before = length_of(&(begin..at));
        let all = (before + length).next_multiple_of(DIRECT);
        let mut bytes = self.buffers.take(all);
        match bytes.push_with(all, |place| read_at_least(&file, before + length, place, begin)) {
            Ok(()) => Ok(bytes.freeze().slice(before..before + length)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => by_the_page_cache(),
            Err(error) => Err(error),
        }
    }

    /// All bytes of an object that was stored as a whole.
    pub(super) fn read_whole(&self, object: &str) -> Option<Bytes> {
        let part = self.ranges.lock().whole(object)?;
        self.read(object, &part.range)
    }

    /// Stores an object's bytes from `start` on. Declines when there is no room, and after an error, which is logged. Local
    /// I/O, blocking.
    pub(super) fn write(&self, object: &str, start: u64, bytes: &[u8], whole: bool) {
        self.write_if_wanted(object, start, (bytes, whole), || true);
    }

    /// As `write`, unless the object is forgotten before the file is there: `wanted` returns false from before `forget` is
    /// called.
    pub(super) fn write_if_wanted(
        &self,
        object: &str,
        start: u64,
        (bytes, whole): (&[u8], bool),
        wanted: impl Fn() -> bool,
    ) {
        let range = start..start + bytes.len() as u64;
        if bytes.is_empty()
            || !is_plain(object)
            || !wanted()
            || (!whole && self.has(object, &range))
        {
            return;
        }
        let part = CachedRange { object: Arc::from(object), range, whole };
        if !self.make_room(bytes.len() as u64) {
            return;
        }
        let unfinished =
            self.dir.join(format!("{UNFINISHED}{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let written =
            write_file(&unfinished, bytes).and_then(|()| self.publish(&unfinished, &part, wanted));
        if let Err(error) = written {
            tracing::warn!(object, %error, "not cached on disk");
            remove(&unfinished);
        }
    }

    /// Takes over a file that holds the whole object.
    pub(super) fn adopt(&self, object: &str, file: &Path) -> io::Result<()> {
        let length = fs::metadata(file)?.len();
        if length == 0 || !is_plain(object) {
            return fs::remove_file(file);
        }
        self.publish(
            file,
            &CachedRange { object: Arc::from(object), range: 0..length, whole: true },
            || true,
        )?;
        // The disk is as full as before, but staging needs room for what is written next, and only the cache can give any.
        self.make_room(0);
        Ok(())
    }

    /// Drops everything stored of an object.
    pub(super) fn forget(&self, object: &str) {
        let _nothing_comes = self.publishing.lock();
        let gone = self.ranges.lock().forget(object);
        self.remove_all(&gone);
    }

    /// Sets the budget in bytes, and evicts what exceeds it.
    pub(super) fn limit(&self, budget: u64) {
        let gone = self.ranges.lock().limit(budget);
        self.remove_all(&gone);
    }

    /// The budget in bytes.
    pub(super) fn limited_to(&self) -> u64 {
        self.ranges.lock().budget()
    }

    pub(super) fn usage(&self) -> (u64, usize) {
        let table = self.ranges.lock();
        (table.bytes(), table.count())
    }

    fn publish(
        &self,
        file: &Path,
        part: &CachedRange,
        wanted: impl Fn() -> bool,
    ) -> io::Result<()> {
        let gone = {
            let _one = self.publishing.lock();
            if !wanted() {
                return fs::remove_file(file);
            }
            // Noted after the rename: every file that the table names exists.
            fs::rename(file, self.dir.join(file_name(part)))?;
            self.ranges.lock().insert(part)
        };
        // Files that the table drops are removed after its lock is released. If the same range is published in between, its
        // file goes too; the next read finds that out and drops the range.
        self.remove_all(&gone);
        Ok(())
    }

    /// Evicts until `length` more bytes leave enough of the disk free.
    fn make_room(&self, length: u64) -> bool {
        let Ok(free) = os::free_bytes(&self.dir) else { return false };
        let mut missing = (self.keep_free + length).saturating_sub(free);
        while missing > 0 {
            let evicted = self.ranges.lock().evict();
            let Some(gone) = evicted else { return false };
            self.remove_all(&gone);
            let freed: u64 = gone.iter().map(|part| part.range.end - part.range.start).sum();
            missing = missing.saturating_sub(freed);
        }
        true
    }

    fn remove_all(&self, parts: &[CachedRange]) {
        for part in parts {
            remove(&self.dir.join(file_name(part)));
        }
    }
}

/// The range is in memory, so its length fits.
#[allow(clippy::cast_possible_truncation)]
fn length_of(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}

/// Reads into `place` until it is full or the file ends; fewer than `enough` bytes are an error.
fn read_at_least(file: &File, enough: usize, place: &mut [u8], from: u64) -> io::Result<()> {
    let mut length = 0;
    while length < enough {
        match file.read_at(&mut place[length..], from + length as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a file of `bytes`. Large ones that begin at a page boundary (`store` sees to that) bypass the page cache: the bytes
/// are in memory as long as they are needed, and copying them costs more than all else.
fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let direct = if bytes.as_ptr().align_offset(DIRECT) == 0 && bytes.len() >= DIRECT_MIN {
        bytes.len() / DIRECT * DIRECT
    } else {
        0
    };
    if direct > 0 {
        let file = options.clone().custom_flags(libc::O_DIRECT).open(path);
        match file.and_then(|mut file| file.write_all(&bytes[..direct])) {
            Ok(()) => {
                let tail = OpenOptions::new().append(true).open(path);
                return tail.and_then(|mut file| file.write_all(&bytes[direct..]));
            }
            // This file system does not support O_DIRECT, or wants another alignment.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(error),
        }
    }
    options.open(path)?.write_all(bytes)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "a cached range could not be removed");
    }
}

/// Whether an object's name may become a file name: it must not lead out of the directory, nor contain `+` or `@`, which have
/// a meaning in file names.
fn is_plain(object: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'-' | b'.');
    !object.is_empty()
        && object.len() <= 128
        && object.bytes().all(plain)
        && !object.starts_with(UNFINISHED)
}

/// `pack/ab/abcd`, bytes 0 to 99 -> `pack+ab+abcd@0-100`; `@all-100` if that is the whole object.
fn file_name(part: &CachedRange) -> String {
    let Range { start, end } = part.range;
    let mut name = String::with_capacity(part.object.len() + LONGEST_RANGE);
    name.extend(part.object.chars().map(|c| if c == '/' { '+' } else { c }));
    // Writing into a String has no errors.
    let _ = if part.whole { write!(name, "@all-{end}") } else { write!(name, "@{start}-{end}") };
    name
}

fn parse_name(name: &OsStr) -> Option<CachedRange> {
    let (object, range) = name.to_str()?.rsplit_once('@')?;
    let (start, end) = range.split_once('-')?;
    let whole = start == "all";
    let range = if whole { 0 } else { start.parse().ok()? }..end.parse().ok()?;
    let part = CachedRange { object: Arc::from(object.replace('+', "/")), range, whole };
    // Only names that this tier would give: files are removed by name.
    (part.range.start < part.range.end && is_plain(&part.object) && *name == *file_name(&part))
        .then_some(part)
}

/// The ranges in the directory, least recently used first (as far as the file system records reads: relatime does about
/// daily). Unfinished files, and those whose length does not match their name, are removed.
fn list(dir: &Path) -> io::Result<Vec<(SystemTime, CachedRange)>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        let part = parse_name(&entry.file_name()).filter(|part| {
            metadata.is_file() && metadata.len() == part.range.end - part.range.start
        });
        match part {
            // More than twice the limit is only possible if the limit was lowered; stopping there bounds memory.
            Some(part) if parts.len() < 2 * RANGES_MAX => {
                let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                parts.push((metadata.accessed().map_or(changed, |at| at.max(changed)), part));
            }
            _ if metadata.is_file() => remove(&entry.path()),
            _ => {}
        }
    }
    parts.sort_by_key(|(used, _)| *used);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path, budget: u64) -> DiskTier {
        DiskTier::open_keeping(dir, budget, 0).unwrap()
    }

    #[test]
    fn ranges_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir.path().join("cache"), 1 << 20);
        disk.write("pack/ab/abcd", 100, b"hello ", false);
        disk.write("pack/ab/abcd", 106, b"world", false);
        disk.write("log/0000000000000001", 0, b"commit", true);
        drop(disk);
        let disk = open(&dir.path().join("cache"), 1 << 20);
        assert_eq!(disk.read("pack/ab/abcd", &(102..109)).unwrap(), "llo wor");
        assert_eq!(disk.read("pack/ab/abcd", &(99..109)), None);
        assert_eq!(disk.read_whole("pack/ab/abcd"), None);
        assert_eq!(disk.read_whole("log/0000000000000001").unwrap(), "commit");
    }

    #[test]
    fn large_ranges_are_written_whole_wherever_they_lie_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir.path().join("cache"), 8 << 20);
        let memory: Vec<u8> = (0..2_u32 << 20).map(|n| (n % 251) as u8).collect();
        let aligned = memory.as_ptr().align_offset(DIRECT);
        for (n, (from, length)) in
            [(0, 1 << 20), (0, (1 << 20) + 5), (1, (1 << 20) + 5), (0, DIRECT_MIN), (0, 100)]
                .into_iter()
                .enumerate()
        {
            let (object, bytes) = (format!("pack/ab/{n}"), &memory[aligned + from..][..length]);
            disk.write(&object, 7, bytes, false);
            let read = disk.read(&object, &(7..7 + length as u64));
            assert!(read.is_some_and(|read| read == bytes), "{from} {length}");
        }
    }

    #[test]
    fn much_at_once_is_read_whole_wherever_it_lies_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir.path().join("cache"), 8 << 20);
        let bytes = crate::types::noise(1, (2 << 20) + 77);
        let (start, end) = (7, 7 + bytes.len() as u64);
        disk.write("pack/ab/0", start, &bytes, false);
        let least = DIRECT_MIN as u64;
        for range in [
            start..end,
            start..start + least,
            end - least..end,
            start + 4096..start + 4096 + least,
            start + 4095..end - 1,
            start + 1..start + least,
        ] {
            let part = &bytes[length_of(&(start..range.start))..][..length_of(&range)];
            assert!(disk.read("pack/ab/0", &range).is_some_and(|read| read == part), "{range:?}");
        }
        // Cut at the end of a block, and within one.
        for length in [1 << 20, (1 << 20) + 5] {
            disk.write("pack/ab/1", 0, &bytes, false);
            let file = dir.path().join(format!("cache/pack+ab+1@0-{}", bytes.len()));
            File::options().write(true).open(file).unwrap().set_len(length).unwrap();
            assert!(disk.read("pack/ab/1", &(length - least..length)).is_some());
            assert_eq!(disk.read("pack/ab/1", &(length + 1 - least..length + 1)), None);
            assert!(!disk.has("pack/ab/1", &(0..1)), "dropped");
        }
    }

    #[test]
    fn files_are_private_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let disk = open(&cache, 1 << 20);
        disk.write("pack/ab/abcd", 0, b"hello", false);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache), 0o700);
        assert_eq!(mode(&cache.join("pack+ab+abcd@0-5")), 0o600);
        fs::write(cache.join("new-0"), "half").unwrap();
        fs::write(cache.join("pack+ab+abcd@7-99"), "too short").unwrap();
        fs::write(cache.join("pack+ab+..@0-1"), "x").unwrap();
        let disk = open(&cache, 1 << 20);
        assert!(!cache.join("new-0").exists() && !cache.join("pack+ab+abcd@7-99").exists());
        assert!(disk.has("pack/ab/abcd", &(0..5)));
        assert!(!disk.has("pack/ab/abcd", &(7..99)));
    }

    #[test]
    fn a_lower_limit_holds_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let tier = open(dir.path(), 100_000);
        for n in 0..5 {
            tier.write(&format!("pack/{n}"), 0, &[1; 16_000], false);
        }
        assert_eq!(tier.usage().1, 5);
        tier.limit(40_000);
        assert_eq!((tier.usage().1, fs::read_dir(dir.path()).unwrap().count()), (2, 2));
        assert!(tier.has("pack/4", &(0..16_000)), "the last used stays");
    }

    #[test]
    fn the_budget_holds_also_after_a_restart_with_less() {
        let dir = tempfile::tempdir().unwrap();
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let disk = open(dir.path(), 10 * 4096);
        for n in 0..30 {
            disk.write(&format!("pack/00/{n}"), 0, &[1; 4000], true);
        }
        assert_eq!((files(), disk.usage()), (10, (10 * 4096, 10)));
        assert!(disk.has("pack/00/29", &(0..4000)) && !disk.has("pack/00/19", &(0..4000)));
        let disk = open(dir.path(), 3 * 4096);
        assert_eq!((files(), disk.usage()), (3, (3 * 4096, 3)));
    }

    #[test]
    fn a_staged_pack_is_adopted_and_covers_its_ranges() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir.path().join("cache"), 1 << 20);
        disk.write("pack/ab/abcd", 2, b"llo", false);
        let staged = dir.path().join("staged");
        fs::write(&staged, b"hello world").unwrap();
        disk.adopt("pack/ab/abcd", &staged).unwrap();
        assert!(!staged.exists());
        assert_eq!(disk.read_whole("pack/ab/abcd").unwrap(), "hello world");
        assert_eq!(disk.usage(), (4096, 1));
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), 1);
    }

    #[test]
    fn what_somebody_deleted_or_cut_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(dir.path(), 1 << 20);
        disk.write("pack/ab/abcd", 0, b"hello", false);
        fs::write(dir.path().join("pack+ab+abcd@0-5"), "he").unwrap();
        assert_eq!(disk.read("pack/ab/abcd", &(0..5)), None);
        assert!(!disk.has("pack/ab/abcd", &(0..1)));
    }

    #[test]
    fn a_full_disk_gets_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskTier::open_keeping(dir.path(), 1 << 20, u64::MAX / 2).unwrap();
        disk.write("pack/ab/abcd", 0, b"hello", false);
        assert!(!disk.has("pack/ab/abcd", &(0..5)));
    }

    #[test]
    fn what_was_sent_gives_way_on_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk =
            DiskTier::open_keeping(&dir.path().join("cache"), 1 << 20, u64::MAX / 2).unwrap();
        let staged = dir.path().join("staged");
        fs::write(&staged, b"hello world").unwrap();
        disk.adopt("pack/ab/abcd", &staged).unwrap();
        assert!(!staged.exists() && !disk.has("pack/ab/abcd", &(0..1)));
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), 0);
    }

    #[test]
    fn names_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir.path().join("cache"), 1 << 20);
        for object in ["", "../x", "a+b", "a@0-1", "a b", "ä", "new-7", &"a".repeat(129)] {
            disk.write(object, 0, b"hello", true);
        }
        // ".." is only ever part of one flat name.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(fs::read_dir(dir.path().join("cache")).unwrap().count() <= 1);
    }
}
