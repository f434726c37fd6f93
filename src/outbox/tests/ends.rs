//! How what is out ends: by an answer that names an id, by a pong, and by a record that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::poll_immediate;
use tokio::time::Instant;

use super::*;

/// A pump with what a recipient does not get back: this many records of that fail.
fn failing(place: &Place, times: usize) -> Pump {
    let left = AtomicUsize::new(times);
    place.pump().returning(Arc::new(move |_, _, _| {
        let fails =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(fails.is_err(), "this record fails on purpose");
    }))
}

/// Everything that was decided so far is published.
async fn published(place: &Place) {
    place.send(&[], None).await;
}

fn statuses(place: &Place, id: &str) -> [Status; 2] {
    ["bob", "eve"].map(|peer| {
        let direction = Direction::Outbound;
        let key = MessageKey { direction, namespace: "default", peer, message_id: id };
        place.database.store().messages(|all| all.find(&key).expect("known").status)
    })
}

#[tokio::test(start_paused = true)]
async fn of_two_messages_of_one_id_each_gets_its_own_answer() {
    let place = Place::new();
    let one = ["m-1".to_owned()];
    place.send_to("bob", &one, None).await;
    place.send_to("eve", &one, None).await;
    let pump = place.pump();
    assert_eq!(left(&pump, 8).await, one, "an answer would not say which");
    pump.delivered(&one).await.expect("recorded");
    assert_eq!(statuses(&place, "m-1"), [Status::Delivered, Status::Pending]);
    place.clock.advance(Duration::from_secs(1));
    assert_eq!(left(&pump, 8).await, one);
    let conflict = Refusal::new(ErrorCode::IdConflict, "it is another's");
    pump.refused("m-1", conflict).await.expect("recorded");
    assert_eq!(statuses(&place, "m-1"), [Status::Delivered, Status::Failed]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_tried_again_and_not_at_once() {
    let place = Place::new();
    place.send(&ids(1), None).await;
    let pump = failing(&place, 1);
    let gone = Refusal::new(ErrorCode::InvalidField, "no");
    assert_eq!(left(&pump, 1).await, ["m-00"]);
    pump.refused("m-00", gone.clone()).await.expect("the store goes on");
    assert_eq!(left(&pump, 1).await, Vec::<String>::new(), "the disk is as it was");
    place.clock.advance(Duration::from_secs(1));
    assert_eq!(left(&pump, 1).await, ["m-00"]);
    pump.refused("m-00", gone).await.expect("recorded");
    assert_eq!(place.status("m-00"), Status::Failed);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_cannot_be_recorded_is_recorded_later() {
    let place = Place::new();
    place.send(&ids(1), Some(START + 1)).await;
    place.clock.advance(Duration::from_secs(1));
    let pump = failing(&place, 1);
    assert_eq!(left(&pump, 1).await, Vec::<String>::new());
    published(&place).await;
    assert_eq!(place.status("m-00"), Status::Pending);
    place.clock.advance(Duration::from_secs(1));
    assert_eq!(left(&pump, 1).await, Vec::<String>::new());
    published(&place).await;
    assert_eq!(place.status("m-00"), Status::Expired);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_waits_for_any_more_loses_no_message() {
    // The committer is a thread of its own: its answer is hardly ever there at the first look.
    for _ in 0..100 {
        if an_end_is_dropped().await {
            return;
        }
    }
    panic!("the answer was there each time");
}

/// Drops an end before it is answered, and finds the message again; `false` when it was answered
/// too soon for that.
async fn an_end_is_dropped() -> bool {
    let place = Place::new();
    place.send(&ids(1), None).await;
    let pump = failing(&place, 1);
    assert_eq!(left(&pump, 1).await, ["m-00"]);
    let gone = Refusal::new(ErrorCode::InvalidField, "no");
    if poll_immediate(Box::pin(pump.refused("m-00", gone))).await.is_some() {
        return false;
    }
    published(&place).await;
    place.clock.advance(Duration::from_secs(1));
    assert_eq!(left(&pump, 1).await, ["m-00"]);
    true
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_settled_by_an_answer_to_what_was_sent_after_it_and_not_before() {
    let place = Place::new();
    let clock = place.clock.clone();
    let commit = place.database.store().commit(move |tx| -> Result<(), Refusal> {
        for id in ["n-1", "n-2"] {
            let fields = Fields {
                message_id: Some(id),
                agent_id: Some("openclaw-server"),
                timestamp: Some(clock.now()),
                ..Fields::default()
            };
            let payload = serde_json::json!({"message_id": "m-1"});
            let envelope = Envelope::compose(MessageType::Nack, fields, &payload)?;
            stage(tx, &envelope, "d", "p");
        }
        Ok(())
    });
    commit.await.expect("durable").expect("staged");
    let pump = place.pump();
    let early = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(left(&pump, 2).await, ["n-1", "n-2"]);
    assert_eq!(pump.in_flight(), 0, "receipts do not fill the window");
    assert_eq!(left(&pump, 2).await, Vec::<String>::new());
    pump.arrived(early).await.expect("recorded");
    published(&place).await;
    assert_eq!(place.status("n-1"), Status::Sending, "its bytes may still lie in a buffer");
    pump.delivered(&["n-1".to_owned()]).await.expect("recorded");
    assert_eq!([place.status("n-1"), place.status("n-2")], [Status::Delivered, Status::Sending]);
    pump.arrived(Instant::now()).await.expect("recorded");
    assert_eq!(place.status("n-2"), Status::Delivered);
}
