//! What a person does to a message, and what becomes of it by itself, is in its trace.

use storage::event::Event;
use storage::transaction::{Act, Change};

use super::*;
use crate::outbox::sweep;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

impl Place {
    /// Sends a message that belongs to a trace, and expires soon.
    async fn send_traced(&self, id: &str) {
        let fields = Fields {
            message_id: Some(id),
            agent_id: Some("loki-one"),
            namespace: Some("default"),
            timestamp: Some(self.clock.now()),
            expires_at: Some(self.clock.now() + 1_000),
            traceparent: Some(TRACE),
            ..Fields::default()
        };
        let envelope = Envelope::compose(MessageType::StateSync, fields, &json!({"k": 1}));
        self.bridge().send(envelope.unwrap()).await.unwrap();
    }

    /// The events of one message and whether their entries name its trace, the oldest first.
    fn traced(&self, id: &str) -> Vec<(&'static str, bool)> {
        let resource = Some(id.to_owned());
        let filter = AuditFilter { resource, ..AuditFilter::default() };
        let mut entries = audit(self.database.reader(), &filter).unwrap().entries;
        entries.reverse();
        let told = |details: &str| details.contains(TRACE);
        entries.iter().map(|one| (one.record.event.name(), told(&one.record.details))).collect()
    }
}

#[tokio::test]
async fn what_a_person_does_to_a_message_is_in_its_trace() {
    let place = Place::new(|_| {});
    place.send_traced("m").await;
    place.ends("m", refused(ErrorCode::InvalidField)).await;
    assert_eq!(place.retry().await.count, 1);
    place.ends("m", refused(ErrorCode::InvalidField)).await;
    let pruned = bulk::prune(&place.changes(), bulk::Chosen::default(), true, "ada").await;
    assert_eq!(pruned.unwrap().count, 1);
    assert_eq!(place.show("m").traceparent, None, "its content is to go");
    let told = place.traced("m");
    let by_a_person = [told[0], told[2], told[4]];
    assert_eq!(
        by_a_person,
        [("message.queued", true), ("message.retry", true), ("message.pruned", true)]
    );
    place.end().await;
}

#[tokio::test]
async fn a_message_that_expires_is_in_its_trace_until_the_end() {
    let place = Place::new(|_| {});
    place.send_traced("m").await;
    assert_eq!(place.show("m").traceparent.as_deref(), Some(TRACE));
    place.clock.advance(Duration::from_secs(2));
    let now = place.clock.now();
    sweep::pass(place.database.store(), &Policy::default(), now).await;
    let told = place.traced("m");
    assert_eq!(told, [("message.queued", true), ("message.expired", true)]);
    place.end().await;
}

#[tokio::test]
async fn a_start_after_a_crash_is_in_the_trace_of_what_was_being_sent() {
    let place = Place::new(|_| {});
    for id in ["m", "other"] {
        match id {
            "m" => place.send_traced(id).await,
            _ => drop(place.send(Some(id), json!({})).await.unwrap()),
        }
        let commit = place.database.store().commit(move |tx| -> Result<(), Refusal> {
            let live = tx.live(tx.find(&key(id)).unwrap().entry).unwrap();
            let act = Act::new(Event::MessageSent, "loki-one", "default", id);
            let change = Change { status: Status::Sending, attempts: 1, ..Change::of(&live) };
            tx.change(act, &live, change);
            Ok(())
        });
        commit.await.unwrap().unwrap();
    }
    let dir = place.end().await;
    let now = Box::new(|| START);
    let database = Database::open(dir.path(), now, Box::new(|_| {})).unwrap().0;
    let events = vec!["message.retry".to_owned()];
    let filter = AuditFilter { events, ..AuditFilter::default() };
    let mut entries = audit(database.reader(), &filter).unwrap().entries;
    entries.sort_by_key(|one| one.record.resource.len());
    let told = |one: &storage::inspect::AuditEntry| {
        let details: Value = serde_json::from_str(&one.record.details).unwrap();
        assert!(details["cause"].as_str().unwrap().contains("being sent"));
        (one.record.resource.to_string(), details["traceparent"].clone())
    };
    let told: Vec<_> = entries.iter().map(told).collect();
    assert_eq!(told, [("m".to_owned(), json!(TRACE)), ("other".to_owned(), Value::Null)]);
    database.close().unwrap();
}

#[tokio::test]
async fn the_server_s_answer_about_a_message_is_in_its_trace() {
    let place = Place::new(|_| {});
    place.send_traced("m").await;
    place.ends("m", Outcome::Acknowledged).await;
    let fields = Fields {
        message_id: Some("n"),
        agent_id: Some(SERVER_AGENT_ID),
        namespace: Some("default"),
        traceparent: Some(TRACE),
        ..Fields::default()
    };
    let nack = json!({"message_id": "m", "error": {"code": "undeliverable"}});
    let envelope = EnvelopeBuilder::new(MessageType::Nack, fields).payload(&nack).build();
    let receiver = Receiver(std::sync::Arc::clone(&place.bridge().0));
    for _ in 0..2 {
        let answers = receiver.frame(vec![Ok(envelope.clone().unwrap())]).await.answers;
        assert!(answers[0].outcome.is_ok());
    }
    assert!(place.events().await.contains(&"message.duplicate"));
    assert_eq!(place.traced("n"), [("message.received", true), ("message.duplicate", true)]);
    assert_eq!(place.traced("m").last(), Some(&("message.failed", true)));
    place.end().await;
}
