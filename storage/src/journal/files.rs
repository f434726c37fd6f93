//! The files of a journal's directory: listing, loading a segment's ends, spares, quarantine.
//!
//! It says what a file claims to be; whether that is damage is for recovery to judge.

use super::codec::index;
use super::footer::{self, FooterHead};
use super::segment::{self, BlockFault, FORMAT, FRAMES_START, SegmentHeader, TAIL_BYTES, Tail};
use super::space::allocate;
use super::sync::{SyncPoint, Syncer};
use super::{Identity, OpenError};
use rustix::fs::{SeekFrom, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens, seek};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Suffix of a recovered segment that has not yet taken its place.
pub(super) const ASIDE: &str = "new";
pub(super) const QUARANTINE: &str = "quarantine";
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// What a segment's file claims to be.
pub(super) struct Loaded {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: u64,
    /// `None` when the block does not pass its checksum.
    pub(super) header: Option<SegmentHeader>,
    pub(super) tail: Option<Tail>,
    pub(super) footer: Option<FooterHead>,
    /// Nothing but zeros: a spare.
    pub(super) blank: bool,
}

impl Loaded {
    pub(super) fn identity(&self) -> Option<Identity> {
        let header = self.header.or(self.footer.map(|footer| footer.header));
        header.map(|header| header.identity)
    }

    /// The first sequence, as header or footer give it.
    pub(super) fn first_sequence(&self) -> Option<u64> {
        let header = self.header.or(self.footer.map(|footer| footer.header));
        header.map(|header| header.first_sequence)
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, OpenError> {
        read_whole(&self.file, self.len).map_err(io_error("read", &self.path))
    }
}

/// An error of the operating system about a file.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io { action, path, source }
}

/// Makes the journal's directory if need be. While it has no segment its name is synced at every
/// start, and the names of all folders above it, because whoever made them may not have done so.
pub(super) fn make_dir(dir: &Path, syncer: &Syncer) -> Result<(), OpenError> {
    fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    if !list(dir)?.is_empty() {
        return Ok(());
    }
    let whole = fs::canonicalize(dir).map_err(io_error("find", dir))?;
    for above in whole.ancestors().skip(1) {
        let done = syncer.dir(above, SyncPoint::Directory);
        // A folder that this user may not even read is not one that was made for the store.
        if let Err(source) = done
            && source.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(io_error("sync", above)(source));
        }
    }
    Ok(())
}

/// The lock that keeps a second writer out of a journal, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a journal's directory.
///
/// # Errors
/// When another process has it, or the operating system refuses.
pub fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    let mut left = LOCK_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if left > 0 => {
                left -= 1;
                std::thread::park_timeout(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
    }
}

/// Between two tries to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Tries after the first one, a second in all. A program that was killed while it started another
/// one leaves its lock to that for the moment until the other one's code is loaded.
const LOCK_TRIES: u32 = 50;

/// The segments of a directory by number, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().and_then(segment::number_of) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes what a recovery that was cut short left beside the segments. One that comes back is
/// removed again, so nothing is synced.
pub(super) fn remove_unfinished(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        if path.extension().is_some_and(|extension| extension == ASIDE) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Reads the ends of a segment's file; `None` when it is gone.
pub(super) fn load(
    number: u64,
    path: PathBuf,
    writable: bool,
) -> Result<Option<Loaded>, OpenError> {
    let file = match OpenOptions::new().read(true).write(writable).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_error("open", &path))?,
    };
    let len = file.metadata().map_err(io_error("read", &path))?.len();
    // Asked before anything is read: what was read counts as data.
    let is_untouched = has_no_data(&file);
    let begin = if is_untouched { 0 } else { len.min(FRAMES_START) };
    let block = read_at(&file, 0, begin).map_err(io_error("read", &path))?;
    let header = known(SegmentHeader::decode(&block), &path, FORMAT)?;
    let blank = is_untouched
        || header.is_none()
            && block.iter().all(|byte| *byte == 0)
            && is_zero(&file, len).map_err(io_error("read", &path))?;
    let mut loaded = Loaded { number, path, file, len, header, tail: None, footer: None, blank };
    if !is_untouched {
        load_footer(&mut loaded)?;
    }
    Ok(Some(loaded))
}

fn load_footer(loaded: &mut Loaded) -> Result<(), OpenError> {
    let Some(tail_at) = loaded.len.checked_sub(TAIL_BYTES as u64) else { return Ok(()) };
    let read = |at, len| read_at(&loaded.file, at, len).map_err(io_error("read", &loaded.path));
    let tail = Tail::decode(&read(tail_at, TAIL_BYTES as u64)?);
    let Some(tail) = known(tail, &loaded.path, FORMAT)? else { return Ok(()) };
    let least = footer::HEAD_BYTES_MIN as u64;
    if tail.footer_offset.checked_add(least).is_some_and(|end| end <= tail_at) {
        let len = (tail_at - tail.footer_offset).min(footer::HEAD_BYTES as u64);
        let head = FooterHead::decode(&read(tail.footer_offset, len)?);
        let head = known(head, &loaded.path, footer::FORMAT)?;
        loaded.footer = head.filter(|head| {
            head.header.number == loaded.number && head.next_sequence == tail.next_sequence
        });
    }
    loaded.tail = Some(tail);
    Ok(())
}

/// Refuses a newer format by name; anything else unreadable is `None`.
fn known<T>(
    decoded: Result<T, BlockFault>,
    path: &Path,
    supported: u32,
) -> Result<Option<T>, OpenError> {
    match decoded {
        Ok(value) => Ok(Some(value)),
        Err(BlockFault::Bad) => Ok(None),
        Err(BlockFault::Newer(found)) => {
            Err(OpenError::NewerFormat { path: path.to_path_buf(), found, supported })
        }
    }
}

pub(super) fn newer(path: &Path, found: u32) -> OpenError {
    OpenError::NewerFormat { path: path.to_path_buf(), found, supported: FORMAT }
}

pub(super) fn read_at(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; index(len)];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Reads a file of at most the size that a segment may have.
pub(super) fn read_whole(file: &File, len: u64) -> io::Result<Vec<u8>> {
    if len > 2 * segment::SEGMENT_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "file is larger than a segment may be"));
    }
    read_at(file, 0, len)
}

/// Whether nothing was ever written to a file, as far as the file system can tell without reading.
pub(super) fn has_no_data(file: &File) -> bool {
    matches!(seek(file, SeekFrom::Data(0)), Err(Errno::NXIO))
}

fn is_zero(file: &File, len: u64) -> io::Result<bool> {
    let mut at = 0;
    while at < len {
        let chunk = read_at(file, at, (len - at).min(ZEROS.len() as u64))?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += chunk.len() as u64;
    }
    Ok(true)
}

/// A segment's file before its first frame: zeros, on the disk, under its final name.
pub(super) struct Spare {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: u64,
    /// Its zeros are on the disk, so that a commit in it is quick; its room is taken anyway.
    pub(super) is_filled: bool,
}

/// Makes a spare (rule 5); after an error nothing is left of it.
pub(super) fn make_spare(dir: &Path, number: u64, len: u64, syncer: &Syncer) -> io::Result<Spare> {
    let mut spare = new_spare(dir, number, len)?;
    gone_unless(fill_spare(dir, &mut spare, syncer), &spare.path)?;
    Ok(spare)
}

/// Takes the room of a spare, which is filled when its turn comes, and keeps its name: frames may
/// be acknowledged in it before that. After an error nothing is left of it.
pub(super) fn make_extra(dir: &Path, number: u64, len: u64, syncer: &Syncer) -> io::Result<Spare> {
    let spare = new_spare(dir, number, len)?;
    let done = allocate(&spare.file, 0, len).and_then(|()| syncer.dir(dir, SyncPoint::SpareName));
    gone_unless(done, &spare.path)?;
    Ok(spare)
}

fn new_spare(dir: &Path, number: u64, len: u64) -> io::Result<Spare> {
    let path = segment::path_of(dir, number);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    Ok(Spare { number, path, file, len, is_filled: false })
}

fn gone_unless(done: io::Result<()>, path: &Path) -> io::Result<()> {
    if done.is_err() {
        drop(fs::remove_file(path));
    }
    done
}

/// Puts the zeros of a spare on the disk, and its name.
pub(super) fn fill_spare(dir: &Path, spare: &mut Spare, syncer: &Syncer) -> io::Result<()> {
    fill(&spare.file, 0, spare.len)?;
    syncer.data(&spare.file, SyncPoint::SpareBlocks)?;
    syncer.dir(dir, SyncPoint::SpareName)?;
    spare.is_filled = true;
    Ok(())
}

/// Writes zeros, so that a later write in the range needs no room.
pub(super) fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let chunk = index(to - at).min(ZEROS.len());
        file.write_all_at(&ZEROS[..chunk], at)?;
        at += chunk as u64;
    }
    Ok(())
}

/// Lets a file say that it was changed just now.
pub(super) fn date(path: &Path, syncer: &Syncer) -> Result<(), OpenError> {
    let file = File::options().write(true).open(path).map_err(io_error("open", path))?;
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let (last_access, last_modification) = (time(UTIME_OMIT), time(UTIME_NOW));
    let dated = futimens(&file, &Timestamps { last_access, last_modification });
    dated.map_err(io::Error::from).map_err(io_error("date", path))?;
    syncer.all(&file, SyncPoint::Quarantine).map_err(io_error("sync", path))
}

/// Moves a whole segment into quarantine, and returns where it lies.
pub(super) fn quarantine_whole(
    dir: &Path,
    segment: &Path,
    syncer: &Syncer,
) -> Result<PathBuf, OpenError> {
    let place = dir.join(QUARANTINE);
    fs::create_dir_all(&place).map_err(io_error("create", &place))?;
    // What an earlier start set aside under this name may be the only copy of its history.
    let name = segment.file_name().unwrap_or_default().to_string_lossy();
    let more = (1_u32..).map(|number| place.join(format!("{name}.{number}")));
    let mut free = std::iter::once(place.join(&*name)).chain(more).filter(|to| !to.exists());
    let to = free.next().unwrap_or_else(|| place.join(&*name));
    fs::rename(segment, &to).map_err(io_error("rename", segment))?;
    syncer.dir(&place, SyncPoint::QuarantineName).map_err(io_error("sync", &place))?;
    syncer.dir(dir, SyncPoint::QuarantineName).map_err(io_error("sync", dir))?;
    Ok(to)
}

/// Keeps bytes that are about to be cut or skipped, and returns the file that has them.
pub(super) fn quarantine(
    dir: &Path,
    number: u64,
    offset: u64,
    bytes: &[u8],
    syncer: &Syncer,
) -> Result<PathBuf, OpenError> {
    let place = dir.join(QUARANTINE);
    fs::create_dir_all(&place).map_err(io_error("create", &place))?;
    syncer.dir(dir, SyncPoint::QuarantineFolder).map_err(io_error("sync", dir))?;
    let path = place.join(format!("segment-{number:010}-{offset}-{}.bin", bytes.len()));
    let file = File::create(&path).map_err(io_error("create", &path))?;
    file.write_all_at(bytes, 0).map_err(io_error("write", &path))?;
    syncer.data(&file, SyncPoint::Quarantine).map_err(io_error("sync", &path))?;
    syncer.dir(&place, SyncPoint::QuarantineName).map_err(io_error("sync", &place))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::{Duration, SystemTime};

    use super::{Syncer, date};

    #[test]
    fn a_file_that_is_dated_is_as_new_as_one_that_is_made() {
        let dir = tempfile::tempdir().expect("a folder");
        let paths = ["old", "new"].map(|name| dir.path().join(name));
        let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::create(&paths[0]).and_then(|file| file.set_times(old)).expect("a file");
        File::create(&paths[1]).expect("a file");
        date(&paths[0], &Syncer::default()).expect("dated");
        let [dated, made] = paths.map(|path| path.metadata().expect("a file").modified());
        let apart = dated.expect("a time").duration_since(made.expect("a time"));
        assert!(apart.unwrap_or_default() < Duration::from_mins(1));
        let later = dir.path().join("old").metadata().expect("a file").modified().expect("a time");
        assert!(later > SystemTime::UNIX_EPOCH + Duration::from_hours(1));
    }
}
