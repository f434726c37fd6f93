//! Agents on WebSockets that send to each other and acknowledge what they get, with as little work
//! of their own as possible: they share the processors with what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use loki_openclaw::clock::{Clock, rfc3339};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{MESSAGE_BYTES, Outcome, Watch};

/// How long an agent waits before it looks again whether it may send or is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After so long without an arrival nothing is on its way.
const STILL: Duration = Duration::from_millis(500);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What all agents of one load share.
#[derive(Debug, Default)]
pub struct Load {
    /// Messages that may still be sent.
    left: AtomicU64,
    /// Messages that were acknowledged.
    pub sent: AtomicU64,
    /// Messages that arrived.
    pub received: AtomicU64,
    /// How long frames took until they were acknowledged, in microseconds.
    times: Mutex<Vec<u64>>,
    /// Rung when more may be sent.
    bell: Notify,
    /// Everybody is to end.
    stop: AtomicBool,
}

/// One agent's part.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its id.
    pub agent_id: String,
    /// Whom it sends to; nobody, when it only receives.
    pub to: Option<String>,
    /// Messages in a frame, all of which are acknowledged before the next.
    pub batch: u64,
    /// Milliseconds after which its messages expire; 0: never.
    pub expires_after: u64,
    /// It keeps its connection and reads nothing from it.
    pub is_deaf: bool,
}

impl Part {
    /// One that receives only.
    pub fn consumer(agent_id: &str) -> Self {
        let agent_id = agent_id.to_owned();
        Self { agent_id, to: None, batch: 1, expires_after: 0, is_deaf: false }
    }

    /// One that sends, a frame at a time.
    pub fn producer(agent_id: &str, to: &str, batch: u64) -> Self {
        Self { to: Some(to.to_owned()), batch, ..Self::consumer(agent_id) }
    }
}

/// What an agent looks at in a message.
#[derive(Deserialize)]
struct Glance<'a> {
    message_type: &'a str,
    message_id: Option<&'a str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Acknowledged<'a> {
    #[serde(borrow, default)]
    message_ids: Vec<&'a str>,
    message_id: Option<&'a str>,
}

impl Load {
    /// A load of so many messages.
    pub fn new(messages: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(messages), ..Self::default() })
    }

    /// Lets more messages go.
    pub fn more(&self, messages: u64) {
        self.left.fetch_add(messages, Ordering::Relaxed);
        self.bell.notify_waiters();
    }

    /// Lets no more go, and waits until nothing arrives any more.
    pub async fn drained(&self) {
        self.left.store(0, Ordering::Relaxed);
        let arrived = || self.received.load(Ordering::Relaxed);
        let mut before = arrived();
        loop {
            tokio::time::sleep(STILL).await;
            let now = arrived();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// The times of the frames that were acknowledged since the last call.
    pub fn times(&self) -> Vec<u64> {
        std::mem::take(&mut *self.times.lock())
    }

    /// Messages that were let go and are not sent.
    pub fn waiting(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Ends every agent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.bell.notify_waiters();
    }

    fn take(&self, batch: u64) -> bool {
        let less = |left: u64| left.checked_sub(batch);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// The agents of a load, which run until it is stopped.
pub type Agents = JoinSet<Outcome<()>>;

/// Waits until agents have ended.
pub async fn ended(mut agents: Agents) -> Outcome<()> {
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    Ok(())
}

/// Connects agents to a server and registers them.
pub async fn start(host: &str, parts: Vec<Part>, load: &Arc<Load>) -> Outcome<Agents> {
    let mut agents = Vec::new();
    for part in parts {
        let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{host}/ws")).await?;
        let id = &part.agent_id;
        let register = format!(
            r#"{{"message_type":"register","agent_id":"{id}","payload":{{"name":"{id}"}}}}"#
        );
        socket.send(Message::Text(register.into())).await?;
        let answer = socket.next().await.ok_or("the server went away")??;
        if !answer.to_text()?.contains("session_id") {
            return Err(format!("a register was answered with {answer}").into());
        }
        agents.push(Agent { socket, part, load: Arc::clone(load), out: 0, at: None, number: 0 });
    }
    let mut tasks = JoinSet::new();
    for agent in agents {
        tasks.spawn(agent.run());
    }
    Ok(tasks)
}

struct Agent {
    socket: Socket,
    part: Part,
    load: Arc<Load>,
    /// Messages of the last frame that are not acknowledged.
    out: u64,
    at: Option<Watch>,
    number: u64,
}

impl Agent {
    async fn run(mut self) -> Outcome<()> {
        let load = Arc::clone(&self.load);
        while self.part.is_deaf && !load.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        while !self.load.stop.load(Ordering::Relaxed) {
            if self.out == 0 && self.part.to.is_some() && self.load.take(self.part.batch) {
                self.send().await?;
            }
            let frame = tokio::select! {
                frame = self.socket.next() => frame,
                () = load.bell.notified(), if self.out == 0 => continue,
                () = tokio::time::sleep(LOOK_AGAIN) => continue,
            };
            let frame = frame.ok_or("the server closed a connection")??;
            if let Message::Text(text) = frame {
                self.take(text.as_str()).await?;
                if let Some(at) = self.at.filter(|_| self.out == 0) {
                    load.times.lock().push(at.micros());
                    self.at = None;
                }
            }
        }
        // The other end may be gone already.
        let _ = self.socket.close(None).await;
        Ok(())
    }

    async fn send(&mut self) -> Outcome<()> {
        let mut frame = String::from("[");
        for place in 0..self.part.batch {
            if place > 0 {
                frame.push(',');
            }
            frame.push_str(&self.message());
            self.number += 1;
        }
        frame.push(']');
        self.out = self.part.batch;
        self.at = Some(Watch::start());
        Ok(self.socket.send(Message::Text(frame.into())).await?)
    }

    fn message(&self) -> String {
        let (to, clock) = (self.part.to.as_deref().unwrap_or_default(), Clock::system());
        let expires = match self.part.expires_after {
            0 => String::new(),
            after => format!(r#","expires_at":"{}""#, rfc3339(clock.now() + after)),
        };
        let content = "x".repeat(MESSAGE_BYTES - r#"{"data":""}"#.len());
        format!(
            concat!(
                r#"{{"message_type":"note","message_id":"{}","to":"{}"{},"#,
                r#""payload":{{"data":"{}"}}}}"#
            ),
            clock.message_id(),
            to,
            expires,
            content
        )
    }

    async fn take(&mut self, text: &str) -> Outcome<()> {
        let glances: Vec<Glance<'_>> = match text.as_bytes().first() {
            Some(b'[') => serde_json::from_str(text)?,
            _ => vec![serde_json::from_str(text)?],
        };
        let mut ids = String::new();
        let mut count = 0;
        for glance in glances {
            match (glance.message_type, glance.message_id) {
                ("ack", _) => self.acknowledged(glance.payload)?,
                (_, Some(id)) => {
                    ids.push_str(if count == 0 { "\"" } else { "\",\"" });
                    ids.push_str(id);
                    count += 1;
                }
                _ => return Err(format!("the server refused: {text}").into()),
            }
        }
        if count > 0 {
            let ack = format!(r#"{{"message_type":"ack","payload":{{"message_ids":[{ids}"]}}}}"#);
            self.socket.send(Message::Text(ack.into())).await?;
            self.load.received.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    fn acknowledged(&mut self, payload: &RawValue) -> Outcome<()> {
        let ack: Acknowledged<'_> = serde_json::from_str(payload.get())?;
        let count = ack.message_ids.len() as u64 + u64::from(ack.message_id.is_some());
        self.out = self.out.checked_sub(count).ok_or("more was acknowledged than was sent")?;
        self.load.sent.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}
