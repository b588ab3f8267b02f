//! What a file system error means for a request to the store.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::error::Error;
use super::object_file::{TEMPORARY, is_absent};

/// The error of a request that failed with a file system error. A missing file says something about the object only if the
/// store itself is there.
pub(super) fn failed(root: &Path, object: &str, cause: io::Error) -> Error {
    let name = object.to_owned();
    match cause.kind() {
        _ if is_absent(&cause) => {
            check_there(root, object).err().unwrap_or(Error::NotFound { object: name })
        }
        _ if is_gone(&cause) => Error::Unreachable { object: name, cause: Arc::new(cause) },
        io::ErrorKind::AlreadyExists => Error::Exists { object: name },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            denied(object, cause)
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { object: name, cause: Arc::new(cause) }
        }
        io::ErrorKind::InvalidData => Error::Corrupt { object: name, reason: cause.to_string() },
        _ => Error::Other { object: name, cause: Arc::new(cause) },
    }
}

pub(super) fn denied(object: &str, cause: io::Error) -> Error {
    Error::Denied { object: object.to_owned(), cause: Arc::new(cause) }
}

/// An error if the store's directory is missing, for example because its disk is not mounted. Every opened store has a
/// directory of temporary files; an empty mountpoint has none.
pub(super) fn check_there(root: &Path, object: &str) -> Result<(), Error> {
    match root.join(TEMPORARY).metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        // If it cannot be examined, the error of the request itself says why.
        Err(cause) if !is_absent(&cause) => return Ok(()),
        _ => {}
    }
    let what = format!("there is no store at {} just now: is its disk mounted?", root.display());
    let cause = io::Error::new(io::ErrorKind::NotFound, what);
    Err(Error::Unreachable { object: object.to_owned(), cause: Arc::new(cause) })
}

/// Whether the device under the directory has gone, such as a disk that was pulled out or a server that ended.
fn is_gone(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(
            libc::ENODEV
                | libc::ENXIO
                | libc::ENOTCONN
                | libc::ESTALE
                | libc::ETIMEDOUT
                | libc::ESHUTDOWN
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::object::{Begin, Body, Put, Store};
    use super::super::DirectoryStore;
    use super::super::object_file::ObjectFile;
    use super::*;

    fn is_unreachable<T: std::fmt::Debug>(result: Result<T, Error>) {
        assert!(matches!(result, Err(Error::Unreachable { .. })), "{result:?}");
    }

    /// No answer from a store whose disk is not mounted says anything about its objects.
    async fn answers_as_one_that_is_away(store: &DirectoryStore) {
        is_unreachable(store.get("log/1", None).await);
        is_unreachable(store.head("log/1").await);
        is_unreachable(store.list("", &Begin::First).await);
        is_unreachable(store.list("log/", &Begin::First).await);
        is_unreachable(store.delete(&["log/1".to_owned()]).await);
        for condition in [Put::IfAbsent, Put::Always] {
            is_unreachable(store.put("log/2", &Body::from("y"), condition).await);
        }
    }

    /// A put that was under way does not create a store there.
    fn finish_finds_none(mut begun: ObjectFile, root: &Path) {
        let ended = begun.finish(root, &root.join("log/2"), 0, Put::Always);
        is_unreachable(ended.map_err(|cause| failed(root, "log/2", cause)));
        assert!(!root.exists());
    }

    #[tokio::test]
    async fn a_store_that_is_away_cannot_be_reached_and_its_objects_are_there_again_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let (root, away) = (directory.path().join("disk/store"), directory.path().join("away"));
        let store = DirectoryStore::open(&root).await.unwrap();
        store.put("log/1", &Body::from("x"), Put::IfAbsent).await.unwrap();
        let begun = ObjectFile::begin(&root).unwrap();
        fs::rename(&root, &away).unwrap();
        answers_as_one_that_is_away(&store).await;
        finish_finds_none(begun, &root);
        // The place where a disk is to be mounted.
        fs::create_dir(&root).unwrap();
        answers_as_one_that_is_away(&store).await;
        fs::remove_dir(&root).unwrap();
        fs::rename(&away, &root).unwrap();
        assert_eq!(store.get("log/1", None).await.unwrap().bytes, b"x"[..]);
        let absent = store.get("log/2", None).await;
        assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
    }

    #[test]
    fn a_server_that_ended_cannot_be_reached() {
        let root = tempfile::tempdir().unwrap();
        for errno in [libc::ENOTCONN, libc::ESTALE, libc::ENODEV, libc::ETIMEDOUT] {
            let error = failed(root.path(), "x", io::Error::from_raw_os_error(errno));
            assert!(matches!(error, Error::Unreachable { .. }), "{errno}: {error:?}");
        }
    }
}
