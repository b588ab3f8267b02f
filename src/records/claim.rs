//! The record of who writes: `meta|writer` (W1, W2).

use minicbor::{Decode, Encode};

use super::{Change, Key, MetaKey, encode_value};
use crate::types::{CommitNo, JournalId, Timestamp};

/// The machine and journal that claim a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The machine's id, by which W2 tells whether it is the same machine.
    pub machine: String,
    /// The machine's host name; for messages only.
    pub host: String,
    /// The journal whose transactions follow the claim.
    pub journal: JournalId,
}

/// The value of `meta|writer`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WriterClaim {
    /// The number of the commit that made the claim.
    #[n(0)]
    pub epoch: CommitNo,
    /// The machine's id.
    #[n(1)]
    pub machine: String,
    /// The machine's host name.
    #[n(2)]
    pub host: String,
    /// The journal whose transactions follow the claim.
    #[n(3)]
    pub journal: JournalId,
    /// When the claim was made, by that machine's clock.
    #[n(4)]
    pub claimed: Timestamp,
    /// When a clean unmount released the claim.
    #[n(5)]
    pub released: Option<Timestamp>,
}

impl WriterClaim {
    /// The claim that the commit `epoch` makes.
    pub fn new(claimant: &Claimant, epoch: CommitNo) -> Self {
        Self {
            epoch,
            machine: claimant.machine.clone(),
            host: claimant.host.clone(),
            journal: claimant.journal,
            claimed: Timestamp::now(),
            released: None,
        }
    }

    /// The record as a change for a commit's header.
    pub fn change(&self) -> Change {
        Change { key: Key::Meta(MetaKey::Writer).encode(), value: Some(encode_value(self)) }
    }
}
