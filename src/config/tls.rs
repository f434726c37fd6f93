//! `tls`: paths of certificates and keys in PEM. Opens none of them.

use std::path::PathBuf;

/// What the bridge presents and whom it trusts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientTls {
    /// The certificate that the bridge presents, with its chain.
    pub cert: Option<PathBuf>,
    /// The private key of that certificate.
    pub key: Option<PathBuf>,
    /// The authority that the server's certificate must come from; none: the well-known ones.
    pub ca: Option<PathBuf>,
}

/// What the server presents and whom it trusts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerTls {
    /// The certificate that the server presents, with its chain.
    pub cert: Option<PathBuf>,
    /// The private key of that certificate.
    pub key: Option<PathBuf>,
    /// The authority that agents' certificates must come from; none: agents need no certificate.
    pub client_ca: Option<PathBuf>,
}
