//! Takes the address that the service listens on, and its certificate; what of that may be refused, before anything is
//! opened.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::options::{ServeError, ServeOptions};
use super::tls;

/// A socket that listens; connections wait in it until somebody serves them.
pub struct Listening {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) options: ServeOptions,
    pub(super) address: SocketAddr,
}

impl Listening {
    /// Reads the TLS files and takes the address.
    pub async fn open(options: ServeOptions) -> Result<Self, ServeError> {
        let address = options.listen;
        if options.open && !address.ip().is_loopback() {
            return Err(ServeError::OpenToAll(address));
        }
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let failed = |source: io::Error| ServeError::Listen {
            address,
            advice: match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "; stop what listens there, or take another port with --listen"
                }
                io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
                io::ErrorKind::PermissionDenied => "; ports below 1024 are for root",
                _ => "",
            },
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, tls, options, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[tokio::test]
    async fn open_is_for_loopback_and_an_address_is_taken_once() {
        let options = |listen: &str, open: bool| ServeOptions {
            listen: listen.parse().unwrap(),
            open,
            hosts: Vec::new(),
            tls: None,
            max_upload: 1,
            client_timeout: 1,
            tokens: PathBuf::new(),
        };
        for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
            let error = Listening::open(options(address, true)).await.err().unwrap();
            assert!(matches!(error, ServeError::OpenToAll(_)), "{error}");
        }
        let first = Listening::open(options("127.0.0.1:0", true)).await.unwrap();
        assert_ne!(first.address().port(), 0);
        let again = options(&first.address().to_string(), false);
        let error = Listening::open(again.clone()).await.err().unwrap().to_string();
        assert!(error.contains("in use") && error.contains("--listen"), "{error}");
        drop(first);
        Listening::open(again).await.unwrap();
    }
}
