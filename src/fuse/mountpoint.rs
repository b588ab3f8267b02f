//! Mountpoints: preparing one, cleaning up a dead mount, unmounting.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use crate::os;

use super::{Error, Result, helper};

/// What [`prepare`] had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The directory was made.
    pub made: bool,
    /// A mount whose daemon had died was cleaned up.
    pub cleaned: bool,
}

/// Makes `path` ready to be mounted on: creates it if missing, and removes a mount whose daemon has died.
pub fn prepare(path: &Path) -> Result<Prepared> {
    let failed = |cause| Error::Mountpoint { path: path.to_owned(), cause };
    let mut prepared = Prepared::default();
    if os::is_dead_mount(path) {
        detach(path)?;
        prepared.cleaned = true;
    }
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(failed)?;
            prepared.made = true;
            fs::metadata(path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    if !metadata.is_dir() {
        return Err(Error::NotDirectory(path.to_owned()));
    }
    if let Some(mount) = os::mounted_at(path).map_err(failed)? {
        let what = format!("{} of type {}", mount.source, mount.kind);
        return Err(Error::InUse { path: path.to_owned(), what });
    }
    if fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(Error::NotEmpty(path.to_owned()));
    }
    Ok(prepared)
}

/// Unmounts what is mounted at `path`. The caller has made sure that it is the right mount.
pub fn unmount(path: &Path) -> Result<()> {
    run(path, false, &["-u"])
}

/// Takes a mount out of the tree even while it is in use, and (as root) ends its connection, so that waiting requests
/// fail. Files that are open keep failing until they are closed.
pub fn detach(path: &Path) -> Result<()> {
    run(path, true, &["-u", "-z"])
}

fn run(path: &Path, force: bool, fusermount: &[&str]) -> Result<()> {
    use io::ErrorKind::{NotFound, PermissionDenied};
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::ResourceBusy => Error::Busy(path.to_owned()),
        _ => Error::Unmount { path: path.to_owned(), cause },
    };
    match os::unmount(path, force) {
        Err(error) if error.kind() == PermissionDenied => {}
        done => return done.map_err(failed),
    }
    // Without root, ask the helper that mounted it.
    let ask = |program: &str| {
        let mut command = Command::new(program);
        command.args(fusermount).arg("--").arg(path);
        helper::run(&mut command, helper::LIMIT)
    };
    let output = match ask("fusermount3") {
        // It is not in this PATH. fuser, which mounted it, looks here too.
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => {
            ask("/bin/fusermount3")
        }
        asked => asked,
    };
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") {
        return Err(Error::Busy(path.to_owned()));
    }
    Err(failed(io::Error::other(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mountpoint_is_made_and_a_full_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("a/b");
        assert_eq!(prepare(&missing).unwrap(), Prepared { made: true, cleaned: false });
        assert_eq!(prepare(&missing).unwrap(), Prepared::default());
        assert!(matches!(prepare(dir.path()), Err(Error::NotEmpty(_))));
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(prepare(&file), Err(Error::NotDirectory(_))));
        assert!(matches!(prepare(Path::new("/proc")), Err(Error::InUse { .. })));
    }
}
