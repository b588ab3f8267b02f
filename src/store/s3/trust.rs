//! Which certificates are trusted: the system's (or those of `SSL_CERT_FILE`), or instead those of the file that
//! `AWS_CA_BUNDLE` names, or else `ca_bundle` in the AWS profile; the same as with `aws`.

use std::path::{Path, PathBuf};

use aws_smithy_http_client::tls::TrustStore;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::os;

/// The largest bundle: bundles of all public CAs have a few hundred KiB.
const BUNDLE_MAX: u64 = 16 << 20;

/// The trusted certificates; an error says what is wrong with the bundle.
pub(super) async fn find() -> Result<TrustStore, String> {
    let Some((path, from)) = bundle().await else { return Ok(TrustStore::default()) };
    let no = |why: &str| {
        format!("{} ({from}) is no bundle of certificates to go by: {why}", path.display())
    };
    // For the daemon, a relative path would be another file.
    if !path.is_absolute() && from != VARIABLE {
        return Err(no("its path is not absolute"));
    }
    read(&path).map_err(|why| no(&why))
}

const VARIABLE: &str = "AWS_CA_BUNDLE";

/// The bundle's path, and who names it.
async fn bundle() -> Option<(PathBuf, &'static str)> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Some((path.into(), VARIABLE));
    }
    #[allow(clippy::default_trait_access, reason = "their names are no part of what is documented")]
    let (fs, environment, files) = (&Default::default(), &Default::default(), &Default::default());
    match aws_config::profile::load(fs, environment, files, None).await {
        Ok(profiles) => {
            let path = profiles.get("ca_bundle").filter(|path| !path.is_empty())?;
            Some((path.into(), "ca_bundle in the AWS profile"))
        }
        // The look-ups of region and credentials in the profile report this too.
        Err(error) => {
            tracing::warn!(%error, "the AWS profile is not understood");
            None
        }
    }
}

/// The certificates of a file. Unparsable ones are skipped, as OpenSSL does, unless all are: the HTTP client would
/// panic at the first.
fn read(path: &Path) -> Result<TrustStore, String> {
    let content = match os::read_small(path, BUNDLE_MAX) {
        Ok(Some(content)) => content,
        Ok(None) => return Err("there is no such file".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let mut trusted = TrustStore::empty();
    let (mut good, mut bad) = (RootCertStore::empty(), 0_u32);
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let der = certificate.map_err(|error| format!("it is not PEM ({error})"))?;
        if let Err(error) = good.add(der.clone()) {
            tracing::debug!(%error, "a certificate of the bundle is passed over");
            bad += 1;
        } else {
            trusted.add_pem_certificate(pem(&der));
        }
    }
    if good.is_empty() {
        return Err(match bad {
            0 => "it holds none (PEM: -----BEGIN CERTIFICATE-----)".to_owned(),
            _ => "none in it is understood".to_owned(),
        });
    }
    Ok(trusted)
}

fn pem(der: &CertificateDer<'_>) -> String {
    let text = aws_smithy_types::base64::encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_and_what_is_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let refused = |content: &str| {
            std::fs::write(&path, content).unwrap();
            read(&path).unwrap_err()
        };
        let good = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused("").contains("holds none"));
        assert!(refused("no PEM at all").contains("holds none"));
        assert!(refused(broken).contains("understood"));
        assert!(refused(&good[..good.len() / 2]).contains("not PEM"));
        assert!(read(dir.path()).unwrap_err().contains("directory"));
        assert!(read(&dir.path().join("none")).unwrap_err().contains("no such file"));
        std::fs::write(&path, format!("# two\n{broken}{good}{good}")).unwrap();
        let trusted = read(&path).unwrap();
        assert_eq!(format!("{trusted:?}").matches("CertificatePEM").count(), 2);
        // The client must accept it; it would panic otherwise.
        super::super::http::tests::connects_by(trusted);
    }
}
