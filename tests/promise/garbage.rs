//! What is not a message of the protocol: wrong values for each documented field, and bodies drawn
//! at random; with a program as the target, and the check of its answers. It has no tests itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use loki_openclaw::clock::Clock;
use reqwest::blocking::Client;
use serde_json::{Map, Value, json};
use storage::inspect::{AuditFilter, Inspect};

use crate::support::{Program, World};

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
pub fn wrong_messages() -> Vec<(Value, String)> {
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

/// A program under fire, and what it counted.
pub struct Target<'a> {
    world: &'a World,
    program: Program,
    /// Where messages go.
    path: &'static str,
    /// What could change.
    state: &'static [&'static str],
    /// Its data folder.
    data: PathBuf,
    client: Client,
    codes: BTreeMap<String, u64>,
    refused: usize,
}

impl<'a> Target<'a> {
    pub fn server(world: &'a World) -> Self {
        let (program, data) = (world.server("server", 0), world.path("server"));
        let state = &["/tasks", "/agents", "/state/default"];
        Self::new(world, program, data, "/messages", state)
    }

    /// A bridge whose server is away.
    pub fn bridge(world: &'a World) -> Self {
        world.write("one/.loki/config.yaml", "agents:\n  - type: eng-qa\n    command: [cat]\n");
        let program = world.bridge("one", "http://127.0.0.1:9", "loki-one");
        let data = world.path("one/.loki/openclaw");
        let state = &["/api/openclaw/tasks", "/api/openclaw/messages"];
        Self::new(world, program, data, "/api/openclaw/send", state)
    }

    fn new(
        world: &'a World,
        program: Program,
        data: PathBuf,
        path: &'static str,
        state: &'static [&'static str],
    ) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { world, program, path, state, data, client, codes: codes(), refused: 0 }
    }

    /// It is the bridge and not the server.
    pub fn is_bridge(&self) -> bool {
        self.path != "/messages"
    }

    /// Its base URL.
    pub fn address(&self) -> &str {
        &self.program.address
    }

    /// The first lines of a request with a message, up to the headers that tell its length.
    pub fn head(&self) -> String {
        let host = self.address().trim_start_matches("http://");
        format!("POST {} HTTP/1.1\r\nHost: {host}\r\n", self.path)
    }

    /// All that could have changed.
    pub fn state(&self) -> Value {
        let url = |path: &&str| format!("{}{path}", self.program.address);
        self.state.iter().map(|path| self.world.get(&url(path)).expect("an answer")).collect()
    }

    /// Whether an error has a documented code with its status.
    pub fn check(&mut self, sent: &str, status: Option<u16>, error: &Value) {
        self.refused += 1;
        let code = error["code"].as_str().unwrap_or_default();
        let documented = self.codes.get(code).copied();
        assert!(documented.is_some(), "{sent} brings {error}");
        let right = status.is_none_or(|status| documented == Some(u64::from(status)));
        assert!(right, "{sent} brings {status:?} {error}");
    }

    /// Posts a body; the status, and the problem or the results that came back.
    pub fn post(&mut self, body: Vec<u8>) -> (u16, Value) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let url = format!("{}{}", self.program.address, self.path);
        let request = self.client.post(url).body(body);
        let response = request.header("content-type", "application/json").send().expect("answered");
        let status = response.status().as_u16();
        let answer: Value = response.json().unwrap_or_else(|error| panic!("{shown}: {error}"));
        if status >= 400 {
            self.check(&shown, Some(status), &answer);
            assert!(answer["detail"].is_string(), "{shown} brings {answer}");
        }
        (status, answer)
    }

    /// Stops it: there was no panic.
    pub fn stop(self) {
        assert_eq!(self.program.stop(), Some(0));
        assert!(!self.world.logs().contains("panicked"), "{}", self.world.logs());
    }

    /// Stops it: there was no panic, and there is an audit entry for each refusal.
    pub fn finish(self) {
        let (data, refused) = (self.data.clone(), self.refused);
        self.stop();
        assert_eq!(rejections(&data), refused, "audited refusals");
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

/// An index or a length drawn at random, up to `bound`.
pub fn upto(chance: &Clock, bound: usize) -> usize {
    usize::try_from(chance.draw(bound as u64)).expect("within the bound")
}

pub fn byte(chance: &Clock) -> u8 {
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
pub fn body(chance: &Clock, number: u64) -> Vec<u8> {
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
