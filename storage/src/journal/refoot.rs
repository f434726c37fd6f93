//! Writing the footer of a sealed segment anew in the format of today, for migrations. The frames
//! stay as they are, byte for byte; a segment whose frames are not those that its footer names is
//! left alone.

use super::codec::index;
use super::files::{self, ASIDE, Loaded, io_error};
use super::footer::{self, FooterHead, Section};
use super::recover::{floor_of, frames_of};
use super::scan::{Scope, scan};
use super::segment::{SegmentHeader, Tail, number_of};
use super::sync::{SyncPoint, Syncer};
use super::{IndexFn, OpenError};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A sealed segment whose footer an older program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldFooter {
    /// Its file.
    pub path: PathBuf,
    /// The file's length.
    pub bytes: u64,
}

/// What became of a footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refooted {
    /// It was written anew. The name of the file is not synced.
    Done,
    /// The segment was left as it is, and why.
    Left(&'static str),
}

/// The segments with old footers, oldest first.
///
/// # Errors
/// When the directory or a segment cannot be read, or a newer program wrote it.
pub fn old_footers(dir: &Path) -> Result<Vec<OldFooter>, OpenError> {
    let mut old = Vec::new();
    for (number, path) in files::list(dir)? {
        let Some(loaded) = files::load(number, path, false)? else { continue };
        if loaded.footer.is_some_and(|footer| footer.is_old()) {
            old.push(OldFooter { path: loaded.path, bytes: loaded.len });
        }
    }
    Ok(old)
}

/// Writes the footer of a segment anew: aside, synced, renamed. Nobody may have the journal open.
///
/// # Errors
/// When the segment cannot be read or the new one not be written, or a newer program wrote it.
pub fn refoot(path: &Path, index: IndexFn, syncer: &Syncer) -> Result<Refooted, OpenError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(number) = number_of(name) else { return Ok(Refooted::Left("it is no segment")) };
    let Some(loaded) = files::load(number, path.to_path_buf(), false)? else {
        return Ok(Refooted::Left("it is gone"));
    };
    let (Some(header), Some(footer), Some(tail)) = (loaded.header, loaded.footer, loaded.tail)
    else {
        return Ok(Refooted::Left("its header or footer is damaged"));
    };
    let bytes = loaded.bytes()?;
    let Some(encoded) = encode(&loaded, &bytes, (&header, &footer), index)? else {
        return Ok(Refooted::Left("its frames are not those that its footer names"));
    };
    replace(&loaded, &bytes, &encoded, &tail, syncer)?;
    Ok(Refooted::Done)
}

/// The new footer; `None` when it would not say the same as the old one.
fn encode(
    loaded: &Loaded,
    bytes: &[u8],
    (header, old): (&SegmentHeader, &FooterHead),
    index: IndexFn,
) -> Result<Option<Vec<u8>>, OpenError> {
    let path = &loaded.path;
    let scope = Scope { path, header, floor: floor_of(loaded, None), index };
    let scanned = scan(frames_of(loaded, bytes), &scope);
    let mut found = scanned.map_err(|format| files::newer(path, u32::from(format)))?.index;
    let Some(tail) = loaded.tail else { return Ok(None) };
    // Damage that a recovery cut away is known to the footer alone.
    let Some(damage) = old_damage(bytes, old, tail.footer_offset, path) else { return Ok(None) };
    found.damage = damage;
    found.next_sequence = old.next_sequence;
    let (new, encoded) = footer::encode(header, &found);
    let told = |head: &FooterHead| {
        let FooterHead { last_epoch, last_sequence, next_sequence, times, hash, .. } = *head;
        (last_epoch, last_sequence, next_sequence, times, hash)
    };
    // The filter is that of the ids, in a form that may be another.
    let kept = [Section::Frames, Section::Events, Section::Ids, Section::Damage];
    let same = kept.into_iter().all(|section| {
        let (new, old) = (new.section(section), old.section(section));
        (new.len, new.items, new.crc) == (old.len, old.items, old.crc)
    });
    Ok((same && told(&new) == told(old)).then_some(encoded))
}

fn old_damage(
    bytes: &[u8],
    old: &FooterHead,
    footer_offset: u64,
    path: &Path,
) -> Option<Vec<super::Damage>> {
    let place = old.section(Section::Damage);
    let from = index(footer_offset).checked_add(place.offset as usize)?;
    let section = bytes.get(from..from.checked_add(place.len as usize)?)?;
    (crc32c::crc32c(section) == place.crc).then(|| footer::decode_damage(section, path))?
}

fn replace(
    loaded: &Loaded,
    bytes: &[u8],
    encoded: &[u8],
    tail: &Tail,
    syncer: &Syncer,
) -> Result<(), OpenError> {
    let aside = loaded.path.with_extension(ASIDE);
    let frames = bytes.get(..index(tail.footer_offset)).unwrap_or_default();
    let file = File::create(&aside).map_err(io_error("create", &aside))?;
    let whole = [frames, encoded, &tail.encode()].concat();
    file.write_all_at(&whole, 0).map_err(io_error("write", &aside))?;
    syncer.data(&file, SyncPoint::Refooted).map_err(io_error("sync", &aside))?;
    fs::rename(&aside, &loaded.path).map_err(io_error("rename", &aside))
}
