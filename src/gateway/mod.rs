//! The HTTP service. What is uploaded over HTTP is a file of the vault, and any file of the vault can be downloaded. The
//! service keeps no plaintext on the disk and no files of its own: what it knows of a file is an xattr of that file.
//!
//! It has two halves. The hosting half (listening, TLS, who asks, limits) makes a [`Gateway`], wraps `api::router` in its
//! middleware, and puts a [`Session`] into the extensions of every request that it lets through. The answering half
//! trusts that: GET and HEAD came with [`Access::Read`] at least, every other method with [`Access::Write`], and what a
//! browser sends with a cookie or an `Origin` came from our own page. For people, the hosting half shows the form of
//! `page::login(csrf, failed)`, which posts `token` to `/login` (303 to `/`), takes `POST /logout` (303 to `/login`), sends
//! a browser (`Accept: text/html`) without a session to `/login` by 303, and serves `api::public` to everybody.

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
pub use past::{BringBack, PastRoom, PastSource, PathVersion, PathVersions, SnapshotNote};
pub use server::{Server, ServiceStatus};
pub use tokens::{Token, TokenError, TokenLimits, TokenSecret, Tokens};

/// What the gateway serves from.
#[derive(Clone)]
pub struct Gateway {
    /// The vault's files.
    pub vfs: Vfs,
    /// How the vault as a whole is.
    pub vault: Arc<dyn StatusSource>,
    /// What was.
    pub past: Arc<dyn PastSource>,
    /// The owner of new files: the daemon's user, umask 022.
    pub owner: Caller,
    /// How long `?wait=durable` waits at most.
    pub durable_deadline: Duration,
}

/// Where the gateway learns how the vault as a whole is.
pub trait StatusSource: Send + Sync + 'static {
    /// How the vault is now; cheap.
    fn status(&self) -> VaultStatus;
}

/// What somebody may do.
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

/// Who asks: the middleware puts it into the request's extensions.
#[derive(Clone, Debug)]
pub struct Session {
    /// What they may do.
    pub access: Access,
    /// The name of their token; `None` under `--open`, where nobody logs in.
    pub name: Option<String>,
    /// What the page puts into its forms: as `?csrf=` in a form's action (so that it is checked before a body of any
    /// size is read), as the header `X-CSRF-Token` from script. ASCII letters, digits, `-` and `_` only.
    pub csrf: String,
    /// What their token is known by; `None` under `--open`.
    pub token: Option<Hash>,
    /// What alone it is good for.
    only: Option<Scope>,
    /// When it stops being good, in seconds since 1970.
    ends: Option<i64>,
}

impl Session {
    /// Whether a path is within what their token is good for.
    fn may_see(&self, key: &S3Key) -> bool {
        self.only.as_ref().is_none_or(|scope| scope.has(key))
    }
}
