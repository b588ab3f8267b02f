//! The machine below this program: small files that are replaced whole, private directories, locks, free space,
//! processes, mounts, sockets, watched tasks. Like `types`, every module may use it, and it uses none.

mod buffers;
mod daemon;
mod dirs;
mod disk;
mod files;
mod full;
mod locked_key;
mod machine;
mod medium;
mod mounts;
#[cfg(feature = "testing")]
mod planted;
mod process;
mod screen;
mod service_manager;
mod socket;
mod socket_file;
mod steps;
mod syscalls;
mod tally;
mod tasks;
#[cfg(test)]
mod testing;
mod user_files;

pub use buffers::{Buffers, Filling};
pub use daemon::{
    become_daemon, file_limit, gain_no_privileges, keep_secrets, leave_open, move_stderr,
    put_stdin, survive_file_limit, take_stdin, take_stdout,
};
pub use dirs::{is_immutable, make_immutable, make_private, sync_dir};
pub use disk::{Directory, Disk, DiskFile, open_to_read};
pub use files::{
    FileLock, create_durably, link, lock, read_small, remove, rename, rename_if_absent, replace,
    sync_tree, try_lock,
};
pub use full::{is_full, take_room};
pub use locked_key::LockedKey;
pub use machine::{Space, boot_id, free_bytes, keep_free, space};
pub use mounts::{MountInfo, is_dead_mount, mounted_at, mounts, set_read_ahead, unmount};
pub use process::{
    ProcessHandle, ProcessStat, Signal, effective_ids, keeps_set_id, pid_namespace, random,
    real_ids, resident_memory, signal_child, started, wait_for_child,
};
pub use screen::{Screen, terminal_columns};
pub use service_manager::ServiceManager;
pub use socket::{acknowledged, addresses, connect_abstract, end_accepting, peer_user};
pub use socket_file::{SocketFile, listen_at};
#[cfg(feature = "testing")]
pub use steps::{Observing, observe};
pub use steps::{PipelineStep, before, reached};
pub use syscalls::{
    hold_signals, local_time, second_of_day, stdin_was_closed, stdout_was_closed, trim_malloc,
    tune_malloc,
};
pub use tally::{OperationFigures, ProcessTally, TIMES, operation_done, operations};
pub use tasks::{
    Panicked, at_once, blocking, blocking_here, may_block, panics, restarted, restarted_here,
    thread, watched, watched_here,
};
#[cfg(test)]
pub(crate) use testing::{
    Aio, DiskFault, FileHandle, Simulated, SimulatedDisk, SmallDisk, get_xattr, listen_as,
    set_xattr, survivor, truncate,
};
pub use user_files::{make_node, next_data, put_xattr, set_mtime, umask, xattr_of, xattrs_of};
