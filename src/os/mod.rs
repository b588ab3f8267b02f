//! The machine below us, as far as more than one room needs it: small files that are replaced whole, private
//! directories, locks, free space, tasks that are watched. Like `types`, it may be used by every room, and uses none.

mod dirs;
#[cfg(test)]
mod disk_tests;
mod files;
mod full;
mod machine;
mod tasks;

pub use dirs::{make_private, sync_dir};
#[cfg(test)]
pub(crate) use disk_tests::SmallDisk;
pub use files::{FileLock, lock, read_small, replace, try_lock};
pub use full::{is_full, take_room};
pub use machine::{Space, boot_id, free_bytes, keep_free, space};
pub use tasks::{Panicked, Restarts, watched, watched_here};
