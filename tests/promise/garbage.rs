//! Whatever arrives that is not a message of the protocol: a documented refusal, an audit entry,
//! no panic, and nothing else changes. What is wrong for each field follows from the documentation.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use loki_openclaw::clock::Clock;
use reqwest::blocking::Client;
use serde_json::{Map, Value, json};
use storage::inspect::{AuditFilter, Inspect};

use crate::support::{Program, World, say};

/// The kinds of fields, by the words with which the documentation begins them.
const KINDS: [&str; 15] = [
    "string",
    "list of strings",
    "list of {",
    "list of ids",
    "list of anything",
    "list",
    "count",
    "numbers",
    "number",
    "seconds",
    "id",
    "label",
    "time",
    "flag",
    "{",
];

/// Types whose fields stand in sentences: each field with its kind, and required ones first.
const IN_SENTENCES: [(&str, &[(&str, &str)]); 11] = [
    (
        "heartbeat",
        &[
            ("status", "enum"),
            ("running", "list of {"),
            ("settled_before", "time"),
            ("cpu_percent", "number"),
            ("memory_mb", "number"),
            ("tokens", "count"),
        ],
    ),
    (
        "task_accept",
        &[
            ("task_id", "id"),
            ("attempt", "count"),
            ("assigned_agent", "label"),
            ("estimated_duration", "seconds"),
        ],
    ),
    (
        "task_reject",
        &[("task_id", "id"), ("attempt", "count"), ("reason", "enum"), ("detail", "string")],
    ),
    (
        "task_update",
        &[
            ("task_id", "id"),
            ("attempt", "count"),
            ("progress", "number"),
            ("message", "string"),
            ("status", "label"),
            ("artifact", "{"),
        ],
    ),
    (
        "task_complete",
        &[
            ("task_id", "id"),
            ("attempt", "count"),
            ("status", "enum"),
            ("error", "{"),
            ("cost_usd", "number"),
            ("duration_seconds", "number"),
        ],
    ),
    ("task_cancel", &[("task_id", "id"), ("attempt", "count"), ("reason", "string")]),
    ("task_input", &[("task_id", "id"), ("message", "string"), ("attempt", "count")]),
    ("state_sync", &[("entries", "list of {")]),
    ("capability_query", &[("query_type", "enum"), ("task_type", "string")]),
    (
        "capability_response",
        &[
            ("supported", "flag"),
            ("agent_types", "list of strings"),
            ("confidence", "number"),
            ("estimated_cost", "number"),
            ("agents", "list"),
        ],
    ),
    ("ack", &[("message_ids", "list of ids"), ("message_id", "id")]),
];

fn documentation() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    fs::read_to_string(path).expect("docs/protocol.md")
}

/// The words in backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The fields of each type and their kinds.
fn fields() -> BTreeMap<String, Vec<(String, String)>> {
    let text = documentation();
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for message_type in ["register", "task_offer"] {
        let (_, section) = text.split_once(&format!("### `{message_type}`")).expect("a section");
        let section = section.split("\n### ").next().expect("a section");
        for row in section.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [_, said, _] = cells[..] else { continue };
            let kind = KINDS.iter().find(|kind| said.starts_with(**kind));
            let kind = if said.starts_with('`') { Some(&"enum") } else { kind };
            let Some(kind) = kind else { continue };
            let names = quoted(cells[0]).into_iter().map(|name| (name, (*kind).to_owned()));
            found.entry(message_type.to_owned()).or_default().extend(names);
        }
    }
    for (message_type, fields) in IN_SENTENCES {
        for (name, kind) in fields {
            assert!(text.contains(name), "{name} is not documented");
            let field = ((*name).to_owned(), (*kind).to_owned());
            found.entry(message_type.to_owned()).or_default().push(field);
        }
    }
    found
}

/// The documented codes and their statuses.
fn codes() -> BTreeMap<String, u64> {
    let text = documentation();
    let (_, section) = text.split_once("\n## Errors").expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut codes = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(status) = cells.get(1).and_then(|text| text.parse().ok()) else { continue };
        codes.extend(quoted(cells[0]).into_iter().map(|code| (code, status)));
    }
    assert!(codes.len() > 20, "{codes:?}");
    codes
}

/// Values that are wrong for a kind.
fn wrong(kind: &str) -> Vec<Value> {
    match kind {
        "string" => vec![json!(7), json!(true), json!([]), json!({})],
        "list of strings" => vec![json!("x"), json!({}), json!([7]), json!([null])],
        "list of {" => vec![json!("x"), json!({}), json!([7]), json!([{}])],
        "list of ids" => vec![json!("x"), json!([7]), json!(["a b"])],
        "list" | "list of anything" => vec![json!("x"), json!({}), json!(1)],
        "count" => vec![json!(-1), json!(1.5), json!("1"), json!([]), json!(1e300)],
        "number" | "numbers" | "seconds" => vec![json!("1"), json!([]), json!(-1), json!(true)],
        "id" => vec![json!(7), json!(""), json!("a b"), json!("x".repeat(129)), json!({})],
        "label" => vec![json!(7), json!(""), json!("a\u{1}b"), json!("x".repeat(513))],
        "time" => vec![json!("yesterday"), json!(7), json!("2026-02-30T00:00:00Z")],
        "flag" => vec![json!("true"), json!(1)],
        "enum" => vec![json!("nonsense"), json!(7), json!([])],
        "{" => vec![json!(7), json!("x"), json!([])],
        other => panic!("no wrong values for {other}"),
    }
}

/// A payload with what is required, so that only the field under test is wrong.
fn sound(message_type: &str) -> Map<String, Value> {
    let payload = match message_type {
        "task_offer" => json!({"task_id": "t-x", "task_type": "testing"}),
        "task_input" => json!({"task_id": "t-x", "message": "yes"}),
        "capability_query" => json!({"query_type": "list"}),
        "capability_response" => json!({"supported": true}),
        "ack" => json!({"message_id": "m-x"}),
        task if task.starts_with("task_") => json!({"task_id": "t-x"}),
        _ => json!({}),
    };
    payload.as_object().cloned().expect("an object")
}

/// Each message type with each field wrong in each way, and the field's path.
fn wrong_messages() -> Vec<(Value, String)> {
    let mut messages = Vec::new();
    for (message_type, fields) in fields() {
        for (name, kind) in fields {
            for value in wrong(&kind) {
                let mut payload = sound(&message_type);
                payload.insert(name.clone(), value);
                let id = format!("w-{}", messages.len());
                let message = json!({
                    "message_type": message_type, "message_id": id, "agent_id": "fuzz",
                    "payload": payload,
                });
                messages.push((message, format!("payload.{name}")));
            }
        }
    }
    assert!(messages.len() > 200, "{}", messages.len());
    messages
}

/// A server under fire, and what it counted.
struct Target<'a> {
    world: &'a World,
    server: Option<Program>,
    client: Client,
    codes: BTreeMap<String, u64>,
    refused: usize,
}

impl<'a> Target<'a> {
    fn new(world: &'a World) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        let server = Some(world.server("server", 0));
        Self { world, server, client, codes: codes(), refused: 0 }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.as_ref().expect("a server").address)
    }

    /// All that could have changed.
    fn state(&self) -> Value {
        let all = ["/tasks", "/agents", "/state/default"];
        all.map(|path| self.world.get(&self.url(path)).expect("an answer")).into()
    }

    /// Posts a body; the problem that came back, or the results of a batch.
    fn post(&mut self, path: &str, body: Vec<u8>) -> (u16, Value) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let request = self.client.post(self.url(path)).body(body);
        let response = request.header("content-type", "application/json").send().expect("answered");
        let status = response.status().as_u16();
        let answer: Value = response.json().unwrap_or_else(|error| panic!("{shown}: {error}"));
        if status >= 400 {
            self.refused += 1;
            let code = answer["code"].as_str().unwrap_or_default();
            let documented = self.codes.get(code).copied();
            assert_eq!(documented, Some(u64::from(status)), "{shown} brings {status} {answer}");
            assert!(answer["detail"].is_string(), "{answer}");
        }
        (status, answer)
    }

    /// Stops it: no panic, and an audit entry for each refusal.
    fn finish(mut self) {
        assert_eq!(self.server.take().expect("a server").stop(), Some(0));
        assert!(!self.world.logs().contains("panicked"), "{}", self.world.logs());
        assert_eq!(rejections(&self.world.path("server")), self.refused, "audited refusals");
    }
}

/// How many messages were refused, by the audit log.
fn rejections(folder: &Path) -> usize {
    let inspect = Inspect::open(folder).expect("the store");
    let events = vec!["message.rejected".to_owned()];
    let mut filter = AuditFilter { events, ..AuditFilter::default() };
    let mut count = 0;
    loop {
        let page = inspect.audit(&filter).expect("the audit log");
        count += page.entries.len();
        filter.before = page.next;
        if filter.before.is_none() {
            return count;
        }
    }
}

#[test]
fn a_wrong_type_in_any_field_is_refused_by_its_name() {
    let world = World::new();
    let mut target = Target::new(&world);
    let before = target.state();
    for (message, field) in wrong_messages() {
        let (status, answer) = target.post("/messages", message.to_string().into_bytes());
        assert_eq!(status, 400, "{message} brings {answer}");
        let named = answer["field"].as_str().unwrap_or_default();
        assert!(named.starts_with(&field), "{message} brings {answer}");
    }
    assert_eq!(target.state(), before);
    target.finish();
}

/// An index or a length drawn at random, up to `bound`.
fn upto(chance: &Clock, bound: usize) -> usize {
    usize::try_from(chance.draw(bound as u64)).expect("within the bound")
}

fn byte(chance: &Clock) -> u8 {
    u8::try_from(chance.draw(255)).expect("a byte")
}

/// A value drawn at random.
fn any(chance: &Clock, depth: u64) -> Value {
    match chance.draw(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(chance.draw(1) == 1),
        2 => json!(chance.draw(u64::MAX)),
        3 => json!(-1.5e300),
        4 => json!(""),
        5 => json!("\u{0}\u{202e}\u{1f600}".repeat(upto(chance, 50))),
        6 => json!(format!("2026-{}", chance.draw(99))),
        7 => (0..chance.draw(4)).map(|_| any(chance, depth - 1)).collect(),
        _ => {
            let names = ["task_id", "entries", "key", "value", "sealed", "error", "running", "id"];
            let name = || names[upto(chance, 7)].to_owned();
            (0..chance.draw(4)).map(|_| (name(), any(chance, depth - 1))).collect()
        }
    }
}

/// A body drawn at random: bytes, or a message with something wrong in it.
fn body(chance: &Clock, number: u64) -> Vec<u8> {
    let types = ["task_accept", "task_update", "task_complete", "task_cancel", "no_such_type"];
    let message_type = types[upto(chance, 4)];
    let mut message = json!({
        "message_type": message_type, "agent_id": "fuzz", "message_id": format!("g-{number}"),
        "payload": {"task_id": "t-none"},
    });
    let names = [
        "message_type",
        "agent_id",
        "message_id",
        "payload",
        "protocol_version",
        "to",
        "namespace",
        "timestamp",
        "expires_at",
        "ordering_key",
        "traceparent",
        "correlation_id",
    ];
    let name = names[upto(chance, 11)];
    match chance.draw(6) {
        0 => (0..upto(chance, 300)).map(|_| byte(chance)).collect(),
        1 => {
            let depth = 120 + upto(chance, 20_000);
            message["payload"]["x"] = json!("@");
            let nest = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            message.to_string().replace("\"@\"", &nest).into_bytes()
        }
        2 => {
            let text = message.to_string();
            format!("{{\"{name}\":1,\"{name}\":2,{}", &text[1..]).into_bytes()
        }
        3 => {
            message[name] = any(chance, 3);
            message.to_string().into_bytes()
        }
        4 => {
            message["payload"] = any(chance, 4);
            message.to_string().into_bytes()
        }
        5 => {
            let mut bytes = message.to_string().into_bytes();
            let at = upto(chance, bytes.len() - 1);
            bytes[at] = byte(chance);
            bytes
        }
        _ => {
            let mut bytes = message.to_string().into_bytes();
            bytes.truncate(upto(chance, bytes.len() - 1));
            bytes
        }
    }
}

/// `LOKI_GARBAGE_BODIES` sends more, `LOKI_GARBAGE_SEED` the same again.
#[test]
fn garbage_is_refused_and_changes_nothing() {
    let world = World::new();
    let mut target = Target::new(&world);
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = setting("LOKI_GARBAGE_SEED").unwrap_or_else(|| world.clock().draw(1 << 32));
    say(&format!("LOKI_GARBAGE_SEED={seed}"));
    let chance = Clock::simulated(0, seed);
    let before = target.state();
    for number in 0..setting("LOKI_GARBAGE_BODIES").unwrap_or(1_000) {
        let body = body(&chance, number);
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let (status, answer) = target.post("/messages", body);
        // A random change may leave an array of refused messages, or an unknown type with a `to`.
        let refused = status >= 400 || !answer.to_string().contains("\"accepted\"");
        assert!(refused, "{shown} brings {status} {answer}");
    }
    let large = format!(r#"{{"message_type":"x","payload":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(target.post("/messages", large.into_bytes()).0, 413);
    assert_eq!(target.state(), before);
    target.finish();
}
