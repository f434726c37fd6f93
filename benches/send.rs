//! How fast messages of 512 bytes become durable through the bridge's own API, and how fast they
//! are then delivered, with both real programs on this machine: 64 clients on keep-alive
//! connections. `LOKI_BENCH_MESSAGES` sets how many; 10,000 unless it says otherwise.

#[path = "../tests/promise/support.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod support;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use support::{World, received};
use tokio::task::JoinSet;

const CLIENTS: usize = 64;

const MESSAGE_BYTES: usize = 512;

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// One answer: the id of a durable message, and how long it took in microseconds.
type Answered = (String, u64);

/// A body of 512 bytes.
fn body(number: usize) -> String {
    let with = |filler: &str| {
        let entry = json!({"key": format!("bench/{}", number % 100), "value": filler});
        json!({"message_type": "state_sync", "payload": {"entries": [entry]}}).to_string()
    };
    with(&"x".repeat(MESSAGE_BYTES - with("").len()))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock in microseconds")]
async fn send(client: &reqwest::Client, url: &str, body: String) -> Answered {
    let begun = Instant::now();
    let request = client.post(url).header("content-type", "application/json").body(body);
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 202);
    let answer: Value = answer.json().await.expect("json");
    let id = answer["message_id"].as_str().expect("an id").to_owned();
    (id, u64::try_from(begun.elapsed().as_micros()).expect("a duration"))
}

async fn send_all(url: String, messages: usize) -> Vec<Answered> {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, url, next) = (client.clone(), url.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut answered = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= messages {
                    return answered;
                }
                answered.push(send(&client, &url, body(number)).await);
            }
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// Processor time that a process has used; the system counts in steps of 10 ms.
fn processor_micros(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a status");
    // The name, in brackets, may hold spaces; user and system time are the 14th and 15th field.
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().expect("a number") * 10_000).sum()
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
    let used = || [&bridge, &server].map(|program| processor_micros(program.pid()));
    let before = used();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let begun = world.clock().monotonic();
    let url = format!("{}/api/openclaw/send", bridge.address);
    let mut answered = runtime.expect("a runtime").block_on(send_all(url, messages));
    let enqueued = world.clock().monotonic() - begun;
    world.wait("every message to be delivered", || {
        let status = world.get(&status)?;
        (status["messages"]["delivered"].as_u64()? >= messages as u64).then_some(())
    });
    let delivered = world.clock().monotonic() - begun;
    let after = used();
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
    let times = received(&world.path("server"));
    let once = answered.iter().filter(|(id, _)| times.get(id) == Some(&1)).count();
    assert_eq!(once, messages, "every message is received once");

    answered.sort_unstable_by_key(|(_, micros)| *micros);
    let percentile = |percent: usize| answered[(messages - 1) * percent / 100].1;
    let rate = |millis: u64| messages as u64 * 1_000 / millis.max(1);
    let each = |index: usize| (after[index] - before[index]) / messages as u64;
    let mut out = std::io::stdout().lock();
    let _ =
        writeln!(out, "messages            {messages} of {MESSAGE_BYTES} bytes, {CLIENTS} clients");
    let _ = writeln!(out, "durable             {enqueued} ms, {}/s", rate(enqueued));
    let _ =
        writeln!(out, "durable answer      p50 {} us, p99 {} us", percentile(50), percentile(99));
    let _ = writeln!(out, "durable, delivered  {delivered} ms, {}/s", rate(delivered));
    let _ =
        writeln!(out, "processor           bridge {} us, server {} us a message", each(0), each(1));
}
