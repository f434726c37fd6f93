//! What is known only while the server runs: signs of life of the agents, their connections, the
//! offers that wait for an answer. Nothing here is durable; a restart begins with full grace.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use storage::record::id_time;
use tokio::sync::{Notify, watch};

use crate::audit::witness::Pace;
use crate::clock::Millis;
use crate::protocol::payload::AgentStatus;

/// Of so many heartbeats that change nothing one is audited.
const HEARTBEAT_SAMPLE: u64 = 20;

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
    /// What it was shown of the server's journal.
    pub pace: Pace,
    is_watched: bool,
    beats: u64,
    /// The instance and the id of a `register` that was refused as late.
    late: Option<(Option<String>, String)>,
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
    /// Agents that are expected to give signs of life, each once, by a time at which it gave one.
    watched: BTreeSet<(Millis, Name)>,
    connections: HashMap<Name, Connection>,
    offers: HashMap<Name, (u32, Millis)>,
    offers_due: BTreeSet<(Millis, Name)>,
    /// Tasks that could not be ended, and until when they are left alone.
    aside: HashMap<Name, Millis>,
}

impl Inner {
    fn expect(&mut self, agent: &Name, monotonic: Millis) -> &mut Vital {
        let vital = self.vitals.entry(agent.clone()).or_default();
        vital.seen = monotonic;
        if !vital.is_watched {
            vital.is_watched = true;
            self.watched.insert((monotonic, agent.clone()));
        }
        vital
    }
}

/// The signs of life of all agents. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<Mutex<Inner>>);

impl Life {
    /// An agent gave a sign of life.
    pub fn seen(&self, agent: &Name, monotonic: Millis, at: Millis) {
        self.0.lock().expect(agent, monotonic).seen_at = Some(at);
    }

    /// An agent is expected to give a sign of life from now on.
    pub fn expect(&self, agent: &Name, monotonic: Millis) {
        self.0.lock().expect(agent, monotonic);
    }

    /// Up to `limit` agents that gave no sign of life for `patience`. They are expected no longer.
    pub fn silent(&self, monotonic: Millis, patience: Millis, limit: usize) -> Vec<Name> {
        let mut inner = self.0.lock();
        let mut silent = Vec::new();
        while let Some((seen, agent)) = inner.watched.first().cloned() {
            if silent.len() == limit || seen.saturating_add(patience) > monotonic {
                break;
            }
            inner.watched.pop_first();
            let Some(vital) = inner.vitals.get_mut(&agent) else { continue };
            if vital.seen.saturating_add(patience) > monotonic {
                let seen = vital.seen;
                inner.watched.insert((seen, agent));
            } else {
                vital.is_watched = false;
                silent.push(agent);
            }
        }
        silent
    }

    /// Nothing is known of an agent any more.
    pub fn forget(&self, agent: &Name) {
        self.0.lock().vitals.remove(agent);
    }

    /// A heartbeat: says whether it is worth an entry of the audit log.
    pub fn beat(&self, agent: &Name, status: Option<AgentStatus>) -> bool {
        let mut inner = self.0.lock();
        let vital = inner.vitals.entry(agent.clone()).or_default();
        let changed = vital.status != status;
        vital.status = status;
        vital.is_full = false;
        vital.beats = vital.beats.wrapping_add(1);
        changed || vital.beats.is_multiple_of(HEARTBEAT_SAMPLE)
    }

    /// Whether an instance whose `register` was refused as late has made another one since, and so
    /// is alive. If not, this one is remembered as refused.
    pub fn insists(&self, agent: &Name, instance_id: &Option<String>, id: &str) -> bool {
        let mut inner = self.0.lock();
        let vital = inner.vitals.entry(agent.clone()).or_default();
        let before = vital.late.take();
        let is_again = before.is_some_and(|(instance, before)| {
            instance == *instance_id && id_time(&before) < id_time(id)
        });
        if !is_again {
            vital.late = Some((instance_id.clone(), id.to_owned()));
        }
        is_again
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

    /// The agent is shown this end of the server's journal.
    pub fn shown(&self, agent: &Name, monotonic: Millis, head: &str) {
        self.0.lock().vitals.entry(agent.clone()).or_default().pace.shown(monotonic, head);
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
        let mut inner = self.0.lock();
        inner.offers_due.insert((until, task.clone()));
        if let Some((_, before)) = inner.offers.insert(task.clone(), (attempt, until))
            && before != until
        {
            inner.offers_due.remove(&(before, task));
        }
    }

    /// Offers whose time is over, taken out.
    pub fn overdue_offers(&self, monotonic: Millis) -> Vec<(Name, u32)> {
        let mut inner = self.0.lock();
        let mut overdue = Vec::new();
        while inner.offers_due.first().is_some_and(|(until, _)| *until <= monotonic) {
            let Some((_, task)) = inner.offers_due.pop_first() else { break };
            overdue.extend(inner.offers.remove(&task).map(|(attempt, _)| (task, attempt)));
        }
        overdue
    }

    /// When the next offer is overdue.
    pub fn next_offer_due(&self) -> Option<Millis> {
        self.0.lock().offers_due.first().map(|(until, _)| *until)
    }

    /// A task could not be ended: the others go first until this monotonic time.
    pub fn put_aside(&self, task: Name, until: Millis) {
        self.0.lock().aside.insert(task, until);
    }

    /// The tasks that are left alone at this monotonic time.
    pub fn aside(&self, monotonic: Millis) -> BTreeSet<Name> {
        let mut inner = self.0.lock();
        inner.aside.retain(|_, until| *until > monotonic);
        inner.aside.keys().cloned().collect()
    }

    /// A connection of an agent; an older one of the same session is told to end. One whose session
    /// was replaced before it came to this is told so itself: ids of sessions grow.
    pub fn connect(&self, agent: &Name, session_id: &str) -> watch::Receiver<Ending> {
        let (ending, receiver) = watch::channel(Ending::Open);
        let mut inner = self.0.lock();
        let newer = inner.connections.get(agent);
        if newer.is_some_and(|newer| newer.session_id.as_str() > session_id) {
            let _ = ending.send(Ending::Superseded);
            return receiver;
        }
        let connection = Connection { session_id: session_id.to_owned(), ending };
        let before = inner.connections.insert(agent.clone(), connection);
        drop(inner);
        if let Some(before) = before {
            let same = before.session_id == session_id;
            // The other end may be gone already.
            let _ = before.ending.send(if same { Ending::Superseded } else { Ending::Replaced });
        }
        receiver
    }

    /// Another session began: a connection of an earlier one is told why. Ids of sessions grow.
    pub fn fence(&self, agent: &Name, session_id: &str, ending: Ending) {
        let mut inner = self.0.lock();
        let connection = inner.connections.get(agent);
        if connection.is_some_and(|connection| connection.session_id.as_str() < session_id)
            && let Some(connection) = inner.connections.remove(agent)
        {
            // The other end may be gone already.
            let _ = connection.ending.send(ending);
        }
    }

    /// A connection of this session ended.
    pub fn disconnect(&self, agent: &Name, session_id: &str) {
        let mut inner = self.0.lock();
        let connection = inner.connections.get(agent);
        if connection.is_some_and(|connection| connection.session_id == session_id) {
            inner.connections.remove(agent);
        }
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
