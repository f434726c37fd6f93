//! How fast messages of 512 bytes become durable through the bridge's own API, and how fast they
//! are then delivered, with both real programs on this machine: 64 clients on keep-alive
//! connections. `LOKI_BENCH_MESSAGES` sets how many; 10,000 unless it says otherwise.

#[path = "../tests/promise/support.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod support;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::World;
use tokio::task::JoinSet;

const CLIENTS: usize = 64;

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

async fn send_all(url: String, messages: usize) -> usize {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, url, next) = (client.clone(), url.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut accepted = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= messages {
                    return accepted;
                }
                let filler = "x".repeat(400);
                let entry = json!({"key": format!("bench/{}", number % 100), "value": filler});
                let payload = json!({"entries": [entry]});
                let body = json!({"message_type": "state_sync", "payload": payload});
                let sent = client.post(&url).json(&body).send().await.expect("an answer");
                accepted += usize::from(sent.status().as_u16() == 202);
            }
        });
    }
    clients.join_all().await.into_iter().sum()
}

fn main() {
    let asked = std::env::var("LOKI_BENCH_MESSAGES").ok().and_then(|text| text.parse().ok());
    let messages: usize = asked.unwrap_or(10_000);
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("the bridge to be connected", || {
        world.get(&status).filter(|status| status["connected"] == true)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let begun = world.clock().monotonic();
    let url = format!("{}/api/openclaw/send", bridge.address);
    let accepted = runtime.expect("a runtime").block_on(send_all(url, messages));
    let enqueued = world.clock().monotonic() - begun;
    assert_eq!(accepted, messages, "every message is accepted");
    world.wait("every message to be delivered", || {
        let status = world.get(&status)?;
        (status["messages"]["delivered"].as_u64()? >= messages as u64).then_some(())
    });
    let delivered = world.clock().monotonic() - begun;
    let rate = |millis: u64| messages as u64 * 1_000 / millis.max(1);
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "messages            {messages} of 512 bytes, {CLIENTS} clients");
    let _ = writeln!(out, "durable             {enqueued} ms, {}/s", rate(enqueued));
    let _ = writeln!(out, "durable, delivered  {delivered} ms, {}/s", rate(delivered));
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}
