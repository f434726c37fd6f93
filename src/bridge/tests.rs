//! A bridge without a server, over a real store on simulated time: what arrives and what a person
//! does, and what is recorded of it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use storage::database::Database;
use storage::inspect::{AuditFilter, audit};
use storage::record::Status;
use storage::view::Filter;
use tempfile::TempDir;

use super::receive::Receiver;
use super::settings::Settings;
use super::{Bridge, Running, SendError};
use crate::clock::Clock;
use crate::config::{AuditLevel, BridgeConfig};
use crate::executor::Executor;
use crate::inspector::history::{Detail, History as _, Past, Stored};
use crate::inspector::{bulk, history};
use crate::outbox::verdict::{Outcome, judge};
use crate::outbox::{Policy, again, verdict};
use crate::protocol::payload::RegisterAck;
use crate::protocol::{
    Envelope, EnvelopeBuilder, ErrorCode, Fields, MessageType, Refusal, SERVER_AGENT_ID,
};
use crate::shutdown::Shutdown;
use crate::transport::{Answer, Handler as _};

#[path = "tests/ended.rs"]
mod ended;
#[path = "tests/many.rs"]
mod many;
#[path = "tests/trace.rs"]
mod trace;

const START: u64 = 1_771_165_800_000;
const DAY: Duration = Duration::from_hours(24);

struct Place {
    dir: TempDir,
    clock: Clock,
    database: Database,
    running: Running,
    shutdown: Shutdown,
}

impl Place {
    fn new(change: impl FnOnce(&mut BridgeConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(START, 7);
        let wall = clock.clone();
        let now = Box::new(move || wall.now());
        let database = Database::open(dir.path(), now, Box::new(|_| {})).unwrap().0;
        let mut config = BridgeConfig::default();
        change(&mut config);
        let settings = Settings::of_config(&config, "loki-one", clock.message_id());
        let executor =
            Executor::new(dir.path().join("runs"), vec![], PathBuf::new(), clock.clone());
        let (store, shutdown) = (database.store().clone(), Shutdown::default());
        let running = Bridge::start(settings, store, clock.clone(), executor, shutdown.clone());
        Self { dir, clock, database, running, shutdown }
    }

    fn bridge(&self) -> &Bridge {
        &self.running.bridge
    }

    fn history(&self) -> Stored {
        Stored {
            store: self.database.store().clone(),
            view: self.database.view().clone(),
            journal: self.database.reader().clone(),
        }
    }

    /// What a person's changes are made on.
    fn changes(&self) -> bulk::Place {
        let history = std::sync::Arc::new(self.history());
        let (store, journal) = (history.store.clone(), history.journal.clone());
        bulk::Place { store, history, journal, given_up: None }
    }

    fn show(&self, id: &str) -> Detail {
        self.history().show(id).unwrap().expect("a message")
    }

    /// Sends a message with this id, or a new one.
    async fn send(&self, id: Option<&str>, payload: Value) -> Result<String, SendError> {
        let id = id.map_or_else(|| self.clock.message_id(), str::to_owned);
        let fields = Fields {
            message_id: Some(&id),
            agent_id: Some("loki-one"),
            namespace: Some("default"),
            timestamp: Some(self.clock.now()),
            ..Fields::default()
        };
        let envelope = Envelope::compose(MessageType::StateSync, fields, &payload).unwrap();
        self.bridge().send(envelope).await.map(|()| id)
    }

    /// Makes an attempt at a message and ends it, as the pump would.
    async fn ends(&self, id: &str, outcome: Outcome) {
        let id = id.to_owned();
        let commit = self.database.store().commit(move |tx| -> Result<(), Refusal> {
            let mut live = tx.live(tx.find(&key(&id)).unwrap().entry).unwrap();
            live.attempts += 1;
            let change = judge(&live, &outcome, &Policy::default(), tx.now(), 0);
            tx.change(verdict::act_of(&live, &change), &live, change);
            Ok(())
        });
        commit.await.unwrap().unwrap();
    }

    async fn retry(&self) -> again::Retried {
        let by = again::By {
            actor: "ada".into(),
            clock: self.clock.clone(),
            window: again::DEDUP_WINDOW,
            max_age: Policy::default().max_age,
        };
        bulk::retry(&self.changes(), bulk::Chosen::default(), &by).await.unwrap().0
    }

    /// What the bridge answers to a message of the server.
    async fn hear(&self, message_type: MessageType, id: &str, payload: Value) -> Answer {
        let fields = Fields {
            message_id: Some(id),
            agent_id: Some(SERVER_AGENT_ID),
            namespace: Some("default"),
            correlation_id: payload["message_id"].as_str(),
            ..Fields::default()
        };
        let envelope = EnvelopeBuilder::new(message_type, fields).payload(&payload).build();
        let receiver = Receiver(std::sync::Arc::clone(&self.bridge().0));
        let answers = receiver.frame(vec![Ok(envelope.unwrap())]).await.answers;
        answers.into_iter().next().expect("an answer")
    }

    /// The names of the audit events so far, the oldest first.
    async fn events(&self) -> Vec<&'static str> {
        // What nobody waits for is durable when something after it is.
        self.database.store().commit(|_| Ok::<(), ()>(())).await.unwrap().unwrap();
        let filter = AuditFilter { limit: 1_000, ..AuditFilter::default() };
        let mut entries = audit(self.database.reader(), &filter).unwrap().entries;
        entries.reverse();
        entries.iter().map(|entry| entry.record.event.name()).collect()
    }

    async fn end(self) -> TempDir {
        self.shutdown.stop();
        self.running.finished().await;
        self.database.close().unwrap();
        self.dir
    }
}

fn key(id: &str) -> storage::record::MessageKey<'_> {
    let direction = storage::record::Direction::Outbound;
    storage::record::MessageKey {
        direction,
        namespace: "default",
        peer: SERVER_AGENT_ID,
        message_id: id,
    }
}

fn refused(code: ErrorCode) -> Outcome {
    Outcome::Refused(Refusal::new(code, "no"))
}

#[tokio::test]
async fn a_retry_keeps_the_id_as_long_as_the_server_knows_it() {
    let place = Place::new(|_| {});
    let id = place.send(None, json!({"k": 1})).await.unwrap();
    place.ends(&id, refused(ErrorCode::InvalidField)).await;
    assert_eq!(place.show(&id).row.attempts, 1);
    place.clock.advance(7 * DAY);
    assert_eq!(place.retry().await, again::Retried { count: 1, renamed: vec![] });
    let row = place.show(&id).row;
    assert_eq!((row.status.as_str(), row.attempts), ("pending", 0));
    assert_eq!(place.retry().await.count, 0, "only what failed is sent again");
    assert!(place.events().await.contains(&"message.retry"));
    place.end().await;
}

#[tokio::test]
async fn a_retry_of_an_id_that_the_server_forgot_gets_a_new_one() {
    let place = Place::new(|_| {});
    let old = place.send(None, json!({"k": 1})).await.unwrap();
    let stale = place.send(None, json!({"k": 2})).await.unwrap();
    let own = place.send(Some("mine"), json!({"k": 3})).await.unwrap();
    place.ends(&stale, refused(ErrorCode::StaleId)).await;
    let renamed = place.retry().await.renamed;
    assert_eq!(renamed.len(), 1, "a refusal as stale decides");
    assert_eq!(renamed[0].0, stale);
    for id in [&old, &own] {
        place.ends(id, refused(ErrorCode::InvalidField)).await;
    }
    place.clock.advance(8 * DAY + Duration::from_secs(1));
    let retried = place.retry().await;
    assert_eq!((retried.count, retried.renamed.len()), (2, 2));
    for (id, new) in &retried.renamed {
        let (before, after) = (place.show(id), place.show(new));
        assert_eq!((before.row.status.as_str(), after.row.status.as_str()), ("expired", "pending"));
        assert_eq!(after.history[0]["retry_of"], **id, "{:?}", after.history);
        assert_eq!(after.payload, before.payload);
        let error = before.history.last().unwrap()["error"].as_str().unwrap();
        assert!(error.contains(new), "{error}");
    }
    assert_eq!(place.retry().await.count, 0);
    place.end().await;
}

#[tokio::test]
async fn an_id_stands_for_one_message() {
    let place = Place::new(|_| {});
    place.send(Some("m"), json!({"k": 1})).await.unwrap();
    place.send(Some("m"), json!({"k": 1})).await.unwrap();
    let error = place.send(Some("m"), json!({"k": 2})).await.unwrap_err();
    let SendError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code, ErrorCode::IdConflict);
    let queued = place.events().await.iter().filter(|name| **name == "message.queued").count();
    assert_eq!(queued, 1);
    place.end().await;
}

#[tokio::test]
async fn what_could_not_be_delivered_later_on_is_a_receipt_beside_the_status() {
    let place = Place::new(|_| {});
    let id = place.send(None, json!({"k": 1})).await.unwrap();
    let other = place.send(None, json!({"k": 2})).await.unwrap();
    place.ends(&id, Outcome::Acknowledged).await;
    let error =
        json!({"code": "undeliverable", "message": "nobody fetched it", "retryable": false});
    let nack = json!({"message_id": id, "error": error});
    let answer = place.hear(MessageType::Nack, "n-1", nack.clone()).await;
    assert_eq!((answer.message_id.as_deref(), answer.outcome), (Some("n-1"), Ok(())));
    assert_eq!(place.hear(MessageType::Nack, "n-1", nack).await.outcome, Ok(()));
    let check = |history: &dyn history::History| {
        let row = history.show(&id).unwrap().unwrap().row;
        let receipt = row.receipt.expect("a receipt");
        assert_eq!((row.status.as_str(), receipt.code.as_str()), ("delivered", "undeliverable"));
        assert_eq!(receipt.detail.as_deref(), Some("nobody fetched it"));
        let rows = history.list(&Filter { limit: 10, ..Filter::default() }).unwrap().messages;
        let marked: Vec<&str> = rows
            .iter()
            .filter(|row| row.receipt.is_some())
            .map(|row| row.message_id.as_str())
            .collect();
        assert_eq!((marked, rows.len()), (vec![id.as_str()], 3));
    };
    check(&place.history());
    assert_eq!(place.show(&other).row.receipt, None);
    // The same where there are no rows.
    place.database.view().close().unwrap();
    check(&place.history());
    let dir = place.end().await;
    check(&Past(storage::inspect::Inspect::open(dir.path()).unwrap()));
}

#[tokio::test]
async fn features_that_are_off_do_nothing_and_say_so() {
    let off = Place::new(|config| {
        config.openclaw.features.state_sync = false;
        config.openclaw.features.capabilities_discovery = false;
    });
    let entries = json!({"entries": [{"key": "k", "value": 1}]});
    let state = |place: &Place| {
        place.database.store().ledger().scan(storage::record::Kind::State, "").count()
    };
    let taken = off.hear(MessageType::StateSync, "s-1", entries.clone()).await;
    assert_eq!((taken.outcome, state(&off)), (Ok(()), 0), "taken, and not applied");
    assert_eq!(off.show("s-1").row.status, Status::Processed.as_str());
    let query = json!({"query_type": "list"});
    let answer = off.hear(MessageType::CapabilityQuery, "q-1", query.clone()).await;
    assert_eq!(answer.outcome.unwrap_err().code, ErrorCode::Forbidden);
    off.end().await;

    let on = Place::new(|_| {});
    on.hear(MessageType::StateSync, "s-1", entries).await.outcome.unwrap();
    assert_eq!(state(&on), 1);
    on.hear(MessageType::CapabilityQuery, "q-1", query).await.outcome.unwrap();
    let answers = Filter { message_type: Some("capability_response".into()), ..Filter::default() };
    assert_eq!(on.history().list(&answers).unwrap().messages.len(), 1);
    on.end().await;
}

#[tokio::test]
async fn while_it_drains_an_offer_is_refused_as_such() {
    let place = Place::new(|_| {});
    place.shutdown.drain();
    let offer = json!({"task_id": "t", "task_type": "testing", "attempt": 1});
    place.hear(MessageType::TaskOffer, "o-1", offer).await.outcome.unwrap();
    let rejects = Filter { message_type: Some("task_reject".into()), ..Filter::default() };
    let id = place.history().list(&rejects).unwrap().messages[0].message_id.clone();
    assert_eq!(place.show(&id).payload["reason"], "shutting_down");
    place.end().await;
}

/// Sends a message, and lets the same one, a repetition and a bad one arrive.
async fn usual_day(place: &Place) -> Vec<&'static str> {
    place.send(None, json!({"k": 1})).await.unwrap();
    let entries = json!({"entries": [{"key": "k", "value": 1}]});
    for _ in 0..2 {
        place.hear(MessageType::StateSync, "s-1", entries.clone()).await.outcome.unwrap();
    }
    place
        .hear(MessageType::TaskCancel, "c-1", json!({"task_id": "none"}))
        .await
        .outcome
        .unwrap_err();
    let ours = ["message.", "state."];
    let mut events = place.events().await;
    events.retain(|name| ours.iter().any(|prefix| name.starts_with(prefix)));
    events
}

#[tokio::test]
async fn the_configuration_says_what_is_written_beside_what_the_queue_needs() {
    let place = Place::new(|_| {});
    let needed = ["message.queued", "message.received", "state.sync"];
    let all = [&needed[..], &["message.duplicate", "message.rejected"]].concat();
    assert_eq!(usual_day(&place).await, all);
    place.end().await;
    let off = Place::new(|config| config.audit.enabled = false);
    assert_eq!(usual_day(&off).await, needed);
    off.end().await;
    let warnings = Place::new(|config| config.audit.level = AuditLevel::Warning);
    assert_eq!(usual_day(&warnings).await, [&needed[..], &["message.rejected"]].concat());
    warnings.end().await;
    let without = Place::new(|config| config.audit.exclude_events = vec!["message.rej*".into()]);
    assert_eq!(usual_day(&without).await, [&needed[..], &["message.duplicate"]].concat());
    without.end().await;
}

#[tokio::test]
async fn a_person_who_disconnects_while_it_connects_is_heard() {
    let place = Place::new(|_| {});
    place.bridge().disconnect();
    super::session::connected(&place.bridge().0, &RegisterAck::default(), "websocket");
    assert_eq!(place.bridge().way().0, crate::inspector::explain::Link::Parked);
}
