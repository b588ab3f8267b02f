//! A directory as a store: each object is a file, each put is atomic and synced.

mod failure;
mod listing;
mod object_file;
mod slow_put;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use self::failure::{check_there, denied, failed};
use self::object_file::{TEMPORARY, is_absent, make_directories, read, sweep, write};
use self::slow_put::SlowPut;
use super::error::{Error, Result};
use super::line::RequestContext;
use super::object::{Begin, Body, Fetched, HeadReply, Listing, Put, PutReply, Store};
use super::pace::StorePace;

/// A directory as a store.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    pace: Arc<StorePace>,
}

impl DirectoryStore {
    /// Opens a directory, and makes it (0700) if it does not exist.
    pub async fn open(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        blocking("", move || {
            let bucket = root.display().to_string();
            let temporary = root.join(TEMPORARY);
            make_directories(&temporary, Path::new("")).map_err(|cause| match cause.kind() {
                io::ErrorKind::PermissionDenied => denied(&bucket, cause),
                _ => Error::NoBucket { bucket, cause: Arc::new(cause) },
            })?;
            sweep(&temporary);
            Ok(Self { root, pace: Arc::default() })
        })
        .await
    }

    /// The same store, limited by `pace`.
    pub(super) fn paced_by(self, pace: &Arc<StorePace>) -> Self {
        Self { pace: pace.clone(), ..self }
    }

    /// The file of an object. Its name must consist of segments that cannot leave the directory.
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
        if self.pace.up.piece().is_some() {
            let slow = SlowPut { root, path, body, condition };
            slow.put(&self.pace.up).await.map_err(|cause| failed(&self.root, &object, cause))?;
            return Ok(slow.reply());
        }
        blocking(name, move || {
            write(&root, &path, &body, condition).map_err(|cause| failed(&root, &object, cause))?;
            body.moved().add(body.length());
            Ok(PutReply { time: SystemTime::now(), crc32: Some(body.crc32()), etag: None })
        })
        .await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let (root, path, object) = (self.root.clone(), self.path(name)?, name.to_owned());
        let fetched = blocking(name, move || {
            let (bytes, object_length) =
                read(&path, range).map_err(|cause| failed(&root, &object, cause))?;
            Ok(Fetched { bytes, object_length, time: SystemTime::now() })
        })
        .await?;
        let length = fetched.bytes.len() as u64;
        self.pace.down.pass_all(length, &RequestContext::current()).await;
        Ok(fetched)
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        let (root, path, object) = (self.root.clone(), self.path(name)?, name.to_owned());
        blocking(name, move || {
            let found = fs::metadata(&path).and_then(|found| {
                if found.is_file() { Ok(found) } else { Err(io::ErrorKind::NotFound.into()) }
            });
            let found = found.map_err(|cause| failed(&root, &object, cause))?;
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
            let page = listing::page(&root, &prefix, &after);
            let (objects, more) = page.map_err(|cause| failed(&root, &prefix, cause))?;
            check_there(&root, &prefix)?;
            Ok(Listing { objects, more, time })
        })
        .await
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        let paths: Result<Vec<_>> =
            names.iter().map(|name| Ok((name.clone(), self.path(name)?))).collect();
        let (root, paths) = (self.root.clone(), paths?);
        blocking("", move || {
            for (name, path) in paths {
                match fs::remove_file(&path) {
                    // A directory of that name is not an object.
                    Err(cause) if cause.kind() == io::ErrorKind::IsADirectory => {}
                    Err(cause) if is_absent(&cause) => check_there(&root, &name)?,
                    deleted => deleted.map_err(|cause| failed(&root, &name, cause))?,
                }
            }
            Ok(())
        })
        .await
    }
}

/// Runs file operations on a thread that may block.
async fn blocking<T: Send + 'static>(
    object: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Error::Other { object: object.to_owned(), cause: Arc::new(panic) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_longer_than_any_object_is_damage_as_it_is_on_s3() {
        let (directory, store) = open().await;
        let file = std::fs::File::create(directory.path().join("a/b/hole")).unwrap();
        file.set_len(5 << 30).unwrap();
        let read = store.get("hole", None).await;
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
        assert_eq!(store.get("hole", Some(7..9)).await.unwrap().bytes, [0; 2][..]);
    }

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
