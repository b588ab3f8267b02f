//! The types that all modules share: numbers, ids, hashes, extents, the status of a vault, and an error with its
//! causes. Nothing here does I/O.

mod causes;
mod extent;
mod ids;
mod limits;
pub mod path_text;
mod patience;
mod state_at;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod time;
mod vault_status;

pub use causes::{cause, causes, printable, with_causes};
pub use extent::{Codec, Extent, Reference};
pub use ids::{
    CommitNo, CurrentGeneration, ExtentId, Generation, Hash, InodeNo, JournalId, KeyEpoch,
    NameHash, PackId, PageId, ParseIdError, Seq, VaultId,
};
pub use limits::{RateSchedule, RateWindow, StoreLimits};
pub use patience::{Doubt, Patience, Terms};
pub use state_at::{AsOf, StateAt};
#[cfg(test)]
pub use testing::cases;
#[cfg(any(test, feature = "testing"))]
pub use testing::noise;
pub use time::Timestamp;
pub use vault_status::{
    FollowingStatus, OldStatesStatus, Progress, RenewalStatus, RequestsOfADay, VaultStatus,
    VaultTraffic,
};

/// KiB, MiB and GiB in bytes.
pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// The most plaintext bytes of one extent; a pack has about as many.
pub const EXTENT_MAX: u64 = 16 * MIB;
