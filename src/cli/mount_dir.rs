//! The mountpoint before a mount: checks whether it can be used, and prepares it.

use std::io;
use std::path::Path;

use super::doctor::{Places, cannot_mount};
use super::exit::{CliResult, Exit, Failure};
use super::messages;
use crate::fuse::mountpoint;
use crate::os::{self, MountInfo};

pub(super) use crate::fuse::mountpoint::{detach, unmount};

/// The file system type of our mounts.
const KIND: &str = "fuse.s3vault";

/// The topmost mount at `path`, if it is one of ours.
pub(super) fn ours_at(path: &Path) -> Option<MountInfo> {
    os::mounted_at(path).ok().flatten().filter(|mount| mount.kind == KIND)
}

/// Refuses a mount that is sure to fail, before anything is made for it.
pub(super) fn can_mount() -> CliResult {
    let places = Places::of_this_machine(os::effective_ids().0 == 0);
    let Some(why) = cannot_mount(&places) else { return Ok(()) };
    let text = format!(
        "this machine cannot mount: {}: {}; nothing was made or changed; {} (without a mount: s3vault put, get, ls, serve)",
        why.what, why.text, why.mend
    );
    Err(Failure::new(Exit::Fuse, text))
}

/// Cleans up a dead mount at `path` and says so; then checks whether the directory can be mounted at. Changes nothing
/// else. A missing directory is fine, since [`make`] makes it.
pub(super) fn look(path: &Path) -> CliResult {
    let shown = path.display();
    if os::is_dead_mount(path) {
        detach(path).map_err(|error| {
            let why = format!(
                "{shown} is a dead mount (its daemon is gone) that cannot be cleaned up ({error}); no data \
                 is lost; run \
                 `fusermount3 -u -z {shown}` as the user that mounted it"
            );
            Failure::new(Exit::Mountpoint, why)
        })?;
        complain!("Cleaned up a dead mount at {shown}.");
    }
    if os::effective_ids().0 != 0 && os::is_immutable(path) {
        let why = format!(
            "{shown} is protected (immutable), and fusermount3 mounts nothing there for other users than root; mount as \
             root, or, as root: chattr -i {shown}"
        );
        return Err(Failure::new(Exit::Mountpoint, why));
    }
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => make(path),
    }
}

/// Makes the directory if it is missing, and checks that it can be mounted at.
pub(super) fn make(path: &Path) -> CliResult {
    mountpoint::prepare(path).map(drop).map_err(|error| messages::of_fuse(&error))
}

/// Makes the empty directory immutable, so that writes while nothing is mounted fail (a backup that finds no mount
/// would fill the root disk). It stays immutable, since that is the point. If that is not possible the mount is
/// refused: a user who relies on it would otherwise learn of that from a full disk.
pub(super) fn protect(path: &Path) -> CliResult {
    let shown = path.display();
    let refused = |why: &str, way_out: &str| {
        let text = format!("{shown} cannot be protected: {why}; nothing is mounted; {way_out}");
        Err(Failure::new(Exit::Mountpoint, text))
    };
    if os::effective_ids().0 != 0 {
        return refused(
            "only root can make a directory immutable, and fusermount3 mounts nothing for other users at one that is",
            "mount without --protect, or as root (with --allow-other for other users)",
        );
    }
    match os::make_immutable(path) {
        Ok(()) => {
            say!(
                "{shown} itself takes no files now; to undo, while nothing is mounted there: chattr -i {shown}"
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused(
            &format!("root may not make it immutable here ({error})"),
            "give the container CAP_LINUX_IMMUTABLE, or mount without --protect",
        ),
        Err(error) => refused(
            &format!("its file system has no immutable directories ({error})"),
            "mount without --protect, or at a directory on ext4, XFS or Btrfs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_makes_nothing_and_what_is_unfit_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/vault");
        look(&path).unwrap();
        assert!(!path.exists());
        make(&path).unwrap();
        look(&path).unwrap();
        std::fs::write(path.join("file"), "kept").unwrap();
        for unfit in [&path, &path.join("file"), Path::new("/proc")] {
            assert_eq!(look(unfit).unwrap_err().exit, Exit::Mountpoint, "{}", unfit.display());
        }
        assert_eq!(make(&path.join("file/under")).unwrap_err().exit, Exit::Mountpoint);
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"kept");
    }
}
