//! Every key, every variable, and which of them wins.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::super::layers::Program;
use super::*;
use crate::config::{Agent, Secret, Source, Transport};

/// Key path, variable, what is given, and what `describe` shows.
const BRIDGE_VARIABLES: [(&str, &str, &str, &str); 21] = [
    ("openclaw.enabled", "LOKI_OPENCLAW_ENABLED", "True", "true"),
    ("openclaw.endpoint", "LOKI_OPENCLAW_ENDPOINT", "https://a:8443/x", "https://a:8443/x"),
    ("openclaw.agent_id", "LOKI_OPENCLAW_AGENT_ID", "loki-1", "loki-1"),
    ("openclaw.namespace", "LOKI_OPENCLAW_NAMESPACE", "production", "production"),
    ("openclaw.heartbeat_interval", "LOKI_OPENCLAW_HEARTBEAT", "60", "1m"),
    ("openclaw.message_timeout", "LOKI_OPENCLAW_TIMEOUT", " 1500ms ", "1500ms"),
    ("openclaw.transport", "LOKI_OPENCLAW_TRANSPORT", "http", "http"),
    ("openclaw.auth_token", "LOKI_OPENCLAW_AUTH_TOKEN", "s3cret", "***"),
    ("openclaw.tls.cert", "LOKI_OPENCLAW_TLS_CERT", "/c.pem", "/c.pem"),
    ("openclaw.tls.key", "LOKI_OPENCLAW_TLS_KEY", "/k.pem", "/k.pem"),
    ("openclaw.tls.ca", "LOKI_OPENCLAW_TLS_CA", "/ca.pem", "/ca.pem"),
    ("openclaw.encrypt_messages", "LOKI_OPENCLAW_ENCRYPT_MESSAGES", "true", "true"),
    ("openclaw.encryption_key", "LOKI_OPENCLAW_ENCRYPTION_KEY", "file:/key", "***"),
    ("enterprise.audit.enabled", "LOKI_AUDIT_DISABLED", "true", "false"),
    ("enterprise.audit.enabled", "LOKI_AUDIT_DISABLED", "false", "true"),
    ("enterprise.audit.syslog.host", "LOKI_AUDIT_SYSLOG_HOST", "logs", "logs"),
    ("enterprise.audit.syslog.port", "LOKI_AUDIT_SYSLOG_PORT", "6514", "6514"),
    ("enterprise.audit.syslog.protocol", "LOKI_AUDIT_SYSLOG_PROTO", "tcp", "tcp"),
    ("dashboard.host", "LOKI_DASHBOARD_HOST", "::1", "::1"),
    ("dashboard.port", "LOKI_DASHBOARD_PORT", "0", "0"),
    ("dashboard.token", "LOKI_DASHBOARD_TOKEN", "s3cret", "***"),
];

/// Key path, value in the file, and what `describe` shows.
const BRIDGE_KEYS: [(&str, &str, &str); 50] = [
    ("openclaw.enabled", "false", "false"),
    ("openclaw.endpoint", "http://server", "http://server"),
    ("openclaw.agent_id", "\"7\"", "7"),
    ("openclaw.namespace", "staging", "staging"),
    ("openclaw.heartbeat_interval", "5", "5s"),
    ("openclaw.message_timeout", "2m", "2m"),
    ("openclaw.transport", "websocket", "websocket"),
    ("openclaw.max_concurrent_tasks", "4", "4"),
    ("openclaw.drain_timeout", "0", "0s"),
    ("openclaw.dedup_window_seconds", "864000", "10d"),
    ("openclaw.retention", "12h", "12h"),
    ("openclaw.data_dir", "/var/lib/loki", "/var/lib/loki"),
    ("openclaw.auth_token", "s3cret", "***"),
    ("openclaw.tls.cert", "c.pem", "c.pem"),
    ("openclaw.tls.key", "k.pem", "k.pem"),
    ("openclaw.tls.ca", "ca.pem", "ca.pem"),
    ("openclaw.encrypt_messages", "false", "false"),
    ("openclaw.encryption_key", "s3cret", "***"),
    ("openclaw.features.task_sharing", "false", "false"),
    ("openclaw.features.state_sync", "false", "false"),
    ("openclaw.features.capabilities_discovery", "false", "false"),
    ("openclaw.authorization.enabled", "true", "true"),
    ("openclaw.authorization.allowed_agents", "[a, b]", "[a, b]"),
    ("openclaw.authorization.allowed_namespaces", "[]", "[]"),
    ("openclaw.retry.initial_interval", "250ms", "250ms"),
    ("openclaw.retry.multiplier", "1.5", "1.5"),
    ("openclaw.retry.max_interval", "60", "1m"),
    ("openclaw.retry.max_age", "36h", "36h"),
    ("openclaw.retry.max_attempts", "9", "9"),
    ("openclaw.state.merge_prefixes", "[queue/, todo/]", "[queue/, todo/]"),
    ("openclaw.state.reject_prefixes", "[lock/]", "[lock/]"),
    ("openclaw.store.segment_size", "2MiB", "2MiB"),
    ("openclaw.store.reserve", "1572864", "1536KiB"),
    ("openclaw.store.max_age.delivered", "1h", "1h"),
    ("openclaw.store.max_age.expired", "0", "0s"),
    ("openclaw.store.max_age.processed", "90", "90s"),
    ("openclaw.store.max_age.rejected", "2d", "2d"),
    ("openclaw.store.max_size.delivered", "1GiB", "1GiB"),
    ("openclaw.store.max_size.expired", "0", "0"),
    ("openclaw.store.max_size.processed", "2048", "2KiB"),
    ("openclaw.store.max_size.rejected", "3MiB", "3MiB"),
    ("agents", "[eng-qa, {type: my-agent}]", "[eng-qa, my-agent]"),
    ("provider", "gemini", "gemini"),
    ("enterprise.audit.enabled", "false", "false"),
    ("enterprise.audit.level", "warning", "warning"),
    ("enterprise.audit.exclude_events", "[message.*]", "[message.*]"),
    ("enterprise.audit.retention", "30d", "30d"),
    ("enterprise.audit.syslog.host", "logs", "logs"),
    ("enterprise.audit.syslog.port", "6514", "6514"),
    ("enterprise.audit.syslog.protocol", "tcp", "tcp"),
];

const SERVER_VARIABLES: [(&str, &str, &str, &str); 16] = [
    ("listen", "OPENCLAW_LISTEN", "[::]:0", "[::]:0"),
    ("data_dir", "OPENCLAW_DATA_DIR", "/data", "/data"),
    ("log_level", "OPENCLAW_LOG_LEVEL", "debug", "debug"),
    ("log_format", "OPENCLAW_LOG_FORMAT", "json", "json"),
    ("auth_enabled", "OPENCLAW_AUTH_ENABLED", "false", "false"),
    ("heartbeat_interval", "OPENCLAW_HEARTBEAT", "10", "10s"),
    ("offer_timeout", "OPENCLAW_OFFER_TIMEOUT", "5", "5s"),
    ("max_attempts", "OPENCLAW_MAX_ATTEMPTS", "2", "2"),
    ("redis_url", "OPENCLAW_REDIS_URL", "redis://:s3cret@redis:6379", "***"),
    ("tls.cert", "OPENCLAW_TLS_CERT", "c.pem", "c.pem"),
    ("tls.key", "OPENCLAW_TLS_KEY", "k.pem", "k.pem"),
    ("tls.client_ca", "OPENCLAW_TLS_CLIENT_CA", "ca.pem", "ca.pem"),
    ("audit.enabled", "OPENCLAW_AUDIT_DISABLED", "true", "false"),
    ("audit.syslog.host", "OPENCLAW_AUDIT_SYSLOG_HOST", "logs", "logs"),
    ("audit.syslog.port", "OPENCLAW_AUDIT_SYSLOG_PORT", "6514", "6514"),
    ("audit.syslog.protocol", "OPENCLAW_AUDIT_SYSLOG_PROTO", "tcp", "tcp"),
];

const SERVER_KEYS: [(&str, &str, &str); 38] = [
    ("listen", "127.0.0.1:9", "127.0.0.1:9"),
    ("hosts", "[claw.lan]", "[claw.lan]"),
    ("data_dir", "store", "store"),
    ("log_level", "warn", "warn"),
    ("log_format", "json", "json"),
    ("auth_enabled", "false", "false"),
    ("heartbeat_interval", "1m", "1m"),
    ("offer_timeout", "45", "45s"),
    ("max_attempts", "3", "3"),
    ("dedup_window_seconds", "3600", "1h"),
    ("max_age", "3d", "3d"),
    ("retention", "7d", "7d"),
    ("redis_url", "redis://redis", "***"),
    ("tls.cert", "c.pem", "c.pem"),
    ("tls.key", "k.pem", "k.pem"),
    ("tls.client_ca", "ca.pem", "ca.pem"),
    ("authorization.enabled", "true", "true"),
    ("authorization.allowed_agents", "[a]", "[a]"),
    ("authorization.allowed_namespaces", "[n]", "[n]"),
    ("state.merge_prefixes", "[]", "[]"),
    ("state.reject_prefixes", "[lock/]", "[lock/]"),
    ("store.segment_size", "1048577", "1048577"),
    ("store.reserve", "1 GiB", "1GiB"),
    ("store.max_age.delivered", "1h", "1h"),
    ("store.max_age.expired", "0", "0s"),
    ("store.max_age.processed", "90", "90s"),
    ("store.max_age.rejected", "2d", "2d"),
    ("store.max_size.delivered", "1GiB", "1GiB"),
    ("store.max_size.expired", "0", "0"),
    ("store.max_size.processed", "2048", "2KiB"),
    ("store.max_size.rejected", "3MiB", "3MiB"),
    ("audit.enabled", "false", "false"),
    ("audit.level", "warning", "warning"),
    ("audit.exclude_events", "[openclaw.*]", "[openclaw.*]"),
    ("audit.retention", "30d", "30d"),
    ("audit.syslog.host", "logs", "logs"),
    ("audit.syslog.port", "6514", "6514"),
    ("audit.syslog.protocol", "tcp", "tcp"),
];

fn variables_of<C: Program>() -> BTreeSet<&'static str> {
    C::known().iter().filter_map(|known| known.variable).collect()
}

fn keys_of<C: Program>() -> BTreeSet<&'static str> {
    C::known().iter().filter(|known| known.in_file).map(|known| known.key).collect()
}

#[test]
fn every_variable_of_the_bridge_fills_its_setting() {
    let named: BTreeSet<&str> = BRIDGE_VARIABLES.iter().map(|row| row.1).collect();
    assert_eq!(named, variables_of::<BridgeConfig>());
    for (key, name, text, shown) in BRIDGE_VARIABLES {
        let fixture = Fixture::new("");
        let overrides = Overrides { config: Some(fixture.path()), ..Overrides::default() };
        let loaded = BridgeConfig::unchecked(&overrides, &environment(&[(name, text)])).unwrap();
        assert_eq!(described(&fixture, &loaded, key), format!("{shown} ({name})"));
        assert!(loaded.warnings.is_empty());
    }
}

#[test]
fn every_variable_of_the_server_fills_its_setting() {
    let named: BTreeSet<&str> = SERVER_VARIABLES.iter().map(|row| row.1).collect();
    assert_eq!(named, variables_of::<ServerConfig>());
    for (key, name, text, shown) in SERVER_VARIABLES {
        let fixture = Fixture::new("");
        let overrides = ServerOverrides::default();
        let loaded = ServerConfig::unchecked(&overrides, &environment(&[(name, text)])).unwrap();
        assert_eq!(described(&fixture, &loaded, key), format!("{shown} ({name})"));
    }
}

#[test]
fn every_key_of_the_bridge_fills_its_setting() {
    let named: BTreeSet<&str> = BRIDGE_KEYS.iter().map(|row| row.0).collect();
    assert_eq!(named, keys_of::<BridgeConfig>());
    for (key, text, shown) in BRIDGE_KEYS {
        let fixture = Fixture::new(nested(key, text));
        let overrides = Overrides { config: Some(fixture.path()), ..Overrides::default() };
        let loaded = BridgeConfig::unchecked(&overrides, &environment(&[])).unwrap();
        let line = key.split('.').count();
        assert_eq!(described(&fixture, &loaded, key), format!("{shown} (config.yaml:{line})"));
    }
}

#[test]
fn every_key_of_the_server_fills_its_setting() {
    let named: BTreeSet<&str> = SERVER_KEYS.iter().map(|row| row.0).collect();
    assert_eq!(named, keys_of::<ServerConfig>());
    for (key, text, shown) in SERVER_KEYS {
        let fixture = Fixture::new(nested(key, text));
        let config = Some(fixture.path());
        let overrides = ServerOverrides { config, ..ServerOverrides::default() };
        let loaded = ServerConfig::unchecked(&overrides, &environment(&[])).unwrap();
        let line = key.split('.').count();
        assert_eq!(described(&fixture, &loaded, key), format!("{shown} (config.yaml:{line})"));
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let fixture = Fixture::new("openclaw:\n  enabled: false\n  data_dir: from-file\n");
    let variables = environment(&[("LOKI_OPENCLAW_ENABLED", "false")]);
    let mut overrides = Overrides { config: Some(fixture.path()), ..Overrides::default() };
    let enabled = |overrides: &Overrides, variables: &Environment| {
        let loaded = BridgeConfig::unchecked(overrides, variables).unwrap();
        let shown = described(&fixture, &loaded, "openclaw.enabled");
        format!("{shown}, {}", described(&fixture, &loaded, "openclaw.data_dir"))
    };
    assert_eq!(
        enabled(&overrides, &environment(&[])),
        "false (config.yaml:2), from-file (config.yaml:3)"
    );
    assert_eq!(
        enabled(&overrides, &variables),
        "false (LOKI_OPENCLAW_ENABLED), from-file (config.yaml:3)"
    );
    overrides.openclaw = true;
    overrides.data_dir = Some(PathBuf::from("from-flag"));
    assert_eq!(enabled(&overrides, &variables), "true (--openclaw), from-flag (--data-dir)");
}

#[test]
fn the_servers_flags_beat_its_variables() {
    let variables = environment(&[("OPENCLAW_LISTEN", "0.0.0.0:1"), ("OPENCLAW_DATA_DIR", "v")]);
    let data_dir = Some(PathBuf::from("d"));
    let listen = Some("127.0.0.1:0".to_owned());
    let overrides = ServerOverrides { data_dir, listen, ..ServerOverrides::default() };
    let loaded = ServerConfig::load(&overrides, &variables).unwrap();
    assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:0");
    assert_eq!(loaded.source("listen"), Source::Flag("--listen"));
    assert_eq!(loaded.source("data_dir"), Source::Flag("--data-dir"));
}

#[test]
fn nothing_given_is_the_default_everywhere() {
    let fixture = Fixture::new("");
    let variables = [("LOKI_OPENCLAW_ENDPOINT", ""), ("OPENCLAW_LISTEN", "")];
    assert_eq!(fixture.bridge(&variables).unwrap().config, BridgeConfig::default());
    assert_eq!(fixture.server(&variables).unwrap().config, ServerConfig::default());
    let empty = Fixture::new("# only a note\nopenclaw:\n  endpoint:\n  tls: ~\nagents:\n");
    let loaded = empty.bridge(&[]).unwrap();
    assert_eq!(loaded.config, BridgeConfig::default());
    assert_eq!(loaded.source("openclaw.endpoint"), Source::Default);
}

#[test]
fn agents_are_names_or_mappings() {
    let text = "agents:\n  - eng-qa\n  - type: eng-backend\n    command: [run, --fast]\n    \
                task_types: [testing]\n    models: [opus]\n    timeout: 1h\n    \
                env: {TOKEN: s3cret}\n";
    let loaded = Fixture::new(text).bridge(&[]).unwrap();
    let named = Agent { agent_type: "eng-qa".to_owned(), ..Agent::default() };
    let full = Agent {
        agent_type: "eng-backend".to_owned(),
        command: vec!["run".to_owned(), "--fast".to_owned()],
        task_types: vec!["testing".to_owned()],
        models: vec!["opus".to_owned()],
        timeout: Some(Duration::from_hours(1)),
        env: [("TOKEN".to_owned(), Secret::new("s3cret"))].into(),
    };
    assert_eq!(loaded.config.agents, [named, full]);
}

#[test]
fn anchors_tags_and_quotes_mean_what_yaml_says() {
    let text = "x: &ns prod\nopenclaw:\n  namespace: *ns\n  'transport': \"http\"\n  \
                agent_id: !!str 7\n  enabled: !mine false\n";
    let config = Fixture::new(text).bridge(&[]).unwrap().config.openclaw;
    assert_eq!((config.namespace.as_str(), config.transport), ("prod", Transport::Http));
    assert_eq!((config.agent_id.as_deref(), config.enabled), (Some("7"), false));
}

#[test]
fn no_secret_is_shown_anywhere() {
    let text = "openclaw:\n  auth_token: s3cret\n  encryption_key: s3cret\n\
                agents:\n  - type: a\n    env: {KEY: s3cret}\n";
    let fixture = Fixture::new(text);
    let loaded = fixture.bridge(&[("LOKI_DASHBOARD_TOKEN", "s3cret")]).unwrap();
    let json = serde_json::to_string(&loaded.describe()).unwrap();
    assert!(!format!("{loaded:?} {json}").contains("s3cret"));
    assert!(
        json.contains(
            r#"{"name":"dashboard.token","value":"***","source":"LOKI_DASHBOARD_TOKEN"}"#
        )
    );
    assert!(json.contains(r#"{"name":"openclaw.endpoint","value":null,"source":"default"}"#));
    assert_eq!(loaded.config.openclaw.auth_token.unwrap().reveal(), "s3cret");
}
