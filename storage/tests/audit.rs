//! The audit log in every way that it is asked: the indexes, a search for a text, a summary and a
//! walk from the oldest entry give what a plain reading of all frames gives, with the store
//! running, stopped, and damaged.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::codec;
use storage::database::{Database, Setup};
use storage::event::Event;
use storage::inspect::{AuditFilter, AuditPage, AuditSummary, Inspect, audit, summary};
use storage::journal::{Options, Reader};
use storage::record::{EntryId, Level, Record};
use storage::transaction::Act;

const BEGIN: u64 = 1_000_000;
const ENTRIES: u64 = 700;

/// A store of many small segments, its clock a second later with each decision.
fn filled(dir: &Path) -> Database {
    let journal =
        Options { segment_bytes: 16 << 10, reserve_bytes: 32 << 10, ..Options::new(BEGIN) };
    let clock = Arc::new(AtomicU64::new(BEGIN));
    let now = Box::new(move || clock.fetch_add(1_000, Ordering::Relaxed));
    let (database, _) =
        Database::open_with(dir, Setup::new(journal, now, Box::new(|_| {}))).unwrap();
    let events = [Event::TaskStart, Event::TaskComplete, Event::TaskFail, Event::Connect];
    let levels = [Level::Debug, Level::Info, Level::Info, Level::Warning, Level::Error];
    for number in 0..ENTRIES {
        let at = usize::try_from(number).unwrap();
        let event = if number % 300 == 7 { Event::KeyRotate } else { events[at % events.len()] };
        let act =
            Act::new(event, &format!("agent-{}", number % 6), "default", &format!("t-{number}"))
                .level(levels[at % levels.len()])
                .details(format!(r#"{{"note":"Number {number} of many"}}"#));
        let done = database.store().commit(move |tx| -> Result<(), ()> {
            tx.note(act);
            Ok(())
        });
        done.wait().unwrap().unwrap();
    }
    database
}

/// Every readable entry, oldest first, without any index.
fn plain(reader: &Reader) -> Vec<(EntryId, u64, Record)> {
    let mut all = Vec::new();
    for frame in reader.frames(1).flatten() {
        for one in &frame.entries {
            let entry = EntryId { sequence: frame.position.sequence, index: one.index };
            all.push((entry, frame.time, codec::decode::<Record>(&one.head).unwrap()));
        }
    }
    all
}

fn filters() -> Vec<AuditFilter> {
    let usual = AuditFilter::default;
    let text = |text: &str| AuditFilter { text: Some(text.into()), ..usual() };
    let event = |name: &str| AuditFilter { events: vec![name.into()], ..usual() };
    vec![
        usual(),
        event("key.rotate"),
        event("task.*"),
        AuditFilter { events: vec!["key.rotate".into(), "openclaw.*".into()], ..usual() },
        AuditFilter { level: Some(Level::Warning), ..usual() },
        AuditFilter { level: Some(Level::Info), ..event("task.start") },
        AuditFilter { actor: Some("agent-2".into()), ..event("task.fail") },
        AuditFilter { resource: Some("t-77".into()), ..usual() },
        AuditFilter { since: Some(BEGIN + 200_000), until: Some(BEGIN + 420_000), ..usual() },
        text("number 77 of"),
        text("AGENT-3"),
        text("t-699"),
        AuditFilter { actor: Some("agent-1".into()), ..text("many") },
        AuditFilter { events: vec!["key.rotate".into()], ..text("number 3") },
        AuditFilter { until: Some(BEGIN + 300_000), ..text("number 1") },
        text("nowhere"),
        // Each page reads one segment, however few are found there.
        AuditFilter { reads: 1, ..text("number 77 of") },
        AuditFilter { reads: 1, ..text("many") },
        event("config.load"),
    ]
}

/// What the filter asks for, written once more without the code under test.
fn wanted(filter: &AuditFilter, (_, time, record): &(EntryId, u64, Record)) -> bool {
    let event = record.event.name();
    let has = |text: &String| {
        let all = [&record.details, &*record.resource, &*record.actor].join("\n").to_lowercase();
        all.contains(&text.to_lowercase())
    };
    (filter.events.is_empty()
        || filter.events.iter().any(|one| match one.split_once('*') {
            Some((begin, _)) => event.starts_with(begin),
            None => event == one,
        }))
        && filter.level.is_none_or(|level| record.level >= level)
        && filter.actor.as_ref().is_none_or(|actor| **actor == *record.actor)
        && filter.resource.as_ref().is_none_or(|resource| **resource == *record.resource)
        && filter.since.is_none_or(|since| *time >= since)
        && filter.until.is_none_or(|until| *time < until)
        && filter.text.as_ref().is_none_or(has)
}

/// All pages, the newest first, by `next` and by leaving out, which must agree.
fn pages(filter: &AuditFilter, ask: &dyn Fn(&AuditFilter) -> AuditPage) -> Vec<EntryId> {
    let (mut found, mut skipped, mut asked) = (Vec::new(), Vec::new(), 0);
    let mut filter = AuditFilter { limit: 90, ..filter.clone() };
    loop {
        let page = ask(&filter);
        found.extend(page.entries.iter().map(|one| one.entry));
        filter.before = page.next;
        asked += 1;
        assert!(asked <= ENTRIES, "pages without an end: {filter:?}");
        if page.next.is_none() {
            break;
        }
    }
    if filter.reads > 0 {
        assert!(asked > 4, "{asked} pages, though each reads little: {filter:?}");
        return found;
    }
    filter.before = None;
    loop {
        let page = ask(&filter);
        filter.skip += page.entries.len();
        skipped.extend(page.entries.iter().map(|one| one.entry));
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(found, skipped);
    found
}

fn counted(all: &[&(EntryId, u64, Record)]) -> (u64, BTreeMap<String, u64>) {
    let mut counts = BTreeMap::new();
    for (_, _, record) in all {
        *counts.entry(record.event.to_string()).or_default() += 1;
        *counts.entry(format!("{:?}", record.level)).or_default() += 1;
        *counts.entry(format!("by {}", record.actor)).or_default() += 1;
    }
    (all.len() as u64, counts)
}

fn told(summary: &AuditSummary) -> (u64, BTreeMap<String, u64>) {
    let events = summary.events.iter().map(|(event, count)| (event.to_string(), *count));
    let levels = summary.levels.iter().map(|(level, count)| (format!("{level:?}"), *count));
    let actors = summary.actors.iter().map(|(actor, count)| (format!("by {actor}"), *count));
    (summary.entries, events.chain(levels).chain(actors).collect())
}

fn check(
    all: &[(EntryId, u64, Record)],
    filter: &AuditFilter,
    look: Option<&Inspect>,
    reader: &Reader,
) {
    let expected: Vec<_> = all.iter().filter(|one| wanted(filter, one)).collect();
    let ids = || expected.iter().map(|(entry, ..)| *entry);
    let ask = |filter: &AuditFilter| match look {
        Some(look) => look.audit(filter).unwrap(),
        None => audit(reader, filter).unwrap(),
    };
    assert_eq!(pages(filter, &ask), ids().rev().collect::<Vec<_>>(), "{filter:?}");
    let summary = match look {
        Some(look) => look.summary(filter).unwrap(),
        None => summary(reader, filter).unwrap(),
    };
    assert_eq!(told(&summary), counted(&expected), "{filter:?}");
    let times = expected.first().zip(expected.last()).map(|(first, last)| (first.1, last.1));
    assert_eq!(summary.times, times, "{filter:?}");
    assert!(summary.events.is_sorted_by(|(_, more), (_, less)| more >= less));
    if let Some(look) = look {
        let mut walked = Vec::new();
        look.each_entry(filter, &mut |one| {
            walked.push(one.entry);
            true
        })
        .unwrap();
        assert_eq!(walked, ids().collect::<Vec<_>>(), "{filter:?}");
    }
}

#[test]
fn every_way_to_ask_gives_what_a_plain_reading_gives_running_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let reader = database.reader();
    assert!(reader.segments().len() > 4);
    let all = plain(reader);
    assert_eq!(all.len() as u64, ENTRIES + 1);
    let look = Inspect::open(dir.path()).unwrap();
    for filter in filters() {
        check(&all, &filter, None, reader);
        check(&all, &filter, Some(&look), look.reader());
    }
    database.close().unwrap();
    let look = Inspect::open(dir.path()).unwrap();
    assert!(look.is_clean());
    for filter in filters() {
        check(&all, &filter, Some(&look), look.reader());
    }
    let mut first = Vec::new();
    let usual = AuditFilter::default();
    look.each_entry(&usual, &mut |one| {
        first.push(one.entry);
        first.len() < 3
    })
    .unwrap();
    assert_eq!(first, all.iter().take(3).map(|(entry, ..)| *entry).collect::<Vec<_>>());
}

/// The files of the journal, the oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("journal")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    found.sort();
    found
}

#[test]
fn with_damage_the_rest_is_answered_and_what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).close().unwrap();
    let file = segments(dir.path()).swap_remove(1);
    let mut bytes = fs::read(&file).unwrap();
    // The second frame of the second segment.
    let second = 4096 + bytes[4096 + 8..].windows(4).position(|four| four == b"LKFR").unwrap() + 8;
    bytes[second + 130] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let look = Inspect::open(dir.path()).unwrap();
    let all = plain(look.reader());
    assert_eq!(all.len() as u64, ENTRIES);
    for filter in filters() {
        check(&all, &filter, Some(&look), look.reader());
    }
    let name = file.file_name().unwrap().to_str().unwrap();
    let usual = AuditFilter::default();
    let text = AuditFilter { text: Some("nowhere".into()), ..usual.clone() };
    let page = look.audit(&AuditFilter { limit: 1_000, ..usual.clone() }).unwrap();
    for damage in [
        page.damage,
        look.audit(&text).unwrap().damage,
        look.summary(&usual).unwrap().damage,
        look.each_entry(&usual, &mut |_| true).unwrap(),
    ] {
        let one = damage.iter().find(|sentence| sentence.contains(name));
        assert!(one.is_some_and(|it| it.contains(&second.to_string())), "{damage:?}");
    }
    // A period that the damage has no part in is whole, and says so.
    let later = AuditFilter { since: Some(BEGIN + 600_000), ..usual };
    assert_eq!(look.summary(&later).unwrap().damage, Vec::<String>::new());

    // A start finds it, and from then on its index tells which frames are missing.
    let journal =
        Options { segment_bytes: 16 << 10, reserve_bytes: 32 << 10, ..Options::new(BEGIN) };
    fs::remove_file(&file).unwrap();
    let now = Box::new(|| BEGIN + 9_000_000);
    let (database, _) =
        Database::open_with(dir.path(), Setup::new(journal, now, Box::new(|_| {}))).unwrap();
    let running = audit(database.reader(), &AuditFilter::default()).unwrap().damage;
    let look = Inspect::open(dir.path()).unwrap();
    let beside = look.audit(&AuditFilter::default()).unwrap().damage;
    assert!(running.iter().any(|it| it.contains("; frames ")), "{running:?}");
    assert_eq!(running, beside);
}
