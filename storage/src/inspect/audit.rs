//! The audit log: the journal, read by event, the newest first. Segments that cannot have what is
//! asked for are left out by their footers; of the others only the frames that are needed are read.

use crate::event::Event;
use crate::inspect::{AuditEntry, entry_in};
use crate::journal::{EntryRef, Frame, ReadError, Reader, SegmentView};
use crate::record::{EntryId, Level, Millis};
use crate::store::{actor_hash, level_key};

/// Entries of a page at the most.
pub const AUDIT_ENTRIES_MAX: usize = 1_000;

/// Which entries to show; `None` does not restrict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditFilter {
    /// Names of events, or what they begin with and a `*`; empty: all.
    pub events: Vec<String>,
    /// Only of this level or above.
    pub level: Option<Level>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only about this: a message id, a task id, an agent id.
    pub resource: Option<String>,
    /// Only at this time or later.
    pub since: Option<Millis>,
    /// Only before this time.
    pub until: Option<Millis>,
    /// Only older than this: [`AuditPage::next`] of the page before.
    pub before: Option<EntryId>,
    /// Entries at the most, up to [`AUDIT_ENTRIES_MAX`]; 0 means that.
    pub limit: usize,
}

/// A page of the audit log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditPage {
    /// The entries, the newest first.
    pub entries: Vec<AuditEntry>,
    /// Where to go on; `None`: this was the last page.
    pub next: Option<EntryId>,
    /// Frames that could not be read, and why; their entries are missing.
    pub damage: Vec<String>,
}

/// A page of the audit log, the newest entries first.
///
/// # Errors
/// When the index of a segment cannot be read.
pub fn audit(reader: &Reader, filter: &AuditFilter) -> Result<AuditPage, ReadError> {
    let limit = match filter.limit {
        0 => AUDIT_ENTRIES_MAX,
        some => some.min(AUDIT_ENTRIES_MAX),
    };
    let mut search = Search { reader, filter, limit, page: AuditPage::default(), frame: None };
    let codes = codes(&filter.events);
    for segment in reader.segments() {
        if !filter.may_have(&segment) {
            continue;
        }
        let done = match filter.found(&segment, &codes)? {
            Some(entries) => search.some(&entries),
            None => search.every(&segment),
        };
        if done {
            break;
        }
    }
    Ok(search.page)
}

/// The numbers of the events that are asked for.
fn codes(patterns: &[String]) -> Vec<u16> {
    let asked = |event: &&Event| {
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => event.name().starts_with(prefix),
            None => event.name() == pattern,
        })
    };
    Event::ALL.iter().filter(asked).map(|event| event.code()).collect()
}

impl AuditFilter {
    fn may_have(&self, segment: &SegmentView) -> bool {
        let (first, last) = segment.range();
        let (low, high) = segment.times();
        last >= first
            && self.before.is_none_or(|before| first <= before.sequence)
            && self.since.is_none_or(|since| high >= since)
            && self.until.is_none_or(|until| low < until)
    }

    /// What the indexes of a segment say, the newest first: the entries that have everything that
    /// is asked for and indexed. `None`: nothing is, so that all entries have to be looked at.
    fn found(
        &self,
        segment: &SegmentView,
        codes: &[u16],
    ) -> Result<Option<Vec<EntryRef>>, ReadError> {
        let mut lists = Vec::new();
        if let Some(resource) = &self.resource {
            lists.push(segment.by_resource(actor_hash(resource))?);
        }
        if !self.events.is_empty() {
            lists.push(segment.by_event(codes)?);
        }
        if let Some(level) = self.level.map(level_key).filter(|level| *level > 0) {
            lists.push(segment.by_level(level)?);
        }
        if let Some(actor) = &self.actor {
            lists.push(segment.by_actor(actor_hash(actor))?);
        }
        Ok(lists.into_iter().reduce(|one, other| both(&one, &other)))
    }

    fn matches(&self, one: &AuditEntry) -> bool {
        let record = &one.record;
        self.before.is_none_or(|before| one.entry < before)
            && self.level.is_none_or(|level| record.level >= level)
            && self.actor.as_deref().is_none_or(|actor| *record.actor == *actor)
            && self.resource.as_deref().is_none_or(|resource| *record.resource == *resource)
            && self.since.is_none_or(|since| one.time >= since)
            && self.until.is_none_or(|until| one.time < until)
    }
}

/// What two lists have in common; both are newest first.
fn both(one: &[EntryRef], other: &[EntryRef]) -> Vec<EntryRef> {
    let is_there = |at: &&EntryRef| other.binary_search_by(|here| at.cmp(&here)).is_ok();
    one.iter().filter(is_there).copied().collect()
}

/// A search while it lasts.
struct Search<'a> {
    reader: &'a Reader,
    filter: &'a AuditFilter,
    limit: usize,
    page: AuditPage,
    /// The frame that was read last: neighbours ask for the same one.
    frame: Option<Frame>,
}

impl Search<'_> {
    /// Entries named by an index, the newest first. `true`: the page is full.
    fn some(&mut self, entries: &[EntryRef]) -> bool {
        entries.iter().any(|at| self.load(at.sequence) && self.take(at.index))
    }

    /// All entries of a segment, the newest first. `true`: the page is full.
    fn every(&mut self, segment: &SegmentView) -> bool {
        let (first, last) = segment.range();
        let newest = self.filter.before.map_or(last, |before| last.min(before.sequence));
        (first..=newest).rev().any(|sequence| {
            let there = self.load(sequence);
            let count = self.frame.as_ref().map_or(0, |frame| frame.entries.len());
            let indexes = (0..u32::try_from(count).unwrap_or(u32::MAX)).rev();
            there && indexes.into_iter().any(|index| self.take(index))
        })
    }

    fn load(&mut self, sequence: u64) -> bool {
        if self.filter.before.is_some_and(|before| sequence > before.sequence) {
            return false;
        }
        if self.frame.as_ref().is_some_and(|frame| frame.position.sequence == sequence) {
            return true;
        }
        match self.reader.frame(sequence) {
            Ok(frame) => {
                self.frame = Some(frame);
                true
            }
            Err(error) => {
                self.page.damage.push(error.to_string());
                false
            }
        }
    }

    /// Takes an entry of the loaded frame if it matches. `true`: there is one more than fits.
    fn take(&mut self, index: u32) -> bool {
        let found = self.frame.as_ref().and_then(|frame| entry_in(frame, index));
        let Some(one) = found.filter(|one| self.filter.matches(one)) else { return false };
        if self.page.entries.len() == self.limit {
            self.page.next = self.page.entries.last().map(|last| last.entry);
            return true;
        }
        self.page.entries.push(one);
        false
    }
}
