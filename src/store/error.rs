//! Why a request to a store fails.

use std::sync::Arc;
use std::time::Duration;

/// The cause of an error. It is shared, so that one failed request can be the error of several waiters.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The result of a request to a store.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason when an object is shorter than what was asked of it.
pub(super) const ENDS_EARLY: &str = "it ends before what was asked";

/// Why a request to the store failed. `object` is the object's name in the bucket, which says nothing about the files.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No object has this name.
    #[error("{object} is not in the store")]
    NotFound {
        /// The object's name.
        object: String,
    },
    /// A conditional put found an object of this name, or lost a race for it.
    #[error("{object} is in the store already")]
    Exists {
        /// The object's name.
        object: String,
    },
    /// The store does not know these credentials, or does not permit them this request.
    #[error("the store denies access to {object}")]
    Denied {
        /// The object's name, or what was requested.
        object: String,
        /// What the store said.
        #[source]
        cause: Cause,
    },
    /// No credentials were found to sign the request.
    #[error("no credentials for the store were found")]
    NoCredentials {
        /// What the chain of credential providers said.
        #[source]
        cause: Cause,
    },
    /// The certificate of the store, or of a proxy before it, is not trusted; nothing was sent.
    #[error("the certificate that the store shows is not trusted ({object})")]
    Certificate {
        /// The object's name, or what was requested.
        object: String,
        /// What is wrong with it.
        #[source]
        cause: Cause,
    },
    /// The settings for proxies or certificates in the environment or the AWS profile cannot be followed.
    #[error("{what}")]
    Settings {
        /// Which setting, and why; without secrets.
        what: String,
    },
    /// This machine's clock is so far from the store's that the store refuses our signatures. A repeated request is signed
    /// by the store's clock.
    #[error("this machine's clock is not the store's ({object})")]
    Clock {
        /// The object's name, or what was requested.
        object: String,
        /// What the store said.
        #[source]
        cause: Cause,
    },
    /// This store refuses conditional puts.
    #[error("this store has no conditional puts ({object})")]
    NoConditions {
        /// The object's name.
        object: String,
        /// What the store said.
        #[source]
        cause: Cause,
    },
    /// The bucket itself (or the directory of a directory store) does not exist.
    #[error("there is no bucket {bucket}")]
    NoBucket {
        /// The bucket's name.
        bucket: String,
        /// What the store said.
        #[source]
        cause: Cause,
    },
    /// No connection, or it broke: it is not known whether the request was carried out.
    #[error("the store cannot be reached ({object})")]
    Unreachable {
        /// The object's name.
        object: String,
        /// What the network says.
        #[source]
        cause: Cause,
    },
    /// The store answered that it cannot do it just now (503, 500, 429).
    #[error("the store is busy ({object})")]
    Busy {
        /// The object's name.
        object: String,
        /// What the store said.
        #[source]
        cause: Cause,
    },
    /// No answer in time: it is not known whether the request was carried out.
    #[error("the store did not answer within {:.1} s ({object})", after.as_secs_f32())]
    Deadline {
        /// The object's name.
        object: String,
        /// How long the request waited.
        after: Duration,
    },
    /// The store holds, or sent, bytes other than it should.
    #[error("{object} is not what it should be: {reason}")]
    Corrupt {
        /// The object's name.
        object: String,
        /// What differs.
        reason: String,
    },
    /// The store has no room left.
    #[error("the store is full ({object})")]
    Full {
        /// The object's name.
        object: String,
        /// What the store said.
        #[source]
        cause: Cause,
    },
    /// This store cannot do this at all.
    #[error("this store cannot: {what}")]
    Unsupported {
        /// What was requested.
        what: String,
    },
    /// Anything else.
    #[error("the store failed ({object})")]
    Other {
        /// The object's name.
        object: String,
        /// What it was.
        #[source]
        cause: Cause,
    },
}

impl Error {
    /// The kind of error in a word, for metrics.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Exists { .. } => "exists",
            Self::Denied { .. } | Self::NoCredentials { .. } => "denied",
            Self::Unreachable { .. } => "unreachable",
            Self::Busy { .. } => "busy",
            Self::Deadline { .. } => "deadline",
            Self::Corrupt { .. } => "corrupt",
            Self::Full { .. } => "full",
            _ => "other",
        }
    }

    /// Whether repeating the same request may succeed.
    pub fn is_transient(&self) -> bool {
        self.is_unanswered() || matches!(self, Self::Corrupt { .. } | Self::Clock { .. })
    }

    /// Whether there was no answer, or only one to come again later.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Deadline { .. })
    }
}
