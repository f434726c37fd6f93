//! The configuration of `openclaw-server`: its settings and what must hold between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::audit::{Audit, AuditLevel};
use super::authorization::Authorization;
use super::check::{self, Rule};
use super::error::ConfigError;
use super::field::choice;
use super::known::Known;
use super::layers::{self, Chosen, Environment, Flag, Loaded, Program};
use super::secret::Secret;
use super::state::StateRules;
use super::store::StoreRules;
use super::tls::ServerTls;
use super::unsupported::{self, Refusal};

choice! {
    /// How much the server says about itself on stderr.
    LogLevel, expected "one of error, warn, info, debug, trace", {
        /// What failed.
        Error = "error",
        /// What a person may want to look at.
        Warn = "warn",
        /// What happened.
        Info = "info",
        /// How it happened.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// In which form a program logs on stderr.
    LogFormat, expected "one of text, json", {
        /// Lines for people.
        Text = "text",
        /// An object a line, for programs.
        Json = "json",
    }
}

/// Everything that `openclaw-server` can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names under which browsers may reach the server.
    pub hosts: Vec<String>,
    /// The folder of the journal, the view and the endpoint file.
    pub data_dir: PathBuf,
    /// How much is logged.
    pub log_level: LogLevel,
    /// In which form.
    pub log_format: LogFormat,
    /// Whether a caller needs a token.
    pub auth_enabled: bool,
    /// How often an agent must say that it is alive.
    pub heartbeat_interval: Duration,
    /// How long an offered task waits for its answer.
    pub offer_timeout: Duration,
    /// How often a task is offered before it fails.
    pub max_attempts: u32,
    /// How long received ids are remembered.
    pub dedup_window: Duration,
    /// How long a message may lie in a mailbox before it goes back to its sender.
    pub max_age: Duration,
    /// How long finished tasks and messages are kept.
    pub retention: Duration,
    /// The store that replicas would share. A secret: it may hold a password.
    pub redis_url: Option<Secret>,
    /// Certificates.
    pub tls: ServerTls,
    /// Who may send to the server.
    pub authorization: Authorization,
    /// Strategies of the shared state.
    pub state: StateRules,
    /// The files of the store.
    pub store: StoreRules,
    /// The audit log.
    pub audit: Audit,
}

/// What the server's command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServerOverrides {
    /// `--config`; without it no file is read.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            hosts: Vec::new(),
            data_dir: PathBuf::from(".loki/openclaw"),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            auth_enabled: false,
            heartbeat_interval: Duration::from_secs(30),
            offer_timeout: Duration::from_secs(30),
            max_attempts: 5,
            dedup_window: Duration::from_hours(8 * 24),
            max_age: Duration::from_hours(7 * 24),
            retention: Duration::from_hours(30 * 24),
            redis_url: None,
            tls: ServerTls::default(),
            authorization: Authorization::default(),
            state: StateRules::default(),
            store: StoreRules::default(),
            audit: Audit { level: AuditLevel::Debug, ..Audit::default() },
        }
    }
}

impl ServerConfig {
    /// Reads all layers and judges them.
    ///
    /// # Errors
    /// The first fault that is found, as a sentence that names where it was given.
    pub fn load(
        overrides: &ServerOverrides,
        environment: &Environment,
    ) -> Result<Loaded<Self>, ConfigError> {
        let loaded = Self::unchecked(overrides, environment)?;
        layers::check(&loaded)?;
        Ok(loaded)
    }

    /// Reads all layers without judging whether their values go together: to show them.
    ///
    /// # Errors
    /// A file or a value that cannot be read at all.
    pub fn unchecked(
        overrides: &ServerOverrides,
        environment: &Environment,
    ) -> Result<Loaded<Self>, ConfigError> {
        let chosen = overrides.config.clone().map_or(Chosen::Nothing, Chosen::Named);
        let data_dir = overrides.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
        let flags: Vec<Flag> = [
            data_dir.map(|text| ("data_dir", "--data-dir", text)),
            overrides.listen.clone().map(|text| ("listen", "--listen", text)),
        ]
        .into_iter()
        .flatten()
        .collect();
        layers::load(&chosen, environment, &flags)
    }
}

impl Program for ServerConfig {
    const SHARED: &'static [&'static str] = &[];
    const PREFIX: &'static str = "OPENCLAW_";

    fn known() -> &'static [Known<Self>] {
        &KNOWN
    }

    fn rules(&self) -> Vec<Rule> {
        let mut rules = vec![
            ("hosts", self.hosts.iter().all(|host| check::is_name(host)), check::NAMES),
            ("data_dir", check::is_path(&self.data_dir), check::PATH),
            check::positive("heartbeat_interval", self.heartbeat_interval),
            check::positive("offer_timeout", self.offer_timeout),
            ("max_attempts", self.max_attempts > 0, "1 or more"),
            check::positive("dedup_window_seconds", self.dedup_window),
            check::positive("max_age", self.max_age),
            check::bounded("retention", self.retention),
            check::ids("authorization.allowed_agents", &self.authorization.allowed_agents),
            check::ids("authorization.allowed_namespaces", &self.authorization.allowed_namespaces),
            check::prefixes("state.merge_prefixes", &self.state.merge_prefixes),
            check::prefixes("state.reject_prefixes", &self.state.reject_prefixes),
            check::positive("audit.retention", self.audit.retention),
            ("audit.syslog.port", self.audit.syslog.port > 0, "a port from 1 to 65535"),
        ];
        rules.extend(self.store.rules(
            ["store.segment_size", "store.reserve"],
            [
                "store.max_age.delivered",
                "store.max_age.expired",
                "store.max_age.processed",
                "store.max_age.rejected",
            ],
        ));
        rules
    }

    fn refusals(&self) -> Vec<Refusal> {
        unsupported::server(self).to_vec()
    }

    fn conflicts(&self) -> Vec<(&'static str, bool, String)> {
        Vec::new()
    }
}

type Row = Known<ServerConfig>;

/// Every setting of `openclaw-server`, in the order of `docs/configuration.md`.
static KNOWN: [Row; 38] = [
    Row::key("listen", |c| &mut c.listen).variable("OPENCLAW_LISTEN"),
    Row::key("hosts", |c| &mut c.hosts),
    Row::key("data_dir", |c| &mut c.data_dir).variable("OPENCLAW_DATA_DIR"),
    Row::key("log_level", |c| &mut c.log_level).variable("OPENCLAW_LOG_LEVEL"),
    Row::key("log_format", |c| &mut c.log_format).variable("OPENCLAW_LOG_FORMAT"),
    Row::key("auth_enabled", |c| &mut c.auth_enabled).variable("OPENCLAW_AUTH_ENABLED"),
    Row::key("heartbeat_interval", |c| &mut c.heartbeat_interval).variable("OPENCLAW_HEARTBEAT"),
    Row::key("offer_timeout", |c| &mut c.offer_timeout).variable("OPENCLAW_OFFER_TIMEOUT"),
    Row::key("max_attempts", |c| &mut c.max_attempts).variable("OPENCLAW_MAX_ATTEMPTS"),
    Row::key("dedup_window_seconds", |c| &mut c.dedup_window),
    Row::key("max_age", |c| &mut c.max_age),
    Row::key("retention", |c| &mut c.retention),
    Row::key("redis_url", |c| &mut c.redis_url).variable("OPENCLAW_REDIS_URL"),
    Row::key("tls.cert", |c| &mut c.tls.cert).variable("OPENCLAW_TLS_CERT"),
    Row::key("tls.key", |c| &mut c.tls.key).variable("OPENCLAW_TLS_KEY"),
    Row::key("tls.client_ca", |c| &mut c.tls.client_ca).variable("OPENCLAW_TLS_CLIENT_CA"),
    Row::key("authorization.enabled", |c| &mut c.authorization.enabled),
    Row::key("authorization.allowed_agents", |c| &mut c.authorization.allowed_agents),
    Row::key("authorization.allowed_namespaces", |c| &mut c.authorization.allowed_namespaces),
    Row::key("state.merge_prefixes", |c| &mut c.state.merge_prefixes),
    Row::key("state.reject_prefixes", |c| &mut c.state.reject_prefixes),
    Row::key("store.segment_size", |c| &mut c.store.segment_size),
    Row::key("store.reserve", |c| &mut c.store.reserve),
    Row::key("store.max_age.delivered", |c| &mut c.store.max_age.delivered),
    Row::key("store.max_age.expired", |c| &mut c.store.max_age.expired),
    Row::key("store.max_age.processed", |c| &mut c.store.max_age.processed),
    Row::key("store.max_age.rejected", |c| &mut c.store.max_age.rejected),
    Row::key("store.max_size.delivered", |c| &mut c.store.max_size.delivered),
    Row::key("store.max_size.expired", |c| &mut c.store.max_size.expired),
    Row::key("store.max_size.processed", |c| &mut c.store.max_size.processed),
    Row::key("store.max_size.rejected", |c| &mut c.store.max_size.rejected),
    Row::key("audit.enabled", |c| &mut c.audit.enabled).opposite("OPENCLAW_AUDIT_DISABLED"),
    Row::key("audit.level", |c| &mut c.audit.level),
    Row::key("audit.exclude_events", |c| &mut c.audit.exclude_events),
    Row::key("audit.retention", |c| &mut c.audit.retention),
    Row::key("audit.syslog.host", |c| &mut c.audit.syslog.host)
        .variable("OPENCLAW_AUDIT_SYSLOG_HOST"),
    Row::key("audit.syslog.port", |c| &mut c.audit.syslog.port)
        .variable("OPENCLAW_AUDIT_SYSLOG_PORT"),
    Row::key("audit.syslog.protocol", |c| &mut c.audit.syslog.protocol)
        .variable("OPENCLAW_AUDIT_SYSLOG_PROTO"),
];
