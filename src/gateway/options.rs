//! The options of the service, and the errors that keep it from starting.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::path_text;

/// The prefix of a Unix socket's path where an address could also stand.
const UNIX: &str = "unix:";

/// Where the service listens: `127.0.0.1:8000`, or `unix:/run/vault.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAt {
    /// Address and port; port 0 picks a free one.
    Tcp(SocketAddr),
    /// A socket in the file system; its path is UTF-8.
    Unix(PathBuf),
}

/// How the service is configured. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeOptions {
    /// Where it listens.
    pub listen: ListenAt,
    /// The permissions of a Unix socket.
    pub socket_mode: u32,
    /// No tokens: everybody who reaches the service may do everything. Loopback addresses and Unix sockets only.
    pub open: bool,
    /// Host names, besides the address, that requests may be for.
    pub hosts: Vec<String>,
    /// Certificate and key for TLS.
    pub tls: Option<TlsFiles>,
    /// The most bytes of a request's body.
    pub max_upload: u64,
    /// How many seconds a client may stall.
    pub client_timeout: u64,
    /// Serves only `/metrics` and `/healthz`, without a token.
    #[serde(default)]
    pub only_metrics: bool,
    /// The token file; it may be missing.
    #[serde(with = "path_text")]
    pub tokens: PathBuf,
}

impl ServeOptions {
    /// Options for serving the metrics of a mount on this machine only.
    pub fn metrics_at(listen: ListenAt) -> Self {
        Self {
            listen,
            socket_mode: 0o600,
            open: true,
            hosts: Vec::new(),
            tls: None,
            max_upload: 0,
            client_timeout: 10,
            only_metrics: true,
            tokens: PathBuf::new(),
        }
    }
}

impl ListenAt {
    /// Whether only this machine can reach the address.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for ListenAt {
    type Err = NoListenAddress;

    fn from_str(text: &str) -> Result<Self, NoListenAddress> {
        if let Some(path) = text.strip_prefix(UNIX).filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| NoListenAddress)?;
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| NoListenAddress)
    }
}

impl TryFrom<String> for ListenAt {
    type Error = NoListenAddress;

    fn try_from(text: String) -> Result<Self, NoListenAddress> {
        text.parse()
    }
}

impl From<ListenAt> for String {
    fn from(at: ListenAt) -> Self {
        at.to_string()
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an IP address and a port (127.0.0.1:8000, [::1]:8000, 0.0.0.0:8000 for all), nor unix:PATH"
)]
pub struct NoListenAddress;

/// The TLS files, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFiles {
    /// The server certificate, followed by the chain to its root.
    #[serde(with = "path_text")]
    pub certificate: PathBuf,
    /// Its private key.
    #[serde(with = "path_text")]
    pub key: PathBuf,
}

/// Why the service does not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--open` on an address that other machines can reach.
    #[error(
        "--open lets everybody in who reaches {0}, so it is for loopback addresses (127.0.0.1, [::1]) and Unix sockets only; leave \
         --open out, and make tokens: s3vault serve token add NAME --read-only|--write"
    )]
    OpenToAll(SocketAddr),
    /// `--metrics` on an address that other machines can reach.
    #[error(
        "--metrics needs no token, so it is for loopback addresses (127.0.0.1, [::1]) and Unix sockets only, not for {0}; \
         from elsewhere use /metrics of the service: s3vault serve"
    )]
    MetricsToAll(SocketAddr),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}{advice}")]
    Listen {
        /// The address.
        address: ListenAt,
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
