//! The bytes, as FORMAT.md draws them; they never change meaning.

use crate::support::*;
use std::fs;
use storage::journal::*;

#[expect(clippy::unnecessary_wraps, reason = "the option has this type")]
fn ones(out: &mut [u8]) -> std::io::Result<()> {
    out.fill(0x11);
    Ok(())
}

#[test]
fn header_frame_and_tail_are_where_the_drawing_says() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { random: ones, ..options() };
    let (mut log, _) = FileLog::open(dir.path(), &options, index).unwrap();
    let head = head(3, 4, 5, b"");
    let entry = Entry { head: &head, body: Some(b"body"), index: index(&head, &identity()) };
    let appended = log.append(99, &[entry]).unwrap();
    log.close().unwrap();
    let bytes = fs::read(dir.path().join("segment-0000000001.log")).unwrap();
    assert_eq!(bytes[..12], *b"LOKISEG\0\x01\0\0\0");
    assert_eq!(bytes[16..48], [0x11; 32]);
    assert_eq!(bytes[64..68], 1u32.to_le_bytes());
    assert_eq!(bytes[72..80], 1u64.to_le_bytes());
    assert_eq!(bytes[80..112], genesis(&[0x11; 16]));
    let frame = &bytes[4096..];
    assert_eq!(frame[..8], *b"LKFR\x01\0\0\0");
    assert_eq!(frame[8..16], [0x11; 8]);
    assert_eq!(frame[16..24], [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(frame[24..40], [1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(frame[48..56], [42, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(frame[96..112], [26, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(frame[112..138], head[..]);
    assert_eq!(frame[138..144], *b"body\0\0");
    assert_eq!(frame[144..152], *b"LKFT\x02\0\0\0");
    let tail = &bytes[bytes.len() - 40..];
    assert_eq!(tail[..16], *b"LOKITAIL\x01\0\0\0\x01\0\0\0");
    assert_eq!(tail[16..24], 4240u64.to_le_bytes());
    assert_eq!(tail[24..32], 2u64.to_le_bytes());
    assert_eq!(appended.bodies, [Some(BodyRef { sequence: 1, offset: 0, len: 4 })]);
}

#[test]
fn the_system_gives_every_journal_another_identity() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let identities = [one.path(), other.path()].map(|dir| open(dir).0.identity());
    assert_ne!(identities[0].journal, identities[1].journal);
    assert_ne!(identities[0].journal, identities[0].key);
}
