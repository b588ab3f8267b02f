//! TLS by rustls: versions 1.3 and 1.2, with the certificate and key that the user names.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring::default_provider};

use super::options::{ServeError, TlsFiles};

/// The ALPN name of HTTP/2.
pub(super) const HTTP2: &[u8] = b"h2";

/// Reads certificate and key.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(&files.certificate, "certificate", &error))?;
    if chain.is_empty() {
        return Err(bad(&files.certificate, "certificate", &PemError::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| bad(&files.key, "private key", &error))?;
    let wrong = |error: &dyn std::error::Error| ServeError::Tls {
        path: files.certificate.clone(),
        what: format!("does not go with {} ({error})", files.key.display()),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn bad(path: &Path, what: &str, error: &PemError) -> ServeError {
    let what = match error {
        PemError::NoItemsFound => format!("holds no {what} (PEM)"),
        PemError::Io(error) => format!("cannot be read: {error}"),
        error => format!("is not understood: {error:?}"),
    };
    ServeError::Tls { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_fit_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "no pem").unwrap();
        let missing = dir.path().join("missing.pem");
        for (certificate, said) in [(&empty, "holds no certificate"), (&missing, "No such file")] {
            let files = TlsFiles { certificate: certificate.clone(), key: empty.clone() };
            let error = acceptor(&files).err().unwrap().to_string();
            assert!(error.contains(said) && error.contains(".pem"), "{error}");
        }
    }
}
