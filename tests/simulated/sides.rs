//! Both sides of the link: a sender with the real outbox and circuit, which connects as a bridge
//! does, and a receiver with the real inbox. Each has a store of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use loki_openclaw::clock::{Clock, Millis};
use loki_openclaw::inbox::{Admitted, Arrival, admit};
use loki_openclaw::outbox::circuit::Sign;
use loki_openclaw::outbox::{Gate, Policy, Pump, stage};
use loki_openclaw::protocol::{Envelope, Fields, MessageType, Refusal, parse_one};
use loki_openclaw::transport::feed::{Feed as _, Outgoing};
use storage::database::{Database, Setup};
use storage::journal::{Options, SyncFault, SyncPoint, Syncer};
use storage::record::{Direction, MessageKey, Status};
use storage::transaction::Body;
use tempfile::TempDir;

use crate::link::SECOND;

/// Messages that may be out at once, and that leave at once.
const WINDOW: usize = 256;
const BATCH: usize = 64;

/// An attempt waits so long for its answer.
const TIMEOUT: Millis = 30 * SECOND;

/// A connection over a link that went away is noticed at once or by its pings, after so long at the
/// most.
const UNNOTICED_MAX: Millis = 30 * SECOND;

/// What a connect takes when it succeeds, and at the most when it does not.
const CONNECT: Millis = 300;
const CONNECT_FAILS_MAX: Millis = 5 * SECOND;

const DESTINATION: &str = "server";

/// A store in a temporary folder. Nothing is cut here, so that nothing has to reach the disk.
struct Place {
    database: Database,
    _folder: TempDir,
}

impl Place {
    fn new(clock: &Clock) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let syncer = Syncer::default();
        for point in SyncPoint::ALL {
            syncer.set_fault(*point, SyncFault::Skip);
        }
        let mut journal = Options::new(clock.now());
        (journal.syncer, journal.reserve_bytes) = (Arc::new(syncer), 0);
        let wall = clock.clone();
        let setup = Setup::new(journal, Box::new(move || wall.now()), Box::new(|_| {}));
        let (database, _) = Database::open_with(folder.path(), setup).expect("a store");
        Self { database, _folder: folder }
    }

    /// Waits until everything that was decided so far is done.
    fn settle(&self) {
        let nothing = self.database.store().commit(|_| -> Result<(), ()> { Ok(()) });
        nothing.wait().expect("durable").expect("decided");
    }
}

struct Connection {
    pump: Pump,
    number: u64,
    /// It broke, and this side notices then.
    noticed_at: Option<Millis>,
    /// What is out, and since when.
    out: HashMap<String, Millis>,
}

/// Who sends.
pub struct Sender {
    place: Place,
    clock: Clock,
    gate: Gate,
    connection: Option<Connection>,
    /// A connect is under way: when it ends, and whether it succeeds.
    connecting: Option<(Millis, bool)>,
    next_connect: Millis,
    connects: u64,
    attempts: HashMap<String, u64>,
}

impl Sender {
    pub fn new(clock: &Clock) -> Self {
        Self {
            place: Place::new(clock),
            clock: clock.clone(),
            gate: Gate::new(clock.clone(), Policy::default()),
            connection: None,
            connecting: None,
            next_connect: 0,
            connects: 0,
            attempts: HashMap::new(),
        }
    }

    /// Accepts a message for the receiver.
    pub fn stage(&self, id: &str, lane: u64, clock: &Clock) {
        let key = (lane > 0).then(|| format!("lane-{lane}"));
        let fields = Fields {
            message_id: Some(id),
            agent_id: Some("sender"),
            namespace: Some("default"),
            timestamp: Some(clock.now()),
            ordering_key: key.as_deref(),
            ..Fields::default()
        };
        let payload = serde_json::json!({ "entries": [{ "key": id, "value": lane }] });
        let envelope = Envelope::compose(MessageType::StateSync, fields, &payload);
        let envelope = envelope.expect("a message");
        let done = self.place.database.store().commit(move |transaction| -> Result<(), ()> {
            stage(transaction, &envelope, DESTINATION, "receiver").map(|_| ()).ok_or(())
        });
        done.wait().expect("durable").expect("staged");
    }

    /// The connection that carries something now.
    pub fn connection(&self) -> Option<u64> {
        let sound = self.connection.as_ref().filter(|one| one.noticed_at.is_none());
        sound.map(|one| one.number)
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// When it looks for the receiver again, or knows what came of that.
    pub fn next_connect(&self) -> Millis {
        self.connecting.map_or(self.next_connect, |(ends, _)| ends)
    }

    /// The link is up or down: a connection over one that went down is broken, which is noticed
    /// then or later.
    pub async fn link_is(&mut self, up: bool, now: Millis, chance: &Clock) {
        let Some(connection) = &mut self.connection else { return };
        if !up && connection.noticed_at.is_none() {
            let later = if chance.draw(1) == 0 { 0 } else { chance.draw(UNNOTICED_MAX) };
            connection.noticed_at = Some(now + later);
        }
        if connection.noticed_at.is_some_and(|at| at <= now)
            && let Some(gone) = self.connection.take()
        {
            gone.pump.broken().await.expect("recorded");
            self.next_connect = now + self.gate.pause();
        }
    }

    /// Looks for the receiver, as often as the circuit lets it.
    pub fn connect(&mut self, up: bool, now: Millis, chance: &Clock) {
        if self.connection.is_some() {
            return;
        }
        match self.connecting {
            None if now >= self.next_connect => {
                self.connects += 1;
                let takes = if up { CONNECT } else { chance.draw(CONNECT_FAILS_MAX) };
                self.connecting = Some((now + takes, up));
            }
            Some((ends, succeeds)) if now >= ends => {
                self.connecting = None;
                if succeeds && up {
                    self.gate.sign(Sign::Linked, "");
                    self.connection = Some(self.connected());
                } else {
                    self.gate.sign(Sign::Unreachable, "nobody is there");
                    self.next_connect = now + self.gate.pause();
                }
            }
            _ => {}
        }
    }

    fn connected(&self) -> Connection {
        let store = self.place.database.store().clone();
        let pump = Pump::new(store, self.clock.clone(), Policy::default(), DESTINATION);
        let pump = pump.with_gate(self.gate.clone()).with_timeout(Duration::from_millis(TIMEOUT));
        Connection { pump, number: self.connects, noticed_at: None, out: HashMap::new() }
    }

    /// What leaves now.
    pub async fn take(&mut self, now: Millis) -> Option<Vec<Outgoing>> {
        let connection = self.connection.as_mut()?;
        let room = WINDOW.saturating_sub(connection.pump.in_flight()).min(BATCH);
        let mut batch = poll_immediate(connection.pump.next(room)).await;
        // What waits for the start of its attempt to be durable leaves when that is so.
        self.place.settle();
        if batch.is_none() {
            batch = poll_immediate(connection.pump.next(room)).await;
            self.place.settle();
        }
        let batch = batch.filter(|batch| !batch.is_empty())?;
        for one in &batch {
            *self.attempts.entry(one.message_id.clone()).or_default() += 1;
            connection.out.insert(one.message_id.clone(), now);
        }
        Some(batch)
    }

    /// The receiver has these.
    pub async fn acknowledged(&mut self, ids: &[String]) {
        let Some(connection) = &mut self.connection else { return };
        connection.pump.delivered(ids).await.expect("recorded");
        connection.out.retain(|id, _| !ids.contains(id));
    }

    /// Gives up waiting for answers that are late.
    pub async fn overdue(&mut self, now: Millis) {
        let Some(connection) = &mut self.connection else { return };
        if connection.out.values().any(|since| since + TIMEOUT <= now) {
            connection.pump.overdue().await.expect("recorded");
            connection.out.retain(|_, since| *since + TIMEOUT > now);
        }
    }

    /// How often a message left.
    pub fn attempts(&self, id: &str) -> u64 {
        self.attempts.get(id).copied().unwrap_or(0)
    }

    /// How often it looked for the receiver.
    pub fn connects(&self) -> u64 {
        self.connects
    }

    /// It knows of every message that it arrived.
    pub fn is_done(&self) -> bool {
        self.place.database.store().messages(|messages| messages.iter().next().is_none())
    }
}

/// What became of a message at the receiver.
#[derive(Default)]
pub struct Arrived {
    pub at: Millis,
    pub times_applied: u64,
}

/// Who receives.
pub struct Receiver {
    place: Place,
    arrived: BTreeMap<String, Arrived>,
    order: BTreeMap<u64, Vec<String>>,
}

impl Receiver {
    pub fn new(clock: &Clock) -> Self {
        let place = Place::new(clock);
        Self { place, arrived: BTreeMap::new(), order: BTreeMap::new() }
    }

    /// Admits what arrived, and gives the ids that it acknowledges.
    pub fn admit(&mut self, batch: Vec<Outgoing>, now: Millis) -> Vec<String> {
        batch.into_iter().map(|one| self.admit_one(one, now)).collect()
    }

    fn admit_one(&mut self, one: Outgoing, now: Millis) -> String {
        let envelope = parse_one(one.bytes.clone()).expect("a message");
        let lane = envelope.payload_value()["entries"][0]["value"].as_u64().expect("a lane");
        let arrival = Arrival {
            envelope,
            namespace: "default".into(),
            sender: "sender".into(),
            dedup_window: 8 * 24 * 60 * 60 * SECOND,
        };
        let store = self.place.database.store().clone();
        let body = Body::new(&one.bytes);
        let done = self.place.database.store().commit(move |transaction| {
            admit(transaction, &store, &arrival, (body, None), |_| Ok::<(), Refusal>(()))
        });
        let admitted = done.wait().expect("durable").expect("admitted");
        if admitted == Admitted::Accepted {
            let arrived = self.arrived.entry(one.message_id.clone()).or_default();
            arrived.times_applied += 1;
            arrived.at = now;
            self.order.entry(lane).or_default().push(one.message_id.clone());
        }
        assert!(self.is_known(&one.message_id), "it is acknowledged and not known");
        one.message_id
    }

    fn is_known(&self, id: &str) -> bool {
        let direction = Direction::Inbound;
        let key = MessageKey { direction, namespace: "default", peer: "sender", message_id: id };
        let known = self.place.database.store().messages(|messages| messages.find(&key));
        known.is_some_and(|known| known.status != Status::Failed)
    }

    pub fn arrived(&self) -> &BTreeMap<String, Arrived> {
        &self.arrived
    }

    pub fn count(&self) -> usize {
        self.arrived.len()
    }

    /// The messages of a lane in the order in which they were applied.
    pub fn order(&self, lane: u64) -> &[String] {
        self.order.get(&lane).map_or(&[], Vec::as_slice)
    }
}
