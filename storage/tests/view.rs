//! The rows in sled: complete after a clean stop, the same after a rebuild, and merged with what
//! is not written yet. Through the public calls, over a store in a directory.

use std::collections::BTreeMap;
use std::path::Path;

use storage::database::{Database, OpenError, Report, Setup};
use storage::event::Event;
use storage::journal::Options;
use storage::record::{Direction, EntryId, Level, MessageHead, Reason, Status};
use storage::store::Store;
use storage::transaction::{Act, Body, Change};
use storage::view::{Filter, Page, Row, decode_rows};

fn open(dir: &Path) -> (Database, Report) {
    Database::open(dir, Box::new(|| 5_000), Box::new(|_| {})).expect("opens")
}

fn head(id: &str, direction: Direction) -> MessageHead {
    let outbound = direction == Direction::Outbound;
    MessageHead {
        direction,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "server".into(),
        destination: if outbound { "server".into() } else { String::new() },
        sender: "loki".into(),
        lane: String::new(),
        priority: 2,
        created_at: 1_000,
        deadline: None,
        expires_at: None,
        task_id: Some(format!("task-{}", id.len() % 2)),
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status: if outbound { Status::Pending } else { Status::Received },
        reason: Reason::None,
        due_at: 1_000,
    }
}

fn accept(store: &Store, id: &str, direction: Direction) -> EntryId {
    accept_head(store, head(id, direction), b"body")
}

fn accept_head(store: &Store, head: MessageHead, body: &[u8]) -> EntryId {
    let body = body.to_vec();
    store
        .commit(move |transaction| -> Result<EntryId, ()> {
            let act = Act::new(Event::MessageQueued, "loki", "default", &head.message_id);
            Ok(transaction.accept(act, head, Body::new(&body)))
        })
        .wait()
        .expect("durable")
        .expect("accepted")
}

fn change(store: &Store, entry: EntryId, event: Event, status: Status) {
    store
        .commit(move |transaction| -> Result<(), ()> {
            let live = transaction.live(entry).expect("live").clone();
            let act = Act::new(event, "loki", "default", &live.head.message_id);
            let change = Change { status, attempts: live.attempts + 1, ..Change::of(&live) };
            transaction.change(act, &live, change);
            Ok(())
        })
        .wait()
        .expect("durable")
        .expect("changed");
}

/// Ten messages out, of which the even ones are delivered, and five in.
fn fill(store: &Store) {
    for number in 0..10 {
        let entry = accept(store, &format!("out-{number}"), Direction::Outbound);
        if number % 2 == 0 {
            change(store, entry, Event::MessageSent, Status::Sending);
            change(store, entry, Event::MessageDelivered, Status::Delivered);
        }
    }
    for number in 0..5 {
        accept(store, &format!("in-{number}"), Direction::Inbound);
    }
}

fn plain_rows(dir: &Path) -> BTreeMap<EntryId, Row> {
    let tree = sled::open(dir.join("messages")).expect("plain sled opens it");
    let rows = tree.iter().map(|item| item.expect("reads"));
    let rows = rows.filter_map(|(key, value)| decode_rows(&key, &value));
    rows.flat_map(|rows| rows.expect("decodes")).map(|row| (row.entry, row)).collect()
}

#[test]
fn after_a_clean_stop_plain_sled_has_every_message_with_direction_and_status() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, report) = open(dir.path());
    assert_eq!(report.rebuild, None);
    fill(database.store());
    database.close().expect("closes");
    let rows = plain_rows(dir.path());
    let of = |id: &str| rows.values().find(|row| row.message_id == id).expect("there");
    assert_eq!(rows.len(), 15);
    assert_eq!((of("out-2").status, of("out-2").attempts), (Status::Delivered, 2));
    assert_eq!(of("out-3").status, Status::Pending);
    assert_eq!((of("in-0").direction, of("in-0").status), (Direction::Inbound, Status::Received));
    let files = std::fs::read_dir(dir.path().join("messages/blobs")).map_or(0, Iterator::count);
    assert_eq!(files, 0, "no row is spilled into a blob");
    let (database, report) = open(dir.path());
    assert!(report.recovery.clean);
    assert_eq!((report.rebuild, report.replayed), (None, 0));
    database.close().expect("closes");
}

#[test]
fn deleted_rows_are_rebuilt_to_the_same_rows_and_that_is_audited() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    fill(database.store());
    database.close().expect("closes");
    let before = plain_rows(dir.path());
    std::fs::remove_dir_all(dir.path().join("messages")).expect("removed");
    let (database, report) = open(dir.path());
    assert!(report.rebuild.is_some());
    database.view().settle().expect("settles");
    assert!(!database.view().lag().catching_up);
    let page = database.view().list(&Filter::default()).expect("lists");
    assert_eq!(page.rows, before.values().rev().cloned().collect::<Vec<_>>());
    let refs = database.reader().by_event(&[Event::StoreRebuild.code()], None, 10).expect("reads");
    assert_eq!(refs.len(), 1);
    database.close().expect("closes");
    assert_eq!(plain_rows(dir.path()), before);
}

#[test]
fn a_read_sees_at_once_what_was_answered() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    let (store, view) = (database.store(), database.view());
    let entry = accept(store, "mine", Direction::Outbound);
    assert_eq!(view.get("mine").expect("reads")[0].status, Status::Pending);
    view.settle().expect("settles");
    change(store, entry, Event::MessageFailed, Status::Failed);
    assert_eq!(view.get("mine").expect("reads")[0].status, Status::Failed);
    let failed = Filter { status: vec![Status::Failed], ..Filter::default() };
    assert_eq!(view.list(&failed).expect("lists").rows.len(), 1);
    let pending = Filter { status: vec![Status::Pending], ..Filter::default() };
    assert!(view.list(&pending).expect("lists").rows.is_empty());
    view.settle().expect("settles");
    assert_eq!(view.list(&failed).expect("lists").rows.len(), 1);
    assert!(view.list(&pending).expect("lists").rows.is_empty());
    assert!(view.get("other").expect("reads").is_empty());
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    fill(database.store());
    database.view().settle().expect("settles");
    accept(database.store(), "newest", Direction::Outbound);
    let filters = [
        (Filter::default(), 16),
        (Filter { direction: Some(Direction::Inbound), ..Filter::default() }, 5),
        (Filter { status: vec![Status::Pending, Status::Received], ..Filter::default() }, 11),
        (Filter { status: vec![Status::Delivered], ..Filter::default() }, 5),
        (Filter { task_id: Some("task-1".into()), ..Filter::default() }, 10),
        (Filter { peer: Some("nobody".into()), ..Filter::default() }, 0),
        (Filter { until: Some(1_000), ..Filter::default() }, 0),
    ];
    for (filter, count) in filters {
        let whole = database.view().list(&filter).expect("lists");
        assert_eq!((whole.rows.len(), whole.next), (count, None), "{filter:?}");
        let mut filter = Filter { limit: 2, ..filter };
        let mut rows = Vec::new();
        loop {
            let page = database.view().list(&filter).expect("lists");
            rows.extend(page.rows);
            filter.after = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(rows, whole.rows);
    }
}

#[test]
fn what_was_being_sent_at_a_crash_waits_again_and_says_that_it_may_have_arrived() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    let entry = accept(database.store(), "cut", Direction::Outbound);
    change(database.store(), entry, Event::MessageSent, Status::Sending);
    drop(database);
    let (database, report) = open(dir.path());
    assert!(!report.recovery.clean);
    assert_eq!(report.interrupted, 1);
    let row = database.view().get("cut").expect("reads").remove(0);
    database.view().settle().expect("settles");
    let settled = database.view().get("cut").expect("reads").remove(0);
    assert_eq!(
        (settled.status, settled.maybe_delivered, settled.attempts),
        (Status::Pending, true, 1)
    );
    assert_eq!(row.message_id, "cut");
    let live = database.store().live(entry).expect("live");
    assert!(live.maybe_delivered);
    database.close().expect("closes");
}

#[test]
fn rows_of_another_history_or_of_another_boot_are_rebuilt() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    accept(database.store(), "first", Direction::Outbound);
    database.close().expect("closes");
    let other = tempfile::tempdir().expect("folder");
    let (database, _) = open(other.path());
    fill(database.store());
    database.close().expect("closes");
    std::fs::remove_dir_all(dir.path().join("messages")).expect("removed");
    std::fs::rename(other.path().join("messages"), dir.path().join("messages")).expect("moved");
    let (database, report) = open(dir.path());
    assert_eq!(report.rebuild.as_deref(), Some("rows are of another journal"));
    database.view().settle().expect("settles");
    let rows = database.view().list(&Filter::default()).expect("lists").rows;
    assert_eq!(rows.iter().map(|row| &row.message_id[..]).collect::<Vec<_>>(), ["first"]);
}

#[test]
fn a_half_written_snapshot_of_sled_does_not_stop_the_store() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    fill(database.store());
    database.close().expect("closes");
    let half = dir.path().join("messages/snap.00000000000000FF.generating");
    std::fs::write(&half, b"half").expect("written");
    let (database, report) = open(dir.path());
    assert_eq!(report.rebuild, None);
    assert!(!half.exists());
    database.close().expect("closes");
}

#[test]
fn a_second_process_is_told_who_has_the_store_and_what_to_do() {
    let dir = tempfile::tempdir().expect("folder");
    let (_database, _) = open(dir.path());
    let second = Database::open(dir.path(), Box::new(|| 5_000), Box::new(|_| {}));
    let error = second.err().expect("locked");
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains("stop that one first"));
}

#[test]
fn an_open_is_in_the_audit_log() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    let frame = database.reader().frame(1).expect("first frame");
    let record: storage::record::Record =
        storage::codec::decode(&frame.entries[0].head).expect("decodes");
    assert_eq!((record.event, record.level), (Event::StoreOpen, Level::Info));
}

#[test]
fn many_rows_lie_in_blocks_and_are_caught_up_in_the_background() {
    const MANY: usize = 12_000;
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    let many = database.store().commit(move |transaction| -> Result<(), ()> {
        for number in 0..MANY {
            let act = Act::new(Event::MessageQueued, "loki", "default", "many");
            let head = head(&format!("many-{number}"), Direction::Outbound);
            transaction.accept(act, head, Body::new(b"body"));
        }
        Ok(())
    });
    many.wait().expect("durable").expect("accepted");
    database.view().settle().expect("settles");
    let first = database.view().get("many-7").expect("reads").remove(0);
    change(database.store(), first.entry, Event::MessageFailed, Status::Failed);
    database.close().expect("closes");
    let before = plain_rows(dir.path());
    assert_eq!(before.len(), MANY);
    std::fs::remove_dir_all(dir.path().join("messages")).expect("removed");
    let (database, _) = open(dir.path());
    database.view().settle().expect("settles");
    let failed = Filter { status: vec![Status::Failed], ..Filter::default() };
    let page = database.view().list(&failed).expect("lists");
    assert_eq!(page.rows.len(), 1);
    assert_eq!(database.view().get("many-7").expect("reads"), page.rows);
    assert!(!dir.path().join("messages/blobs").read_dir().is_ok_and(|mut it| it.next().is_some()));
    database.close().expect("closes");
    assert_eq!(plain_rows(dir.path()), before);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

#[test]
fn rows_that_are_ahead_of_a_restored_journal_are_rebuilt() {
    let dir = tempfile::tempdir().expect("folder");
    let backup = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    accept(database.store(), "kept", Direction::Outbound);
    database.close().expect("closes");
    copy(dir.path(), backup.path());
    let (database, _) = open(dir.path());
    fill(database.store());
    database.close().expect("closes");
    std::fs::remove_dir_all(backup.path().join("messages")).expect("removed");
    copy(&dir.path().join("messages"), &backup.path().join("messages"));
    let (database, report) = open(backup.path());
    assert!(report.rebuild.expect("rebuilt").contains("the journal to"));
    database.view().settle().expect("settles");
    assert_eq!(database.view().list(&Filter::default()).expect("lists").rows.len(), 1);
    database.close().expect("closes");
}

#[test]
fn rows_that_another_boot_left_unsynced_are_rebuilt_and_synced_ones_are_kept() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    fill(database.store());
    database.close().expect("closes");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    let boot = boot.trim().as_bytes();
    for clean in [1, 0] {
        let path = dir.path().join("messages");
        let tree = sled::open(&path).expect("opens");
        let mut applied = tree.get("a").expect("reads").expect("there").to_vec();
        let at = applied.windows(boot.len()).position(|part| part == boot).expect("boot id");
        applied[at] = b'-';
        *applied.last_mut().expect("a flag") = clean;
        tree.insert("a", applied).expect("written");
        tree.flush().expect("flushed");
        drop(tree);
        let (database, report) = open(dir.path());
        assert_eq!(report.rebuild.is_none(), clean == 1);
        database.view().settle().expect("settles");
        assert_eq!(database.view().list(&Filter::default()).expect("lists").rows.len(), 15);
        database.close().expect("closes");
    }
}

#[test]
fn a_checkpoint_is_written_while_the_store_runs_and_only_the_tail_is_replayed() {
    let dir = tempfile::tempdir().expect("folder");
    let (database, _) = open(dir.path());
    for number in 0..40 {
        let done = database.store().commit(move |transaction| -> Result<(), ()> {
            let act = Act::new(Event::MessageQueued, "loki", "default", "large");
            let head = head(&format!("large-{number}"), Direction::Outbound);
            transaction.accept(act, head, Body::new(&vec![7; 1 << 20]));
            Ok(())
        });
        done.wait().expect("durable").expect("accepted");
    }
    let digest = database.store().state(storage::fold::State::digest);
    drop(database);
    let (database, report) = open(dir.path());
    assert!(!report.recovery.clean);
    assert!(report.checkpoint.is_some_and(|at| at >= 23), "{:?}", report.checkpoint);
    assert_eq!(report.replayed, 41 - report.checkpoint.expect("there"));
    let state = storage::inspect::replay(database.reader(), 41);
    assert_eq!(state.digest(), digest);
    database.close().expect("closes");
}

mod offline {
    use super::*;
    use storage::inspect::{AuditFilter, Inspect};

    #[test]
    fn a_look_beside_the_writer_shows_the_same_messages_and_every_change() {
        let dir = tempfile::tempdir().expect("folder");
        let (database, _) = open(dir.path());
        fill(database.store());
        let look = Inspect::open(dir.path()).expect("looks");
        let running = database.view().list(&Filter::default()).expect("lists");
        assert_eq!(look.list(&Filter::default()), running);
        assert_eq!(look.get("out-2"), database.view().get("out-2").expect("reads"));
        let events: Vec<Event> =
            look.history("out-2").expect("reads").iter().map(|one| one.record.event).collect();
        let expected = [Event::MessageQueued, Event::MessageSent, Event::MessageDelivered];
        assert_eq!(events, expected);
        assert!(look.damage().is_empty() && !look.is_clean());
        let page = look.list(&Filter { limit: 4, ..Filter::default() });
        assert_eq!(page.next, Some(page.rows[3].entry));
        database.close().expect("closes");
        assert!(Inspect::open(dir.path()).expect("looks").is_clean());
    }

    #[test]
    fn the_audit_log_is_read_by_event_level_actor_and_page() {
        let dir = tempfile::tempdir().expect("folder");
        let (database, _) = open(dir.path());
        fill(database.store());
        let reader = database.reader();
        let count = |filter: &AuditFilter| {
            storage::inspect::audit(reader, filter).expect("reads").entries.len()
        };
        let of = |name: &str| AuditFilter { events: vec![name.into()], ..AuditFilter::default() };
        assert_eq!(count(&of("message.queued")), 15);
        assert_eq!(count(&of("message.*")), 25);
        assert_eq!(count(&of("store.*")), 1);
        assert_eq!(count(&of("message")), 0);
        assert_eq!(count(&AuditFilter::default()), 26);
        let by = |actor: &str| AuditFilter { actor: Some(actor.into()), ..AuditFilter::default() };
        assert_eq!((count(&by("loki")), count(&by("store")), count(&by("x"))), (25, 1, 0));
        let errors = AuditFilter { level: Some(Level::Error), ..AuditFilter::default() };
        assert_eq!(count(&errors), 0);
        let past = AuditFilter { until: Some(5_000), ..AuditFilter::default() };
        assert_eq!(count(&past), 0);
        let mut filter = AuditFilter { limit: 7, ..of("message.*") };
        let mut seen = Vec::new();
        loop {
            let page = storage::inspect::audit(reader, &filter).expect("reads");
            seen.extend(page.entries.iter().map(|one| one.entry));
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.is_sorted_by(|newer, older| newer > older));
    }

    #[test]
    fn a_list_is_the_same_when_what_became_of_messages_lies_in_later_segments() {
        let dir = tempfile::tempdir().expect("folder");
        let journal = Options { segment_bytes: 1 << 20, ..Options::new(5_000) };
        let (now, fatal) = (Box::new(|| 5_000), Box::new(|_: &str| {}));
        let setup = Setup { journal, boot: String::new(), now, fatal };
        let (database, _) = Database::open_with(dir.path(), setup).expect("opens");
        let store = database.store();
        let body = vec![7; 400_000];
        let mut entries = Vec::new();
        for number in 0..12 {
            entries.push(accept(store, &format!("m-{number}"), Direction::Outbound));
            accept_head(store, head(&format!("p-{number}"), Direction::Inbound), &body);
            let earlier = entries[number / 2];
            if store.messages(|messages| messages.live(earlier).is_some()) {
                let steps = [Status::Sending, Status::Failed, Status::Delivered];
                change(store, earlier, Event::MessageSent, steps[number % 3]);
            }
        }
        let look = Inspect::open(dir.path()).expect("looks");
        assert!(look.reader().segments().len() > 3);
        let filters = [
            Filter { limit: 5, ..Filter::default() },
            Filter { limit: 2, status: vec![Status::Delivered], ..Filter::default() },
            Filter { limit: 3, status: vec![Status::Failed, Status::Sending], ..Filter::default() },
        ];
        for filter in filters {
            let pages = |list: &dyn Fn(&Filter) -> Page| {
                let (mut filter, mut rows) = (filter.clone(), Vec::new());
                loop {
                    let page = list(&filter);
                    rows.extend(page.rows);
                    filter.after = page.next;
                    if filter.after.is_none() {
                        return rows;
                    }
                }
            };
            let running = pages(&|filter| database.view().list(filter).expect("lists"));
            assert!(!running.is_empty());
            assert_eq!(pages(&|filter| look.list(filter)), running);
        }
        assert_eq!(look.state().digest(), store.state(storage::fold::State::digest));
        database.close().expect("closes");
        let look = Inspect::open(dir.path()).expect("looks");
        let replayed = storage::inspect::replay(look.reader(), u64::MAX);
        assert_eq!(look.state().digest(), replayed.digest());
    }
}
