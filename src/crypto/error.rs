//! Why something does not open.

/// Why something did not open. None of these says anything about the plaintext or a key.
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
    /// No message, or no such chunk of one, is so long: cut off, or extended.
    #[error("{length} bytes is no possible length (truncated?)")]
    Length {
        /// Bytes that were given.
        length: u64,
    },
    /// The secret opens none of the key slots.
    #[error("wrong passphrase or recovery key")]
    WrongSecret,
    /// It looks like a recovery key, but cannot be one.
    #[error("the recovery key has a typing error")]
    RecoveryKey(#[from] RecoveryKeyError),
    /// A key slot asks for less or more work than is allowed.
    #[error("a key slot's parameters are out of bounds: {0}")]
    SlotParameters(&'static str),
    /// A key slot's kind is not known to this version.
    #[error("a key slot of a kind that this version does not know ({0})")]
    SlotKind(u8),
    /// More key slots than are ever tried.
    #[error("{0} key slots are more than are allowed")]
    TooManySlots(usize),
    /// All key slots together ask for more work than is ever done.
    #[error("its key slots ask for more work than is ever done (Argon2id over {gib} GiB in all)")]
    SlotWork {
        /// What they ask for.
        gib: u64,
    },
    /// Argon2id's memory could not be had.
    #[error("not enough memory for the passphrase: {mib} MiB are needed")]
    Memory {
        /// MiB that the slot asks for.
        mib: u32,
    },
    /// Not as it must be laid out.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Why a text is no recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// Other symbols, or more or fewer of them, than a recovery key has.
    #[error("a recovery key is 8 groups of 7 letters and digits")]
    Shape,
    /// The checksum does not fit.
    #[error("a letter or digit is wrong, or two groups are exchanged")]
    Checksum,
}
