#![doc = include_str!("ARCHITECTURE.md")]
// Without `testing` the rooms are private. Then a re-export that a room has only for a signature counts as unused, and its `pub`
// items as unreachable. With `testing`, as in the tests and in the first clippy run of `.ci/run`, both lints are on.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub, unused_imports))]

mod cache;
mod checkpoint;
pub mod cli;
mod content;
mod crypto;
mod files;
mod fuse;
mod gateway;
mod index;
mod log;
mod os;
mod reclaim;
mod records;
mod store;
mod types;
mod upload;
mod vault;
mod vfs;

/// The rooms, for `tests/` only: not for programs, and nothing here is stable.
#[cfg(feature = "testing")]
pub mod testing {
    /// For `tests/fuzz` and `tests/hostile`: whether `bytes` parse as a `kind`. `None` if there is no such kind.
    pub fn parse(kind: &str, bytes: &[u8]) -> Option<bool> {
        use crate::{
            checkpoint, cli, content, crypto, gateway, index, log, records, store, vault, vfs,
        };
        let rooms = [
            crypto::fuzzed,
            store::fuzzed,
            records::fuzzed,
            log::fuzzed,
            checkpoint::fuzzed,
            index::fuzzed,
            content::fuzzed,
            vfs::fuzzed,
            vault::fuzzed,
            gateway::fuzzed,
            cli::fuzzed,
        ];
        rooms.iter().find_map(|fuzzed| fuzzed(kind, bytes))
    }

    pub mod cache {
        pub use crate::cache::*;
    }
    pub mod checkpoint {
        pub use crate::checkpoint::*;
    }
    pub mod content {
        pub use crate::content::*;
    }
    pub mod crypto {
        pub use crate::crypto::*;
    }
    pub mod files {
        pub use crate::files::*;
    }
    pub mod fuse {
        pub use crate::fuse::*;
    }
    pub mod gateway {
        pub use crate::gateway::*;
    }
    pub mod index {
        pub use crate::index::*;
    }
    pub mod log {
        pub use crate::log::*;
    }
    pub mod os {
        pub use crate::os::*;
    }
    pub mod reclaim {
        pub use crate::reclaim::*;
    }
    pub mod records {
        pub use crate::records::*;
    }
    pub mod store {
        pub use crate::store::*;
    }
    pub mod types {
        pub use crate::types::*;
    }
    pub mod upload {
        pub use crate::upload::*;
    }
    pub mod vault {
        pub use crate::vault::*;
    }
    pub mod vfs {
        pub use crate::vfs::*;
    }
}
