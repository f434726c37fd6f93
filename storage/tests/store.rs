//! The store through its public calls, over the log in memory.

use storage::event::Event;
use storage::fold::State;
use storage::journal::{Identity, MemoryLog};
use storage::record::{Direction, EntityKey, Kind, MessageHead, MessageKey, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};

fn store() -> Store {
    let log = MemoryLog::new(Identity { journal: [1; 16], key: [2; 16] });
    let now = Box::new(|| 1_000);
    Store::start(Box::new(log), State::new([2; 16]), now, Box::new(|_| {})).expect("starts")
}

fn head(id: &str, lane: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
        lane: lane.into(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 1_000,
    }
}

fn enqueue(store: &Store, id: &str, lane: &str) {
    let (id, lane) = (id.to_owned(), lane.to_owned());
    store
        .commit(move |transaction| -> Result<(), ()> {
            let act = Act::new(Event::MessageQueued, "loki", "default", &id);
            transaction.accept(act, head(&id, &lane), Body::new(b"body"));
            Ok(())
        })
        .wait()
        .expect("durable")
        .expect("accepted");
}

#[test]
fn a_lane_lets_only_its_head_go_and_goes_on_when_that_is_delivered() {
    let store = store();
    for id in ["a1", "a2"] {
        enqueue(&store, id, "a");
    }
    enqueue(&store, "free", "");
    let first = store.queues(|queues| queues.take("server", 1_000, 10));
    let names = |entries: &[_]| {
        let name = |entry| store.live(entry).expect("live").head.message_id.clone();
        entries.iter().copied().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["a1", "free"]);
    assert!(store.queues(|queues| queues.take("server", 1_000, 10)).is_empty());
    let entry = first[0];
    store
        .commit(move |transaction| -> Result<(), ()> {
            let live = transaction.live(entry).expect("live");
            let act = Act::new(Event::MessageDelivered, "loki", "default", "a1");
            let change = Change { status: Status::Delivered, attempts: 1, ..Change::of(&live) };
            transaction.change(act, &live, change);
            Ok(())
        })
        .wait()
        .expect("durable")
        .expect("changed");
    let second = store.queues(|queues| queues.take("server", 1_000, 10));
    assert_eq!(names(&second), ["a2"]);
    let body = store.messages(|messages| messages.live(second[0]).expect("live").body);
    assert_eq!(store.body(body).expect("there"), b"body");
}

#[test]
fn a_refused_decision_leaves_nothing_behind() {
    let store = store();
    let key = EntityKey::new(Kind::Task, &["default", "t1"]);
    let written = key.clone();
    let refused = store
        .commit(move |transaction| -> Result<(), &str> {
            let act = Act::new(Event::TaskCreate, "loki", "default", "t1");
            transaction.put(act, written, b"value".to_vec());
            transaction.accept(
                Act::new(Event::MessageQueued, "loki", "default", "x"),
                head("x", ""),
                Body::new(b"body"),
            );
            Err("no")
        })
        .wait()
        .expect("answered");
    assert_eq!(refused, Err("no"));
    assert!(store.ledger().get(&key).is_none());
    let known = store.messages(|messages| {
        let head = head("x", "");
        let key: MessageKey<'_> = head.key();
        messages.find(&key)
    });
    assert_eq!(known, None);
}

#[test]
fn a_decision_sees_what_those_before_it_decided_and_nothing_that_was_refused() {
    let store = store();
    let (queued, all_queued) = std::sync::mpsc::channel::<()>();
    let kept = store.commit(move |transaction| -> Result<_, ()> {
        // So that those behind it are in its frame, or are decided while that is under way.
        all_queued.recv().expect("told");
        let act = Act::new(Event::MessageQueued, "loki", "default", "kept");
        Ok(transaction.accept(act, head("kept", ""), Body::new(b"body")))
    });
    let refused = store.commit(|transaction| -> Result<(), ()> {
        let act = Act::new(Event::MessageQueued, "loki", "default", "refused");
        transaction.accept(act, head("refused", ""), Body::new(b"body"));
        Err(())
    });
    let seen = store.commit(|transaction| -> Result<_, ()> {
        let refused = transaction.find(&head("refused", "").key());
        let entry = transaction.find(&head("kept", "").key()).ok_or(())?.entry;
        let body = transaction.staged_body(entry).map(<[u8]>::to_vec);
        let live = transaction.live(entry).ok_or(())?;
        let act = Act::new(Event::MessageSent, "loki", "default", "kept");
        let change = Change { status: Status::Sending, attempts: 7, ..Change::of(&live) };
        transaction.change(act, &live, change);
        Ok((refused, entry, body, live))
    });
    let then = store.commit(|transaction| -> Result<_, ()> {
        let known = transaction.find(&head("kept", "").key()).ok_or(())?;
        Ok((known.status, transaction.live(known.entry).ok_or(())?.attempts))
    });
    queued.send(()).expect("waited for");
    let entry = kept.wait().expect("durable").expect("accepted");
    assert_eq!(refused.wait().expect("answered"), Err(()));
    let (other, at, body, live) = seen.wait().expect("durable").expect("seen");
    assert_eq!((other, at, body.as_deref()), (None, entry, Some(&b"body"[..])));
    assert_eq!((&*live.head.message_id, live.status), ("kept", Status::Pending));
    assert_eq!(then.wait().expect("answered"), Ok((Status::Sending, 7)));
    let known = store.messages(|messages| messages.find(&head("kept", "").key()));
    assert_eq!(known.map(|known| known.status), Some(Status::Sending));
}

fn set(store: &Store, entry: storage::record::EntryId, status: Status, due: u64) {
    store
        .commit(move |transaction| -> Result<(), ()> {
            let live = transaction.live(entry).expect("live");
            let act = Act::new(Event::MessageRetry, "loki", "default", "x");
            let change = Change { status, next_attempt_at: due, ..Change::of(&live) };
            transaction.change(act, &live, change);
            Ok(())
        })
        .wait()
        .expect("durable")
        .expect("changed");
}

#[test]
fn a_failed_message_leaves_its_queue_and_a_retried_one_is_in_it_again() {
    let store = store();
    enqueue(&store, "one", "");
    let entry = store.queues(|queues| queues.take("server", 1_000, 1))[0];
    set(&store, entry, Status::Failed, 0);
    assert_eq!(store.queues(|queues| queues.next_due("server")), None);
    set(&store, entry, Status::Pending, 2_000);
    assert_eq!(store.queues(|queues| queues.next_due("server")), Some(2_000));
    assert!(store.queues(|queues| queues.take("server", 1_999, 1)).is_empty());
    assert_eq!(store.queues(|queues| queues.take("server", 2_000, 1)), [entry]);
}

#[test]
fn a_retried_message_joins_its_lane_at_the_end() {
    let store = store();
    for id in ["a1", "a2", "a3"] {
        enqueue(&store, id, "a");
    }
    let take = || store.queues(|queues| queues.take("server", 1_000, 10));
    let first = take();
    set(&store, first[0], Status::Failed, 0);
    let second = take();
    // It is retried while the second is out: the third goes before it.
    set(&store, first[0], Status::Pending, 1_000);
    assert!(take().is_empty());
    set(&store, second[0], Status::Delivered, 0);
    let third = take();
    assert_ne!(third, first);
    set(&store, third[0], Status::Delivered, 0);
    assert_eq!(take(), first);
}
