//! What is lost of segments that go, as far as it is known: by their footers, and by what the audit
//! log tells of damage. It reads only the segments that it calls damaged.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::opening::{name, quote, reason};
use crate::event::Event;
use crate::inspect::entry_in;
use crate::journal::{DamageReason, EntryRef, Frame, ReadError, Reader, SegmentView};
use crate::record::Level;
use crate::transaction::Act;
use crate::view::Row;

/// Entries about damaged files that are read, the newest ones, and how many entries at once: there
/// may be one for each message as well.
const TOLD_MAX: usize = 10_000;

/// A member that only details about frames have.
const FRAMES: &str = r#""offset":"#;

/// Messages that are named at once, in one frame.
pub(super) const UNNAMED: usize = 256;

/// Files that one entry names; the others are counted.
const NAMED_MAX: usize = 20;

/// The segments that have damaged bytes, by the names of their files.
pub(super) struct Damaged(BTreeSet<String>);

impl Damaged {
    /// Those that are known.
    pub(super) fn read(reader: &Reader) -> Result<Self, ReadError> {
        let mut names = BTreeSet::new();
        let has_bytes = |reason: DamageReason| reason != DamageReason::Missing;
        let recorded = reader.damage()?.into_iter().filter(|one| has_bytes(one.reason));
        names.extend(recorded.map(|one| name(&one.segment)));
        // A segment after a gap is whole.
        let missing = format!("{{{},", reason(DamageReason::Missing));
        let (mut told, mut before): (_, Option<EntryRef>) = (0, None);
        let mut newest: Option<Frame> = None;
        while told < TOLD_MAX {
            let some = reader.by_event(&[Event::StoreDamage.code()], before, TOLD_MAX)?;
            before = some.last().copied();
            for at in &some {
                let is_it = |frame: &Frame| frame.position.sequence == at.sequence;
                // Many entries lie in one frame.
                if !newest.as_ref().is_some_and(is_it) {
                    newest = reader.frame(at.sequence).ok();
                }
                let entry = newest.as_ref().and_then(|frame| entry_in(frame, at.index));
                let Some(entry) = entry else { continue };
                let details = &entry.record.details;
                // Those about messages name no file.
                if details.contains(FRAMES) && !details.starts_with(&missing) {
                    names.insert(entry.record.resource.to_string());
                }
                told += usize::from(details.contains(FRAMES));
            }
            if some.len() < TOLD_MAX {
                break;
            }
        }
        Ok(Self(names))
    }

    /// Whether a segment is one of them.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.contains(&name(path))
    }
}

/// The entry about a message that is not finished by its row, which goes, and that the fold does
/// not know.
pub(super) fn unended(row: &Row) -> Act {
    let (entry, status) = (row.entry, row.status.as_str());
    let what = "what became of this message is lost, and what is left of it is dropped";
    let details =
        format!(r#"{{"reason":"{what}","accepted_in":"{entry}","last_status":"{status}"}}"#);
    let act = Act::new(Event::StoreDamage, "store", &row.namespace, &row.message_id);
    act.level(Level::Error).details(details)
}

/// What is lost of the segments that go.
#[derive(Default)]
pub(super) struct Lost {
    /// Frames whose bytes do not read back.
    damaged: u64,
    /// Frames that are not there.
    missing: u64,
    /// Messages that have ended, or not, nobody knows: what became of them is lost.
    pub(super) messages: u64,
    /// The files with the damaged ones, which are kept.
    files: Vec<String>,
}

impl Lost {
    /// That of segments, all but the last of which go, oldest first.
    pub(super) fn of(segments: &[SegmentView], damaged: &Damaged) -> Result<Self, ReadError> {
        let mut lost = Self::default();
        for pair in segments.windows(2) {
            let [segment, next] = pair else { continue };
            let ((first, mut end), next) = (segment.range(), next.range().0);
            if damaged.has(segment.path()) {
                let good = segment.frames().flatten().count() as u64;
                end = segment.damage()?.iter().fold(end, |end, one| end.max(one.last));
                lost.damaged += (end + 1).saturating_sub(first).saturating_sub(good);
                lost.files.push(name(segment.path()));
            }
            lost.missing += next.saturating_sub(end + 1);
        }
        Ok(lost)
    }

    /// Members of the details of an entry; empty when nothing is lost.
    pub(super) fn members(&self) -> String {
        let mut members = String::new();
        let counts = [
            ("frames_damaged", self.damaged),
            ("frames_missing", self.missing),
            ("messages_unended", self.messages),
            ("files_kept", self.files.len() as u64),
        ];
        for (member, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            // Writing to a string does not fail.
            let _ = write!(members, r#","{member}":{count}"#);
        }
        if !self.files.is_empty() {
            let names = self.files.iter().take(NAMED_MAX);
            let names: Vec<String> =
                names.map(|name| quote(&format!("journal/quarantine/{name}"))).collect();
            let _ = write!(members, r#","kept":[{}]"#, names.join(","));
        }
        members
    }

    /// Whether something is.
    pub(super) fn is_some(&self) -> bool {
        !self.members().is_empty()
    }
}
