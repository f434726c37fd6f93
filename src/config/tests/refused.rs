//! Every error, with its exact text.

use proptest::prelude::*;

use super::super::layers::Program;
use super::*;

/// A file of the bridge and the sentence about it.
const FILES: &[(&str, &str)] = &[
    (
        "openclaw:\n  endpiont: http://a\n",
        "config.yaml:2: unknown key `openclaw.endpiont`; did you mean `openclaw.endpoint`?",
    ),
    (
        "openclaw:\n  features:\n    task_share: true\n",
        "config.yaml:3: unknown key `openclaw.features.task_share`; did you mean \
         `openclaw.features.task_sharing`?",
    ),
    ("openclaw:\n  colour: red\n", "config.yaml:2: unknown key `openclaw.colour`"),
    (
        "enterprise:\n  audit:\n    levle: info\n",
        "config.yaml:3: unknown key `enterprise.audit.levle`; did you mean \
         `enterprise.audit.level`?",
    ),
    (
        "openclaw:\n  enabled: yes\n",
        "config.yaml:2: `openclaw.enabled` is `yes`, expected true or false",
    ),
    (
        "openclaw:\n  namespace: 2024\n",
        "config.yaml:2: `openclaw.namespace` is `2024`, expected text (a number needs quotes)",
    ),
    (
        "openclaw:\n  namespace: a b\n",
        "config.yaml:2: `openclaw.namespace` is `a b`, expected 1 to 128 of A-Z a-z 0-9 . _ : -",
    ),
    (
        "openclaw:\n  agent_id: openclaw-server\n",
        "config.yaml:2: `openclaw.agent_id` is `openclaw-server`, expected 1 to 128 of A-Z a-z \
         0-9 . _ : - and not openclaw-server",
    ),
    (
        "openclaw:\n  store:\n    segment_size: 1000\n",
        "config.yaml:3: `openclaw.store.segment_size` is `1000`, expected 1MiB to 1GiB",
    ),
    (
        "openclaw:\n  store:\n    reserve: 1kB\n",
        "config.yaml:3: `openclaw.store.reserve` is `1kB`, expected whole bytes, or a whole \
         number with KiB, MiB or GiB",
    ),
    (
        "openclaw:\n  heartbeat_interval: 0\n",
        "config.yaml:2: `openclaw.heartbeat_interval` is `0s`, expected more than 0, at most \
         36500d",
    ),
    (
        "openclaw:\n  heartbeat_interval: 1.5\n",
        "config.yaml:2: `openclaw.heartbeat_interval` is `1.5`, expected whole seconds, or a \
         whole number with ms, s, m, h or d",
    ),
    (
        "openclaw:\n  message_timeout: -1\n",
        "config.yaml:2: `openclaw.message_timeout` is `-1`, expected whole seconds, or a whole \
         number with ms, s, m, h or d",
    ),
    (
        "openclaw:\n  max_concurrent_tasks: 0\n",
        "config.yaml:2: `openclaw.max_concurrent_tasks` is `0`, expected 1 or more",
    ),
    (
        "openclaw:\n  transport: tcp\n",
        "config.yaml:2: `openclaw.transport` is `tcp`, expected one of auto, websocket, http",
    ),
    (
        "openclaw:\n  endpoint: ws://a\n",
        "config.yaml:2: `openclaw.endpoint` is `ws://a`, expected http:// or https:// with a \
         host, without user name, query or fragment",
    ),
    (
        "openclaw:\n  endpoint: http://me:s3cret@a\n",
        "config.yaml:2: `openclaw.endpoint` is ***, expected http:// or https:// with a host, \
         without user name, query or fragment",
    ),
    (
        "openclaw:\n  auth_token: [s3cret]\n",
        "config.yaml:2: `openclaw.auth_token` is ***, expected text (a number needs quotes)",
    ),
    (
        "openclaw:\n  auth_token: s3 cret\n",
        "config.yaml:2: `openclaw.auth_token` is ***, expected visible ascii characters without \
         spaces",
    ),
    (
        "openclaw:\n  authorization:\n    allowed_agents: a\n",
        "config.yaml:3: `openclaw.authorization.allowed_agents` is `a`, expected a list of texts",
    ),
    (
        "openclaw:\n  tls: /etc/cert.pem\n",
        "config.yaml:2: `openclaw.tls` is `/etc/cert.pem`, expected a mapping",
    ),
    (
        "openclaw:\n  tls:\n    cert: c.pem\n",
        "config.yaml:3: `openclaw.tls.cert` needs `openclaw.tls.key`",
    ),
    (
        "openclaw:\n  tls:\n    key: k.pem\n",
        "config.yaml:3: `openclaw.tls.key` needs `openclaw.tls.cert`",
    ),
    (
        "openclaw:\n  retry:\n    max_interval: 1ms\n",
        "config.yaml:3: `openclaw.retry.max_interval` is shorter than \
         `openclaw.retry.initial_interval`",
    ),
    (
        "openclaw:\n  retry:\n    multiplier: .nan\n",
        "config.yaml:3: `openclaw.retry.multiplier` is `NaN`, expected a number",
    ),
    (
        "openclaw:\n  dedup_window_seconds: 60\n",
        "config.yaml:2: `openclaw.dedup_window_seconds` must be longer than \
         `openclaw.retry.max_age`, or a late repetition would be taken for a new message",
    ),
    (
        "openclaw:\n  encrypt_messages: true\n",
        "config.yaml:2: `openclaw.encrypt_messages` is not supported yet: messages cannot be \
         sealed in this release; set it to false",
    ),
    (
        "openclaw:\n  enabled: true\n",
        "config.yaml:2: the bridge is enabled without a server: set LOKI_OPENCLAW_ENDPOINT or \
         openclaw.endpoint",
    ),
    (
        "openclaw:\n  enabled: true\n  namespace: a\n  enabled: false\n",
        "config.yaml:2: key `openclaw.enabled` is given more than once",
    ),
    (
        "provider: claude\n\"provider\": codex\n",
        "config.yaml:1: key `provider` is given more than once",
    ),
    (
        "provider: gpt\n",
        "config.yaml:1: `provider` is `gpt`, expected one of claude, codex, gemini",
    ),
    (
        "agents: eng-qa\n",
        "config.yaml:1: `agents` is `eng-qa`, expected a list of agent types or of mappings with \
         `type`",
    ),
    (
        "agents:\n  - eng-qa\n  - 7\n",
        "config.yaml:3: `agents[1]` is `7`, expected an agent type or a mapping with `type`",
    ),
    (
        "agents:\n  - type: a\n    comand: [x]\n",
        "config.yaml:3: unknown key `agents[0].comand`; did you mean `agents[0].command`?",
    ),
    (
        "agents:\n  - type: a\n    type: b\n",
        "config.yaml:2: key `agents[0].type` is given more than once",
    ),
    (
        "agents:\n  - type: a\n    timeout: soon\n",
        "config.yaml:3: `agents[0].timeout` is `soon`, expected whole seconds, or a whole number \
         with ms, s, m, h or d",
    ),
    (
        "agents:\n  - type: a\n    timeout: 0\n",
        "config.yaml:2: `agents[0].timeout` is `0s`, expected more than 0, at most 36500d",
    ),
    (
        "agents:\n  - type: a\n    env: {KEY: 7}\n",
        "config.yaml:3: `agents[0].env` is ***, expected names with one text each (a number \
         needs quotes)",
    ),
    (
        "agents:\n  - command: [x]\n",
        "config.yaml:2: `agents[0].type` is ``, expected 1 to 128 of A-Z a-z 0-9 . _ : -",
    ),
    (
        "agents:\n  - type: a\n    command: ['']\n",
        "config.yaml:2: `agents[0].command` is `[]`, expected a program and its arguments",
    ),
    (
        "agents:\n  - type: a\n    env: {A=B: c}\n",
        "config.yaml:2: `agents[0].env` is `[A=B]`, expected names of environment variables",
    ),
    (
        "openclaw.enabled: true\n",
        "config.yaml:1: `openclaw.enabled` must be written as nested keys, one a line",
    ),
    (
        "\u{feff}openclaw:\r\n  enabld: true\r\n",
        "config.yaml:2: unknown key `openclaw.enabld`; did you mean `openclaw.enabled`?",
    ),
    ("openclaw: [\n", "config.yaml:2: not valid yaml: "),
    ("- openclaw\n", "config.yaml:1: expected keys at the top level"),
    ("a: 1\n---\nb: 2\n", "config.yaml:3: a second yaml document begins here"),
];

/// A variable of the bridge, its text, and the sentence about it.
const VARIABLES: &[(&str, &str, &str)] = &[
    (
        "LOKI_OPENCLAW_HEARTBEAT",
        "soon",
        "LOKI_OPENCLAW_HEARTBEAT: `openclaw.heartbeat_interval` is `soon`, expected whole \
         seconds, or a whole number with ms, s, m, h or d",
    ),
    (
        "LOKI_OPENCLAW_TIMEOUT",
        "0",
        "LOKI_OPENCLAW_TIMEOUT: `openclaw.message_timeout` is `0s`, expected more than 0, at \
         most 36500d",
    ),
    (
        "LOKI_OPENCLAW_ENABLED",
        "true",
        "LOKI_OPENCLAW_ENABLED: the bridge is enabled without a server: set \
         LOKI_OPENCLAW_ENDPOINT or openclaw.endpoint",
    ),
    (
        "LOKI_OPENCLAW_AUTH_TOKEN",
        "s3 cret",
        "LOKI_OPENCLAW_AUTH_TOKEN: `openclaw.auth_token` is ***, expected visible ascii \
         characters without spaces",
    ),
    (
        "LOKI_OPENCLAW_ENCRYPT_MESSAGES",
        "true",
        "LOKI_OPENCLAW_ENCRYPT_MESSAGES: `openclaw.encrypt_messages` is not supported yet: \
         messages cannot be sealed in this release; set it to false",
    ),
    (
        "LOKI_AUDIT_DISABLED",
        "maybe",
        "LOKI_AUDIT_DISABLED: `enterprise.audit.enabled` is `maybe`, expected true or false",
    ),
    (
        "LOKI_DASHBOARD_PORT",
        "65536",
        "LOKI_DASHBOARD_PORT: `dashboard.port` is `65536`, expected a port from 0 to 65535",
    ),
    (
        "LOKI_DASHBOARD_HOST",
        "0.0.0.0",
        "LOKI_DASHBOARD_HOST: listening on `0.0.0.0` needs a token: set LOKI_DASHBOARD_TOKEN",
    ),
    (
        "LOKI_DASHBOARD_HOST",
        "a b",
        "LOKI_DASHBOARD_HOST: `dashboard.host` is `a b`, expected a host name or an ip address",
    ),
];

/// A file of the server, a variable, and the sentence.
const SERVER: &[(&str, &str, &str, &str)] = &[
    (
        "",
        "OPENCLAW_REDIS_URL",
        "redis://:s3cret@redis:6379",
        "OPENCLAW_REDIS_URL: `redis_url` is not supported yet: replicas do not exist in this \
         release; remove it and run one server",
    ),
    (
        "",
        "OPENCLAW_AUTH_ENABLED",
        "true",
        "OPENCLAW_AUTH_ENABLED: `auth_enabled` is not supported yet: tokens do not exist in this \
         release; set it to false",
    ),
    (
        "tls:\n  client_ca: ca.pem\n",
        "",
        "",
        "config.yaml:2: `tls.client_ca` is not supported yet: the server does not speak tls in \
         this release; put a proxy before it",
    ),
    (
        "",
        "OPENCLAW_LISTEN",
        "localhost",
        "OPENCLAW_LISTEN: `listen` is `localhost`, expected an ip address and a port, as in \
         0.0.0.0:8080",
    ),
    (
        "",
        "OPENCLAW_MAX_ATTEMPTS",
        "0",
        "OPENCLAW_MAX_ATTEMPTS: `max_attempts` is `0`, expected 1 or more",
    ),
    ("lissten: a\n", "", "", "config.yaml:1: unknown key `lissten`; did you mean `listen`?"),
    ("openclaw:\n  enabled: true\n", "", "", "config.yaml:1: unknown key `openclaw`"),
];

#[test]
fn a_file_is_refused_with_its_line_and_key() {
    for (text, expected) in FILES {
        let error = bridge_error(text, &[]);
        match expected.strip_suffix(": ") {
            Some(start) => assert!(error.starts_with(start), "{error}"),
            None => assert_eq!(&error, expected, "{text}"),
        }
    }
}

#[test]
fn a_variable_is_refused_by_its_name() {
    for (name, text, expected) in VARIABLES {
        assert_eq!(&bridge_error("", &[(name, text)]), expected);
    }
    let token = [("LOKI_DASHBOARD_HOST", "0.0.0.0"), ("LOKI_DASHBOARD_TOKEN", "t")];
    assert_eq!(bridge_error("", &token), "accepted");
    assert_eq!(bridge_error("", &[("LOKI_DASHBOARD_HOST", "localhost")]), "accepted");
}

#[test]
fn the_server_refuses_what_it_cannot_do_yet() {
    for (text, name, value, expected) in SERVER {
        assert_eq!(&server_error(text, &[(name, value)]), expected);
    }
}

#[test]
fn an_embedded_server_needs_no_endpoint() {
    let fixture = Fixture::new("");
    let config = Some(fixture.path());
    let mut overrides = Overrides { config, openclaw: true, ..Overrides::default() };
    let error = BridgeConfig::load(&overrides, &environment(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--openclaw: the bridge is enabled without a server: set LOKI_OPENCLAW_ENDPOINT or \
         openclaw.endpoint"
    );
    overrides.embedded = true;
    assert!(BridgeConfig::load(&overrides, &environment(&[])).is_ok());
}

#[test]
fn a_missing_file_is_an_error_only_when_it_was_named() {
    let fixture = Fixture::new("");
    let path = fixture.folder.path().join("other.yaml");
    let overrides = Overrides { config: Some(path), ..Overrides::default() };
    let error = BridgeConfig::load(&overrides, &environment(&[])).unwrap_err();
    assert_eq!(fixture.plain(&error.to_string()), "configuration file other.yaml does not exist");
    assert!(BridgeConfig::load(&Overrides::default(), &environment(&[])).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let fixture = Fixture::new([0xff, 0xfe]);
    let error = fixture.bridge(&[]).unwrap_err();
    assert_eq!(
        fixture.plain(&error.to_string()),
        "cannot read configuration file config.yaml: stream did not contain valid UTF-8"
    );
}

#[test]
fn what_belongs_to_others_is_left_alone_and_near_misses_are_warned_about() {
    let text = "open_claw:\n  a: 1\n  a: 2\nbudget: 5\nbudget: 6\nenterprise:\n  audits: {}\n  \
                sso: true\n";
    let fixture = Fixture::new(text);
    let variables = [("LOKI_OPENCLAW_ENDPIONT", "x"), ("LOKI_OPENCLAW_SERVICE_HOST", "10.0.0.1")];
    let loaded = fixture.bridge(&variables).unwrap();
    assert_eq!(loaded.config, BridgeConfig::default());
    let warnings: Vec<String> = loaded.warnings.iter().map(|text| fixture.plain(text)).collect();
    assert_eq!(
        warnings,
        [
            "config.yaml:1: `open_claw` is left alone; did you mean `openclaw`?",
            "config.yaml:7: `enterprise.audits` is left alone; did you mean `enterprise.audit`?",
            "LOKI_OPENCLAW_ENDPIONT is not a known variable; did you mean LOKI_OPENCLAW_ENDPOINT?",
        ]
    );
}

#[test]
fn a_file_that_would_fill_the_memory_is_refused() {
    let line = |n: usize| format!("a{n}: &a{n} [*a{0}, *a{0}]", n - 1);
    let anchors: Vec<String> = (1..30).map(line).collect();
    let bomb = format!("a0: &a0 [x, x]\n{}\n", anchors.join("\n"));
    assert_eq!(bridge_error(&bomb, &[]), "config.yaml:1: the file holds more than 100000 values");
    let deep = format!("a: 1\nb:\n  {}x\n", "- ".repeat(5_000));
    assert_eq!(bridge_error(&deep, &[]), "config.yaml:3: begins after column 200");
    let brackets = format!("b: {}", "[".repeat(5_000));
    assert!(bridge_error(&brackets, &[]).starts_with("config.yaml:1: not valid yaml: "));
    let large = "#".repeat(1024 * 1024 + 1);
    assert_eq!(bridge_error(&large, &[]), "config.yaml:1: the file is larger than 1048576 bytes");
}

/// Pieces of YAML that meet in files, to be put together in any order.
const PIECES: &[&str] = &[
    "openclaw",
    "agents",
    "enterprise",
    "audit",
    "tls",
    "type",
    "env",
    "enabled",
    ": ",
    ":\n",
    "\n",
    "  ",
    "    ",
    "- ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "&a ",
    "*a",
    "!!int ",
    "!x ",
    "\"",
    "'",
    "#",
    "|\n",
    ">-\n",
    "7",
    "true",
    "~",
    "<<",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "\t",
    "é",
];

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
    ) {
        prop_assert!(!bridge_error(&pieces.concat(), &[]).is_empty());
    }
}

#[test]
fn every_rule_is_about_a_known_setting() {
    fn blamed<C: Program>() -> Vec<&'static str> {
        let config = C::default();
        let rules = config.rules().into_iter().map(|rule| rule.0);
        let refusals = config.refusals().into_iter().map(|refusal| refusal.0);
        let conflicts = config.conflicts().into_iter().map(|conflict| conflict.0);
        let known = |key: &&str| C::known().iter().any(|known| known.key == *key);
        rules.chain(refusals).chain(conflicts).filter(|key| !known(key)).collect()
    }
    assert_eq!(blamed::<BridgeConfig>(), [""; 0]);
    assert_eq!(blamed::<ServerConfig>(), [""; 0]);
}

#[test]
fn an_endpoint_is_an_address_of_a_server() {
    let accepted = ["http://a", "HTTPS://a:1/", "http://[::1]:8080", "https://a.b/under/here"];
    let refused = [
        "a:8080",
        "http:a",
        "http:/a",
        "http:///a",
        "http://",
        "http://a:0",
        "http://a:99999",
        "http://a?b",
        "http://a#b",
        "http://a b",
        "http://u@a",
        "ftp://a",
        "http://a ",
    ];
    let error = |text: &str| bridge_error("", &[("LOKI_OPENCLAW_ENDPOINT", text)]);
    assert!(accepted.iter().all(|text| error(text) == "accepted"));
    let slipped: Vec<&&str> = refused.iter().filter(|text| error(text) == "accepted").collect();
    assert_eq!(slipped, [&""; 0]);
}
