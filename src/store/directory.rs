//! A directory as a store: each object a file, each put atomic and synced.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use super::error::{Error, Result};
use super::object::{
    Begin, Body, Fetched, HeadReply, Listed, Listing, OBJECT_MAX, Put, PutReply, Store,
};
use crate::os;

/// Where files are written before they get their names; no object's name begins so.
const TEMPORARY: &str = ".tmp";

/// Nobody writes a temporary file any more that is older than this.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Objects of one page of a listing: S3's number.
const PAGE: usize = 1000;

/// A directory as a store.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

impl DirectoryStore {
    /// Opens a directory, and makes it (0700) if it is not there.
    pub async fn open(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        blocking("", move || {
            let bucket = root.display().to_string();
            let temporary = root.join(TEMPORARY);
            make_directories(&temporary).map_err(|cause| match cause.kind() {
                io::ErrorKind::PermissionDenied => denied(&bucket, cause),
                _ => Error::NoBucket { bucket, cause: Arc::new(cause) },
            })?;
            sweep(&temporary);
            Ok(Self { root })
        })
        .await
    }

    /// The file of an object. A name is made of segments that cannot leave the directory.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let sound = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.len() <= 255
                && segment.bytes().all(|byte| byte > b' ' && byte != 0x7f)
        };
        if name.len() > 1024 || !name.split('/').all(sound) {
            return Err(Error::Unsupported { what: format!("an object named {name:?}") });
        }
        Ok(self.root.join(name))
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        let (root, path, body) = (self.root.clone(), self.path(name)?, body.clone());
        let object = name.to_owned();
        blocking(name, move || {
            write(&root, &path, &body, condition).map_err(|cause| failed(&object, cause))?;
            body.moved().add(body.length());
            Ok(PutReply { time: SystemTime::now(), crc32: Some(body.crc32()), etag: None })
        })
        .await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let (path, object) = (self.path(name)?, name.to_owned());
        blocking(name, move || {
            let (bytes, object_length) =
                read(&path, range).map_err(|cause| failed(&object, cause))?;
            Ok(Fetched { bytes, object_length, time: SystemTime::now() })
        })
        .await
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        let (path, object) = (self.path(name)?, name.to_owned());
        blocking(name, move || {
            let found = fs::metadata(&path).and_then(|found| {
                if found.is_file() { Ok(found) } else { Err(io::ErrorKind::NotFound.into()) }
            });
            let found = found.map_err(|cause| failed(&object, cause))?;
            Ok(HeadReply {
                length: found.len(),
                modified: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                crc32: None,
                etag: None,
                time: SystemTime::now(),
            })
        })
        .await
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let after = begin.word().unwrap_or_default().to_owned();
        let time = SystemTime::now();
        blocking("", move || {
            let mut walk = ListingWalk { prefix: &prefix, after: &after, found: Vec::new() };
            walk.directory(&root, "").map_err(|cause| failed(&prefix, cause))?;
            let mut objects = walk.found;
            let more = (objects.len() > PAGE).then(|| Begin::Token(objects[PAGE - 1].name.clone()));
            objects.truncate(PAGE);
            Ok(Listing { objects, more, time })
        })
        .await
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        let paths: Result<Vec<_>> =
            names.iter().map(|name| Ok((name.clone(), self.path(name)?))).collect();
        let paths = paths?;
        blocking("", move || {
            for (name, path) in paths {
                match fs::remove_file(&path) {
                    // A directory of that name is no object.
                    Err(cause) if cause.kind() == io::ErrorKind::IsADirectory => {}
                    Err(cause) if !is_absent(&cause) => return Err(failed(&name, cause)),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

/// Runs file operations on a thread where they may block.
async fn blocking<T: Send + 'static>(
    object: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Error::Other { object: object.to_owned(), cause: Arc::new(panic) })
    })
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn denied(object: &str, cause: io::Error) -> Error {
    Error::Denied { object: object.to_owned(), cause: Arc::new(cause) }
}

fn failed(object: &str, cause: io::Error) -> Error {
    let object = object.to_owned();
    match cause.kind() {
        _ if is_absent(&cause) => Error::NotFound { object },
        io::ErrorKind::AlreadyExists => Error::Exists { object },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            denied(&object, cause)
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { object, cause: Arc::new(cause) }
        }
        _ => Error::Other { object, cause: Arc::new(cause) },
    }
}

/// Makes a directory and what is missing above it, and syncs each entry.
fn make_directories(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if path.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or(error)?;
            make_directories(parent)?;
            make_directories(path)
        }
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes what crashed writers left.
fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|found| found.modified()).map(|time| time.elapsed());
        if matches!(age, Ok(Ok(age)) if age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes and syncs a file beside its place, gives it its name in one step, and syncs the directory.
fn write(root: &Path, path: &Path, body: &Body, condition: Put) -> io::Result<()> {
    let parent = path.parent().unwrap_or(root);
    // Cheap, and saves the writing: the link below is what decides.
    if condition == Put::IfAbsent && fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let count = COUNT.fetch_add(1, Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unique = format!("{}-{:x}-{count}", std::process::id(), now.as_nanos());
    let temporary = root.join(TEMPORARY).join(unique);
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(body.bytes())?;
        file.sync_all()?;
        if !parent.is_dir() {
            make_directories(parent)?;
        }
        match condition {
            Put::IfAbsent => name_if_absent(&temporary, path),
            Put::Always => fs::rename(&temporary, path),
        }
    })();
    // After a rename it is gone already.
    let _ = fs::remove_file(&temporary);
    written?;
    sync_directory(parent)
}

/// Gives a file its name unless something has it: by link(2), or where the file system has no hard links by
/// `RENAME_NOREPLACE`.
fn name_if_absent(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK)
            ) => {}
        done => return done,
    }
    os::rename_if_absent(temporary, path)
}

/// The file's bytes, or those of them that the range covers, and its length.
#[allow(clippy::cast_possible_truncation, reason = "checked against OBJECT_MAX")]
fn read(path: &Path, range: Option<Range<u64>>) -> io::Result<(Bytes, u64)> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let length = found.size();
    let range = range.unwrap_or(0..length);
    let end = range.end.min(length);
    let count = end.saturating_sub(range.start);
    if count > OBJECT_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any object"));
    }
    let mut bytes = vec![0; count as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok((bytes.into(), length))
}

/// Collects the objects after `after` whose names begin with `prefix`, in order, one more than a page has.
struct ListingWalk<'a> {
    prefix: &'a str,
    after: &'a str,
    found: Vec<Listed>,
}

impl ListingWalk<'_> {
    fn directory(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            // Deleted while the walk was on its way.
            Err(error) if is_absent(&error) && !name.is_empty() => return Ok(()),
            entries => entries?,
        };
        let mut here = Vec::new();
        for entry in entries {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(segment) = readable(&file_name) else { continue };
            let kind = entry.file_type()?;
            // A directory's objects all begin with its name and a slash: so its place in the order
            // is that of this string.
            let slash = if kind.is_dir() { "/" } else { "" };
            let full = format!("{name}{segment}{slash}");
            if (kind.is_dir() || kind.is_file()) && self.may_hold(&full, kind.is_dir()) {
                here.push((full, entry.path()));
            }
        }
        here.sort_unstable();
        for (full, path) in here {
            if self.found.len() > PAGE {
                return Ok(());
            }
            if full.ends_with('/') {
                self.directory(&path, &full)?;
                continue;
            }
            match fs::metadata(&path) {
                Ok(found) => self.found.push(Listed {
                    name: full,
                    length: found.len(),
                    modified: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                }),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn may_hold(&self, full: &str, is_directory: bool) -> bool {
        if !is_directory {
            return full.starts_with(self.prefix) && full > self.after;
        }
        let in_prefix = full.starts_with(self.prefix) || self.prefix.starts_with(full);
        in_prefix && (full > self.after || self.after.starts_with(full))
    }
}

/// A segment of an object's name; `None` for what is none.
fn readable(file_name: &OsStr) -> Option<&str> {
    file_name.to_str().filter(|segment| !segment.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open() -> (tempfile::TempDir, DirectoryStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(&directory.path().join("a/b")).await.unwrap();
        (directory, store)
    }

    #[tokio::test]
    async fn passes_the_suite() {
        let (_directory, store) = open().await;
        super::super::conformance::run(&store, "").await.assert_passed();
    }

    #[tokio::test]
    async fn no_name_leaves_the_directory() {
        let (directory, store) = open().await;
        fs::write(directory.path().join("a/secret"), "x").unwrap();
        let long = "x".repeat(256);
        for name in [
            "../secret",
            "/etc/passwd",
            "a/../../secret",
            ".tmp/x",
            "",
            "a//b",
            "a/",
            "a\0b",
            &long,
        ] {
            let put = store.put(name, &Body::from("y"), Put::Always).await;
            assert!(matches!(put, Err(Error::Unsupported { .. })), "{name:?}: {put:?}");
            let got = store.get(name, None).await;
            assert!(matches!(got, Err(Error::Unsupported { .. })), "{name:?}: {got:?}");
        }
        assert_eq!(fs::read(directory.path().join("a/secret")).unwrap(), b"x");
    }

    #[tokio::test]
    async fn neither_a_temporary_file_nor_a_stranger_is_an_object() {
        let (directory, store) = open().await;
        let root = directory.path().join("a/b");
        fs::write(root.join(".tmp/left"), "half").unwrap();
        fs::write(root.join(".hidden"), "x").unwrap();
        store.put("log/1", &Body::from("x"), Put::IfAbsent).await.unwrap();
        let page = store.list("", &Begin::First).await.unwrap();
        let names: Vec<_> = page.objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(names, ["log/1"]);
        assert_eq!(fs::read_dir(root.join(".tmp")).unwrap().count(), 1, "no other is left");
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_no_bucket() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "x").unwrap();
        let opened = DirectoryStore::open(&directory.path().join("file/vault")).await;
        assert!(matches!(opened, Err(Error::NoBucket { .. })), "{opened:?}");
    }
}
