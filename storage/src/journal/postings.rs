//! Finding entries by actor, level and resource: in a footer, or in the index of a segment that has
//! none. Reads no frame, so a resource that shares its short hash is for the caller to leave out.

use super::catalog::{Catalog, Sealed, Segment, pages_of};
use super::footer::{self, Key, Section};
use super::index::{IdRow, ResourceRow, entry_at, short};
use super::{EntryRef, ReadError};

impl Catalog {
    /// The hashes of the actors in a segment, each once.
    pub(super) fn actors(&self, segment: &Segment) -> Result<Vec<u64>, ReadError> {
        self.ask(
            segment,
            |sealed| {
                let mut actors = Vec::new();
                self.list(segment, sealed, Section::Actors, |actor: u64| {
                    actors.push(actor);
                    false
                })?;
                Ok(actors)
            },
            |index| index.actors.keys().copied().collect(),
        )
    }

    /// The entries that an actor caused, unsorted.
    pub(super) fn by_actor(
        &self,
        segment: &Segment,
        actor: u64,
    ) -> Result<Vec<EntryRef>, ReadError> {
        self.ask(
            segment,
            |sealed| self.list(segment, sealed, Section::Actors, |one: u64| one == actor),
            |index| index.actors.get(&actor).cloned().unwrap_or_default(),
        )
    }

    /// The entries of a level or above, unsorted; level 0 is not indexed.
    pub(super) fn by_level(
        &self,
        segment: &Segment,
        level: u8,
    ) -> Result<Vec<EntryRef>, ReadError> {
        let least = u16::from(level);
        self.ask(
            segment,
            |sealed| self.list(segment, sealed, Section::Levels, |one: u16| one >= least),
            |index| index.levels.range(least..).flat_map(|(_, list)| list).copied().collect(),
        )
    }

    /// The entries about a resource, or about one of the same short hash, unsorted.
    pub(super) fn by_resource(
        &self,
        segment: &Segment,
        resource: u64,
    ) -> Result<Vec<EntryRef>, ReadError> {
        let resource = short(resource);
        self.ask(
            segment,
            |sealed| {
                has_postings(segment, sealed)?;
                let rows = self.resources(segment, sealed, resource)?;
                if rows.is_empty() {
                    return Ok(Vec::new());
                }
                let frames = self.rows(segment)?;
                let damaged = || segment.damaged(sealed.footer_offset);
                rows.iter().map(|row| entry_at(&frames, row).ok_or_else(damaged)).collect()
            },
            |index| index.about(resource),
        )
    }

    /// The fingerprints that the index has for some frames.
    pub(super) fn ids(
        &self,
        segment: &Segment,
        first: u64,
        last: u64,
    ) -> Result<Vec<u128>, ReadError> {
        let wanted = |row: &IdRow| (first..=last).contains(&row.at.sequence).then_some(row.id);
        self.ask(
            segment,
            |sealed| {
                let mut found = Vec::new();
                for number in 0..pages_of(sealed, Section::Ids) {
                    found.extend(self.ids_page(segment, sealed, number)?.iter().filter_map(wanted));
                }
                Ok(found)
            },
            |index| index.ids.iter().filter_map(wanted).collect(),
        )
    }

    /// A list of a section of postings.
    fn list<K: Key>(
        &self,
        segment: &Segment,
        sealed: &Sealed,
        section: Section,
        wanted: impl FnMut(K) -> bool,
    ) -> Result<Vec<EntryRef>, ReadError> {
        has_postings(segment, sealed)?;
        let bytes = self.section(segment, sealed, section)?;
        let keys = sealed.footer.section(section).items;
        footer::decode_postings(&bytes, keys, wanted)
            .ok_or_else(|| segment.damaged(sealed.footer_offset))
    }

    /// A binary search over the pages of the resources section.
    fn resources(
        &self,
        segment: &Segment,
        sealed: &Sealed,
        resource: u32,
    ) -> Result<Vec<ResourceRow>, ReadError> {
        let pages = pages_of(sealed, Section::Resources);
        let page = |number| {
            let place = (Section::Resources, number);
            self.page(segment, sealed, place, footer::decode_resource_page)
        };
        let (mut low, mut high) = (0, pages);
        while low < high {
            let middle = low + (high - low) / 2;
            if page(middle)?.last().is_some_and(|row| row.resource < resource) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        for number in low..pages {
            let rows = page(number)?;
            found.extend(rows.iter().filter(|row| row.resource == resource));
            if rows.last().is_some_and(|row| row.resource > resource) {
                break;
            }
        }
        Ok(found)
    }
}

/// An old footer has none: it is then rebuilt in memory, like a damaged one.
fn has_postings(segment: &Segment, sealed: &Sealed) -> Result<(), ReadError> {
    if sealed.footer.is_old() { Err(segment.damaged(sealed.footer_offset)) } else { Ok(()) }
}
