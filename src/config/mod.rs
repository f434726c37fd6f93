//! Configuration: one file a section, layered as flag, environment, file, default. Starts nothing
//! and prints nothing. `docs/configuration.md` describes every setting.

mod agents;
mod audit;
mod authorization;
mod bridge;
mod check;
mod dashboard;
mod error;
mod features;
mod field;
mod known;
mod layers;
mod openclaw;
mod pairs;
mod secret;
mod server;
mod source;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod unsupported;
mod yaml;

pub use agents::{Agent, Provider};
pub use audit::{Audit, AuditLevel, Syslog, SyslogProtocol};
pub use authorization::Authorization;
pub use bridge::{BridgeConfig, DEFAULT_FILE, Overrides};
pub use dashboard::Dashboard;
pub use error::{ConfigError, EXIT_CODE};
pub use features::Features;
pub use layers::{Environment, Loaded};
pub use openclaw::{OpenClaw, Transport};
pub use secret::{REDACTED, Secret};
pub use server::{LogFormat, LogLevel, ServerConfig, ServerOverrides};
pub use source::{Setting, Source};
pub use state::StateRules;
pub use store::{ByStatus, Size, StoreRules};
pub use tls::{ClientTls, ServerTls};

/// The process's environment, as far as it can be about us. The one place that reads it.
pub fn process_environment() -> Environment {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .filter(|(name, _)| name.starts_with("LOKI_") || name.starts_with("OPENCLAW_"))
        .collect()
}
