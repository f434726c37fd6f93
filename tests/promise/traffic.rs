//! Messages both ways while the programs and the link fail, and the check of each at the end. A
//! plain agent, `peer`, sends to the bridge and is told what the bridge wrote.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle, park_timeout};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::support::{World, received};

/// Messages of one lane are applied in their order.
const LANES: u64 = 4;

/// Between two messages of one sender.
const PAUSE: Duration = Duration::from_millis(15);

/// How long a sender waits for an answer before it asks again with the same id.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends, and checks what became of it.
pub struct Traffic<'a> {
    world: &'a World,
    client: Client,
    server: String,
    bridge: Mutex<String>,
    agent_id: &'static str,
    /// The test has failed: nobody may ever acknowledge what is sent.
    is_over: AtomicBool,
}

/// Ends the senders of a test that fails, which would go on for ever.
pub struct Guard<'a>(&'a AtomicBool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::SeqCst);
    }
}

/// Two senders at work.
pub struct Sending<'scope> {
    stop: &'scope AtomicBool,
    up: ScopedJoinHandle<'scope, u64>,
    down: ScopedJoinHandle<'scope, u64>,
}

/// How many messages were acknowledged each way; their ids follow from their numbers.
#[derive(Debug)]
pub struct Sent {
    up: u64,
    down: u64,
}

impl Sent {
    /// How many in all.
    pub fn count(&self) -> u64 {
        self.up + self.down
    }
}

impl Sending<'_> {
    /// Ends both when their last message is acknowledged.
    pub fn finish(self) -> Sent {
        self.stop.store(true, Ordering::SeqCst);
        Sent { up: self.up.join().expect("sent"), down: self.down.join().expect("sent") }
    }
}

fn entries(way: &str, number: u64) -> Value {
    json!({"entries": [{"key": format!("{way}/{}", number % LANES), "value": number}]})
}

fn id(way: &str, number: u64) -> String {
    format!("{way}-{number}")
}

/// How many of the first `count` numbers are in this lane.
fn in_lane(count: u64, lane: u64) -> Vec<u64> {
    (0..count).filter(|number| number % LANES == lane).collect()
}

/// Sends one number after the other, each until it is acknowledged, until it is told to stop.
fn sender<'scope>(
    scope: &'scope Scope<'scope, '_>,
    (stop, is_over): (&'scope AtomicBool, &'scope AtomicBool),
    send: impl Fn(u64) -> Option<(u16, Value)> + Send + 'scope,
) -> ScopedJoinHandle<'scope, u64> {
    scope.spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            let answer = loop {
                if is_over.load(Ordering::SeqCst) {
                    return number;
                }
                match send(number) {
                    Some((_, answer)) if answer["retryable"] != true => break answer,
                    _ => park_timeout(PAUSE),
                }
            };
            let taken = answer["message_id"].is_string() || answer["results"].is_array();
            assert!(taken, "{answer}");
            number += 1;
            park_timeout(PAUSE);
        }
        number
    })
}

impl<'a> Traffic<'a> {
    /// Registers the peer at the server.
    pub fn new(world: &'a World, server: &str, agent_id: &'static str) -> Self {
        let client = Client::builder().no_proxy().timeout(TIMEOUT).build().expect("a client");
        let (server, bridge) = (server.to_owned(), Mutex::default());
        let traffic =
            Self { world, client, server, bridge, agent_id, is_over: AtomicBool::new(false) };
        let register = json!({
            "message_type": "register", "agent_id": "peer", "payload": {"capabilities": ["none"]},
        });
        let url = format!("{}/messages", traffic.server);
        assert_eq!(traffic.post(&url, &register).expect("an answer").0, 202);
        traffic
    }

    /// The bridge was started again.
    pub fn bridge_is_at(&self, address: &str) {
        address.clone_into(&mut self.bridge.lock());
    }

    fn post(&self, url: &str, body: &Value) -> Option<(u16, Value)> {
        let response = self.client.post(url).json(body).send().ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().unwrap_or(Value::Null)))
    }

    /// Starts both senders; each repeats a message until it is acknowledged.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        stop: &'scope AtomicBool,
    ) -> Sending<'scope> {
        let ends = (stop, &self.is_over);
        let up = sender(scope, ends, |number| {
            let body = json!({
                "message_type": "state_sync",
                "message_id": id("up", number),
                "ordering_key": format!("lane-{}", number % LANES),
                "payload": entries("up", number),
            });
            let bridge = self.bridge.lock().clone();
            self.post(&format!("{bridge}/api/openclaw/send"), &body)
        });
        let down = sender(scope, ends, |number| {
            let message = json!({
                "message_type": "state_sync",
                "agent_id": "peer",
                "to": self.agent_id,
                "message_id": id("down", number),
                "ordering_key": format!("lane-{}", number % LANES),
                "payload": entries("down", number),
            });
            self.post(&format!("{}/messages", self.server), &message)
        });
        Sending { stop, up, down }
    }

    /// To be held while the senders are at work.
    pub fn guard(&self) -> Guard<'_> {
        Guard(&self.is_over)
    }

    /// Waits until everything has arrived, and checks what the server and the peer see: each
    /// message of the bridge applied once, in order.
    pub fn settle(&self, sent: &Sent) {
        let status = format!("{}/api/openclaw/status", self.bridge.lock());
        self.world.wait("the bridge to have sent everything", || {
            self.world.get(&status).filter(|status| status["messages_pending"] == 0)
        });
        let mailbox = format!("{}/messages?limit=1&agent_id={}", self.server, self.agent_id);
        self.world.wait("the bridge to have taken everything", || {
            self.world.get(&mailbox).filter(|page| page["messages"] == json!([]))
        });
        for lane in 0..LANES {
            let wanted = in_lane(sent.up, lane);
            let url = format!("{}/state/default/up/{lane}", self.server);
            let cell = self.world.get(&url).expect("the state");
            let lost = || self.lost(&wanted);
            assert_eq!(cell["version"], wanted.len(), "once, in order: {cell}, {:#?}", lost());
        }
        let told = self.told();
        for lane in 0..LANES {
            let key = format!("up/{lane}");
            assert_eq!(told.get(&key), Some(&in_lane(sent.up, lane)), "what the peer is told");
        }
    }

    /// What the bridge says of those of these messages that the server does not know.
    fn lost(&self, wanted: &[u64]) -> Vec<Value> {
        let bridge = self.bridge.lock().clone();
        let at = |base: &str, id: &str| self.world.get(&format!("{base}/{id}"));
        let known = |id: &str| {
            let asked = format!("{}/api/audit?event=message.received&resource={id}", self.server);
            self.world.get(&asked).is_some_and(|page| page["entries"] != json!([]))
        };
        let ids = wanted.iter().map(|number| id("up", *number)).filter(|id| !known(id));
        ids.filter_map(|id| at(&format!("{bridge}/api/openclaw/messages"), &id)).collect()
    }

    /// What the peer is told, by key, in the order of its arrival.
    fn told(&self) -> BTreeMap<String, Vec<u64>> {
        let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut seen = HashSet::new();
        let fetch = format!("{}/messages?agent_id=peer&limit=1000", self.server);
        loop {
            let page = self.world.get(&fetch).expect("the mailbox");
            let messages = page["messages"].as_array().cloned().unwrap_or_default();
            if messages.is_empty() {
                return told;
            }
            let ids: Vec<&Value> = messages.iter().map(|message| &message["message_id"]).collect();
            let ack = json!({"agent_id": "peer", "message_ids": ids});
            assert_eq!(
                self.post(&format!("{}/messages/ack", self.server), &ack).map(|it| it.0),
                Some(200)
            );
            for message in &messages {
                assert!(seen.insert(message["message_id"].to_string()), "twice: {message}");
                for entry in message["payload"]["entries"].as_array().into_iter().flatten() {
                    let key = entry["key"].as_str().expect("a key").to_owned();
                    told.entry(key).or_default().push(entry["value"].as_u64().expect("a number"));
                }
            }
        }
    }

    /// Checks the audit logs of both programs, which have stopped.
    pub fn check(&self, sent: &Sent) {
        let server = received(&self.world.path("server"));
        let bridge = received(&self.world.path("one/.loki/openclaw"));
        for (way, count, logs) in
            [("up", sent.up, vec![&server]), ("down", sent.down, vec![&server, &bridge])]
        {
            assert!(count > 0, "nothing was sent {way}");
            for log in logs {
                let times = |number| log.get(&id(way, number)).copied().unwrap_or(0);
                let wrong: Vec<String> = (0..count)
                    .filter(|number| times(*number) != 1)
                    .map(|number| format!("{} {} times", id(way, number), times(number)))
                    .collect();
                assert!(wrong.is_empty(), "each of {count} is received once, but {wrong:?}");
            }
        }
    }
}
