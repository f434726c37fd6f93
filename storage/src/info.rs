//! What a store takes on the disk, and what of that somebody still needs. It changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::event::Event;
use crate::inspect::{AuditFilter, audit};
use crate::journal::{ReadError, Reader, quarantined};
use crate::record::{Millis, Status};
use crate::retention::{Limits, Retention, is_dead};
use crate::view::Row;

/// What a store takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Segments with frames, or about to have some.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of those that are not bodies that nobody keeps.
    pub live_bytes: u64,
    /// Segments that are made beforehand, and their bytes.
    pub spares: (u64, u64),
    /// Bytes of the reserve.
    pub reserve_bytes: u64,
    /// Files that are kept because of damage, and their bytes.
    pub quarantine: (u64, u64),
    /// First and last frame.
    pub frames: (u64, u64),
    /// Messages of each status, and bytes of their bodies as they were accepted.
    pub messages: BTreeMap<&'static str, (u64, u64)>,
    /// When a segment was written anew last.
    pub last_compaction: Option<Millis>,
    /// When the oldest frame was recorded.
    pub recorded_since: Option<Millis>,
    /// When it was written down last that the oldest segments go.
    pub last_trim: Option<Millis>,
    /// The id and the status of the oldest message that is not finished.
    pub oldest_unfinished: Option<(String, Status)>,
}

/// Counts rows for [`Info`], the newest first.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    retention: Retention,
    now: Millis,
    limits: Limits,
    messages: BTreeMap<&'static str, (u64, u64)>,
    kept: u64,
    oldest_unfinished: Option<(String, Status)>,
}

impl Tally {
    /// Nothing counted; what is kept is judged by `retention` at `now`.
    pub fn new(retention: Retention, now: Millis) -> Self {
        Self { retention, now, ..Self::default() }
    }

    /// Counts a row.
    pub fn count(&mut self, row: &Row) {
        let (count, bytes) = self.messages.entry(row.status.as_str()).or_default();
        (*count, *bytes) = (*count + 1, *bytes + u64::from(row.size_bytes));
        self.limits.count(row, &self.retention);
        if !row.status.is_finished() {
            self.oldest_unfinished = Some((row.message_id.clone(), row.status));
        }
        if !is_dead(row, &self.retention, &self.limits, self.now) {
            self.kept += u64::from(row.body.length);
        }
    }
}

/// What the store in a directory takes, given its rows.
///
/// # Errors
/// When the journal cannot be read.
pub fn info(dir: &Path, reader: &Reader, tally: Tally) -> Result<Info, ReadError> {
    let Tally { messages, oldest_unfinished, kept, .. } = tally;
    let mut info = Info { messages, oldest_unfinished, ..Info::default() };
    let mut bodies = 0;
    let mut used = Vec::new();
    for segment in reader.segments() {
        let weight = segment.weight()?;
        info.segments += 1;
        info.bytes += weight.bytes;
        bodies += weight.bodies;
        used.push(segment.path().to_path_buf());
    }
    info.live_bytes = info.bytes - bodies.saturating_sub(kept).min(info.bytes);
    // What cannot be listed just now is not counted.
    let journal = dir.join("journal");
    let quarantined = quarantined(&journal);
    info.quarantine = (quarantined.len() as u64, quarantined.iter().map(|it| it.1.len()).sum());
    for entry in fs::read_dir(journal).into_iter().flatten().flatten() {
        let (path, len) = (entry.path(), entry.metadata().map_or(0, |metadata| metadata.len()));
        if path.file_name().is_some_and(|name| name == "reserve") {
            info.reserve_bytes = len;
        } else if path.extension().is_some_and(|it| it == "log") && !used.contains(&path) {
            info.spares = (info.spares.0 + 1, info.spares.1 + len);
        }
    }
    info.frames = (reader.first_sequence(), reader.head().position.sequence);
    info.recorded_since = reader.frames(info.frames.0).find_map(Result::ok).map(|one| one.time);
    info.last_compaction = last(reader, Event::StoreCompact, None)?;
    info.last_trim = last(reader, Event::StoreTrim, Some("journal"))?;
    Ok(info)
}

fn last(
    reader: &Reader,
    event: Event,
    resource: Option<&str>,
) -> Result<Option<Millis>, ReadError> {
    let (events, resource) = (vec![event.name().to_owned()], resource.map(str::to_owned));
    let filter = AuditFilter { events, resource, limit: 1, ..AuditFilter::default() };
    let newest = audit(reader, &filter)?;
    Ok(newest.entries.first().map(|entry| entry.time))
}

impl Info {
    /// Messages and bytes of a status.
    pub fn of(&self, status: Status) -> (u64, u64) {
        self.messages.get(status.as_str()).copied().unwrap_or_default()
    }
}
