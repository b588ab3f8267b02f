//! The HTTP service. An upload over HTTP becomes a file of the vault, and any file of the vault can be downloaded. The
//! service writes no plaintext to the disk and keeps no files of its own about uploads: what it knows about a file is
//! an extended attribute of that file.
//!
//! It has two halves. The hosting half (listening, TLS, authentication, limits) takes a [`Gateway`], wraps
//! `api::router` in its middleware, and puts a [`Session`] into the extensions of every request that it admits. The
//! answering half relies on that: GET and HEAD have at least [`Access::Read`], every other method has
//! [`Access::Write`], and a request that a browser sends with a cookie or an `Origin` came from our own page. For
//! people, the hosting half shows the form of `page::login(csrf, failed)`, which posts `token` to `/login` (303 to
//! `/`). It takes `POST /logout` (303 to `/login`), redirects browsers (`Accept: text/html`) without a session to
//! `/login` by 303, and serves `api::public` to everybody.

mod api;
mod auth;
mod conditions;
mod connections;
mod csrf;
mod dav;
mod download;
mod errors;
#[cfg(feature = "testing")]
mod fuzzing;
mod incoming;
mod limits;
mod listen;
mod listing;
mod metadata;
mod metrics;
mod options;
mod order;
mod page;
mod past;
mod query;
mod ranges;
mod request_lines;
mod revocation;
mod s3_key;
mod scope;
mod server;
mod sessions;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod tree;
mod upload;
mod upload_form;
mod vault_metrics;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Hash, VaultStatus};
use crate::vfs::Vfs;

use s3_key::S3Key;
use scope::Scope;

pub use crate::vfs::Caller;
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;

pub use connections::GRACE;
pub use errors::{BodyError, HttpProblem};
pub use listen::Listening;
pub use options::{ListenAt, ServeError, ServeOptions, TlsFiles};
pub use past::{BringBack, OpenedPast, PastSource, PathVersion, PathVersions, SnapshotNote};
pub use server::{Server, ServiceStatus};
pub use tokens::{Token, TokenError, TokenLimits, TokenSecret, Tokens};

/// What the gateway serves.
#[derive(Clone)]
pub struct Gateway {
    /// The vault's files.
    pub vfs: Vfs,
    /// The state of the vault as a whole.
    pub vault: Arc<dyn StatusSource>,
    /// The vault's past states.
    pub past: Arc<dyn PastSource>,
    /// The owner of new files: the daemon's user, umask 022.
    pub owner: Caller,
    /// The longest that `?wait=durable` waits.
    pub durable_deadline: Duration,
}

/// The source of the vault's overall state.
pub trait StatusSource: Send + Sync + 'static {
    /// The state of the vault now. Cheap.
    fn status(&self) -> VaultStatus;
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// GET and HEAD.
    Read,
    /// Everything.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Who sends a request. The middleware puts it into the request's extensions.
#[derive(Clone, Debug)]
pub struct Session {
    /// What they may do.
    pub access: Access,
    /// The name of their token; `None` under `--open`, where nobody logs in.
    pub name: Option<String>,
    /// The word that the page puts into its forms: as `?csrf=` in a form's action (so that it is checked before a body
    /// of any size is read), or as the header `X-CSRF-Token` from script. Only ASCII letters, digits, `-` and `_`.
    pub csrf: String,
    /// The hash of their token; `None` under `--open`.
    pub token: Option<Hash>,
    /// The only part of the vault that their token is good for; `None`: all of it.
    only: Option<Scope>,
    /// When their token expires, in seconds since 1970.
    ends: Option<i64>,
}

impl Session {
    /// Whether a path is within the scope of their token.
    fn may_see(&self, key: &S3Key) -> bool {
        self.only.as_ref().is_none_or(|scope| scope.has(key))
    }
}
