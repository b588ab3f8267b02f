//! Takes the address or socket to listen on, and reads the certificate. Options that are not allowed are refused before
//! anything is opened.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::options::{ListenAt, ServeError, ServeOptions};
use super::tls;
use crate::os;

/// A listening socket; connections queue in it until they are accepted.
pub struct Listening {
    pub(super) listener: Listener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) options: ServeOptions,
    pub(super) at: ListenAt,
}

/// What connections are accepted from.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The socket's file is removed when this is dropped.
    Unix(UnixListener, #[expect(dead_code, reason = "held")] os::SocketFile),
}

/// A connection that was accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// A byte stream.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

impl Listening {
    /// Reads the TLS files and takes the address.
    pub async fn open(options: ServeOptions) -> Result<Self, ServeError> {
        if let ListenAt::Tcp(address) = options.listen
            && options.open
            && !options.listen.is_local()
        {
            return Err(match options.only_metrics {
                true => ServeError::MetricsToAll(address),
                false => ServeError::OpenToAll(address),
            });
        }
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let (listener, at) = match &options.listen {
            ListenAt::Tcp(address) => {
                let taken = async {
                    let listener = TcpListener::bind(address).await?;
                    let at = ListenAt::Tcp(listener.local_addr()?);
                    Ok((Listener::Tcp(listener), at))
                };
                taken.await.map_err(|error| failed(&options.listen, error))?
            }
            ListenAt::Unix(path) => {
                let taken = listen_at(path.clone(), options.socket_mode).await;
                (taken.map_err(|error| failed(&options.listen, error))?, options.listen.clone())
            }
        };
        Ok(Self { listener, tls, options, at })
    }

    /// Where it listens.
    pub fn at(&self) -> &ListenAt {
        &self.at
    }
}

async fn listen_at(path: PathBuf, mode: u32) -> io::Result<Listener> {
    let taken = os::blocking(move || os::listen_at(&path, mode)).await;
    let (listener, file) = taken.map_err(io::Error::other)??;
    Ok(Listener::Unix(UnixListener::from_std(listener)?, file))
}

fn failed(at: &ListenAt, source: io::Error) -> ServeError {
    let is_unix = matches!(at, ListenAt::Unix(_));
    let advice = match source.kind() {
        io::ErrorKind::AddrInUse if is_unix => {
            "; a process listens there: stop it, or take another path with --listen unix:PATH"
        }
        io::ErrorKind::AddrInUse => "; stop what listens there, or take another port with --listen",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::AlreadyExists => {
            "; what is there is no socket, and stays: take another path with --listen unix:PATH"
        }
        io::ErrorKind::NotFound => "; its directory is not there: make it first",
        io::ErrorKind::WouldBlock => "; another process makes or removes a socket there: try again",
        io::ErrorKind::PermissionDenied if is_unix => "; this user may not make files there",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root",
        _ => "",
    };
    ServeError::Listen { address: at.clone(), advice, source }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address.ip()))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl Accepted {
    /// The client's address. A Unix socket has none: its client is a proxy that serves many.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Writes as much as fits without waiting, and closes the connection.
    pub(super) fn dismiss(self, text: &[u8]) {
        match self {
            Self::Tcp(stream, _) => drop(stream.try_write(text)),
            Self::Unix(stream) => drop(stream.try_write(text)),
        }
    }

    pub(super) fn into_stream(self) -> Box<dyn Transport> {
        match self {
            Self::Tcp(stream, _) => {
                // Answers are written whole, so Nagle's algorithm would gather nothing.
                drop(stream.set_nodelay(true));
                Box::new(stream)
            }
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str, open: bool) -> ServeOptions {
        ServeOptions {
            listen: listen.parse().unwrap(),
            socket_mode: 0o600,
            open,
            hosts: Vec::new(),
            tls: None,
            max_upload: 1,
            client_timeout: 1,
            only_metrics: false,
            tokens: PathBuf::new(),
        }
    }

    #[tokio::test]
    async fn open_is_for_loopback_and_an_address_is_taken_once() {
        for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
            let error = Listening::open(options(address, true)).await.err().unwrap();
            assert!(matches!(error, ServeError::OpenToAll(_)), "{error}");
        }
        // A free port may be taken by somebody else a moment later, but hardly three times in a row.
        for is_last in [false, false, true] {
            let first = Listening::open(options("127.0.0.1:0", true)).await.unwrap();
            assert!(!first.at().to_string().ends_with(":0"));
            let again = options(&first.at().to_string(), false);
            let error = Listening::open(again.clone()).await.err().unwrap().to_string();
            assert!(error.contains("in use") && error.contains("--listen"), "{error}");
            drop(first);
            match Listening::open(again).await {
                Ok(_) => break,
                Err(error) => assert!(!is_last, "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_socket_is_taken_once_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("unix:{}", dir.path().join(name).display());
        let first = Listening::open(options(&at("s"), true)).await.unwrap();
        assert_eq!(first.at().to_string(), at("s"));
        let said =
            async |at: &str| Listening::open(options(at, true)).await.err().unwrap().to_string();
        let error = said(&at("s")).await;
        assert!(error.contains("a process listens there") && error.contains(&at("s")), "{error}");
        drop(first);
        assert!(!dir.path().join("s").exists());
        std::fs::write(dir.path().join("f"), "x").unwrap();
        assert!(said(&at("f")).await.contains("no socket, and stays"));
        assert!(said(&at("none/s")).await.contains("make it first"));
    }

    #[test]
    fn where_it_listens_is_said_as_it_was_read() {
        for text in ["127.0.0.1:8000", "[::1]:0", "unix:/run/vault.sock", "unix:s"] {
            assert_eq!(text.parse::<ListenAt>().unwrap().to_string(), text);
        }
        for text in ["unix:", "somewhere", "/run/vault.sock", "127.0.0.1", ""] {
            assert!(text.parse::<ListenAt>().is_err(), "{text}");
        }
    }
}
