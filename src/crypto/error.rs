//! Why a message or key slot does not open.

/// Why something did not open. No variant reveals anything about the plaintext or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The commitment does not fit: another key, another place, or other bytes.
    #[error("sealed for another place, under another key, or changed (commitment)")]
    Commitment,
    /// A chunk's tag does not verify.
    #[error("chunk {index} was changed (tag)")]
    Tag {
        /// Number of the chunk in its message.
        index: u64,
    },
    /// No message or chunk has this length: truncated or extended.
    #[error("{length} bytes is no possible length (truncated?)")]
    Length {
        /// The length that was given.
        length: u64,
    },
    /// The secret opens none of the key slots.
    #[error("wrong passphrase or recovery key")]
    WrongSecret,
    /// The text looks like a recovery key, but is not a valid one.
    #[error("the recovery key has a typing error")]
    RecoveryKey(#[from] RecoveryKeyError),
    /// A key slot asks for less or more work than is allowed.
    #[error("a key slot's parameters are out of bounds: {0}")]
    SlotParameters(&'static str),
    /// A key slot's kind is not known to this version.
    #[error("a key slot of a kind that this version does not know ({0})")]
    SlotKind(u8),
    /// More key slots than may be tried.
    #[error("{0} key slots are more than are allowed")]
    TooManySlots(usize),
    /// All key slots together ask for more work than is allowed.
    #[error("its key slots ask for more work than is ever done (Argon2id over {gib} GiB in all)")]
    SlotWork {
        /// What they ask for.
        gib: u64,
    },
    /// Argon2id's memory could not be allocated.
    #[error("not enough memory for the passphrase: {mib} MiB are needed")]
    Memory {
        /// MiB that the slot asks for.
        mib: u32,
    },
    /// Bytes that do not have the required layout.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Why a text is not a recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// Other symbols than a recovery key has, or another number of them.
    #[error("a recovery key is 8 groups of 7 letters and digits")]
    Shape,
    /// The checksum does not fit.
    #[error("a letter or digit is wrong, or two groups are exchanged")]
    Checksum,
}
