//! Heads of unfinished messages are read from the journal: also long after they were written, and
//! when the journal has lost one, which its message then says.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use storage::database::Database;
use storage::event::Event;
use storage::record::{Direction, EntryId, MessageHead, MessageKey, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};

fn open(dir: &Path) -> Database {
    Database::open(dir, Box::new(|| 5_000), Box::new(|_| {})).expect("opens").0
}

fn head(id: &str) -> MessageHead {
    MessageHead {
        direction: Direction::Outbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: "server".into(),
        sender: "loki".into(),
        lane: format!("lane of {id}"),
        priority: 1,
        created_at: 1,
        deadline: None,
        expires_at: Some(9_000),
        task_id: Some(id.into()),
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status: Status::Pending,
        reason: Reason::None,
        due_at: 1,
    }
}

fn accept(store: &Store, ids: Vec<String>) -> Vec<EntryId> {
    let done = store.commit(move |transaction| -> Result<Vec<EntryId>, ()> {
        let accept = |id: String| {
            let act = Act::new(Event::MessageQueued, "loki", "default", &id);
            transaction.accept(act, head(&id), Body::new(b"body"))
        };
        Ok(ids.into_iter().map(accept).collect())
    });
    done.wait().expect("durable").expect("accepted")
}

#[test]
fn heads_are_read_back_whole_when_they_are_no_longer_in_memory() {
    let dir = tempfile::tempdir().expect("folder");
    let database = open(dir.path());
    let store = database.store();
    let mut entries = Vec::new();
    // Twice as many as are kept in memory.
    for batch in 0..30 {
        let ids = (0..1_000).map(|number| format!("message-{batch}-{number}")).collect();
        entries.extend(accept(store, ids));
    }
    let name = |at: usize| format!("message-{}-{}", at / 1_000, at % 1_000);
    let whole = |at: usize| {
        let head = store.live(entries[at]).expect("unfinished").head;
        let digest = head.digest;
        assert_eq!(*head, MessageHead { digest, ..self::head(&name(at)) });
        assert_ne!(digest, [0; 32]);
    };
    for at in [0, 1, 999, 29_999, 15_500, 0] {
        whole(at);
    }
    let lives = store.lives(&entries);
    assert!(lives.iter().enumerate().all(|(at, live)| live.head.message_id == name(at)));
    let some = store.select(|one| one.entry.sequence == entries[7_000].sequence);
    assert_eq!(some.len(), 1_000);
    assert!(some.iter().all(|live| live.head.message_id.starts_with("message-7-")));
    drop(database);
    let database = open(dir.path());
    let live = database.store().live(entries[12_345]).expect("unfinished");
    assert_eq!(live.head.message_id, name(12_345));
    assert_eq!(
        (live.head.task_id.as_deref(), live.status),
        (Some(&*name(12_345)), Status::Pending)
    );
    database.close().expect("closes");
}

/// Changes a byte in the frame that has these bytes.
fn damage(dir: &Path, marker: &[u8]) {
    let mut damaged = 0;
    for file in std::fs::read_dir(dir.join("journal")).expect("lists") {
        let path = file.expect("a file").path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if let Some(at) = bytes.windows(marker.len()).position(|part| part == marker) {
            let file = std::fs::File::options().write(true).open(&path).expect("opens");
            file.write_all_at(b"X", at as u64).expect("written");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
}

#[test]
fn a_message_whose_head_is_lost_is_still_there_and_can_be_given_up() {
    let dir = tempfile::tempdir().expect("folder");
    let database = open(dir.path());
    let entry = accept(database.store(), vec!["the-lost-one".into()])[0];
    accept(database.store(), vec!["another".into()]);
    database.close().expect("closes");
    let database = open(dir.path());
    damage(dir.path(), b"the-lost-one");
    let store = database.store();
    let live = store.live(entry).expect("memory knows it");
    assert_eq!((live.has_head(), &*live.head.destination), (false, "server"));
    assert_eq!((live.head.priority, live.head.expires_at), (1, Some(9_000)));
    let taken = store.queues(|queues| queues.take("server", 5_000, 10));
    assert_eq!((taken.len(), taken[0]), (2, entry));
    store.body(live.body).expect("the body is not checked here");
    let done = store.commit(move |transaction| -> Result<(), ()> {
        let live = transaction.live(entry).ok_or(())?;
        let act = Act::new(Event::MessageFailed, "loki", "default", "unknown");
        transaction.change(act, &live, Change { status: Status::Failed, ..Change::of(&live) });
        Ok(())
    });
    done.wait().expect("durable").expect("changed");
    let key = MessageKey {
        direction: Direction::Outbound,
        namespace: "default",
        peer: "server",
        message_id: "the-lost-one",
    };
    let known = store.messages(|messages| messages.find(&key)).expect("its id is known");
    assert_eq!((known.entry, known.status), (entry, Status::Failed));
    // The change is found by the id in the index, though nobody could say the id.
    let print = store.messages(|messages| messages.fingerprint(&key));
    let about = database.reader().find(print).expect("reads");
    assert_eq!(about.len(), 2, "its acceptance and its end: {about:?}");
    database.close().expect("closes");
}
