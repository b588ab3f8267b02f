//! The state directories of mounts of the past: `at/<n>` in the vault's own directory, one per mount, removed with the
//! mount.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::daemon::logfile;
use super::exit::{CliResult, Exit, Failure};
use crate::os::make_private;
use crate::vault;

/// The most of them per vault; more would be a mistake.
const MOST: u32 = 1000;
/// A directory this old that nobody has locked was left by a killed daemon; a younger one may be about to be locked.
const LEFT: Duration = Duration::from_mins(10);

/// Makes a directory for a new mount, and removes those that were left behind.
pub(super) fn make(vault_dir: &Path) -> CliResult<PathBuf> {
    let all = vault_dir.join("at");
    let failed = |error| Failure::io(format_args!("{} cannot be made", all.display()), &error);
    make_private(&all).map_err(failed)?;
    remove_left(&all);
    for number in 1..=MOST {
        let dir = all.join(number.to_string());
        match fs::create_dir(&dir) {
            Ok(()) => {
                make_private(&dir).map_err(failed)?;
                return Ok(dir);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let text = format!("{MOST} mounts of the past are in {}; unmount some", all.display());
    Err(Failure::new(Exit::MountedAlready, text))
}

/// Removes the directory of a mount that has ended. If that fails, a later [`make`] removes it.
pub(super) fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(%error, "the directory of this mount is not removed");
    }
}

/// Removes everything except the log from the directory of a failed mount. A later [`make`] removes the rest.
pub(super) fn keep_log(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        let is_log = entry.file_name().as_encoded_bytes().starts_with(logfile::NAME.as_bytes());
        let removed = match is_dir {
            _ if is_log => Ok(()),
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "something of this mount is not removed");
        }
    }
}

fn remove_left(all: &Path) {
    let Ok(entries) = fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let changed = entry.metadata().and_then(|found| found.modified());
        let age = changed.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        if age > LEFT && !vault::is_held(&entry.path()) {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_its_own_and_what_was_left_goes_once_it_is_old() {
        let home = tempfile::tempdir().unwrap();
        let first = make(home.path()).unwrap();
        let second = make(home.path()).unwrap();
        assert_eq!(
            (first.file_name().unwrap(), second.file_name().unwrap()),
            ("1".as_ref(), "2".as_ref())
        );
        remove(&first);
        assert_eq!(make(home.path()).unwrap(), first);
        let long_ago = std::time::SystemTime::now() - Duration::from_hours(1);
        let held = crate::os::try_lock(&second.join("lock")).unwrap();
        for dir in [&first, &second] {
            fs::File::open(dir).unwrap().set_modified(long_ago).unwrap();
        }
        make(home.path()).unwrap();
        assert!(second.exists(), "it is held");
        drop(held);
        fs::File::open(&second).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(make(home.path()).unwrap(), second, "nobody holds it any more");
    }
}
