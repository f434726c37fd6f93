//! The HTTP interface from outside: a server on a free port, a plain client, agents over HTTP and
//! over a WebSocket.

use std::net::{Ipv4Addr, SocketAddr};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use storage::fold::State;
use storage::journal::{Identity, MemoryLog};
use storage::store::Store;

use crate::clock::Clock;
use crate::protocol::{Envelope, Fields, MessageType, parse_frame_within};
use crate::server::{Rules, Running, Server, ServerSettings};
use crate::transport::connect::{Carrier, Way};
use crate::transport::{Socket, TransportSettings, Wire, connect};

pub(super) struct Web {
    pub(super) running: Running,
    pub(super) client: Client,
}

impl Web {
    pub(super) async fn start() -> Self {
        let clock = Clock::system();
        let wall = clock.clone();
        let log = Box::new(MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] }));
        let now = Box::new(move || wall.now());
        let store = Store::start(log, State::new([2; 16]), now, Box::new(|_| {})).unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let rules = Rules::default();
        let running = Server::start(ServerSettings { listen, store, clock, rules, disk: None })
            .await
            .unwrap();
        // Installed once for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { running, client }
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Option<String>) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.running.url()));
        request.body(body.unwrap_or_default()).send().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.json().await.unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self.call(Method::POST, path, Some(body.to_string())).await;
        (response.status(), response.json().await.unwrap())
    }

    /// Sends a message of an agent, which must be taken.
    pub(super) async fn say(&self, agent_id: &str, message_type: &str, payload: Value) -> Value {
        let message =
            json!({"message_type": message_type, "agent_id": agent_id, "payload": payload});
        let (status, body) = self.post("/messages", message).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        assert_eq!(body["results"][0]["status"], "accepted");
        body
    }

    pub(super) async fn ws(&self, agent_id: &str, instance: &str) -> Box<Socket> {
        let fields =
            Fields { agent_id: Some(agent_id), message_id: Some(instance), ..Fields::default() };
        let payload = json!({"instance_id": instance, "capabilities": ["code_review"]});
        let register = Envelope::compose(MessageType::Register, fields, &payload).unwrap();
        let timeout = std::time::Duration::from_secs(5);
        let endpoint = self.running.url();
        let clock = Clock::system();
        let way = Way::default();
        let settings = TransportSettings { endpoint, token: None, timeout, clock, way };
        match connect(&settings, &register).await.unwrap().carrier {
            Carrier::WebSocket(socket) => socket,
            Carrier::Http(_) => panic!("no websocket"),
        }
    }
}

/// Nothing that a test waits for takes longer than this.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The next message of this type on a connection.
pub(super) async fn hear(socket: &mut Socket, message_type: &str) -> Envelope {
    let heard = async {
        loop {
            match receive(socket).await {
                Some(Ok(Wire::Text(text))) => {
                    let frame = parse_frame_within(text, 2 << 20).unwrap();
                    let mut found = frame.messages.into_iter().filter_map(Result::ok);
                    if let Some(it) = found.find(|it| it.message_type().as_str() == message_type) {
                        return it;
                    }
                }
                Some(Ok(Wire::Ping(_) | Wire::Pong(_))) => {}
                other => panic!("{message_type}: {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the message arrives")
}

/// What arrives next on a connection.
pub(super) async fn receive(socket: &mut Socket) -> Option<Result<Wire, String>> {
    tokio::time::timeout(PATIENCE, socket.receive()).await.expect("something arrives")
}

#[tokio::test]
async fn a_plain_client_submits_a_task_and_an_agent_over_http_does_it() {
    let web = Web::start().await;
    let register = json!({"capabilities": ["code_review"], "max_concurrent_tasks": 2});
    let body = web.say("loki-12345", "register", register).await;
    assert_eq!(body["results"][0]["payload"]["window"], 256);
    let task = json!({
        "task_type": "code_review",
        "description": "Review API implementation",
        "files": ["api/routes.py"],
        "target_agent": "loki-12345",
    });
    let (status, body) = web.post("/tasks", task).await;
    assert_eq!((status, &body["status"]), (StatusCode::CREATED, &json!("pending")));
    let id = body["task_id"].as_str().unwrap().to_owned();
    let inbox = web.get("/messages?agent_id=loki-12345&wait=5").await;
    let offer = &inbox["messages"][0];
    assert_eq!(offer["message_type"], "task_offer");
    assert_eq!(offer["payload"]["files"][0], "api/routes.py");
    let again = web.get("/messages?agent_id=loki-12345").await;
    assert_eq!(again, inbox);
    let ack = json!({"agent_id": "loki-12345", "message_ids": [offer["message_id"]]});
    assert_eq!(web.post("/messages/ack", ack).await.1["acknowledged"], 1);
    let empty = web.get("/messages?agent_id=loki-12345").await;
    assert_eq!(empty["messages"], json!([]));
    web.say("loki-12345", "task_accept", json!({"task_id": id, "attempt": 1})).await;
    let path = format!("/tasks/{id}?wait=5");
    let end = json!({"task_id": id, "attempt": 1, "status": "completed", "result": "fine"});
    let (shown, _) = tokio::join!(web.get(&path), web.say("loki-12345", "task_complete", end));
    assert_eq!((&shown["status"], &shown["result"]), (&json!("completed"), &json!("fine")));
    let statuses: Vec<&Value> =
        shown["history"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
    assert_eq!(statuses, ["pending", "offered", "accepted", "completed"]);
    let events = web.call(Method::GET, &format!("/tasks/{id}/events"), None).await;
    let events = events.text().await.unwrap();
    assert!(events.contains("event: offered") && events.contains("event: completed"), "{events}");
    assert_eq!(web.get("/health").await["tasks"]["completed"], 1);
    assert_eq!(web.get("/agents").await["agents"][0]["status"], "online");
    assert_eq!(web.get("/capabilities?task_type=code_review").await["supported"], true);
    web.running.stop().await;
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let web = Web::start().await;
    let large = format!("\"{}\"", "x".repeat(1_048_576));
    let table = [
        (Method::GET, "/nowhere", None, 404, "not_found"),
        (Method::PUT, "/tasks", None, 405, "method_not_allowed"),
        (Method::POST, "/tasks", Some("{"), 400, "malformed"),
        (Method::POST, "/tasks", Some("{}"), 400, "missing_field"),
        (Method::POST, "/tasks", Some(large.as_str()), 413, "too_large"),
        (Method::GET, "/tasks/none", None, 404, "unknown_task"),
        (Method::GET, "/tasks?limit=1001", None, 400, "invalid_field"),
        (Method::GET, "/tasks?status=odd", None, 400, "invalid_field"),
        (Method::GET, "/agents/none", None, 404, "unknown_agent"),
        (Method::GET, "/messages", None, 400, "missing_field"),
        (Method::POST, "/messages", Some("{}"), 400, "missing_field"),
        (Method::POST, "/messages", Some("7"), 400, "malformed"),
        (Method::GET, "/state/default/none", None, 404, "not_found"),
        (Method::GET, "/ws", None, 400, "upgrade_required"),
    ];
    for (method, path, body, status, code) in table {
        let response = web.call(method, path, body.map(str::to_owned)).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], code, "{path}");
    }
    web.running.stop().await;
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_message_in_order() {
    let web = Web::start().await;
    let offer = |id: &str| {
        json!({"message_type": "task_offer", "agent_id": "a", "message_id": id,
            "payload": {"task_id": id, "task_type": "general"}})
    };
    let batch = json!([offer("m-1"), {"message_type": 7}, offer("m-1"), offer("m-2")]);
    let (status, body) = web.post("/messages", batch).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let results = body["results"].as_array().unwrap();
    let statuses: Vec<&Value> = results.iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, ["accepted", "refused", "duplicate", "accepted"]);
    let url = format!("{}/messages", web.running.url());
    let lines = format!("{}\n{}\n", offer("m-3"), offer("m-1"));
    let request = web.client.post(url).header("content-type", "application/x-ndjson");
    let body: Value = request.body(lines).send().await.unwrap().json().await.unwrap();
    assert_eq!(body["results"][0]["status"], "accepted");
    assert_eq!(body["results"][1]["status"], "duplicate");
    web.running.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_stands_for_one_task() {
    let web = Web::start().await;
    let url = format!("{}/tasks", web.running.url());
    let submit = |task_type: &str| {
        let body = json!({"task_type": task_type}).to_string();
        web.client.post(&url).header("idempotency-key", "k").body(body).send()
    };
    let first: Value = submit("general").await.unwrap().json().await.unwrap();
    let again: Value = submit("general").await.unwrap().json().await.unwrap();
    assert_eq!(first, again);
    let other = submit("testing").await.unwrap();
    assert_eq!(other.status().as_u16(), 422);
    assert_eq!(web.get("/tasks").await["tasks"].as_array().unwrap().len(), 1);
    let page = web.get("/tasks?status=pending&task_type=general&limit=1").await;
    assert_eq!(page["tasks"][0]["task_id"], first["task_id"]);
    assert_eq!(web.get("/tasks?status=failed").await["tasks"], json!([]));
    web.running.stop().await;
}

#[tokio::test]
async fn state_is_written_with_versions() {
    let web = Web::start().await;
    let url = format!("{}/state/default/a/b", web.running.url());
    let put = |version: &'static str| {
        web.client.put(&url).header("if-match", version).body("{\"n\":1}").send()
    };
    let first = put("\"0\"").await.unwrap();
    assert_eq!(first.headers()["etag"], "\"1\"");
    assert_eq!(put("\"0\"").await.unwrap().status().as_u16(), 412);
    assert_eq!(put("\"1\"").await.unwrap().headers()["etag"], "\"2\"");
    assert_eq!(web.get("/state/default").await["entries"][0]["key"], "a/b");
    let gone = web.call(Method::DELETE, "/state/default/a/b", None).await;
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let shown = web.call(Method::GET, "/state/default/a/b", None).await;
    assert_eq!(shown.status(), StatusCode::NOT_FOUND);
    web.running.stop().await;
}

#[tokio::test]
async fn a_websocket_brings_offers_and_another_instance_closes_it() {
    let web = Web::start().await;
    let mut first = web.ws("b", "one").await;
    let (status, _) = web.post("/tasks", json!({"task_id": "t", "task_type": "code_review"})).await;
    assert_eq!(status, StatusCode::CREATED);
    let offer = hear(&mut first, "task_offer").await;
    assert_eq!(offer.task_id(), Some("t"));
    let ack = json!({"message_ids": [offer.message_id()]});
    let accept = json!({"task_id": "t", "attempt": 1});
    let frame = json!([
        {"message_type": "ack", "payload": ack},
        {"message_type": "task_accept", "message_id": "m-1", "payload": accept},
    ]);
    first.send(Wire::Text(frame.to_string())).await.unwrap();
    let ack = hear(&mut first, "ack").await;
    assert_eq!(ack.payload_value()["message_ids"], json!(["m-1"]));
    assert_eq!(web.get("/tasks/t").await["status"], "accepted");
    let _second = web.ws("b", "two").await;
    let closed = loop {
        match receive(&mut first).await {
            Some(Ok(Wire::Close(code, _))) => break code,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed, 4_001);
    web.running.stop().await;
}

#[tokio::test]
async fn on_a_loopback_address_a_foreign_name_gets_nothing() {
    let web = Web::start().await;
    for (host, status) in [("evil.example:80", 403), ("localhost:80", 200), ("[::1]", 200)] {
        let request = web.client.get(format!("{}/tasks", web.running.url())).header("host", host);
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{host}");
    }
    web.running.stop().await;
}

#[tokio::test]
async fn what_agents_say_comes_out_with_the_bytes_in_which_it_came() {
    let web = Web::start().await;
    web.say("b", "register", json!({"capabilities": ["code_review"]})).await;
    let (status, _) = web.post("/tasks", json!({"task_id": "t", "task_type": "code_review"})).await;
    assert_eq!(status, StatusCode::CREATED);
    web.get("/messages?agent_id=b&wait=5").await;
    // A parser would sort the keys and write these numbers in another way.
    let odd = r#"{"z": 1.50,"a":12345678901234567890123}"#;
    let from_b = r#""agent_id":"b","payload":{"task_id":"t","attempt":1,"#;
    let artifact = format!(r#"{{"artifact_id":"f","parts":[{odd}]}}"#);
    let messages = [
        format!(r#"{{"message_type":"note","agent_id":"a","to":"b","payload":{{"n":{odd}}}}}"#),
        format!(r#"{{"message_type":"task_accept",{from_b}"x":0}}}}"#),
        format!(r#"{{"message_type":"task_update",{from_b}"artifact":{artifact}}}}}"#),
        format!(r#"{{"message_type":"task_complete",{from_b}"result":{odd}}}}}"#),
    ];
    let sent = web.call(Method::POST, "/messages", Some(format!("[{}]", messages.join(",")))).await;
    let sent = sent.text().await.unwrap();
    assert_eq!(sent.matches("accepted").count(), 4, "{sent}");
    for (path, count) in [("/messages?agent_id=b", 1), ("/tasks/t", 2), ("/tasks", 2)] {
        let text = web.call(Method::GET, path, None).await.text().await.unwrap();
        assert_eq!(text.matches(odd).count(), count, "{path}: {text}");
    }
    web.running.stop().await;
}
