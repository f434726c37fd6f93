//! What happens between the recovered journal and the first decision: folding, and telling in the
//! first frame what was found. It repairs nothing.

use std::fmt::Write as _;
use std::path::Path;

use crate::checkpoint::{self, CheckpointError, Loaded, Writer};
use crate::database::{Report, apply};
use crate::event::Event;
use crate::fold::State;
use crate::inspect::{AuditFilter, AuditPage, Touched, audit, entry_in, touched};
use crate::journal::{
    Damage, DamageReason, Frame, FrameEntry, ReadError, ReadLog, Reader, Recovery, Syncer,
};
use crate::messages::{Counts, Place, Summary};
use crate::record::{EntryId, Level, Status};
use crate::store::{CommitError, Store, head_in};
use crate::transaction::{Act, Change, Transaction};

/// Messages that lost records and get an entry of their own in the audit log.
const TOLD_IDS_MAX: usize = 100;

/// The actor of what the store does by itself.
const ACTOR: &str = "store";

/// How the state was found.
#[derive(Default)]
pub(crate) struct Replay {
    /// The frame of the checkpoint that was used.
    pub(crate) checkpoint: Option<u64>,
    /// Checkpoints that were of no use, and why.
    pub(crate) checkpoint_errors: Vec<String>,
    /// Frames that were applied after the checkpoint, and the bytes of their entries.
    pub(crate) frames: u64,
    pub(crate) bytes: usize,
    /// Frames that could not be read, and why.
    pub(crate) unreadable: Vec<String>,
    /// The same, where it is a frame that does not read back.
    pub(crate) damage: Vec<Damage>,
}

impl Replay {
    /// Replaying begins, perhaps once more.
    fn begin(&mut self) {
        (self.frames, self.bytes) = (0, 0);
        self.unreadable.clear();
        self.damage.clear();
    }

    fn miss(&mut self, error: &ReadError) {
        self.unreadable.push(error.to_string());
        if let ReadError::Damaged { path, offset, sequence, reason } = error {
            let (segment, offset, reason) = (path.clone(), *offset, *reason);
            let (first, last) = (*sequence, *sequence);
            self.damage.push(Damage { segment, offset, len: 0, first, last, reason });
        }
    }

    fn count(&mut self, frame: &Frame) {
        let body = |one: &FrameEntry| one.body.map_or(0, |body| body.len as usize);
        self.frames += 1;
        self.bytes += frame.entries.iter().map(|one| one.head.len() + body(one)).sum::<usize>();
    }
}

/// The state from the newest checkpoint that fits, and the frames after it. Nothing is written.
pub(crate) fn fold(folder: &Path, reader: &Reader) -> (State, Writer, Replay) {
    let identity = reader.identity();
    let mut replay = Replay::default();
    for path in checkpoint::candidates(folder) {
        match from_checkpoint(&path, folder, reader, &mut replay) {
            Ok((state, writer)) => return (state, writer, replay),
            Err(error) => replay.checkpoint_errors.push(error.to_string()),
        }
    }
    let mut state = State::new(identity.key);
    replay.begin();
    for frame in reader.frames(1) {
        match frame {
            Ok(frame) => {
                apply(&mut state, &frame);
                replay.count(&frame);
            }
            Err(error) => replay.miss(&error),
        }
    }
    (state, Writer::begin(folder, identity.journal), replay)
}

/// It was being sent when the store stopped.
fn is_sending(one: &Summary<'_>) -> bool {
    one.status == Status::Sending
}

fn from_checkpoint(
    path: &Path,
    folder: &Path,
    reader: &Reader,
    replay: &mut Replay,
) -> Result<(State, Writer), CheckpointError> {
    let identity = reader.identity();
    let mut loaded = Loaded::read(path, identity.key)?;
    let stamp = loaded.stamp();
    let is_here = |(sequence, hash): (u64, [u8; 32])| {
        reader.frame(sequence).is_ok_and(|frame| frame.hash == hash)
    };
    if stamp.journal != identity.journal || !is_here(stamp.first) || !is_here(stamp.last) {
        let what = "it is of another journal or another history".to_owned();
        return Err(CheckpointError::Damaged { path: path.into(), what });
    }
    replay.begin();
    for frame in reader.frames(stamp.first.0 + 1) {
        match frame {
            Ok(frame) => {
                for (entry, record, body) in crate::view::records(&frame) {
                    loaded.apply(entry, frame.time, &record, body);
                }
                loaded.end_frame(frame.position.sequence)?;
                replay.count(&frame);
            }
            Err(error) => replay.miss(&error),
        }
    }
    let whole = loaded.finish(folder)?;
    replay.checkpoint = Some(stamp.first.0);
    Ok(whole)
}

impl Report {
    /// What there is to say of a journal and the state that it gave.
    pub(super) fn of(recovery: Recovery, replay: Replay, state: &State) -> Self {
        Self {
            recovery,
            checkpoint: replay.checkpoint,
            checkpoint_errors: replay.checkpoint_errors,
            replayed: replay.frames,
            replayed_bytes: replay.bytes,
            unreadable: replay.unreadable,
            interrupted: state.messages.iter().filter(is_sending).count(),
            rebuild: None,
            new_damage: Vec::new(),
            touched: Touched::default(),
        }
    }

    /// Keeps the frames that did not read back in quarantine, and finds the messages that lost
    /// records.
    pub(super) fn damaged(
        &mut self,
        damage: Vec<Damage>,
        (reader, state): (&Reader, &State),
        syncer: &Syncer,
    ) {
        for mut one in damage {
            match reader.quarantine(one.first, syncer) {
                Ok(Some((len, copy))) => {
                    one.len = len;
                    self.recovery.quarantined.push(copy);
                }
                Ok(None) => {}
                // The segment keeps the bytes; on a full disk only the copy is missing.
                Err(error) => tracing::warn!(%error, "damaged bytes are not kept aside"),
            }
            self.recovery.damage.push(one);
        }
        let told = |one: &&Damage| !is_told(reader, one);
        self.new_damage = self.recovery.damage.iter().filter(told).cloned().collect();
        self.touched = touched(reader, state, &self.new_damage);
    }
}

/// The first frame of this start: what was found, and that what was being sent waits again.
pub(super) fn record(store: &Store, report: &Report) -> Result<(), CommitError> {
    let report = report.clone();
    let interrupted = store.select(is_sending);
    let traces: Vec<String> =
        interrupted.iter().map(|live| trace_of(store.reader(), live.place())).collect();
    let done = store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
        notes(transaction, &report);
        for (live, trace) in interrupted.iter().zip(&traces) {
            let cause = "the store stopped while it was being sent";
            let act =
                Act::new(Event::MessageRetry, ACTOR, &live.head.namespace, &live.head.message_id)
                    .level(Level::Warning)
                    .details(format!(r#"{{"cause":"{cause}"{trace}}}"#));
            let change =
                Change { status: Status::Pending, maybe_delivered: true, ..Change::of(live) };
            transaction.change(act, live, change);
        }
        Ok(())
    });
    done.wait().map(|_| ())
}

/// The trace that the entry which accepted a message names, or the one that carried it forward, as
/// one more member of details; empty where it names none. Every entry about the message has it.
fn trace_of(reader: &dyn ReadLog, (message, at): Place) -> String {
    reader.frame(at).map_or_else(|_| String::new(), |frame| trace_in(&frame, message))
}

/// The same, of the frame that is known to have that entry.
pub(super) fn trace_in(frame: &Frame, message: EntryId) -> String {
    const MEMBER: &str = r#""traceparent":""#;
    let is_it = |one: &&FrameEntry| head_in(frame, one).is_some_and(|(entry, _)| entry == message);
    let found = frame.entries.iter().find(is_it);
    let entry = found.and_then(|one| entry_in(frame, one.index));
    let details = entry.map(|entry| entry.record.details).unwrap_or_default();
    let trace = details.split_once(MEMBER).and_then(|(_, rest)| rest.split_once('"'));
    trace.map_or_else(String::new, |(trace, _)| format!(",{MEMBER}{trace}\""))
}

/// What the fold counts, and after which frame, whenever it is asked.
pub(super) fn counts(store: &Store) -> Box<dyn Fn() -> (u64, Counts) + Send> {
    let store = store.clone();
    Box::new(move || store.state(|state| (state.sequence, state.messages.counts().clone())))
}

/// Writes into the audit log that the rows are rebuilt because they disagree with the journal.
pub(super) fn disagree(store: &Store) -> Box<dyn Fn(&str) + Send> {
    let store = store.clone();
    Box::new(move |why| {
        let details = format!(r#"{{"reason":{}}}"#, quote(why));
        let done = store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
            let act = Act::new(Event::StoreRebuild, ACTOR, "", "messages").level(Level::Error);
            transaction.note(act.details(details));
            Ok(())
        });
        // The rows are rebuilt all the same when the store stops just now.
        let _ = done.wait();
    })
}

fn notes(transaction: &mut Transaction<'_>, report: &Report) {
    let recovery = &report.recovery;
    let note = |event, resource: &str| Act::new(event, ACTOR, "", resource);
    let found = format!(
        r#""epoch":{},"clean":{},"sequence":{},"replayed":{},"interrupted":{}"#,
        recovery.epoch,
        recovery.clean,
        recovery.head.position.sequence,
        report.replayed,
        report.interrupted,
    );
    let host = quote(&rustix::system::uname().nodename().to_string_lossy());
    let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION"));
    let program = format!(r#""host":{host},"pid":{pid},"version":"{version}""#);
    let opened = note(Event::StoreOpen, "store").details(format!("{{{found},{program}}}"));
    transaction.note(opened);
    if !recovery.clean {
        let act = note(Event::StoreRecover, "journal").level(Level::Warning);
        transaction.note(act.details(format!(
            r#"{{"torn_bytes":{},"quarantined":{}}}"#,
            recovery.torn_bytes,
            recovery.quarantined.len()
        )));
    }
    for damage in &report.new_damage {
        let act = note(Event::StoreDamage, &name(&damage.segment)).level(Level::Error);
        transaction.note(act.details(details(damage)));
    }
    for id in report.touched.ids.iter().take(TOLD_IDS_MAX) {
        let act = note(Event::StoreDamage, id).level(Level::Error);
        let what = r#"{"reason":"records about this message are lost"}"#;
        transaction.note(act.details(what.to_owned()));
    }
    let untold = report.touched.ids.len().saturating_sub(TOLD_IDS_MAX) + report.touched.unnamed;
    if untold > 0 {
        let act = note(Event::StoreDamage, "messages").level(Level::Error);
        let what =
            format!(r#"{{"reason":"records about more messages are lost","count":{untold}}}"#);
        transaction.note(act.details(what));
    }
    for error in &report.checkpoint_errors {
        let act = note(Event::StoreDamage, "checkpoints").level(Level::Warning);
        transaction.note(act.details(format!(r#"{{"reason":{}}}"#, quote(error))));
    }
    if let Some(why) = &report.rebuild {
        let act = note(Event::StoreRebuild, "messages").level(Level::Warning);
        transaction.note(act.details(format!(r#"{{"reason":{}}}"#, quote(why))));
    }
}

/// Whether the audit log has this damage already: what is missing is missed at every start.
pub(super) fn is_told(reader: &Reader, damage: &Damage) -> bool {
    let filter = AuditFilter {
        events: vec![Event::StoreDamage.name().to_owned()],
        resource: Some(name(&damage.segment)),
        ..AuditFilter::default()
    };
    let details = details(damage);
    let told = |page: AuditPage| page.entries.iter().any(|one| one.record.details == details);
    audit(reader, &filter).is_ok_and(told)
}

pub(super) fn details(damage: &Damage) -> String {
    format!(
        r#"{{{},"offset":{},"bytes":{},"first":{},"last":{}}}"#,
        reason(damage.reason),
        damage.offset,
        damage.len,
        damage.first,
        damage.last
    )
}

/// The member of these details that says what is wrong.
pub(super) fn reason(reason: DamageReason) -> String {
    format!(r#""reason":{}"#, quote(&reason.to_string()))
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A JSON string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control < ' ' => {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\u{:04x}", control as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
