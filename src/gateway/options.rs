//! How the service is to be, and why it cannot be so.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::path_text;

/// How the service is to be. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeOptions {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// No tokens: whoever reaches it may do everything. On loopback only.
    pub open: bool,
    /// Names besides the address by which it may be asked for.
    pub hosts: Vec<String>,
    /// Certificate and key, for TLS.
    pub tls: Option<TlsFiles>,
    /// Bytes of a request's body at most.
    pub max_upload: u64,
    /// Seconds that a client may stall.
    pub client_timeout: u64,
    /// The file of the tokens; it need not be there.
    #[serde(with = "path_text")]
    pub tokens: PathBuf,
}

/// The files for TLS, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFiles {
    /// The certificate, then those that lead to its root.
    #[serde(with = "path_text")]
    pub certificate: PathBuf,
    /// Its key.
    #[serde(with = "path_text")]
    pub key: PathBuf,
}

/// Why the service does not begin. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--open` for others than this machine.
    #[error(
        "--open lets everybody in who reaches {0}, so it is for loopback addresses only (127.0.0.1, [::1]); leave \
         --open out, and make tokens: s3vault serve token add NAME --read-only|--write"
    )]
    OpenToAll(SocketAddr),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}{advice}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What to do.
        advice: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Certificate or key.
    #[error("TLS: {} {what}; nothing is served", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
