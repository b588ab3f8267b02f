//! What can be wrong with the bytes of records.

/// Shorthand for this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes that are not a valid record, or too many of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are not what they must be.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which object or record.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A transaction larger than [`super::TRANSACTION_MAX`].
    #[error("a change of {0} bytes is larger than one transaction can hold")]
    TooLarge(usize),
}

impl Error {
    /// An object or record that opens but is not what it must be.
    pub fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Malformed { what: what.into(), why: why.to_string() }
    }
}
