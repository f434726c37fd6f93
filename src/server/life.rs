//! What is known only while the server runs: signs of life of the agents, their connections, the
//! offers that wait for an answer. Nothing here is durable; a restart begins with full grace.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::Millis;
use crate::protocol::payload::AgentStatus;

/// Namespace and id of an agent or a task.
pub type Name = (String, String);

/// A name of these parts.
pub fn name(namespace: &str, id: &str) -> Name {
    (namespace.to_owned(), id.to_owned())
}

/// What an agent said lately.
#[derive(Debug, Clone, Default)]
pub struct Vital {
    /// Monotonic time of its last sign of life.
    pub seen: Millis,
    /// Wall time of it.
    pub seen_at: Option<Millis>,
    /// What it said it does.
    pub status: Option<AgentStatus>,
    /// It refused a task for lack of room, and gave no heartbeat since.
    pub is_full: bool,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    Open,
    /// Another instance of the agent registered.
    Replaced,
    /// The same instance came back on another connection.
    Superseded,
}

#[derive(Debug)]
struct Connection {
    session_id: String,
    ending: watch::Sender<Ending>,
}

#[derive(Debug, Default)]
struct Inner {
    vitals: HashMap<Name, Vital>,
    connections: HashMap<Name, Connection>,
    offers: HashMap<Name, (u32, Millis)>,
}

/// The signs of life of all agents. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<Mutex<Inner>>);

impl Life {
    /// An agent gave a sign of life.
    pub fn seen(&self, agent: &Name, monotonic: Millis, at: Millis) {
        let mut inner = self.0.lock();
        let vital = inner.vitals.entry(agent.clone()).or_default();
        vital.seen = monotonic;
        vital.seen_at = Some(at);
    }

    /// An agent is expected to give a sign of life from now on.
    pub fn expect(&self, agent: &Name, monotonic: Millis) {
        self.0.lock().vitals.entry(agent.clone()).or_default().seen = monotonic;
    }

    /// A heartbeat: says whether the agent's status changed.
    pub fn beat(&self, agent: &Name, status: Option<AgentStatus>) -> bool {
        let mut inner = self.0.lock();
        let vital = inner.vitals.entry(agent.clone()).or_default();
        let changed = vital.status != status;
        vital.status = status;
        vital.is_full = false;
        changed
    }

    /// A new session: what the agent said before no longer counts.
    pub fn renew(&self, agent: &Name) {
        let mut inner = self.0.lock();
        let vital = inner.vitals.entry(agent.clone()).or_default();
        vital.status = None;
        vital.is_full = false;
    }

    /// The agent has no room, until its next heartbeat.
    pub fn full(&self, agent: &Name, is_full: bool) {
        self.0.lock().vitals.entry(agent.clone()).or_default().is_full = is_full;
    }

    /// What is known of an agent.
    pub fn vital(&self, agent: &Name) -> Vital {
        self.0.lock().vitals.get(agent).cloned().unwrap_or_default()
    }

    /// Whether the agent takes offers now.
    pub fn takes_offers(&self, agent: &Name) -> bool {
        let vital = self.vital(agent);
        !vital.is_full && vital.status != Some(AgentStatus::Draining)
    }

    /// An offer waits for its answer until this monotonic time.
    pub fn offered(&self, task: Name, attempt: u32, until: Millis) {
        self.0.lock().offers.insert(task, (attempt, until));
    }

    /// Offers whose time is over, taken out.
    pub fn overdue_offers(&self, monotonic: Millis) -> Vec<(Name, u32)> {
        let mut inner = self.0.lock();
        let overdue: Vec<(Name, u32)> = inner
            .offers
            .iter()
            .filter(|(_, (_, until))| *until <= monotonic)
            .map(|(task, (attempt, _))| (task.clone(), *attempt))
            .collect();
        for (task, _) in &overdue {
            inner.offers.remove(task);
        }
        overdue
    }

    /// When the next offer is overdue.
    pub fn next_offer_due(&self) -> Option<Millis> {
        self.0.lock().offers.values().map(|(_, until)| *until).min()
    }

    /// A connection of an agent; an older one of the same session is told to end.
    pub fn connect(&self, agent: &Name, session_id: &str) -> watch::Receiver<Ending> {
        let (ending, receiver) = watch::channel(Ending::Open);
        let connection = Connection { session_id: session_id.to_owned(), ending };
        let before = self.0.lock().connections.insert(agent.clone(), connection);
        if let Some(before) = before {
            let same = before.session_id == session_id;
            // The other end may be gone already.
            let _ = before.ending.send(if same { Ending::Superseded } else { Ending::Replaced });
        }
        receiver
    }

    /// Another session begins: a connection of the old one is told why.
    pub fn fence(&self, agent: &Name, ending: Ending) {
        if let Some(connection) = self.0.lock().connections.remove(agent) {
            let _ = connection.ending.send(ending);
        }
    }

    /// A connection ended; says whether it was the agent's current one.
    pub fn disconnect(&self, agent: &Name, session_id: &str) -> bool {
        let mut inner = self.0.lock();
        let current = inner
            .connections
            .get(agent)
            .is_some_and(|connection| connection.session_id == session_id);
        if current {
            inner.connections.remove(agent);
        }
        current
    }
}

/// Bells by name: who waits for a mailbox or a task is woken by a frame that touches it.
#[derive(Debug, Clone, Default)]
pub struct Bells(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

impl Bells {
    /// The bell of this name. Get its `notified()` before looking at what it announces.
    pub fn bell(&self, name: &str) -> Arc<Notify> {
        let mut bells = self.0.lock();
        // Bells that nobody holds are thrown away before the map grows.
        if bells.len() == bells.capacity() {
            bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        }
        Arc::clone(bells.entry(name.to_owned()).or_default())
    }

    /// Wakes all who wait for this name.
    pub fn ring(&self, name: &str) {
        if let Some(bell) = self.0.lock().get(name) {
            bell.notify_waiters();
        }
    }

    /// Wakes everybody.
    pub fn ring_all(&self) {
        for bell in self.0.lock().values() {
            bell.notify_waiters();
        }
    }
}
