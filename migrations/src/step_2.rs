//! From format 1 to 2: the footers of sealed segments get postings by actor, level and resource,
//! made from the segment's own frames. Frames do not change.

use std::path::Path;

use storage::database::{OpenError, index_of};
use storage::journal::{self, OldFooter, Refooted, SyncPoint};

use crate::{MigrateError, Work, failed, keep};

/// The segments that have old footers.
pub(crate) fn old(dir: &Path) -> Result<Vec<OldFooter>, OpenError> {
    journal::old_footers(&dir.join("journal")).map_err(|error| failed(dir, error))
}

/// Writes them anew. What is left as it is, because it is damaged, is in the answer: such footers
/// stay readable, and what they do not have is looked up in the frames.
pub(crate) fn run(work: &mut Work<'_>) -> Result<Vec<String>, MigrateError> {
    let mut left = Vec::new();
    for segment in old(work.dir)? {
        work.told("segment")?;
        let done = journal::refoot(&segment.path, index_of, work.syncer);
        if let Refooted::Left(why) = done.map_err(|error| failed(work.dir, error))? {
            let name = segment.path.display();
            tracing::warn!(segment = %name, why, "a segment keeps its old footer");
            left.push(format!("{name}: {why}"));
        }
    }
    work.told("names")?;
    keep::sync_dir(work.dir, &work.dir.join("journal"), work.syncer, SyncPoint::RefootedName)?;
    Ok(left)
}
