//! What a person changes on many messages at once: in which order, within which bounds, and what
//! is recorded of it.

use storage::event::Event;
use storage::record::{Direction, EntryId, MessageKey, Reason};
use storage::shred::Shredded;
use storage::transaction::{Act, Change};

use super::*;
use crate::outbox::prune::Pruned;

impl Place {
    /// Messages of one lane, each of which has failed.
    async fn failed(&self, count: usize) {
        let ids: Vec<String> = (0..count).map(|_| self.clock.message_id()).collect();
        for ids in ids.chunks(400) {
            let (ids, now) = (ids.to_vec(), self.clock.now());
            let commit = self.database.store().commit(move |tx| -> Result<(), Refusal> {
                for id in &ids {
                    let fields = Fields {
                        message_id: Some(id),
                        agent_id: Some("loki-one"),
                        namespace: Some("default"),
                        timestamp: Some(now),
                        ordering_key: Some("lane"),
                        ..Fields::default()
                    };
                    let envelope =
                        Envelope::compose(MessageType::StateSync, fields, &json!({"k": 1}))?;
                    let staged =
                        crate::outbox::stage(tx, &envelope, SERVER_AGENT_ID, SERVER_AGENT_ID);
                    let live = tx.live(staged.unwrap()).unwrap();
                    let act = Act::new(Event::MessageFailed, "loki-one", "default", id);
                    let (status, reason) = (Status::Failed, Reason::Permanent);
                    tx.change(act, &live, Change { status, reason, ..Change::of(&live) });
                }
                Ok(())
            });
            commit.await.unwrap().unwrap();
        }
    }

    fn entry(&self, id: &str) -> EntryId {
        let direction = Direction::Outbound;
        let key =
            MessageKey { direction, namespace: "default", peer: SERVER_AGENT_ID, message_id: id };
        self.database.store().messages(|messages| messages.find(&key).expect("known").entry)
    }

    async fn prune(&self, chosen: bulk::Chosen, shred: bool) -> Result<Pruned, Refusal> {
        bulk::prune(&self.changes(), chosen, shred, "ada").await
    }

    fn count(&self, status: Status) -> u64 {
        let counts = self.database.store().messages(|messages| messages.counts().clone());
        let same = counts.iter().filter(|((_, _, one), _)| *one == status);
        same.map(|(_, count)| count).sum()
    }
}

fn named(id: &str) -> bulk::Chosen {
    bulk::Chosen { message_ids: vec![id.to_owned()], ..bulk::Chosen::default() }
}

fn of_status(status: Status) -> bulk::Chosen {
    let filter = Filter { status: vec![status], ..Filter::default() };
    bulk::Chosen { filter, ..bulk::Chosen::default() }
}

#[tokio::test]
async fn many_failed_messages_are_sent_again_in_pages_and_join_their_lane_in_order() {
    let place = Place::new(|_| {});
    place.failed(1_203).await;
    let before = place.database.store().state(|state| state.sequence);
    assert_eq!(place.retry().await.count, 1_203);
    let frames = place.database.store().state(|state| state.sequence) - before;
    assert!(frames >= 3, "no more than 500 in one decision, {frames} decisions");
    let mut lane: Vec<(EntryId, EntryId)> = place
        .database
        .store()
        .messages(|messages| messages.iter().map(|live| (live.lane_at, live.entry)).collect());
    lane.sort_unstable();
    assert!(lane.is_sorted_by_key(|(_, entry)| *entry), "the oldest goes first");
    assert_eq!((lane.len(), place.count(Status::Failed)), (1_203, 0));
    place.end().await;
}

#[tokio::test]
async fn one_older_than_messages_are_tried_gets_a_new_id_unless_it_may_have_arrived() {
    let place = Place::new(|_| {});
    let refused_one = place.send(None, json!({"k": 1})).await.unwrap();
    let maybe = place.send(None, json!({"k": 2})).await.unwrap();
    place.ends(&refused_one, refused(ErrorCode::InvalidField)).await;
    place.ends(&maybe, Outcome::Unanswered).await;
    place.ends(&maybe, refused(ErrorCode::InvalidField)).await;
    place.clock.advance(7 * DAY + Duration::from_hours(1));
    let retried = place.retry().await;
    let renamed: Vec<&str> = retried.renamed.iter().map(|(old, _)| old.as_str()).collect();
    assert_eq!((retried.count, renamed), (2, vec![refused_one.as_str()]));
    place.end().await;
}

#[tokio::test]
async fn a_prune_ends_what_failed_and_what_is_named_and_says_who_wanted_it() {
    let place = Place::new(|_| {});
    let failed = place.send(None, json!({"k": 1})).await.unwrap();
    let waiting = place.send(None, json!({"k": 2})).await.unwrap();
    let done = place.send(None, json!({"k": 3})).await.unwrap();
    place.ends(&failed, refused(ErrorCode::InvalidField)).await;
    place.ends(&done, Outcome::Acknowledged).await;
    let pruned = |count, shredded| Ok(Pruned { count, shredded });
    assert_eq!(place.prune(bulk::Chosen::default(), false).await, pruned(1, 0));
    assert_eq!(place.show(&waiting).row.status, "pending", "nobody named it");
    assert_eq!(place.prune(named(&waiting), false).await, pruned(1, 0));
    assert_eq!(place.count(Status::Pruned), 2);
    let last = place.show(&failed).history.pop().unwrap();
    assert_eq!((&last["event"], &last["actor"]), (&json!("message.pruned"), &json!("ada")));
    for (id, shred, why) in [
        (&done, false, "is delivered, so that there is nothing to end"),
        (&failed, false, "is pruned already"),
        (&"nobody".to_owned(), true, "no message has the id nobody"),
    ] {
        let refusal = place.prune(named(id), shred).await.unwrap_err();
        assert!(refusal.detail.contains(why), "{}", refusal.detail);
    }
    let listed = place.history().list(&Filter::default()).unwrap().messages;
    let ids: Vec<&str> = listed.iter().map(|row| row.message_id.as_str()).collect();
    assert_eq!(ids, [done.as_str()], "lists leave out what was pruned");
    place.end().await;
}

#[tokio::test]
async fn a_shredded_content_is_dead_for_a_compaction_and_not_shown_and_marked_once() {
    let place = Place::new(|_| {});
    let [failed, done, other] = [json!({"k": 1}), json!({"k": 2}), json!({"k": 3})]
        .map(|payload| place.send(None, payload));
    let (failed, done, other) = (failed.await.unwrap(), done.await.unwrap(), other.await.unwrap());
    place.ends(&failed, refused(ErrorCode::InvalidField)).await;
    place.ends(&done, Outcome::Acknowledged).await;
    place.ends(&other, Outcome::Acknowledged).await;
    let pruned = |count, shredded| Ok(Pruned { count, shredded });
    assert_eq!(place.prune(named(&failed), true).await, pruned(1, 1));
    assert_eq!(place.prune(named(&done), true).await, pruned(0, 1));
    assert_eq!(place.prune(named(&done), true).await, pruned(0, 0));
    let shredded = Shredded::read(place.database.reader()).unwrap();
    let dead = [&failed, &done, &other].map(|id| shredded.is_dead(place.entry(id)));
    assert_eq!(dead, [true, true, false]);
    assert_eq!(shredded.in_frames(1..=u64::MAX).count(), 2);
    for (id, status) in [(&failed, "pruned"), (&done, "delivered")] {
        let shown = place.show(id);
        assert_eq!((shown.row.status.as_str(), shown.payload), (status, Value::Null));
        assert!(shown.shredded);
    }
    assert_eq!(place.show(&other).payload, json!({"k": 3}));
    assert_eq!(place.prune(of_status(Status::Delivered), true).await, pruned(0, 1));
    assert_eq!(place.show(&other).payload, Value::Null);
    place.end().await;
}

#[tokio::test]
async fn the_oldest_that_waits_is_found_behind_dead_letters_and_when_one_waits_again() {
    let place = Place::new(|_| {});
    let failed = place.send(None, json!({"k": 1})).await.unwrap();
    place.ends(&failed, refused(ErrorCode::InvalidField)).await;
    assert_eq!(place.bridge().oldest(), None);
    place.clock.advance(Duration::from_secs(5));
    let waiting = place.send(None, json!({"k": 2})).await.unwrap();
    let written = |place: &Place| place.bridge().oldest().map(|one| one.created_at);
    assert_eq!(written(&place), Some(START + 5_000));
    place.clock.advance(Duration::from_secs(5));
    place.send(None, json!({"k": 3})).await.unwrap();
    assert_eq!(written(&place), Some(START + 5_000), "a newer one changes nothing");
    assert_eq!(place.retry().await.count, 1);
    assert_eq!(written(&place), Some(START), "and one that is sent again is the oldest");
    place.ends(&failed, Outcome::Acknowledged).await;
    place.ends(&waiting, Outcome::Acknowledged).await;
    assert_eq!(written(&place), Some(START + 10_000));
    assert_eq!(place.bridge().snapshot().oldest_pending_seconds, Some(0));
    place.end().await;
}

#[tokio::test]
async fn causes_are_those_of_as_many_of_the_newest_as_are_asked_for() {
    let place = Place::new(|_| {});
    place.failed(1_203).await;
    let filter = of_status(Status::Failed).filter;
    let found = |newest| {
        let causes = crate::inspector::causes::of(&place.history(), &filter, newest).unwrap();
        (causes.messages, causes.complete, causes.causes.len())
    };
    assert_eq!(found(Some(1_202)), (1_202, false, 1));
    assert_eq!(found(Some(7)), (7, false, 1));
    assert_eq!(found(Some(1_203)), (1_203, true, 1));
    assert_eq!(found(None), (1_203, true, 1));
    place.end().await;
}
