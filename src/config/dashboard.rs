//! The bridge's own server: where it listens and who may use it. Set by the environment only,
//! because the variables are shared with Loki Mode.

use std::net::IpAddr;

use super::secret::Secret;

/// Where the bridge's REST API and dashboard listen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dashboard {
    /// A host name or an IP address.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The token that every call must carry. Required unless the host is a loopback address.
    pub token: Option<Secret>,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 57374, token: None }
    }
}

impl Dashboard {
    /// Whether only programs on this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}
