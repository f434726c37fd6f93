//! `loki store import`: makes a store from an export. All lines are checked before anything is
//! written, and a store that has something is left alone. It is made in a folder of its own, so
//! that one that breaks off leaves nothing that a bridge would start with.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use storage::database::Database;
use storage::event::Event;
use storage::record::{EntityKey, Status};
use storage::transaction::{Act, Body, Change, Transaction};

use super::lines::{Audit, Entity, Line, Message};
use super::open::{check_free, close, make, open};
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of};
use crate::clock::Clock;
use crate::config::StoreRules;
use crate::shutdown::Shutdown;

/// Who writes the records of messages and entities that an import makes.
pub const ACTOR: &str = "import";

/// The folder of the data directory in which the store is made.
const STAGE: &str = "import";

/// What a store consists of. The journal is all that counts: the others follow from it, so that it
/// moves first.
const PARTS: [&str; 3] = ["journal", "checkpoints", "messages"];

/// Bytes of one commit, about; far below the largest frame.
const COMMIT_BYTES: usize = 1 << 20;

/// Bad lines that are named; the others are counted.
const BAD_MAX: usize = 20;

/// From where.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A file that `loki store export` wrote, or - for standard input
    file: String,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: &Arguments) -> Done {
    let openclaw = look(global)?.openclaw;
    let dir = openclaw.data_dir;
    check_free(&dir)?;
    let lines = parse(&read(&arguments.file)?)?;
    make(&dir)?;
    // Held until the end, so that nobody else begins in this folder.
    let database = open(&dir, &openclaw.store, &Clock::system(), &Shutdown::default())?;
    let is_empty = database.store().ledger().is_empty()
        && database.store().messages(|messages| messages.counts().values().all(|it| *it == 0));
    let stage = dir.join(STAGE);
    let written = if is_empty {
        staged(&stage, &openclaw.store, lines).await
    } else {
        let text = format!(
            "{} has a store with something in it: name a new folder with --data-dir",
            dir.display()
        );
        Err(Failure::new(Code::Usage, text))
    };
    close(database)?;
    let [messages, entities, audit] = written?;
    take_over(&dir, &stage).map_err(|error| unmoved(&stage, &error))?;
    let answer = json!({ "store": dir.display().to_string(), "messages": messages,
        "entities": entities, "audit": audit });
    output_of(global).object(&answer, &["store", "messages", "entities", "audit"]);
    Ok(ExitCode::SUCCESS)
}

/// Makes the store in a folder of its own.
async fn staged(stage: &Path, rules: &StoreRules, lines: Vec<Line>) -> Result<[usize; 3], Failure> {
    // One that broke off may have left it.
    remove(stage).map_err(|error| unmoved(stage, &error))?;
    make(stage)?;
    let database = open(stage, rules, &Clock::system(), &Shutdown::default())?;
    let written = write(&database, lines).await;
    let closed = close(database);
    let done = written.and_then(|counts| closed.map(|()| counts));
    if done.is_err() {
        // The first failure says more.
        let _ = remove(stage);
    }
    done
}

/// Puts the store that was made into the place of the empty one.
fn take_over(dir: &Path, stage: &Path) -> io::Result<()> {
    for part in PARTS {
        remove(&dir.join(part))?;
    }
    for part in PARTS {
        match fs::rename(stage.join(part), dir.join(part)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => File::open(dir)?.sync_all()?,
        }
    }
    remove(stage)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unmoved(stage: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot make the store in {}: {error}", stage.display());
    Failure::new(Code::Store, text)
}

fn read(file: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let done = match file {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ()),
        path => std::fs::read(path).map(|read| bytes = read),
    };
    done.map_err(|error| Failure::new(Code::Usage, format!("cannot read {file}: {error}")))?;
    Ok(bytes)
}

/// All lines, or the numbers of those that are wrong and why.
fn parse(bytes: &[u8]) -> Result<Vec<Line>, Failure> {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for (number, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let text = std::str::from_utf8(text).map_err(|_| "it is no UTF-8".to_owned());
        match text.and_then(Line::read) {
            Ok(line) => lines.push(line),
            Err(why) => bad.push((number, why)),
        }
    }
    if bad.is_empty() {
        return Ok(lines);
    }
    let mut text = "nothing was imported:".to_owned();
    for (number, why) in bad.iter().take(BAD_MAX) {
        // Writing to a string does not fail.
        let _ = write!(text, " line {number}: {why};");
    }
    let more = bad.len().saturating_sub(BAD_MAX);
    if more > 0 {
        let _ = write!(text, " and {more} lines more;");
    }
    Err(Failure::new(Code::Usage, text.trim_end_matches(';')))
}

/// Writes the lines, some at a time; how many of each there were.
async fn write(database: &Database, lines: Vec<Line>) -> Result<[usize; 3], Failure> {
    let mut counts = [0; 3];
    let mut lines = lines.into_iter().peekable();
    while lines.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(line) =
            lines.next_if(|line| bytes == 0 || bytes + line.size() < COMMIT_BYTES)
        {
            bytes += line.size();
            counts[match &line {
                Line::Message(_) => 0,
                Line::Entity(_) => 1,
                Line::Audit(_) => 2,
            }] += 1;
            batch.push(line);
        }
        let done = database.store().commit(move |tx| -> Result<(), String> {
            batch.iter().try_for_each(|line| match line {
                Line::Message(one) => message(tx, one),
                Line::Entity(one) => entity(tx, one),
                Line::Audit(one) => audit(tx, one),
            })
        });
        done.await?.map_err(|why| Failure::new(Code::Store, why))?;
    }
    Ok(counts)
}

fn message(tx: &mut Transaction<'_>, message: &Message) -> Result<(), String> {
    let ready = message.ready()?;
    let (namespace, id) = (ready.head.namespace.clone(), ready.head.message_id.clone());
    let first = ready.head.status;
    let (accepted, changed) = match first {
        Status::Received => (Event::MessageReceived, Event::MessageProcessed),
        _ => (Event::MessageQueued, Event::MessageSent),
    };
    let entry =
        tx.accept(Act::new(accepted, ACTOR, &namespace, &id), ready.head, Body::new(&ready.body));
    // What was being sent waits, and may have arrived.
    let sending = ready.status == Status::Sending;
    let status = if sending { Status::Pending } else { ready.status };
    let Some(live) = tx.live(entry) else { return Ok(()) };
    let change = Change {
        status,
        reason: ready.reason,
        attempts: message.attempts,
        next_attempt_at: ready.next_attempt_at,
        maybe_delivered: message.maybe_delivered || sending,
        error: ready.error,
    };
    tx.change(Act::new(changed, ACTOR, &namespace, &id), &live, change);
    Ok(())
}

fn entity(tx: &mut Transaction<'_>, entity: &Entity) -> Result<(), String> {
    let parts: Vec<&str> = entity.name.iter().map(String::as_str).collect();
    let key = EntityKey::new(entity.kind()?, &parts);
    let resource = parts.last().copied().unwrap_or_default();
    tx.put(Act::new(Event::StoreImport, ACTOR, "", resource), key, entity.value.bytes()?);
    Ok(())
}

/// An entry of the past is an entry now, which says what it was.
fn audit(tx: &mut Transaction<'_>, audit: &Audit) -> Result<(), String> {
    let act = Act::new(audit.event()?, &audit.actor, &audit.namespace, &audit.resource);
    let before = json!({ "seq": audit.seq, "timestamp": audit.timestamp,
        "details": audit.details });
    let mut details = json!({});
    if let Some(members) = audit.details.as_object() {
        details = members.clone().into();
    }
    details["imported"] = before;
    tx.note(act.level(audit.level()?).details(details.to_string()));
    Ok(())
}
