//! Where the machine shows how it is; in a test somewhere else.

use std::path::PathBuf;

/// The files that are looked at.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The kernel's part.
    pub device: PathBuf,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
    pub fuse_conf: PathBuf,
    pub updatedb_conf: PathBuf,
    pub swaps: PathBuf,
    /// What block devices are.
    pub blocks: PathBuf,
    pub kernel: PathBuf,
    /// What this process may do.
    pub process: PathBuf,
    /// Whether this user is root.
    pub is_root: bool,
}

impl Places {
    /// Those of this machine.
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
