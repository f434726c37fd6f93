//! What opening and reading found damaged, beside what the footers record: bytes can rot while a
//! program runs. It repairs nothing.

use super::catalog::Segment;
use super::{Damage, DamageReason, ReadError, Reader};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::path::Path;

/// Places that are kept: a disk that dies would fill the memory with them.
const FOUND_MAX: usize = 1_000;

/// The error of a disk that cannot read a block.
const EIO: i32 = 5;

/// The places found so far.
#[derive(Default)]
pub(super) struct Found {
    places: Mutex<Vec<Damage>>,
    /// What is wrong with the beginning of the journal, and its first frame when that was asked.
    beginning: Mutex<Option<(u64, Option<Damage>)>>,
}

impl Found {
    /// Those that opening found.
    pub(super) fn of(damage: &[Damage]) -> Self {
        let found = Self::default();
        damage.iter().cloned().for_each(|one| found.add(one));
        found
    }

    /// What an error says of a segment that is being read; not every error is damage.
    pub(super) fn note(&self, segment: &Segment, error: &ReadError) {
        let (offset, reason, (first, last)) = match error {
            // Of a footer no frame is lost: it is rebuilt from them.
            ReadError::Damaged { offset, sequence: 0, reason, .. } => (*offset, *reason, (1, 0)),
            ReadError::Damaged { offset, sequence, reason, .. } => {
                (*offset, *reason, (*sequence, *sequence))
            }
            ReadError::Io { source, .. }
                if source.kind() == ErrorKind::NotFound || source.raw_os_error() == Some(EIO) =>
            {
                (0, DamageReason::Unreadable, segment.range())
            }
            _ => return,
        };
        self.add(Damage { segment: segment.path.clone(), offset, len: 0, first, last, reason });
    }

    /// Adds a place, unless it is known.
    fn add(&self, damage: Damage) {
        let mut found = self.places.lock();
        if found.len() < FOUND_MAX && !found.iter().any(|known| known.covers(&damage)) {
            found.push(damage);
        }
    }

    /// What is wrong with where the journal begins: looked for once for each first frame.
    pub(super) fn beginning<E>(
        &self,
        first: u64,
        look: impl FnOnce() -> Result<Option<Damage>, E>,
    ) -> Result<Option<Damage>, E> {
        let mut beginning = self.beginning.lock();
        if let Some((_, known)) = beginning.as_ref().filter(|(of, _)| *of == first) {
            return Ok(known.clone());
        }
        let found = look()?;
        *beginning = Some((first, found.clone()));
        Ok(found)
    }

    /// Forgets a segment that was dropped.
    pub(super) fn forget(&self, segment: &Path) {
        self.places.lock().retain(|one| one.segment != segment);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Damage> {
        self.places.lock().clone()
    }
}

impl Reader {
    /// What is wrong with where the journal begins, if `look` says so; it is asked once for each
    /// beginning.
    pub(crate) fn beginning<E>(
        &self,
        look: impl FnOnce() -> Result<Option<Damage>, E>,
    ) -> Result<Option<Damage>, E> {
        self.catalog.found.beginning(self.first_sequence(), look)
    }
}
