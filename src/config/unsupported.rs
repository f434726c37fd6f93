//! Settings that this release knows and cannot honour: it refuses to start instead of pretending.

use super::bridge::BridgeConfig;
use super::server::ServerConfig;

/// A setting, whether it asks for what is missing, and the sentence about it.
pub(super) type Refusal = (&'static str, bool, &'static str);

/// What the bridge refuses.
pub(super) fn bridge(config: &BridgeConfig) -> [Refusal; 1] {
    [(
        "openclaw.encrypt_messages",
        config.openclaw.encrypt_messages,
        "messages cannot be sealed in this release; set it to false",
    )]
}

/// What the server refuses.
pub(super) fn server(config: &ServerConfig) -> [Refusal; 5] {
    let tls = "the server does not speak tls in this release; put a proxy before it";
    [
        (
            "redis_url",
            config.redis_url.is_some(),
            "replicas do not exist in this release; remove it and run one server",
        ),
        (
            "auth_enabled",
            config.auth_enabled,
            "tokens do not exist in this release; set it to false",
        ),
        ("tls.cert", config.tls.cert.is_some(), tls),
        ("tls.key", config.tls.key.is_some(), tls),
        ("tls.client_ca", config.tls.client_ca.is_some(), tls),
    ]
}
