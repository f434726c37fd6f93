//! Looking message ids up: which segments are asked, and how one answers.

use super::bloom::Bloom;
use super::catalog::{Catalog, Sealed, Segment, State, pages_of};
use super::footer::{self, Section};
use super::index::IdRow;
use super::slices::{GROUP, Group};
use super::zone::Zone;
use super::{EntryRef, ReadError, Wanted};
use std::sync::Arc;

impl Segment {
    /// What look-ups see first of a segment to which nothing is added any more.
    fn zone(&self) -> Zone {
        let (packed, times) = match &*self.state.read() {
            State::Open(_, index) => {
                let times = footer::times(&self.header, index);
                (index.id_times.pack(times), times)
            }
            State::Sealed(sealed) => {
                (sealed.footer.section(Section::Filter).items, sealed.footer.times)
            }
        };
        Zone::unpack(packed, times)
    }
}

impl Catalog {
    /// The entries about an id that a segment accepted, oldest first.
    pub(super) fn find_accepted(&self, wanted: &Wanted) -> Result<Vec<EntryRef>, ReadError> {
        for segment in self.candidates(wanted)? {
            let mut found = self.find(&segment, wanted.id)?;
            if found.is_empty() {
                continue;
            }
            // What became of it may stand in any later one.
            let mut after = segment.header.first_sequence;
            while let Some(later) = self.following(after) {
                found.extend(self.find(&later, wanted.id)?);
                after = later.header.first_sequence;
            }
            return Ok(found);
        }
        Ok(Vec::new())
    }

    /// The segments that may have accepted an id that was made at this time, or one that does not
    /// tell its time, oldest first.
    pub(super) fn accepting(&self, made_at: Option<u64>) -> Vec<Arc<Segment>> {
        self.note_zones();
        self.zoned(&Wanted { id: 0, made_at, since: 0 }, 0)
    }

    /// The segments after a number whose zones say so.
    fn zoned(&self, wanted: &Wanted, after: u64) -> Vec<Arc<Segment>> {
        let segments = self.segments.read();
        let from = segments.list.partition_point(|one| one.header.number <= after);
        let zones = segments.zones.iter().map(|zone| zone.may_accept(wanted));
        let may_accept = zones.chain(std::iter::repeat(true));
        let both = segments.list.iter().zip(may_accept).skip(from);
        both.filter(|(_, may_accept)| *may_accept).map(|(one, _)| Arc::clone(one)).collect()
    }

    /// The segments that may have accepted an id, oldest first.
    fn candidates(&self, wanted: &Wanted) -> Result<Vec<Arc<Segment>>, ReadError> {
        self.note_zones();
        let (mut candidates, after) = match wanted.made_at {
            Some(_) => (Vec::new(), 0),
            None => self.grouped(wanted)?,
        };
        candidates.extend(self.zoned(wanted, after));
        Ok(candidates)
    }

    /// Notes the zones of segments to which nothing is added any more.
    fn note_zones(&self) {
        let is_news = {
            let segments = self.segments.read();
            segments.zones.len() + 1 < segments.list.len()
        };
        if is_news {
            let mut segments = self.segments.write();
            let from = segments.zones.len();
            let last = segments.list.len().saturating_sub(1);
            let new: Vec<Zone> = segments.list[from..last].iter().map(|one| one.zone()).collect();
            segments.zones.extend(new);
        }
    }

    /// What the groups of filters say: the segments that may have accepted an id, and the number of
    /// the last segment that is in a group.
    fn grouped(&self, wanted: &Wanted) -> Result<(Vec<Arc<Segment>>, u64), ReadError> {
        self.group(wanted)?;
        let groups = self.groups.read();
        let segments = self.segments.read();
        let numbers = groups.iter().flat_map(|group| group.may_contain(wanted.id));
        let there = numbers.filter_map(|number| {
            // It may have been dropped since.
            let place =
                segments.list.binary_search_by_key(&number, |one| one.header.number).ok()?;
            let zone = segments.zones.get(place)?;
            zone.is_within(wanted).then(|| Arc::clone(&segments.list[place]))
        });
        Ok((there.collect(), groups.last().map_or(0, |group| group.last())))
    }

    /// Makes groups of the segments that are in none, do not change any more and are not too old to
    /// count, when there are enough; and lets those go whose segments were dropped or are too old.
    fn group(&self, wanted: &Wanted) -> Result<(), ReadError> {
        loop {
            let after = self.groups.read().last().map_or(0, |group| group.last());
            let (oldest, news) = {
                let segments = self.segments.read();
                let young = segments.zones.partition_point(|zone| !zone.is_within(wanted));
                let known = &segments.list[..segments.zones.len()];
                let fresh = known.partition_point(|one| one.header.number <= after);
                let news: Vec<Arc<Segment>> =
                    known.iter().skip(fresh.max(young)).take(GROUP).cloned().collect();
                (known.get(young).map_or(u64::MAX, |one| one.header.number), news)
            };
            if news.len() < GROUP {
                return Ok(());
            }
            let mut filters = Vec::with_capacity(GROUP);
            for segment in &news {
                filters.push((segment.header.number, self.filter(segment)?));
            }
            let group = Arc::new(Group::new(&filters));
            let mut groups = self.groups.write();
            groups.retain(|one| one.last() >= oldest);
            groups.push(group);
        }
    }

    /// The filter of a segment; that of one whose footer is damaged is made from its frames.
    fn filter(&self, segment: &Segment) -> Result<Bloom, ReadError> {
        self.ask(
            segment,
            |sealed| self.section(segment, sealed, Section::Filter).map(Bloom::from_bytes),
            |index| {
                let mut ids = index.ids.clone();
                ids.sort_unstable();
                Bloom::new(&ids)
            },
        )
    }

    /// Whether an id may be in a segment; a wrong "yes" is rare, a "no" is right.
    pub(super) fn may_contain(&self, segment: &Segment, id: u128) -> Result<bool, ReadError> {
        self.ask(
            segment,
            |sealed| {
                if let Some(filter) = segment.filter.get() {
                    return Ok(filter.may_contain(id));
                }
                let bytes = self.section(segment, sealed, Section::Filter)?;
                Ok(segment.filter.get_or_init(|| Bloom::from_bytes(bytes)).may_contain(id))
            },
            |index| !index.find(id).is_empty(),
        )
    }

    /// The entries about an id, oldest first.
    pub(super) fn find(&self, segment: &Segment, id: u128) -> Result<Vec<EntryRef>, ReadError> {
        if !self.may_contain(segment, id)? {
            return Ok(Vec::new());
        }
        self.ask(segment, |sealed| self.find_sealed(segment, sealed, id), |index| index.find(id))
    }

    /// A binary search over the pages of the ids section, each checked as it is read.
    fn find_sealed(
        &self,
        segment: &Segment,
        sealed: &Sealed,
        id: u128,
    ) -> Result<Vec<EntryRef>, ReadError> {
        let pages = pages_of(sealed, Section::Ids);
        let (mut low, mut high) = (0, pages);
        while low < high {
            let middle = low + (high - low) / 2;
            let rows = self.ids_page(segment, sealed, middle)?;
            if rows.last().is_some_and(|row| row.id < id) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        for number in low..pages {
            let rows = self.ids_page(segment, sealed, number)?;
            found.extend(rows.iter().filter(|row| row.id == id).map(|row| row.at));
            if rows.last().is_some_and(|row| row.id > id) {
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn ids_page(
        &self,
        segment: &Segment,
        sealed: &Sealed,
        number: u32,
    ) -> Result<Vec<IdRow>, ReadError> {
        self.page(segment, sealed, (Section::Ids, number), footer::decode_id_page)
    }
}
