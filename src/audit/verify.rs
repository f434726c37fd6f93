//! Whether an audit log is what was recorded: the chain over all entries, the signed ends in it and
//! beside it, and the ends that peers saw. It reads a folder, also one in use, and changes nothing.
//!
//! Somebody who owns the folder can cut the end off and sign what is left: only an end that a peer
//! holds shows that, so the answer says up to where one does.

use std::path::Path;

use storage::database::index_of;
use storage::event::Event;
use storage::inspect::{AUDIT_ENTRIES_MAX, AuditFilter, Inspect};
use storage::journal::{self, DamageReason};
use storage::record::Millis;

use super::heads::{self, Place};
use super::sign::Signed;
use super::witness::{Seen, acked};

/// What is wrong at a place of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first frame that it is about.
    pub sequence: u64,
    /// What is wrong, and where.
    pub text: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Good frames and entries.
    pub frames: u64,
    /// Entries in them.
    pub entries: u64,
    /// The newest end.
    pub head: String,
    /// All that is wrong, the first place first.
    pub faults: Vec<Fault>,
    /// Signed ends in the log that are sound.
    pub signed: u64,
    /// The last of them, and when it was recorded.
    pub last_signed: Option<(u64, Millis)>,
    /// The keys that signed, in their order: more than one when the key was made anew.
    pub keys: Vec<String>,
    /// The newest end that a peer is known to have seen: its frame, the time of that, and who.
    pub witnessed: Option<(u64, Millis, String)>,
    /// Ends of this journal that were compared, of those given.
    pub compared: u64,
}

impl Verdict {
    fn fault(&mut self, sequence: u64, text: String) {
        self.faults.push(Fault { sequence, text });
    }
}

/// Verifies the log of a folder, also against the ends of it that peers saw. With a key nothing
/// else may have signed. `watch` is told how many bytes of how many are done.
///
/// # Errors
/// When it cannot be read, or a newer program wrote it. That it is not what was recorded is no
/// error.
pub fn verify(
    dir: &Path,
    against: &[Seen],
    key: Option<&str>,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // First, so that a store in use has at least what was signed by then.
    let beside = Signed::last(dir).map_err(|error| text(&error))?;
    let look = Inspect::open(dir).map_err(|error| text(&error))?;
    let found = journal::check_watched(&dir.join("journal"), index_of, watch);
    let found = found.map_err(|error| text(&error))?;
    let reader = look.reader();
    let (frames, entries) = (found.frames, found.entries);
    let mut verdict = Verdict { frames, entries, head: heads::head(reader), ..Verdict::default() };
    for damage in look.damage().into_iter().chain(found.damage) {
        let file = damage.segment.file_name().unwrap_or_default().to_string_lossy();
        let (at, reason) = (damage.offset, damage.reason);
        let lost = match (damage.first, damage.last) {
            (first, _) if reason == DamageReason::Chain => {
                format!("frame {first} or the one before it was changed: ")
            }
            (first, last) if first > last => String::new(),
            (first, last) if first == last => format!("frame {first} is lost: "),
            (first, last) => format!("frames {first} to {last} are lost: "),
        };
        let text = format!("{lost}{file}, byte {at}: {reason}");
        let known = verdict.faults.iter().any(|fault| fault.text == text);
        if !known {
            verdict.fault(damage.first, text);
        }
    }
    signatures(&look, key, &mut verdict)?;
    if let Some(signed) = beside {
        if !signed.is_sound() {
            verdict.fault(u64::MAX, "the signature beside the log is not of its key".into());
        }
        judge(reader, &signed.head, "was signed", &mut verdict);
    }
    let own = acked(&look.state().ledger);
    for seen in own.iter().chain(against) {
        if judge(reader, &seen.head, &format!("was seen by {}", seen.by), &mut verdict) {
            witness(reader, seen, &mut verdict);
        }
    }
    let mine = |seen: &&Seen| heads::is_same_journal(&seen.head, &verdict.head);
    verdict.compared = against.iter().filter(mine).count() as u64;
    verdict.faults.sort_by_key(|fault| fault.sequence);
    Ok(verdict)
}

/// Checks an end that somebody holds; whether the journal has it.
fn judge(reader: &journal::Reader, head: &str, how: &str, verdict: &mut Verdict) -> bool {
    let last = reader.head().position.sequence;
    match heads::place(reader, head) {
        Place::Here => return true,
        // A damaged frame is named by itself.
        Place::Foreign | Place::Unreadable => {}
        Place::Beyond(sequence) => {
            let text = format!(
                "frames {} to {sequence} are cut off: the last {how}, and {last} is the end now",
                last + 1
            );
            verdict.fault(last + 1, text);
        }
        Place::Other(sequence) => {
            verdict.fault(sequence, format!("another frame {sequence} {how} than the log has"));
        }
    }
    false
}

fn witness(reader: &journal::Reader, seen: &Seen, verdict: &mut Verdict) {
    let Some(sequence) = heads::sequence(&seen.head) else { return };
    let is_newer = verdict.witnessed.as_ref().is_none_or(|(known, ..)| *known < sequence);
    if is_newer && let Ok(frame) = reader.frame(sequence) {
        verdict.witnessed = Some((sequence, frame.time, seen.by.clone()));
    }
}

/// Goes through the signed ends in the log, the newest first.
fn signatures(look: &Inspect, key: Option<&str>, verdict: &mut Verdict) -> Result<(), String> {
    let mut filter = AuditFilter {
        events: vec![Event::AuditSign.name().to_owned()],
        limit: AUDIT_ENTRIES_MAX,
        ..AuditFilter::default()
    };
    loop {
        let page = look.audit(&filter).map_err(|error| error.to_string())?;
        for one in &page.entries {
            let at = one.entry.sequence;
            let Ok(signed) = serde_json::from_str::<Signed>(&one.record.details) else {
                verdict.fault(at, format!("the signed end in frame {at} cannot be read"));
                continue;
            };
            if !signed.is_sound() {
                verdict.fault(at, format!("the signature in frame {at} is not of its key"));
            } else if key.is_some_and(|key| key != signed.key) {
                verdict.fault(at, format!("frame {at} is signed by another key, {}", signed.key));
            } else if judge(look.reader(), &signed.head, "was signed", verdict) {
                verdict.signed += 1;
                verdict.last_signed = verdict.last_signed.max(Some((at, one.time)));
            }
            if verdict.keys.last() != Some(&signed.key) {
                verdict.keys.push(signed.key);
            }
        }
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }
    verdict.keys.reverse();
    Ok(())
}
