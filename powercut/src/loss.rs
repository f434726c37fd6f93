//! What becomes of that which was not synced: chance decides, or a rule that a test gives.

use std::ffi::OsStr;
use std::path::Path;

use crate::Chance;
use crate::content::Change;

/// A change that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced<'a> {
    /// So many bytes were written from an offset on.
    Written(u64, usize),
    /// A file got another length.
    Length(u64),
    /// A file or folder was made.
    Made(&'a OsStr),
    /// It was removed.
    Removed(&'a OsStr),
    /// It was renamed, from and to.
    Renamed(&'a OsStr, &'a OsStr),
}

/// Decides what of the changes of one file or folder reached the disk.
pub(crate) trait Loss {
    /// Whether each of the names of a folder did.
    fn names(&mut self, path: &Path, changes: &[Unsynced<'_>]) -> Vec<bool>;

    /// What of the bytes of a file did.
    fn bytes(&mut self, path: &Path, changes: &[Change]) -> Vec<Change>;
}

/// Of the names in a folder a part from the beginning, as file systems write them in order; of the
/// bytes of a file nothing, everything, or any of it, torn.
impl Loss for Chance {
    fn names(&mut self, _: &Path, changes: &[Unsynced<'_>]) -> Vec<bool> {
        let kept = self.below(changes.len() as u64 + 1);
        (0..changes.len() as u64).map(|at| at < kept).collect()
    }

    fn bytes(&mut self, _: &Path, changes: &[Change]) -> Vec<Change> {
        match self.below(4) {
            0 => Vec::new(),
            1 => changes.to_vec(),
            2 => {
                // The first ones, of which the last is torn.
                let whole = usize::try_from(self.below(changes.len() as u64 + 1)).unwrap_or(0);
                let torn = changes.get(whole).map(|change| change.torn(|| self.flip()));
                changes.iter().take(whole).cloned().chain(torn.into_iter().flatten()).collect()
            }
            _ => changes
                .iter()
                .flat_map(|change| match self.below(3) {
                    0 => Vec::new(),
                    1 => vec![change.clone()],
                    _ => change.torn(|| self.flip()),
                })
                .collect(),
        }
    }
}

/// What a rule keeps of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// Of bytes that were written the first ones; of anything else nothing.
    First(usize),
}

impl From<bool> for Kept {
    fn from(kept: bool) -> Self {
        if kept { Self::All } else { Self::Nothing }
    }
}

/// A rule about each change, by the path of its file or folder from the root of the disk.
pub(crate) struct Rule<'a>(pub(crate) &'a mut dyn FnMut(&Path, Unsynced<'_>) -> Kept);

impl Loss for Rule<'_> {
    fn names(&mut self, path: &Path, changes: &[Unsynced<'_>]) -> Vec<bool> {
        changes.iter().map(|change| (self.0)(path, *change) == Kept::All).collect()
    }

    fn bytes(&mut self, path: &Path, changes: &[Change]) -> Vec<Change> {
        let keep = |change: &Change| {
            let told = match change {
                Change::Write(offset, bytes) => Unsynced::Written(*offset, bytes.len()),
                Change::Length(length) => Unsynced::Length(*length),
            };
            match ((self.0)(path, told), change) {
                (Kept::All, change) => Some(change.clone()),
                (Kept::First(count), Change::Write(offset, bytes)) => {
                    Some(Change::Write(*offset, bytes[..count.min(bytes.len())].to_vec()))
                }
                _ => None,
            }
        };
        changes.iter().filter_map(keep).collect()
    }
}
