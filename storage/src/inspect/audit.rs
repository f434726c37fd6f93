//! The audit log: the journal, read by event, the newest first. Segments that cannot have what is
//! asked for are left out by their footers; of the others only the frames that are needed are read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::event::Event;
use crate::inspect::{AuditEntry, Glance, entry_in};
use crate::journal::{Damage, EntryRef, Frame, ReadError, Reader, SegmentView};
use crate::record::{EntryId, Level, Millis};
use crate::store::{actor_hash, level_key};
use crate::trim;

/// Entries of a page at the most.
pub const AUDIT_ENTRIES_MAX: usize = 1_000;

/// Entries that a search for a text reads for one page, rounded up to a whole segment: about half a
/// second of work.
pub const TEXT_ENTRIES_MAX: usize = 1_000_000;

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
    /// Only with this text in what is known, in the resource or in the actor, in capitals or not.
    pub text: Option<String>,
    /// Entries that are read for the text and one page, rounded up to a whole segment; 0 means
    /// [`TEXT_ENTRIES_MAX`].
    pub reads: usize,
    /// So many of them are left out first.
    pub skip: usize,
    /// Entries at the most, up to [`AUDIT_ENTRIES_MAX`]; 0 means that.
    pub limit: usize,
}

/// A page of the audit log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditPage {
    /// The entries, the newest first.
    pub entries: Vec<AuditEntry>,
    /// Where to go on; `None`: this was the last page. A search for a text also ends a page that
    /// is not full when it has read enough for one answer.
    pub next: Option<EntryId>,
    /// What each start of the program that made these entries told of itself, as JSON.
    pub starts: BTreeMap<u32, String>,
    /// What is damaged where this page was looked for, a sentence each; its entries are missing.
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
    let (skip, page) = (filter.skip, AuditPage::default());
    let mut search = Search { reader, filter, limit, skip, page, frame: None, read: 0 };
    let codes = codes(filter);
    for segment in reader.segments() {
        if !filter.may_have(&segment) {
            continue;
        }
        search.page.damage.extend(damage_of(reader, &segment)?);
        let done = match filter.found(&segment, &codes)? {
            Some(entries) => search.some(&entries),
            None if filter.text.is_some() => search.text(&segment),
            None => search.every(&segment),
        };
        if done {
            break;
        }
    }
    let mut page = search.page;
    for epoch in page.entries.iter().map(|one| one.epoch) {
        if let Entry::Vacant(place) = page.starts.entry(epoch) {
            place.insert(start_of(reader, epoch));
        }
    }
    Ok(page)
}

/// What a start of the program told of itself in the first frame of its epoch, as JSON: its host,
/// process and version, and what it found. Empty when that cannot be read.
pub fn start_of(reader: &Reader, epoch: u32) -> String {
    let segments = reader.segments();
    let first = segments.iter().rev().find(|segment| segment.epoch() == epoch);
    let frame = first.and_then(|segment| segment.frames().next()?.ok());
    let indexes = 0..frame.as_ref().map_or(0, |frame| frame.entries.len());
    let entry = |index| entry_in(frame.as_ref()?, u32::try_from(index).ok()?);
    let opened = indexes.filter_map(entry).find(|one| one.record.event == Event::StoreOpen);
    opened.map_or_else(String::new, |one| one.record.details)
}

/// Shows the entries that a filter asks for, the oldest first, until `show` says `false`, and tells
/// `watch` up to which frame that is done. Gives back what is damaged.
pub(super) fn oldest_first(
    reader: &Reader,
    filter: &AuditFilter,
    show: &mut dyn FnMut(&AuditEntry) -> bool,
    watch: &mut dyn FnMut(u64),
) -> Result<Vec<String>, ReadError> {
    let (codes, mut damage) = (codes(filter), Vec::new());
    for segment in reader.segments().iter().rev().filter(|one| filter.may_have(one)) {
        damage.extend(damage_of(reader, segment)?);
        if filter.found(segment, &codes)?.is_some_and(|entries| entries.is_empty()) {
            watch(segment.range().1);
            continue;
        }
        for frame in segment.frames() {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    damage.push(error.to_string());
                    continue;
                }
            };
            let indexes = 0..u32::try_from(frame.entries.len()).unwrap_or(u32::MAX);
            let entries = indexes.filter_map(|index| entry_in(&frame, index));
            let mut shown = entries.filter(|one| filter.shows(&one.glance()));
            if !shown.all(|one| show(&one)) {
                return Ok(damage);
            }
            watch(frame.position.sequence);
        }
    }
    Ok(damage)
}

/// What is damaged of a segment or missing before it, for people; not what was dropped.
pub(super) fn damage_of(reader: &Reader, segment: &SegmentView) -> Result<Vec<String>, ReadError> {
    let is_oldest = segment.range().0 == reader.first_sequence();
    let lost = if is_oldest { trim::damage(reader)? } else { None };
    Ok(lost.iter().chain(&segment.damage()?).map(sentence).collect())
}

/// What is damaged, for people.
pub(super) fn sentence(damage: &Damage) -> String {
    let name = damage.segment.file_name().unwrap_or_default().to_string_lossy();
    let lost = match (damage.first, damage.last) {
        (first, last) if first > last => String::new(),
        (first, last) if first == last => format!("; frame {first} is missing"),
        (first, last) => format!("; frames {first} to {last} are missing"),
    };
    format!("{name} at byte {}: {}{lost}", damage.offset, damage.reason)
}

/// The numbers of the events that are asked for.
fn codes(filter: &AuditFilter) -> Vec<u16> {
    let asked = Event::ALL.iter().filter(|event| filter.names(**event));
    asked.map(|event| event.code()).collect()
}

impl AuditFilter {
    pub(super) fn may_have(&self, segment: &SegmentView) -> bool {
        let (first, last) = segment.range();
        let (low, high) = segment.times();
        last >= first
            && self.before.is_none_or(|before| EntryId { sequence: first, index: 0 } < before)
            && self.since.is_none_or(|since| high >= since)
            && self.until.is_none_or(|until| low < until)
    }

    /// What the indexes of a segment say, the newest first: the entries that have everything that
    /// is asked for and indexed. `None`: nothing is, so that all entries have to be looked at.
    pub(super) fn found(
        &self,
        segment: &SegmentView,
        codes: &[u16],
    ) -> Result<Option<Vec<EntryRef>>, ReadError> {
        let mut lists = Vec::new();
        // A text is looked for in every entry.
        if self.text.is_some() {
            return Ok(None);
        }
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
    /// How many are still to be left out.
    skip: usize,
    page: AuditPage,
    /// Entries of segments that were read for a text.
    read: usize,
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

    /// Entries of a segment with a text in them, the newest first. `true`: the page is full, or
    /// enough was read.
    fn text(&mut self, segment: &SegmentView) -> bool {
        let mut found = Vec::new();
        let filter = self.filter;
        let unread = segment.heads(|at, time, head| {
            self.read += 1;
            if Glance::read(at, time, head).is_some_and(|one| filter.shows(&one)) {
                found.push(at);
            }
        });
        self.page.damage.extend(unread.iter().map(ToString::to_string));
        found.reverse();
        if self.some(&found) {
            return true;
        }
        let most = if filter.reads == 0 { TEXT_ENTRIES_MAX } else { filter.reads };
        let is_enough = self.read >= most && self.skip == 0;
        if is_enough {
            self.page.next = Some(EntryId { sequence: segment.range().0, index: 0 });
        }
        is_enough
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
            // What is known to be missing was told with its segment.
            Err(ReadError::NoFrame { .. }) => false,
            Err(error) => {
                self.page.damage.push(error.to_string());
                false
            }
        }
    }

    /// Takes an entry of the loaded frame if it matches. `true`: there is one more than fits.
    fn take(&mut self, index: u32) -> bool {
        let found = self.frame.as_ref().and_then(|frame| entry_in(frame, index));
        let filter = self.filter;
        let shown = found
            .filter(|one| filter.before.is_none_or(|before| one.entry < before))
            .filter(|one| filter.shows(&one.glance()));
        let Some(one) = shown else { return false };
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.page.entries.len() == self.limit {
            self.page.next = self.page.entries.last().map(|last| last.entry);
            return true;
        }
        self.page.entries.push(one);
        false
    }
}
