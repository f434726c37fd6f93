//! What happens between the recovered journal and the first decision: folding, and telling in the
//! first frame what was found. It repairs nothing.

use std::fmt::Write as _;
use std::path::Path;

use crate::checkpoint;
use crate::database::{Report, apply};
use crate::event::Event;
use crate::fold::State;
use crate::journal::{Damage, Reader, Recovery};
use crate::messages::Live;
use crate::record::{Level, Status};
use crate::store::{CommitError, Store};
use crate::transaction::{Act, Change, Transaction};

/// The actor of what the store does by itself.
const ACTOR: &str = "store";

/// The state from the newest checkpoint and the frames after it.
pub(super) fn fold(folder: &Path, reader: &Reader, recovery: Recovery) -> (State, Report) {
    let identity = reader.identity();
    let (found, errors) = checkpoint::newest(folder, identity.key, |stamp, sequence| {
        let same = |frame: crate::journal::Frame| frame.hash == stamp.hash;
        stamp.journal == identity.journal && reader.frame(sequence).is_ok_and(same)
    });
    let checkpoint = found.as_ref().map(|state| state.sequence);
    let mut state = found.unwrap_or_else(|| State::new(identity.key));
    let (mut replayed, mut unreadable) = (0, Vec::new());
    for frame in reader.frames(state.sequence + 1) {
        match frame {
            Ok(frame) => {
                apply(&mut state, &frame);
                replayed += 1;
            }
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    let interrupted = state.messages.iter().filter(|live| live.status == Status::Sending).count();
    let report = Report {
        recovery,
        checkpoint,
        checkpoint_errors: errors.iter().map(ToString::to_string).collect(),
        replayed,
        unreadable,
        interrupted,
        rebuild: None,
    };
    (state, report)
}

/// The first frame of this start: what was found, and that what was being sent waits again.
pub(super) fn record(store: &Store, report: &Report) -> Result<(), CommitError> {
    let report = report.clone();
    let interrupted: Vec<Live> = store.messages(|messages| {
        messages.iter().filter(|live| live.status == Status::Sending).cloned().collect()
    });
    let done = store.commit(move |transaction| -> Result<(), std::convert::Infallible> {
        notes(transaction, &report);
        for live in &interrupted {
            let act =
                Act::new(Event::MessageRetry, ACTOR, &live.head.namespace, &live.head.message_id)
                    .level(Level::Warning)
                    .details(r#"{"cause":"the store stopped while it was being sent"}"#.into());
            let change =
                Change { status: Status::Pending, maybe_delivered: true, ..Change::of(live) };
            transaction.change(act, live, change);
        }
        Ok(())
    });
    done.wait().map(|_| ())
}

fn notes(transaction: &mut Transaction<'_>, report: &Report) {
    let recovery = &report.recovery;
    let note = |event, resource: &str| Act::new(event, ACTOR, "", resource);
    transaction.note(note(Event::StoreOpen, "store").details(format!(
        r#"{{"epoch":{},"clean":{},"sequence":{},"replayed":{},"interrupted":{}}}"#,
        recovery.epoch,
        recovery.clean,
        recovery.head.position.sequence,
        report.replayed,
        report.interrupted
    )));
    if !recovery.clean {
        let act = note(Event::StoreRecover, "journal").level(Level::Warning);
        transaction.note(act.details(format!(
            r#"{{"torn_bytes":{},"quarantined":{}}}"#,
            recovery.torn_bytes,
            recovery.quarantined.len()
        )));
    }
    for damage in &recovery.damage {
        let act = note(Event::StoreDamage, &name(&damage.segment)).level(Level::Error);
        transaction.note(act.details(details(damage)));
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

fn details(damage: &Damage) -> String {
    format!(
        r#"{{"reason":{},"offset":{},"bytes":{},"first":{},"last":{}}}"#,
        quote(&damage.reason.to_string()),
        damage.offset,
        damage.len,
        damage.first,
        damage.last
    )
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A JSON string.
fn quote(text: &str) -> String {
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
