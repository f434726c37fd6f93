//! Looking at a store from its journal alone: messages, the history of one, and the audit log. It
//! takes no lock, needs no sled and changes nothing, so that it works on a stopped or damaged
//! store and beside another process. The running store uses the same code through its reader.

mod audit;
mod backwards;
mod check;
mod found;
mod glance;
mod history;
mod missing;
mod summary;
mod touched;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::codec;
use crate::database::{self, OpenError, index_of, known_format};
use crate::fold::State;
use crate::journal::{self, Damage, ReadError, ReadOnly, Reader};
use crate::record::{EntryId, Millis, Record};
use crate::view::{Filter, Page, Row, SCAN_ROWS_MAX};

use backwards::Backwards;

pub use audit::{AUDIT_ENTRIES_MAX, AuditFilter, AuditPage, TEXT_ENTRIES_MAX, audit, start_of};
pub use check::{Checked, check};
pub use found::{entity, find};
pub use glance::Glance;
pub use history::{head_of, history, history_of};
pub use missing::{missing, told};
pub use summary::{ACTORS_MAX, AuditSummary, summary};
pub use touched::{TOUCHED_IDS_MAX, Touched, touched};

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Its place.
    pub entry: EntryId,
    /// The start of the writer that made it.
    pub epoch: u32,
    /// When, by the clock of whoever recorded it.
    pub time: Millis,
    /// The chain's hash after its frame.
    pub frame_hash: [u8; 32],
    /// Who did what to what, and the fact.
    pub record: Record,
}

/// A store as it was found. It is one look: what is recorded later is not seen.
pub struct Inspect {
    dir: PathBuf,
    journal: ReadOnly,
    state: OnceLock<State>,
}

impl Inspect {
    /// Looks at the store in a directory.
    ///
    /// # Errors
    /// When its journal cannot be listed, or a newer program wrote it. Damage is no error.
    pub fn open(dir: &Path) -> Result<Self, journal::OpenError> {
        if let Err(OpenError::NewerFormat { source, .. }) = known_format(dir) {
            return Err(source);
        }
        let journal = ReadOnly::open(&dir.join("journal"), index_of)?;
        Ok(Self { dir: dir.into(), journal, state: OnceLock::new() })
    }

    /// What is damaged in the journal; what it held is missing from every answer.
    pub fn damage(&self) -> Vec<Damage> {
        let mut damage = self.journal.damage().to_vec();
        for one in missing(self.journal.reader()) {
            missing::add(&mut damage, one);
        }
        damage
    }

    /// The store was stopped cleanly. A running one is not.
    pub fn is_clean(&self) -> bool {
        self.journal.is_clean()
    }

    /// The journal's reading side.
    pub fn reader(&self) -> &Reader {
        self.journal.reader()
    }

    /// The state at the newest frame: from a checkpoint that fits and the frames after it, or from
    /// all frames. The first call reads them.
    pub fn state(&self) -> &State {
        self.state.get_or_init(|| database::fold(&self.dir.join("checkpoints"), self.reader()))
    }

    /// The messages that a filter asks for: see [`list`].
    pub fn list(&self, filter: &Filter) -> Page {
        list(self.reader(), filter)
    }

    /// Shows every message that a filter asks for, the newest first, in one pass over the journal:
    /// the pages of [`Inspect::list`] each begin anew at its end.
    pub fn each(&self, filter: &Filter, show: &mut dyn FnMut(&Row)) {
        let after = filter.after;
        Backwards::new(self.reader())
            .filter(|row| after.is_none_or(|after| row.entry < after) && filter.matches(row))
            .for_each(|row| show(&row));
    }

    /// Every message with this id: see [`find`].
    pub fn get(&self, message_id: &str) -> Vec<Row> {
        find(self.reader(), message_id)
    }

    /// Everything that was recorded about a message id, the oldest first: its acceptance, every
    /// attempt and every change.
    ///
    /// # Errors
    /// When the journal cannot be read; damaged frames are left out.
    pub fn history(&self, message_id: &str) -> Result<Vec<AuditEntry>, ReadError> {
        let mut entries = Vec::new();
        for row in self.get(message_id) {
            entries.extend(history_of(self.reader(), &row)?);
        }
        entries.extend(history::notes(self.reader(), message_id));
        entries.sort_by_key(|one| one.entry);
        entries.dedup_by_key(|one| one.entry);
        Ok(entries)
    }

    /// The audit log, the newest entries first.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, ReadError> {
        let mut page = audit(self.reader(), filter)?;
        self.add_damage(&mut page.damage);
        Ok(page)
    }

    /// How many entries a filter asks for, by event, level and actor.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn summary(&self, filter: &AuditFilter) -> Result<AuditSummary, ReadError> {
        let mut summary = summary(self.reader(), filter)?;
        self.add_damage(&mut summary.damage);
        Ok(summary)
    }

    /// Shows every entry that a filter asks for, the oldest first, until `show` says `false`. Gives
    /// back what is damaged.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn each_entry(
        &self,
        filter: &AuditFilter,
        show: &mut dyn FnMut(&AuditEntry) -> bool,
    ) -> Result<Vec<String>, ReadError> {
        self.each_entry_watched(filter, show, &mut |_| {})
    }

    /// The same for somebody who waits: `watch` is told each frame up to which it is done.
    ///
    /// # Errors
    /// As [`Inspect::each_entry`].
    pub fn each_entry_watched(
        &self,
        filter: &AuditFilter,
        show: &mut dyn FnMut(&AuditEntry) -> bool,
        watch: &mut dyn FnMut(u64),
    ) -> Result<Vec<String>, ReadError> {
        let mut damage = audit::oldest_first(self.reader(), filter, show, watch)?;
        self.add_damage(&mut damage);
        Ok(damage)
    }

    /// Adds what this look found damaged and no index tells.
    fn add_damage(&self, told: &mut Vec<String>) {
        for sentence in self.journal.damage().iter().map(audit::sentence) {
            if !told.contains(&sentence) {
                told.push(sentence);
            }
        }
    }
}

/// The messages that a filter asks for, the newest first. It reads the journal backwards, as far as
/// the page needs, and looks at as many messages as a page of rows does: see [`Page::next`].
pub fn list(reader: &Reader, filter: &Filter) -> Page {
    list_within(reader, filter, SCAN_ROWS_MAX)
}

fn list_within(reader: &Reader, filter: &Filter, looks: usize) -> Page {
    let (after, mut page) = (filter.after, Page::default());
    let older = Backwards::new(reader).filter(|row| after.is_none_or(|after| row.entry < after));
    for (looked, row) in older.enumerate() {
        if looked == looks || page.rows.len() == filter.rows_max() {
            return page;
        }
        page.next = Some(row.entry);
        page.rows.extend(Some(row).filter(|row| filter.matches(row)));
    }
    page.next = None;
    page
}

/// The state that the journal alone gives up to a frame, without any checkpoint: what a running
/// store's digest is compared with. Damaged frames are left out.
pub fn replay(reader: &Reader, through: u64) -> State {
    let mut state = State::new(reader.identity().key);
    let frames = reader.frames(1).flatten();
    for frame in frames.take_while(|frame| frame.position.sequence <= through) {
        crate::database::apply(&mut state, &frame);
    }
    state
}

/// An entry of a frame, decoded; `None` when it is not there or is no record.
pub(crate) fn entry_in(frame: &journal::Frame, index: u32) -> Option<AuditEntry> {
    let one = frame.entries.get(index as usize)?;
    Some(AuditEntry {
        entry: EntryId { sequence: frame.position.sequence, index },
        epoch: frame.position.epoch,
        time: frame.time,
        frame_hash: frame.hash,
        record: codec::decode(&one.head).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::event::Event;
    use crate::record::{Direction, MessageHead, Reason, Status};
    use crate::transaction::{Act, Body};

    fn head(number: u64) -> MessageHead {
        MessageHead {
            direction: Direction::Outbound,
            message_id: format!("m-{number}"),
            message_type: if number == 3 { "rare" } else { "usual" }.into(),
            namespace: "default".into(),
            peer: "server".into(),
            destination: "server".into(),
            sender: "loki".into(),
            lane: String::new(),
            priority: 2,
            created_at: number,
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
            due_at: 0,
        }
    }

    #[test]
    fn a_page_that_finds_nothing_ends_and_says_where_to_go_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let opened = Database::open(dir.path(), Box::new(|| 1_000), Box::new(|_| {}));
        let (database, _) = opened.expect("opens");
        let accepted = database.store().commit(|transaction| -> Result<(), ()> {
            for number in 0..40 {
                let act = Act::new(Event::MessageQueued, "loki", "default", "m");
                transaction.accept(act, head(number), Body::new(b"body"));
            }
            Ok(())
        });
        accepted.wait().expect("durable").expect("decided");
        let mut filter = Filter { message_type: Some("rare".into()), ..Filter::default() };
        let (mut pages, mut found) = (0, Vec::new());
        loop {
            let page = list_within(database.reader(), &filter, 10);
            pages += 1;
            found.extend(page.rows.into_iter().map(|row| row.message_id));
            filter.after = page.next;
            if filter.after.is_none() {
                break;
            }
        }
        assert_eq!((pages, found), (4, vec!["m-3".to_owned()]));
    }
}
