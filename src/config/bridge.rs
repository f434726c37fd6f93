//! The configuration of `loki`: its sections, its settings and what must hold between them.

use std::path::PathBuf;

use super::agents::{Agent, Provider};
use super::audit::Audit;
use super::check::{self, Rule};
use super::dashboard::Dashboard;
use super::error::ConfigError;
use super::known::Known;
use super::layers::{self, Chosen, Environment, Flag, Loaded, Program};
use super::openclaw::OpenClaw;
use super::unsupported::{self, Refusal};

/// The file that is read when no flag names one.
pub const DEFAULT_FILE: &str = ".loki/config.yaml";

/// The id that only the server may use.
const RESERVED_AGENT_ID: &str = "openclaw-server";

/// Everything that `loki` can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeConfig {
    /// The bridge.
    pub openclaw: OpenClaw,
    /// The agents on this machine, in order of preference.
    pub agents: Vec<Agent>,
    /// Who runs the tasks of agents without a command.
    pub provider: Provider,
    /// The audit log.
    pub audit: Audit,
    /// The bridge's own server.
    pub dashboard: Dashboard,
}

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--openclaw`: enables the bridge.
    pub openclaw: bool,
    /// `--embedded`: the server runs in the same process, so no endpoint is needed.
    pub embedded: bool,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            openclaw: OpenClaw::default(),
            agents: Vec::new(),
            provider: Provider::Claude,
            audit: Audit::default(),
            dashboard: Dashboard::default(),
        }
    }
}

impl BridgeConfig {
    /// Reads all layers and judges them.
    ///
    /// # Errors
    /// The first fault that is found, as a sentence that names where it was given.
    pub fn load(
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Loaded<Self>, ConfigError> {
        let loaded = Self::unchecked(overrides, environment)?;
        layers::check(&loaded)?;
        let openclaw = &loaded.config.openclaw;
        if openclaw.enabled && openclaw.endpoint.is_none() && !overrides.embedded {
            return Err(ConfigError::Conflict {
                source_of_value: loaded.source("openclaw.enabled"),
                detail: "the bridge is enabled without a server: set LOKI_OPENCLAW_ENDPOINT or \
                         openclaw.endpoint"
                    .to_owned(),
            });
        }
        Ok(loaded)
    }

    /// Reads all layers without judging whether their values go together: to show them.
    ///
    /// # Errors
    /// A file or a value that cannot be read at all.
    pub fn unchecked(
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Loaded<Self>, ConfigError> {
        let usual = || Chosen::Usual(PathBuf::from(DEFAULT_FILE));
        let chosen = overrides.config.clone().map_or_else(usual, Chosen::Named);
        let mut flags: Vec<Flag> = Vec::new();
        if let Some(data_dir) = &overrides.data_dir {
            let text = data_dir.to_string_lossy().into_owned();
            flags.push(("openclaw.data_dir", "--data-dir", text));
        }
        if overrides.openclaw {
            flags.push(("openclaw.enabled", "--openclaw", "true".to_owned()));
        }
        layers::load(&chosen, environment, &flags)
    }
}

impl Program for BridgeConfig {
    const SHARED: &'static [&'static str] = &["", "enterprise"];
    const PREFIX: &'static str = "LOKI_OPENCLAW_";

    fn known() -> &'static [Known<Self>] {
        &KNOWN
    }

    fn rules(&self) -> Vec<Rule> {
        let (bridge, audit) = (&self.openclaw, &self.audit);
        let token = |token: &Option<_>| token.as_ref().is_none_or(check::is_token);
        let agent_id = |id: &String| check::is_id(id) && id != RESERVED_AGENT_ID;
        let mut rules = vec![
            (
                "openclaw.endpoint",
                bridge.endpoint.as_deref().is_none_or(check::is_endpoint),
                "http:// or https:// with a host, without user name, query or fragment",
            ),
            (
                "openclaw.agent_id",
                bridge.agent_id.as_ref().is_none_or(agent_id),
                "1 to 128 of A-Z a-z 0-9 . _ : - and not openclaw-server",
            ),
            ("openclaw.namespace", check::is_id(&bridge.namespace), check::ID),
            check::positive("openclaw.heartbeat_interval", bridge.heartbeat_interval),
            check::positive("openclaw.message_timeout", bridge.message_timeout),
            ("openclaw.max_concurrent_tasks", bridge.max_concurrent_tasks > 0, "1 or more"),
            check::bounded("openclaw.drain_timeout", bridge.drain_timeout),
            check::positive("openclaw.dedup_window_seconds", bridge.dedup_window),
            check::bounded("openclaw.retention", bridge.retention),
            ("openclaw.data_dir", check::is_path(&bridge.data_dir), check::PATH),
            ("openclaw.auth_token", token(&bridge.auth_token), check::TOKEN),
            check::ids(
                "openclaw.authorization.allowed_agents",
                &bridge.authorization.allowed_agents,
            ),
            check::ids(
                "openclaw.authorization.allowed_namespaces",
                &bridge.authorization.allowed_namespaces,
            ),
            check::positive("openclaw.retry.initial_interval", bridge.retry.initial_interval),
            ("openclaw.retry.multiplier", bridge.retry.multiplier >= 1.0, "1 or more"),
            check::positive("openclaw.retry.max_interval", bridge.retry.max_interval),
            check::positive("openclaw.retry.max_age", bridge.retry.max_age),
            check::prefixes("openclaw.state.merge_prefixes", &bridge.state.merge_prefixes),
            check::prefixes("openclaw.state.reject_prefixes", &bridge.state.reject_prefixes),
            check::positive("enterprise.audit.retention", audit.retention),
            ("enterprise.audit.syslog.port", audit.syslog.port > 0, "a port from 1 to 65535"),
            (
                "dashboard.host",
                check::is_host(&self.dashboard.host),
                "a host name or an ip address",
            ),
            ("dashboard.token", token(&self.dashboard.token), check::TOKEN),
        ];
        rules.extend(bridge.store.rules(
            ["openclaw.store.segment_size", "openclaw.store.reserve"],
            [
                "openclaw.store.max_age.delivered",
                "openclaw.store.max_age.expired",
                "openclaw.store.max_age.processed",
                "openclaw.store.max_age.rejected",
            ],
        ));
        rules
    }

    fn refusals(&self) -> Vec<Refusal> {
        unsupported::bridge(self).to_vec()
    }

    fn conflicts(&self) -> Vec<(&'static str, bool, String)> {
        let bridge = &self.openclaw;
        let exposed = !self.dashboard.is_loopback() && self.dashboard.token.is_none();
        let host = &self.dashboard.host;
        vec![
            (
                "openclaw.tls.cert",
                bridge.tls.cert.is_some() && bridge.tls.key.is_none(),
                "`openclaw.tls.cert` needs `openclaw.tls.key`".to_owned(),
            ),
            (
                "openclaw.tls.key",
                bridge.tls.key.is_some() && bridge.tls.cert.is_none(),
                "`openclaw.tls.key` needs `openclaw.tls.cert`".to_owned(),
            ),
            (
                "openclaw.retry.max_interval",
                bridge.retry.max_interval < bridge.retry.initial_interval,
                "`openclaw.retry.max_interval` is shorter than `openclaw.retry.initial_interval`"
                    .to_owned(),
            ),
            (
                "openclaw.dedup_window_seconds",
                bridge.dedup_window <= bridge.retry.max_age,
                "`openclaw.dedup_window_seconds` must be longer than `openclaw.retry.max_age`, or \
                 a late repetition would be taken for a new message"
                    .to_owned(),
            ),
            (
                "dashboard.host",
                exposed,
                format!("listening on `{host}` needs a token: set LOKI_DASHBOARD_TOKEN"),
            ),
        ]
    }
}

type Row = Known<BridgeConfig>;

/// Every setting of `loki`, in the order of `docs/configuration.md`.
static KNOWN: [Row; 53] = [
    Row::key("openclaw.enabled", |c| &mut c.openclaw.enabled).variable("LOKI_OPENCLAW_ENABLED"),
    Row::key("openclaw.endpoint", |c| &mut c.openclaw.endpoint).variable("LOKI_OPENCLAW_ENDPOINT"),
    Row::key("openclaw.agent_id", |c| &mut c.openclaw.agent_id).variable("LOKI_OPENCLAW_AGENT_ID"),
    Row::key("openclaw.namespace", |c| &mut c.openclaw.namespace)
        .variable("LOKI_OPENCLAW_NAMESPACE"),
    Row::key("openclaw.heartbeat_interval", |c| &mut c.openclaw.heartbeat_interval)
        .variable("LOKI_OPENCLAW_HEARTBEAT"),
    Row::key("openclaw.message_timeout", |c| &mut c.openclaw.message_timeout)
        .variable("LOKI_OPENCLAW_TIMEOUT"),
    Row::key("openclaw.transport", |c| &mut c.openclaw.transport)
        .variable("LOKI_OPENCLAW_TRANSPORT"),
    Row::key("openclaw.max_concurrent_tasks", |c| &mut c.openclaw.max_concurrent_tasks),
    Row::key("openclaw.drain_timeout", |c| &mut c.openclaw.drain_timeout),
    Row::key("openclaw.dedup_window_seconds", |c| &mut c.openclaw.dedup_window),
    Row::key("openclaw.retention", |c| &mut c.openclaw.retention),
    Row::key("openclaw.data_dir", |c| &mut c.openclaw.data_dir),
    Row::key("openclaw.auth_token", |c| &mut c.openclaw.auth_token)
        .variable("LOKI_OPENCLAW_AUTH_TOKEN"),
    Row::key("openclaw.tls.cert", |c| &mut c.openclaw.tls.cert).variable("LOKI_OPENCLAW_TLS_CERT"),
    Row::key("openclaw.tls.key", |c| &mut c.openclaw.tls.key).variable("LOKI_OPENCLAW_TLS_KEY"),
    Row::key("openclaw.tls.ca", |c| &mut c.openclaw.tls.ca).variable("LOKI_OPENCLAW_TLS_CA"),
    Row::key("openclaw.encrypt_messages", |c| &mut c.openclaw.encrypt_messages)
        .variable("LOKI_OPENCLAW_ENCRYPT_MESSAGES"),
    Row::key("openclaw.encryption_key", |c| &mut c.openclaw.encryption_key)
        .variable("LOKI_OPENCLAW_ENCRYPTION_KEY"),
    Row::key("openclaw.features.task_sharing", |c| &mut c.openclaw.features.task_sharing),
    Row::key("openclaw.features.state_sync", |c| &mut c.openclaw.features.state_sync),
    Row::key("openclaw.features.capabilities_discovery", |c| {
        &mut c.openclaw.features.capabilities_discovery
    }),
    Row::key("openclaw.authorization.enabled", |c| &mut c.openclaw.authorization.enabled),
    Row::key("openclaw.authorization.allowed_agents", |c| {
        &mut c.openclaw.authorization.allowed_agents
    }),
    Row::key("openclaw.authorization.allowed_namespaces", |c| {
        &mut c.openclaw.authorization.allowed_namespaces
    }),
    Row::key("openclaw.retry.initial_interval", |c| &mut c.openclaw.retry.initial_interval),
    Row::key("openclaw.retry.multiplier", |c| &mut c.openclaw.retry.multiplier),
    Row::key("openclaw.retry.max_interval", |c| &mut c.openclaw.retry.max_interval),
    Row::key("openclaw.retry.max_age", |c| &mut c.openclaw.retry.max_age),
    Row::key("openclaw.retry.max_attempts", |c| &mut c.openclaw.retry.max_attempts),
    Row::key("openclaw.state.merge_prefixes", |c| &mut c.openclaw.state.merge_prefixes),
    Row::key("openclaw.state.reject_prefixes", |c| &mut c.openclaw.state.reject_prefixes),
    Row::key("openclaw.store.segment_size", |c| &mut c.openclaw.store.segment_size),
    Row::key("openclaw.store.reserve", |c| &mut c.openclaw.store.reserve),
    Row::key("openclaw.store.max_age.delivered", |c| &mut c.openclaw.store.max_age.delivered),
    Row::key("openclaw.store.max_age.expired", |c| &mut c.openclaw.store.max_age.expired),
    Row::key("openclaw.store.max_age.processed", |c| &mut c.openclaw.store.max_age.processed),
    Row::key("openclaw.store.max_age.rejected", |c| &mut c.openclaw.store.max_age.rejected),
    Row::key("openclaw.store.max_size.delivered", |c| &mut c.openclaw.store.max_size.delivered),
    Row::key("openclaw.store.max_size.expired", |c| &mut c.openclaw.store.max_size.expired),
    Row::key("openclaw.store.max_size.processed", |c| &mut c.openclaw.store.max_size.processed),
    Row::key("openclaw.store.max_size.rejected", |c| &mut c.openclaw.store.max_size.rejected),
    Row::key("agents", |c| &mut c.agents),
    Row::key("provider", |c| &mut c.provider),
    Row::key("enterprise.audit.enabled", |c| &mut c.audit.enabled).opposite("LOKI_AUDIT_DISABLED"),
    Row::key("enterprise.audit.level", |c| &mut c.audit.level),
    Row::key("enterprise.audit.exclude_events", |c| &mut c.audit.exclude_events),
    Row::key("enterprise.audit.retention", |c| &mut c.audit.retention),
    Row::key("enterprise.audit.syslog.host", |c| &mut c.audit.syslog.host)
        .variable("LOKI_AUDIT_SYSLOG_HOST"),
    Row::key("enterprise.audit.syslog.port", |c| &mut c.audit.syslog.port)
        .variable("LOKI_AUDIT_SYSLOG_PORT"),
    Row::key("enterprise.audit.syslog.protocol", |c| &mut c.audit.syslog.protocol)
        .variable("LOKI_AUDIT_SYSLOG_PROTO"),
    Row::key("dashboard.host", |c| &mut c.dashboard.host)
        .variable("LOKI_DASHBOARD_HOST")
        .outside_the_file(),
    Row::key("dashboard.port", |c| &mut c.dashboard.port)
        .variable("LOKI_DASHBOARD_PORT")
        .outside_the_file(),
    Row::key("dashboard.token", |c| &mut c.dashboard.token)
        .variable("LOKI_DASHBOARD_TOKEN")
        .outside_the_file(),
];
