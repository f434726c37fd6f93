//! The link between the programs: what carries it, what is in its way, and who owns a session.

use std::sync::mpsc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use loki_openclaw::bridge::Bridge;
use loki_openclaw::bridge::settings::Settings;
use loki_openclaw::clock::Clock;
use loki_openclaw::config::{BridgeConfig, Transport};
use loki_openclaw::executor::Executor;
use loki_openclaw::server::{Rules, Server, ServerSettings};
use loki_openclaw::shutdown::Shutdown;
use serde_json::{Value, json};
use storage::database::Database;
use tokio_tungstenite::tungstenite::Message;

use crate::proxy::{Proxy, is_upgrade, response};
use crate::support::{Program, World, output};

const WORK: &str = r#"
import hashlib, json, sys, time
task = json.load(sys.stdin)
until, digest = time.monotonic() + 0.3, b""
while time.monotonic() < until:
    digest = hashlib.sha256(digest).digest()
print(json.dumps({"progress": 0.5}))
print(json.dumps({"result": {"task": task["task_id"]}}))
"#;

const CONFIG: &str = "openclaw:\n  max_concurrent_tasks: 2\nagents:\n  - type: eng-qa\n    \
                      command: [python3, work.py]\n    task_types: [testing]\n";

fn project(world: &World, name: &str) {
    world.write(&format!("{name}/.loki/config.yaml"), CONFIG);
    world.write(&format!("{name}/work.py"), WORK);
}

fn status(world: &World, bridge: &Program) -> Option<Value> {
    world.get(&format!("{}/api/openclaw/status", bridge.address))
}

fn share(world: &World, bridge: &Program, key: &str) -> String {
    let entries = json!([{"key": key, "value": 1}]);
    let body = json!({"message_type": "state_sync", "payload": {"entries": entries}});
    let url = format!("{}/api/openclaw/send", bridge.address);
    let (code, answer) = world.post(&url, &body).expect("an answer");
    assert_eq!(code, 202, "{answer}");
    answer["message_id"].as_str().expect("an id").to_owned()
}

fn message(world: &World, bridge: &Program, id: &str) -> Value {
    world.get(&format!("{}/api/openclaw/messages/{id}", bridge.address)).expect("the message")
}

#[test]
fn tasks_are_done_over_http_and_through_a_restart_of_the_server() {
    let world = World::new();
    project(&world, "one");
    let server = world.server("server", 0);
    let (address, port) = (server.address.clone(), server.port());
    let mut command = world.loki("one", &address);
    command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
    command.env("LOKI_OPENCLAW_TRANSPORT", "http").env("LOKI_OPENCLAW_NAMESPACE", "far");
    let bridge = world.start(command, &world.path("one/.loki/openclaw"));
    for number in 0..8 {
        let task = json!({
            "task_id": format!("t{number}"), "task_type": "testing", "namespace": "far",
        });
        let (code, answer) = world.post(&format!("{address}/tasks"), &task).expect("an answer");
        assert_eq!(code, 201, "{answer}");
    }
    let completed = || {
        let tasks = world.get(&format!("{address}/tasks?namespace=far&status=completed"))?;
        Some(tasks["tasks"].as_array()?.clone())
    };
    world.wait("the first tasks", || completed().filter(|done| done.len() >= 2));
    server.kill();
    let server = world.server("server", port);
    world.wait("all tasks", || completed().filter(|done| done.len() == 8));
    for number in 0..8 {
        let url = format!("{address}/tasks/t{number}?namespace=far");
        let task = world.get(&url).expect("the task");
        assert_eq!(task["result"]["task"], format!("t{number}"), "{task}");
        let history = task["history"].as_array().expect("a history");
        let ends = history.iter().filter(|step| step["status"] == "completed").count();
        assert_eq!(ends, 1, "{task}");
    }
    let status = status(&world, &bridge).expect("a status");
    assert_eq!((&status["transport"], &status["connected"]), (&json!("http"), &json!(true)));
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_second_program_with_an_id_replaces_the_first_which_says_so() {
    let world = World::new();
    project(&world, "one");
    project(&world, "two");
    let server = world.server("server", 0);
    for transport in ["websocket", "http"] {
        let start = |project: &str| {
            let mut command = world.loki(project, &server.address);
            command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_AGENT_ID", transport);
            command.env("LOKI_OPENCLAW_TRANSPORT", transport);
            world.start(command, &world.path(project).join(".loki/openclaw"))
        };
        let first = start("one");
        world.wait("the first to be connected", || {
            status(&world, &first).filter(|status| status["connected"] == true)
        });
        let second = start("two");
        assert_eq!(first.ended(&world), Some(1), "{transport}");
        let said = std::fs::read_to_string(world.path("one/.loki/openclaw.log")).expect("a log");
        let sentence = "another program registered with this agent id, so this one has stopped\n";
        assert!(said.ends_with(sentence), "{said}");
        world.wait("the second to be connected", || {
            status(&world, &second).filter(|status| status["connected"] == true)
        });
        assert_eq!(second.stop(), Some(0));
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_server_that_lets_nobody_in_leaves_messages_pending_and_says_why() {
    let world = World::new();
    project(&world, "one");
    let server = world.server("server", 0);
    let proxy = Proxy::start(&server.address, Box::new(|_| Some(response("401 No", ""))));
    let bridge = world.bridge("one", &proxy.address, "loki-one");
    let id = share(&world, &bridge, "k/1");
    let shown = world.wait("the circuit to open", || {
        status(&world, &bridge).filter(|status| status["circuit"] == "open")
    });
    assert!(shown["last_error"].to_string().contains("401"), "{shown}");
    let waiting = message(&world, &bridge, &id);
    assert_eq!((&waiting["status"], &waiting["attempts"]), (&json!("pending"), &json!(0)));
    proxy.set(Box::new(|_| None));
    let (code, ..) = output(world.loki("one", &proxy.address).args(["openclaw", "reconnect"]));
    assert_eq!(code, Some(0));
    world.wait("the message to be delivered", || {
        Some(message(&world, &bridge, &id)).filter(|it| it["status"] == "delivered")
    });
    let shown = status(&world, &bridge).expect("a status");
    assert_eq!(shown["circuit"], "closed", "{shown}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn ten_refusals_open_the_circuit_and_one_probe_closes_it() {
    let world = World::new();
    project(&world, "one");
    let server = world.server("server", 0);
    let busy = |request: &str| {
        let is_state = request.starts_with("POST /messages ") && request.contains("state_sync");
        is_state.then(|| response("503 Busy", "retry-after: 1\r\n"))
    };
    let proxy = Proxy::start(&server.address, Box::new(busy));
    let mut command = world.loki("one", &proxy.address);
    command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
    command.env("LOKI_OPENCLAW_TRANSPORT", "http");
    let bridge = world.start(command, &world.path("one/.loki/openclaw"));
    let ids: Vec<String> =
        (0..12).map(|number| share(&world, &bridge, &format!("k/{number}"))).collect();
    let open = || {
        let metrics = world.text(&format!("{}/metrics", bridge.address))?;
        metrics.contains("\nloki_openclaw_circuit_open 1\n").then_some(metrics)
    };
    world.wait("the circuit to open", open);
    let shown = status(&world, &bridge).expect("a status");
    assert_eq!((&shown["connected"], &shown["messages_pending"]), (&json!(true), &json!(12)));
    assert!(shown["last_error"].to_string().contains("503"), "{shown}");
    proxy.set(Box::new(|_| None));
    for id in &ids {
        let delivered = world.wait("a message to be delivered", || {
            Some(message(&world, &bridge, id)).filter(|it| it["status"] == "delivered")
        });
        for step in delivered["history"].as_array().expect("a history") {
            let Some(due) = step["next_attempt_at"].as_str() else { continue };
            let wait = millis(due) - millis(step["at"].as_str().expect("a time"));
            assert!(step["status"] != "pending" || wait == 0 || wait >= 1_000, "{step}");
        }
    }
    let shown = status(&world, &bridge).expect("a status");
    assert_eq!(shown["circuit"], "closed", "{shown}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

/// A server that takes a register, and then says nothing to anything. Gives the ids that arrive.
async fn silent_server(listener: tokio::net::TcpListener, heard: mpsc::Sender<String>) {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a websocket");
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let said: Value = serde_json::from_str(&text).expect("json");
        if said["message_type"] == "register" {
            let ack = json!({"message_type": "ack", "agent_id": "openclaw-server", "payload": {
                "message_id": said["message_id"], "session_id": "s-1", "heartbeat_interval": 30,
            }});
            socket.send(Message::Text(ack.to_string().into())).await.expect("sent");
        } else if said["message_type"] == "state_sync" {
            let id = said["message_id"].as_str().expect("an id").to_owned();
            // The test is over when nobody listens.
            let _ = heard.send(id);
        }
    }
}

#[test]
fn a_message_that_nobody_answers_is_tried_again_on_the_same_link() {
    let world = World::new();
    project(&world, "one");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (heard, arrivals) = mpsc::channel();
    runtime.spawn(silent_server(listener, heard));
    let mut command = world.loki("one", &address);
    command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_TIMEOUT", "1");
    let bridge = world.start(command, &world.path("one/.loki/openclaw"));
    let id = share(&world, &bridge, "k/1");
    for attempt in ["the first", "the second", "the third"] {
        let arrived = arrivals.recv_timeout(crate::support::PATIENCE);
        assert_eq!(arrived.as_ref(), Ok(&id), "{attempt} attempt");
    }
    let shown = message(&world, &bridge, &id);
    assert_eq!((&shown["maybe_delivered"], &shown["attempts"]), (&json!(true), &json!(3)));
    let errors = shown["history"].to_string().matches("no answer came in time").count();
    assert!(errors >= 2, "{shown}");
    let status = status(&world, &bridge).expect("a status");
    assert_eq!((&status["connected"], &status["session_id"]), (&json!(true), &json!("s-1")));
    assert_eq!(bridge.stop(), Some(0));
}

fn millis(time: &str) -> u64 {
    loki_openclaw::clock::parse_rfc3339(time).expect("a time")
}

/// A bridge and a server in this process, so that a wait of minutes takes a moment.
struct Inside {
    _dir: tempfile::TempDir,
    bridge: loki_openclaw::bridge::Running,
    server: loki_openclaw::server::Running,
    proxy: Proxy,
    stores: [Database; 2],
    shutdown: Shutdown,
}

async fn inside(transport: Transport, rule: crate::proxy::Rule) -> Inside {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::system();
    let stores = ["bridge", "server"].map(|name| {
        let (path, wall) = (dir.path().join(name), clock.clone());
        std::fs::create_dir_all(&path).expect("a folder");
        Database::open(&path, Box::new(move || wall.now()), Box::new(|_| {})).expect("a store").0
    });
    let server = Server::start(ServerSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        store: stores[1].store().clone(),
        clock: clock.clone(),
        rules: Rules { heartbeat: Duration::from_secs(1), ..Rules::default() },
        disk: None,
    });
    let server = server.await.expect("a server");
    let proxy = Proxy::start(&server.url(), rule);
    let mut config = BridgeConfig::default();
    config.openclaw.enabled = true;
    config.openclaw.endpoint = Some(proxy.address.clone());
    config.openclaw.transport = transport;
    let mut settings = Settings::of_config(&config, "loki-one", clock.message_id());
    settings.websocket_retry = Duration::from_millis(300);
    let runs = dir.path().join("runs");
    let executor = Executor::new(runs, Vec::new(), dir.path().to_owned(), clock.clone());
    let (store, shutdown) = (stores[0].store().clone(), Shutdown::default());
    let bridge = Bridge::start(settings, store, clock, executor, shutdown.clone());
    Inside { _dir: dir, bridge, server, proxy, stores, shutdown }
}

impl Inside {
    async fn carried_by(&self, transport: &str) {
        let waiting = async {
            while self.bridge.bridge.snapshot().transport.as_deref() != Some(transport) {
                self.bridge.bridge.changed().await;
            }
        };
        let waited = tokio::time::timeout(crate::support::PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{transport}: {:?}", self.bridge.bridge.snapshot());
    }

    async fn end(self) {
        self.shutdown.stop();
        self.bridge.finished().await;
        self.server.stop().await;
        for store in self.stores {
            store.close().expect("closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_takes_http_where_no_websocket_gets_through_and_comes_back_to_it() {
    let refusing = |request: &str| is_upgrade(request).then(|| response("400 Bad Request", ""));
    let inside = inside(Transport::Auto, Box::new(refusing)).await;
    inside.carried_by("http").await;
    let seen = inside.proxy.seen();
    let upgrades = seen.iter().filter(|line| line.starts_with("GET /ws")).count();
    assert_eq!(upgrades, 2, "{seen:?}");
    let first = inside.bridge.bridge.snapshot().session_id;
    inside.proxy.set(Box::new(|_| None));
    inside.carried_by("websocket").await;
    assert!(!inside.bridge.bridge.is_replaced(), "the old session is over, not replaced");
    assert_ne!(inside.bridge.bridge.snapshot().session_id, first);
    inside.end().await;
}
