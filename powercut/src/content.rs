//! The bytes of one file, in pages; pages of zeros take no room. No names and no syncs here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

const PAGE: usize = 4_096;

/// Bytes that a disk writes or loses as a whole.
const SECTOR: usize = 512;

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Bytes from an offset on.
    Write(u64, Vec<u8>),
    /// Another length.
    Length(u64),
}

/// The pages of a stretch of bytes.
pub(crate) fn pages(offset: u64, length: u64) -> Range<usize> {
    let page = |at: u64| usize::try_from(at / PAGE as u64).unwrap_or(usize::MAX);
    page(offset)..page((offset + length).next_multiple_of(PAGE as u64))
}

impl Change {
    /// The pages that it writes.
    pub(crate) fn pages(&self) -> Range<usize> {
        match self {
            Self::Write(offset, bytes) => pages(*offset, bytes.len() as u64),
            Self::Length(_) => 0..0,
        }
    }

    /// The sectors of a write that reached the disk, as `kept` decides about each.
    pub(crate) fn torn(&self, mut kept: impl FnMut() -> bool) -> Vec<Self> {
        let Self::Write(offset, bytes) = self else {
            return if kept() { vec![self.clone()] } else { Vec::new() };
        };
        let mut parts = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let place = usize::try_from(offset % SECTOR as u64).unwrap_or(0);
            let end = (at + SECTOR - (place + at) % SECTOR).min(bytes.len());
            if kept() {
                parts.push(Self::Write(offset + at as u64, bytes[at..end].to_vec()));
            }
            at = end;
        }
        parts
    }
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    length: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => self.write(*offset, bytes),
            Change::Length(length) => self.set_length(*length),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let (page, place) = (at / PAGE as u64, usize::try_from(at % PAGE as u64).unwrap_or(0));
            let (part, after) = rest.split_at((PAGE - place).min(rest.len()));
            if self.pages.contains_key(&page) || part.iter().any(|byte| *byte != 0) {
                let page = self.pages.entry(page).or_insert_with(|| vec![0; PAGE]);
                page[place..place + part.len()].copy_from_slice(part);
            }
            at += part.len() as u64;
            rest = after;
        }
        self.length = self.length.max(at);
    }

    fn set_length(&mut self, length: u64) {
        if length < self.length {
            let keep = length.div_ceil(PAGE as u64);
            self.pages.split_off(&keep);
            let place = usize::try_from(length % PAGE as u64).unwrap_or(0);
            if let Some(last) = self.pages.get_mut(&(length / PAGE as u64)) {
                last[place..].fill(0);
            }
        }
        self.length = length;
    }

    pub(crate) fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let there = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(there)];
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let place = usize::try_from(at % PAGE as u64).unwrap_or(0);
            let count = (PAGE - place).min(bytes.len() - done);
            if let Some(page) = self.pages.get(&(at / PAGE as u64)) {
                bytes[done..done + count].copy_from_slice(&page[place..place + count]);
            }
            done += count;
        }
        bytes
    }

    /// Writes all of it into a file on a real disk.
    pub(crate) fn save(&self, file: &File) -> io::Result<()> {
        file.set_len(self.length)?;
        for (page, bytes) in &self.pages {
            let at = page * PAGE as u64;
            let there = usize::try_from(self.length.saturating_sub(at)).unwrap_or(PAGE);
            file.write_all_at(&bytes[..there.min(PAGE)], at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Content};

    #[test]
    fn what_was_written_is_read_and_the_rest_is_zero() {
        let mut content = Content::default();
        content.apply(&Change::Write(5_000, vec![7; 5_000]));
        assert_eq!(content.length(), 10_000);
        assert_eq!(content.read(4_998, 4), [0, 0, 7, 7]);
        assert_eq!(content.read(9_999, 100), [7]);
        content.apply(&Change::Length(6_000));
        content.apply(&Change::Length(7_000));
        assert_eq!(content.read(5_998, 4), [7, 7, 0, 0]);
        content.apply(&Change::Write(5_000, vec![0; 1_000]));
        assert_eq!(content.read(0, 7_000), vec![0; 7_000]);
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors() {
        let write = Change::Write(500, (0..=255).cycle().take(1_100).collect());
        let mut turn = false;
        let parts = write.torn(|| {
            turn = !turn;
            turn
        });
        let places: Vec<(u64, usize)> = parts
            .iter()
            .filter_map(|part| match part {
                Change::Write(offset, bytes) => Some((*offset, bytes.len())),
                Change::Length(_) => None,
            })
            .collect();
        assert_eq!(places, [(500, 12), (1_024, 512)]);
        assert!(Change::Length(4).torn(|| false).is_empty());
    }
}
