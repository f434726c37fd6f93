//! What the server says of itself: the `OpenAPI` document against the router, and the metrics.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::json;
use storage::database::Database;
use storage::event::Event;

use super::http::Web;
use crate::clock::Clock;
use crate::server::{Disk, Rules, Server, ServerSettings};

const ROUTER: &str =
    concat!(include_str!("../routes/mod.rs"), include_str!("../../dashboard/mod.rs"));

#[tokio::test]
async fn the_openapi_document_has_every_route_and_no_other() {
    let web = Web::start().await;
    let document = web.get("/openapi.json").await;
    let documented: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| {
            (path.clone(), methods.as_object().unwrap().keys().cloned().collect())
        })
        .collect();
    let routed: BTreeSet<String> = ROUTER
        .split(".route(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().replace("{*", "{"))
        .collect();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), routed);
    for (path, methods) in &documented {
        let path = path.replace(['{', '}'], "");
        for method in ["get", "post", "put", "delete"] {
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let status = web.call(verb, &path, None).await.status().as_u16();
            assert_eq!(status != 405, methods.contains(method), "{method} {path}: {status}");
        }
    }
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in text.split("#/components/schemas/").skip(1) {
        let name = name.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is named and not there");
    }
    web.running.stop().await;
}

#[tokio::test]
async fn a_task_shows_what_the_openapi_document_says() {
    let web = Web::start().await;
    web.post("/tasks", json!({"task_id": "t", "task_type": "general"})).await;
    web.say("b", "register", json!({})).await;
    let document = web.get("/openapi.json").await;
    let shown = [("Task", web.get("/tasks/t").await), ("Agent", web.get("/agents/b").await)];
    for (name, shown) in shown {
        let schema = &document["components"]["schemas"][name]["properties"];
        let unsaid: Vec<&String> =
            shown.as_object().unwrap().keys().filter(|key| schema.get(key).is_none()).collect();
        assert!(unsaid.is_empty(), "{name}: {unsaid:?}");
    }
    web.running.stop().await;
}

#[tokio::test]
async fn the_metrics_have_the_names_of_the_protocol() {
    let web = Web::start().await;
    web.say("b", "register", json!({"capabilities": ["code_review"]})).await;
    web.post("/tasks", json!({"task_id": "t", "task_type": "code_review"})).await;
    let inbox = web.get("/messages?agent_id=b&wait=5").await;
    let ack = json!({"agent_id": "b", "message_ids": [inbox["messages"][0]["message_id"]]});
    web.post("/messages/ack", ack).await;
    web.say("b", "task_complete", json!({"task_id": "t", "attempt": 1})).await;
    web.post("/tasks", json!({"task_id": "u", "task_type": "code_review"})).await;
    let odd = json!({"message_type": "invented", "agent_id": "a", "to": "b"});
    assert_eq!(web.post("/messages", odd).await.0, 202);
    while web.get("/tasks/u").await["status"] != "offered" {}
    let response = web.call(Method::GET, "/metrics", None).await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let wanted = [
        "openclaw_connected 0",
        "openclaw_messages_received_total{type=\"register\"} 1",
        "openclaw_messages_received_total{type=\"task_complete\"} 1",
        "openclaw_messages_received_total{type=\"other\"} 1",
        "openclaw_messages_sent_total{type=\"task_offer\"} 1",
        "openclaw_delivery_attempts_total{outcome=\"delivered\"} 1",
        "openclaw_tasks_completed_total 1",
        "openclaw_latency_seconds_bucket{operation=\"messages\",le=\"+Inf\"}",
        "openclaw_messages{direction=\"outbound\",status=\"pending\"} 2",
        "openclaw_messages{direction=\"outbound\",status=\"delivered\"} 1",
        "openclaw_messages{direction=\"outbound\",status=\"failed\"} 0",
        "openclaw_oldest_pending_seconds 0",
        "openclaw_circuit_open 0",
        "openclaw_journal_commit_seconds_bucket{le=",
        "openclaw_tasks{status=\"completed\"} 1",
        "openclaw_tasks{status=\"offered\"} 1",
        "openclaw_tasks{status=\"failed\"} 0",
        "openclaw_agents{status=\"online\"} 1",
        "openclaw_agents{status=\"lost\"} 0",
    ];
    for line in wanted {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("invented"));
    web.running.stop().await;
}

#[tokio::test]
async fn a_server_on_a_disk_measures_it_and_records_its_start_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let wall = clock.clone();
    let now = Box::new(move || wall.now());
    let (database, _) = Database::open(folder.path(), now, Box::new(|_| {})).unwrap();
    let running = Server::start(ServerSettings {
        listen: std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0)),
        store: database.store().clone(),
        clock,
        rules: Rules::default(),
        disk: Some(Disk::of(&database)),
    });
    let running = running.await.unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/metrics", running.url());
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("openclaw_journal_bytes") > 0.0);
    assert!(value("openclaw_view_lag_records") >= 0.0);
    running.stop().await;
    let events = [Event::SessionStart, Event::SessionStop].map(Event::code);
    assert_eq!(database.reader().by_event(&events, None, 9).unwrap().len(), 2);
    database.close().unwrap();
}
