//! What the journal's tests share: small segments, made-up entries, copies of directories.

use std::path::{Path, PathBuf};
use storage::journal::{
    Appended, Entry, FileLog, Frame, Identity, IndexKeys, Log, Made, Options, Reader, Recovery,
};
use tempfile::TempDir;

pub const SEGMENT: u64 = 8192;

/// Heads are: event 2, id 16 (0 is none), actor 8, then anything; its first byte gives a level, its
/// second a resource.
pub fn index(head: &[u8], _: &Identity) -> IndexKeys {
    let take = |from: usize, to: usize| head.get(from..to).unwrap_or_default();
    let id = u128::from_le_bytes(take(2, 18).try_into().unwrap_or_default());
    // Even ids have a time: that of the frame in which a test that counts puts them.
    let made = match id {
        0 => Made::Elsewhere,
        _ if id % 2 == 1 => Made::Unknown,
        _ => Made::At(u64::try_from(id >> 64).unwrap() * 10),
    };
    IndexKeys {
        event: u16::from_le_bytes(take(0, 2).try_into().unwrap_or_default()),
        id: (id != 0).then_some(id),
        actor: u64::from_le_bytes(take(18, 26).try_into().unwrap_or_default()),
        level: head.get(26).copied().unwrap_or_default() % 4,
        resource: head.get(27).copied().unwrap_or_default().into(),
        made,
    }
}

pub fn head(event: u16, id: u128, actor: u64, more: &[u8]) -> Vec<u8> {
    [&event.to_le_bytes()[..], &id.to_le_bytes(), &actor.to_le_bytes(), more].concat()
}

pub fn identity() -> Identity {
    Identity { journal: [0; 16], key: [0; 16] }
}

pub fn options() -> Options {
    Options { segment_bytes: SEGMENT, reserve_bytes: SEGMENT, ..Options::new(1) }
}

pub fn open(dir: &Path) -> (FileLog, Recovery) {
    FileLog::open(dir, &options(), index).unwrap()
}

/// Appends one frame of one entry and syncs it.
pub fn put(log: &mut FileLog, number: u64, body: usize) -> Appended {
    let appended = put_unsynced(log, number, body);
    log.sync().unwrap();
    appended
}

pub fn put_unsynced(log: &mut FileLog, number: u64, body: usize) -> Appended {
    let id = u128::from(number) << 64 | u128::from(number);
    let more = [(number % 4) as u8, (number % 5) as u8];
    let head = head((number % 3) as u16, id, number % 2, &more);
    let body = vec![number as u8; body];
    let entry = Entry { index: index(&head, &identity()), head: &head, body: Some(&body) };
    log.append(number * 10, &[entry]).unwrap()
}

pub fn frames(reader: &Reader) -> Vec<Frame> {
    reader.frames(0).map(Result::unwrap).collect()
}

pub fn sequences(reader: &Reader) -> Vec<u64> {
    frames(reader).iter().map(|frame| frame.position.sequence).collect()
}

/// Each frame continues the chain of the one before it.
pub fn assert_chained(frames: &[Frame]) {
    for pair in frames.windows(2) {
        assert_eq!(pair[1].previous, pair[0].hash, "after {:?}", pair[0].position);
    }
}

/// A copy of the directory as it is now: what a crash at this moment leaves.
pub fn copy(dir: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    copy_into(dir, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else if std::fs::copy(entry.path(), &target).is_err() {
            assert!(!entry.path().exists(), "only what is gone cannot be copied");
        }
    }
}

/// The files of segments that have a header, oldest first.
pub fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| std::fs::read(path).unwrap().starts_with(b"LOKISEG\0"))
        .collect();
    found.sort();
    found
}

/// Changes one byte of a file.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

/// Offset and length of each frame in a segment's file.
pub fn frame_places(path: &Path) -> Vec<(usize, usize)> {
    let bytes = std::fs::read(path).unwrap();
    let mut at = 4096;
    let mut found = Vec::new();
    while bytes.get(at..at + 4) == Some(b"LKFR") {
        let field = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
        let len = (96 + field(at + 48) + field(at + 52)).next_multiple_of(8) as usize;
        found.push((at, len));
        at += len;
    }
    found
}
