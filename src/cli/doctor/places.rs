//! Where the machine's state is read from; tests use other paths.

use std::path::PathBuf;

/// The files that are examined.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The kernel's FUSE device.
    pub device: PathBuf,
    /// The directories in which programs are searched.
    pub path: Vec<PathBuf>,
    pub fuse_conf: PathBuf,
    pub updatedb_conf: PathBuf,
    pub swaps: PathBuf,
    /// Block devices, as in sysfs.
    pub blocks: PathBuf,
    pub kernel: PathBuf,
    /// The capabilities of this process.
    pub process: PathBuf,
    /// Whether this user is root.
    pub is_root: bool,
}

impl Places {
    /// The paths of this machine.
    pub(crate) fn of_this_machine(is_root: bool) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut path: Vec<PathBuf> = std::env::split_paths(&path).collect();
        path.push("/bin".into()); // where fuser looks, too
        Self {
            device: "/dev/fuse".into(),
            path,
            fuse_conf: "/etc/fuse.conf".into(),
            updatedb_conf: "/etc/updatedb.conf".into(),
            swaps: "/proc/swaps".into(),
            blocks: "/sys/class/block".into(),
            kernel: "/proc/sys/kernel/osrelease".into(),
            process: "/proc/self/status".into(),
            is_root,
        }
    }
}
