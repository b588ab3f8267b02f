//! Mounting, and the end of a mount.
//!
//! fuser's own unmounting is not used. It mistakes a mount that somebody else has ended for one that is still there,
//! and may then unmount *another* file system at that path; on a busy mount it gives up its handle.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::dispatch::Dispatch;
use super::filesystem::VaultFs;
use super::shown::ShownAs;
use super::snapshot_states::{SnapshotStates, Snapshots};
use super::{Error, Result, helper, mountpoint, notify};
use crate::os;
use crate::types::KIB;
use crate::vfs::Vfs;

/// The type that `/proc/mounts` shows is `fuse.s3vault`.
const SUBTYPE: &str = "s3vault";

/// Threads that take requests. What can be answered without waiting is answered on them, so there is one more than
/// there are cores on a small machine, and no more than a few on a large one.
const THREADS: std::ops::RangeInclusive<usize> = 2..=4;

/// How far the kernel reads ahead, in bytes. More would not lower the CPU time of a large read, and each page fault of
/// a memory map would fetch more.
const READ_AHEAD: u64 = 512 * KIB;

/// How to mount.
#[derive(Clone, Default)]
pub struct MountOptions {
    /// What `df` shows as the source: the bucket, never a secret.
    pub name: String,
    /// Other users may use it too (permissions are checked by the kernel).
    pub allow_other: bool,
    /// What `.snapshots` in the root leads to, if anything.
    pub snapshots: Option<Arc<dyn Snapshots>>,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Owner, group and permissions that files show instead of their own.
    pub shown: ShownAs,
    /// Bytes that nobody asked for are expensive: leave the kernel's read-ahead at its default.
    pub saves_reads: bool,
}

/// The flags of mount(2) that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags {
    pub no_dev: bool,
    pub no_suid: bool,
    pub no_exec: bool,
    pub no_atime: bool,
    pub sync: bool,
}

/// A mounted vault. Dropping it does not unmount: [`Mounted::unmount`] does.
#[derive(Debug)]
pub struct Mounted {
    pub(super) path: PathBuf,
    /// `major:minor` of the mount: tells our mount from another at the same path.
    pub(super) device: String,
    ended: watch::Receiver<bool>,
    /// Never dropped: its drop would unmount whatever is at the path by then.
    #[allow(dead_code, reason = "only kept: it is never joined")]
    session: ManuallyDrop<BackgroundSession>,
}

/// Mounts a vault at a directory that [`mountpoint::prepare`] has made ready. It serves requests when this returns.
pub fn mount(vfs: Vfs, path: &Path, options: &MountOptions, runtime: Handle) -> Result<Mounted> {
    let failed = |cause: std::io::Error| Error::Mount {
        path: path.to_owned(),
        advice: advice(&cause),
        cause,
    };
    let path = path.canonicalize().map_err(failed)?;
    let (ended_sender, ended) = watch::channel(false);
    let config = config(options, vfs.options().read_only);
    let (vfs, changes) = (vfs.for_kernel(), vfs.invalidations());
    let states = options.snapshots.clone().map(|source| Arc::new(SnapshotStates::new(source)));
    let filesystem = VaultFs::new(vfs, states, Dispatch::new(runtime), ended_sender, options.shown);
    let at = path.clone();
    let session = helper::bounded(helper::LIMIT, move || Session::new(filesystem, &at, &config));
    let session = session.map_err(|error| {
        // fusermount3 may have mounted it before it got stuck.
        if error.kind() == std::io::ErrorKind::TimedOut
            && let Ok(Some(_)) = os::mounted_at(&path)
        {
            let _ = mountpoint::detach(&path);
        }
        failed(in_one_line(error))
    })?;
    let device = match os::mounted_at(&path) {
        Ok(Some(mount)) => mount.device,
        Ok(None) => return Err(failed(std::io::ErrorKind::NotFound.into())),
        Err(error) => return Err(failed(error)),
    };
    if !options.saves_reads {
        ask_for_more_at_once(&device);
    }
    notify::start(session.notifier(), changes).map_err(failed)?;
    let session = ManuallyDrop::new(session.spawn().map_err(failed)?);
    Ok(Mounted { path, device, ended, session })
}

/// The kernel splits a sequential read into requests as large as its read-ahead: 128 KiB unless root changes it. At
/// that size the requests take half the CPU time of a large read.
fn ask_for_more_at_once(device: &str) {
    if let Err(error) = os::set_read_ahead(device, READ_AHEAD) {
        tracing::debug!(%error, "the kernel reads ahead as far as it does by itself");
    }
}

fn config(options: &MountOptions, read_only: bool) -> Config {
    let mut config = Config::default();
    // mount(2) refuses an empty source, and a comma would begin another option.
    let name = if options.name.is_empty() { SUBTYPE } else { &options.name };
    config.mount_options = vec![
        MountOption::FSName(name.replace(',', "_")),
        MountOption::CUSTOM(format!("subtype={SUBTYPE}")),
        MountOption::DefaultPermissions,
    ];
    if read_only {
        config.mount_options.push(MountOption::RO);
    }
    let flags = options.flags;
    for (is_wanted, flag) in [
        (flags.no_dev, MountOption::NoDev),
        (flags.no_suid, MountOption::NoSuid),
        (flags.no_exec, MountOption::NoExec),
        (flags.no_atime, MountOption::NoAtime),
        (flags.sync, MountOption::Sync),
    ] {
        if is_wanted {
            config.mount_options.push(flag);
        }
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    config.n_threads = Some((cores + 1).clamp(*THREADS.start(), *THREADS.end()));
    // Gives each thread its own queue in the kernel.
    config.clone_fd = true;
    config
}

/// Joins the lines of an error message; those of fusermount3 end with a newline.
fn in_one_line(error: std::io::Error) -> std::io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    std::io::Error::new(error.kind(), error.to_string().trim().replace('\n', "; "))
}

/// What to do about a failed mount, by what the kernel, fuser or fusermount3 says.
fn advice(cause: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{NotFound, PermissionDenied, TimedOut};
    const DEVICE: &str = "; /dev/fuse must be readable and writable for you";
    const HELPER: &str = "; fusermount3 may not mount: it must be setuid root (`ls -l \"$(command -v fusermount3)\"`, \
                          package fuse3), and AppArmor or SELinux must let it mount there (Ubuntu's profile knows \
                          $HOME, /mnt, /media and /tmp: see /etc/apparmor.d/fusermount3 and `dmesg`)";
    let text = cause.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["user_allow_other"]) {
        "; --allow-other needs `user_allow_other` in /etc/fuse.conf"
    } else if says(&["/dev/fuse"]) {
        DEVICE
    } else if says(&["mount_max"]) {
        "; more FUSE mounts than /etc/fuse.conf allows (`mount_max`): unmount one, or raise it there"
    } else if says(&["mounting over filesystem", "write access to mountpoint", "access mountpoint"])
    {
        "; choose a directory of your own on a local disk as the mountpoint"
    } else if says(&["peration not permitted", "mount failed"]) {
        HELPER
    } else if cause.kind() == TimedOut {
        "; nothing was mounted; see `dmesg`, and whether `fusermount3 -V` returns"
    } else if cause.kind() == NotFound {
        "; is /dev/fuse there (`modprobe fuse`), and fusermount3 installed (package fuse3)?"
    } else if cause.kind() == PermissionDenied || says(&["ermission denied"]) {
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
        if device.is_ok() {
            "; fusermount3 cannot be run: it must be executable for you, and setuid root (package fuse3)"
        } else {
            DEVICE
        }
    } else {
        ""
    }
}

impl Mounted {
    /// The mountpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this mount is still in the tree; somebody else may have unmounted it.
    pub fn is_mounted(&self) -> bool {
        let top = os::mounted_at(&self.path).ok().flatten();
        top.is_some_and(|mount| mount.device == self.device)
    }

    /// Unmounts, if this mount is still there. Fails with [`Error::Busy`] while files are open in it; it can then be
    /// tried again. Blocks: do not call it on a thread that answers requests.
    pub fn unmount(&self) -> Result<()> {
        self.gone_after(mountpoint::unmount)
    }

    /// Takes the mount out of the tree even while files are open in it; see [`mountpoint::detach`].
    pub fn detach(&self) -> Result<()> {
        self.gone_after(mountpoint::detach)
    }

    /// Succeeds if the mount is gone afterwards, even if the helper was late or found nothing to do.
    fn gone_after(&self, end: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if !self.is_mounted() {
            return Ok(());
        }
        end(&self.path).or_else(|error| if self.is_mounted() { Err(error) } else { Ok(()) })
    }

    /// Returns when no more requests come: after an unmount, by us or somebody else, and the last close.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the sender is gone, and the file system with it.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether it has ended.
    #[cfg(test)]
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.session.guard.is_finished()
    }
}

#[cfg(test)]
mod advice_tests {
    use std::io::{Error, ErrorKind};

    use super::advice;

    #[test]
    fn each_refusal_has_its_cure() {
        for (said, cure) in [
            ("fusermount3: mount failed: Operation not permitted", "setuid root"),
            ("fusermount3: mount failed: Permission denied", "AppArmor"),
            ("fusermount3: failed to open /dev/fuse: Permission denied", "/dev/fuse must"),
            (
                "fusermount3: option allow_other only allowed if 'user_allow_other' is set",
                "fuse.conf",
            ),
            (
                "fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf",
                "raise it",
            ),
            (
                "fusermount3: mounting over filesystem type 0x6969 is forbidden",
                "choose a directory",
            ),
        ] {
            assert!(advice(&Error::other(said)).contains(cure), "{said}");
        }
        assert!(advice(&Error::from(ErrorKind::NotFound)).contains("package fuse3"));
        // Root can open the device, so what may not be run is the helper.
        if crate::os::effective_ids().0 == 0 && std::path::Path::new("/dev/fuse").exists() {
            assert!(advice(&Error::from(ErrorKind::PermissionDenied)).contains("executable"));
        }
    }
}
