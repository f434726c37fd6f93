//! `enterprise.audit`, `audit` of the server: what is written to the audit log, for how long, and
//! who else gets it. The records that the message queue itself needs are written whatever stands
//! here.

use std::time::Duration;

use super::field::choice;

choice! {
    /// The lowest level of event that is recorded.
    AuditLevel, expected "one of debug, info, warning, error, critical", {
        /// Everything, also sampled heartbeats.
        Debug = "debug",
        /// What happened.
        Info = "info",
        /// What a person may want to look at.
        Warning = "warning",
        /// What failed.
        Error = "error",
        /// What endangers the store or its security.
        Critical = "critical",
    }
}

choice! {
    /// How lines travel to syslog.
    SyslogProtocol, expected "udp or tcp", {
        /// One datagram a line, RFC 5426.
        Udp = "udp",
        /// Counted octets, RFC 6587.
        Tcp = "tcp",
    }
}

/// The audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// Whether purely informative events are written.
    pub enabled: bool,
    /// The lowest level that is written.
    pub level: AuditLevel,
    /// Events that are not written: names, or prefixes that end in `*`.
    pub exclude_events: Vec<String>,
    /// How long an entry is kept.
    pub retention: Duration,
    /// A copy to syslog.
    pub syslog: Syslog,
}

/// The syslog server that gets a copy of each entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Syslog {
    /// The server; none: no copy.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// How lines travel.
    pub protocol: SyslogProtocol,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            enabled: true,
            level: AuditLevel::Info,
            exclude_events: Vec::new(),
            retention: Duration::from_hours(365 * 24),
            syslog: Syslog::default(),
        }
    }
}

impl Default for Syslog {
    fn default() -> Self {
        Self { host: None, port: 514, protocol: SyslogProtocol::Udp }
    }
}
