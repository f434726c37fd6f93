//! What the bridge presents to its server and whom it trusts, from PEM files. It opens no
//! connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::ClientTls;

/// A file of certificates cannot be used. The person who configured it acts.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {} cannot be used: {reason}", path.display())]
pub struct TlsError {
    setting: &'static str,
    path: PathBuf,
    reason: String,
}

impl TlsError {
    fn new(setting: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self { setting, path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The configuration for connections to the server; `None` when nothing is configured, so that
/// each library takes the authorities that it knows.
///
/// # Errors
/// When a file cannot be read, or certificate and key do not fit.
pub fn client(tls: &ClientTls) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    if tls.ca.is_none() && tls.cert.is_none() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            let refused = |error: rustls::Error| TlsError::new("openclaw.tls.ca", path, &error);
            for certificate in certificates("openclaw.tls.ca", path)? {
                roots.add(certificate).map_err(refused)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("openclaw.tls.cert", cert)?;
            let refused =
                |reason: &dyn std::fmt::Display| TlsError::new("openclaw.tls.key", key, reason);
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refused(&error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| refused(&error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(config)))
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| TlsError::new(setting, path, &error))?;
    if found.is_empty() {
        return Err(TlsError::new(setting, path, &"it holds no certificate"));
    }
    Ok(found)
}
