//! `loki enterprise audit verify`: what was changed, removed, swapped or cut off in an audit log is
//! found and named, by somebody who repairs every checksum too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{World, output};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n";
const DATA: &str = "one/.loki/openclaw";

/// The bytes of a frame's header that this test reads or repairs (`storage/FORMAT.md`).
const HEADER_BYTES: usize = 96;
const SEQUENCE_AT: usize = 24;
const HEADS_AT: usize = 48;
const BODIES_AT: usize = 52;
const CRC_AT: usize = 92;

/// A file of a journal and where its frames lie.
struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    frames: Vec<std::ops::Range<usize>>,
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

impl Segment {
    /// The one of a folder with the most frames.
    fn largest(data: &Path) -> Self {
        let files = fs::read_dir(data.join("journal")).expect("the journal");
        let paths = files.map(|file| file.expect("a file").path());
        paths.filter_map(Self::read).max_by_key(|one| one.frames.len()).expect("a segment")
    }

    fn read(path: PathBuf) -> Option<Self> {
        let bytes = fs::read(&path).ok()?;
        let mut at = bytes.windows(4).position(|window| window == b"LKFR")?;
        let mut frames = Vec::new();
        while bytes[at..].starts_with(b"LKFR") {
            let len = HEADER_BYTES + number(&bytes, at + HEADS_AT) + number(&bytes, at + BODIES_AT);
            let len = len.next_multiple_of(8);
            frames.push(at..at + len);
            at += len;
        }
        Some(Self { path, bytes, frames })
    }

    fn sequence(&self, frame: usize) -> u64 {
        let at = self.frames[frame].start + SEQUENCE_AT;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Makes the checksum of a frame right again.
    fn repair(&mut self, frame: usize) {
        let frame = &mut self.bytes[self.frames[frame].clone()];
        let sum = crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[CRC_AT + 4..]);
        frame[CRC_AT..CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
    }

    fn write(&self) {
        fs::write(&self.path, &self.bytes).expect("written");
    }
}

/// What `verify` answers about a folder.
fn verify(world: &World, data: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let mut command = world.loki("one", "http://127.0.0.1:9");
    command.arg("--data-dir").arg(data).args(["enterprise", "audit", "verify", "--json"]);
    let (code, data, talk) = output(command.args(more));
    (code, serde_json::from_str(&data).unwrap_or_else(|_| panic!("{code:?} {data} {talk}")))
}

fn copy(world: &World, folder: &str, name: &str) -> PathBuf {
    let to = world.path(name);
    let status = Command::new("cp").arg("-r").arg(world.path(folder)).arg(&to).status();
    assert!(status.expect("copied").success());
    to
}

/// A bridge that sent messages, and its server, which saw the end of its log at the last start.
fn lived(world: &World) {
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let url = format!("{}/api/openclaw/send", bridge.address);
    for key in 0..60 {
        let entries = json!([{"key": format!("k/{key}"), "value": key}]);
        let message = json!({"message_type": "state_sync", "payload": {"entries": entries}});
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("all to be delivered", || {
        world.get(&status).filter(|status| status["messages_pending"] == 0)
    });
    assert_eq!(bridge.stop(), Some(0));
    let bridge = world.bridge("one", &server.address, "loki-one");
    let connected = || world.get(&format!("{}/api/openclaw/status", bridge.address));
    world.wait("a session", || connected().filter(|status| status["connected"] == true));
    // Also while it runs.
    let (code, answer) = verify(world, &world.path(DATA), &[]);
    assert_eq!((code, &answer["sound"]), (Some(0), &json!(true)), "{answer}");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

/// Changes a journal, and says which frame it is to be found at.
type Tamper = fn(&mut Segment) -> u64;

#[test]
fn what_was_done_to_an_audit_log_is_found_and_named() {
    let world = World::new();
    lived(&world);
    let server = world.path("server");
    let peer = server.to_str().expect("text");
    for (folder, more) in [(DATA, vec!["--against", peer]), ("server", vec![])] {
        let (code, answer) = verify(&world, &world.path(folder), &more);
        assert_eq!((code, &answer["faults"]), (Some(0), &json!([])), "{answer}");
        assert!(answer["signed_heads"].as_u64().is_some_and(|signed| signed >= 1), "{answer}");
        assert_eq!(answer["keys"].as_array().map(Vec::len), Some(1), "{answer}");
    }
    let (_, answer) = verify(&world, &world.path(DATA), &[]);
    let witnessed = answer["witnessed"].as_str().expect("text");
    assert!(witnessed.starts_with("up to frame "), "{answer}");

    let tampered: [(&str, Tamper); 4] = [
        ("a flipped bit", |segment| {
            let middle = segment.frames.len() / 2;
            let at = segment.frames[middle].end - 40;
            segment.bytes[at] ^= 1;
            segment.sequence(middle)
        }),
        ("another word in an entry", |segment| {
            // The actor of an entry, with every checksum right: what follows does not fit.
            let found = segment.frames.iter().position(|frame| {
                segment.bytes[frame.clone()].windows(8).any(|word| word == b"loki-one")
            });
            let frame = found.expect("an entry of the bridge");
            let range = segment.frames[frame].clone();
            let bytes = &mut segment.bytes[range];
            let at = bytes.windows(8).position(|word| word == b"loki-one").expect("it");
            bytes[at + 5..at + 8].copy_from_slice(b"two");
            segment.repair(frame);
            segment.sequence(frame + 1)
        }),
        ("a frame that is gone", |segment| {
            let middle = segment.frames.len() / 2;
            let (sequence, range) = (segment.sequence(middle), segment.frames[middle].clone());
            let gap = vec![0; range.len()];
            segment.bytes.drain(range);
            let end = segment.frames.last().expect("frames").end - gap.len();
            segment.bytes.splice(end..end, gap);
            sequence
        }),
        ("two frames that were swapped", |segment| {
            // Of whatever sizes: under load hardly any two neighbours have the same.
            let one = segment.frames.len() / 2;
            let (first, second) = (segment.frames[one].clone(), segment.frames[one + 1].clone());
            segment.bytes[first.start..second.end].rotate_left(first.len());
            let middle = first.start + second.len();
            segment.frames[one] = first.start..middle;
            segment.frames[one + 1] = middle..second.end;
            segment.sequence(one + 1)
        }),
    ];
    for (what, tamper) in tampered {
        let data = copy(&world, DATA, &what.replace(' ', "-"));
        let mut segment = Segment::largest(&data);
        let frame = tamper(&mut segment);
        segment.write();
        let (code, answer) = verify(&world, &data, &[]);
        assert_eq!((code, &answer["sound"]), (Some(1), &json!(false)), "{what}: {answer}");
        let named = answer["faults"].to_string();
        assert!(
            named.contains(&format!("frame {frame}")) || named.contains(&format!("frames {frame}")),
            "{what} at {frame}: {answer}"
        );
    }
}

#[test]
fn an_end_that_was_cut_off_is_known_beside_the_log_and_by_the_peer() {
    let world = World::new();
    lived(&world);
    let data = copy(&world, DATA, "cut");
    // Like a crash before the last hundred frames: what is left is sound by itself.
    let mut segment = Segment::largest(&data);
    let kept = segment.frames.len().checked_sub(100).expect("more than a hundred frames");
    let last = segment.sequence(kept - 1);
    segment.bytes.truncate(segment.frames[kept].start);
    segment.write();
    for file in fs::read_dir(data.join("journal")).expect("the journal") {
        let path = file.expect("a file").path();
        if path.extension() == segment.path.extension() && path > segment.path {
            fs::remove_file(path).expect("removed");
        }
    }
    fs::remove_dir_all(data.join("checkpoints")).expect("no checkpoints");
    let (code, answer) = verify(&world, &data, &[]);
    assert_eq!(code, Some(1), "{answer}");
    let named = format!("frames {} to ", last + 1);
    let first = answer["first_fault"].as_str().expect("a fault");
    assert!(first.starts_with(&named) && first.contains("was signed"), "{answer}");

    // Whoever cuts it off removes that file as well.
    fs::remove_file(data.join("audit.head")).expect("removed");
    let (code, answer) = verify(&world, &data, &[]);
    assert_eq!((code, &answer["sound"]), (Some(0), &json!(true)), "nobody else knows: {answer}");
    let mut heads = world.loki("one", "http://127.0.0.1:9");
    heads.arg("--data-dir").arg(world.path("server")).args(["enterprise", "audit", "heads"]);
    let (code, text, _) = output(&mut heads);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    world.write("heads", &text);
    let heads = world.path("heads");
    let (code, answer) = verify(&world, &data, &["--against", heads.to_str().expect("text")]);
    assert_eq!(code, Some(1), "{answer}");
    let first = answer["first_fault"].as_str().expect("a fault");
    assert!(first.starts_with(&named) && first.contains("was seen by"), "{answer}");
}

/// What `heads` writes of a folder: the sequences of the ends of others that it keeps, and last
/// that of its own.
fn sequences(world: &World, folder: &str) -> Vec<u64> {
    let mut heads = world.loki("one", "http://127.0.0.1:9");
    heads.arg("--data-dir").arg(world.path(folder)).args(["enterprise", "audit", "heads"]);
    let (code, text, talk) = output(&mut heads);
    assert_eq!(code, Some(0), "{talk}");
    let seen = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a head"));
    let sequence = |seen: Value| seen["head"].as_str()?.split(':').nth(2)?.parse().ok();
    seen.map(|seen| sequence(seen).expect("a sequence")).collect()
}

/// The frame up to which a folder's own `verify` says that a peer knows it.
fn witnessed(world: &World, folder: &str) -> u64 {
    let (_, answer) = verify(world, &world.path(folder), &[]);
    let text = answer["witnessed"].as_str().expect("text");
    let frame = text.strip_prefix("up to frame ").and_then(|text| text.split(' ').next());
    frame.and_then(|frame| frame.parse().ok()).unwrap_or_default()
}

/// Cuts off the last hundred frames of a folder that was killed; the last one that is left.
fn cut(data: &Path) -> u64 {
    let mut segment = Segment::largest(data);
    let kept = segment.frames.len().checked_sub(100).expect("more than a hundred frames");
    let last = segment.sequence(kept - 1);
    segment.bytes.truncate(segment.frames[kept].start);
    segment.write();
    // Which there may be already, by the time that it took.
    let _ = fs::remove_dir_all(data.join("checkpoints"));
    let _ = fs::remove_file(data.join("audit.head"));
    last
}

#[test]
fn an_end_that_only_a_heartbeat_showed_is_known_to_the_peer() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("a session", || world.get(&status).filter(|it| it["connected"] == true));
    let url = format!("{}/api/openclaw/send", bridge.address);
    for key in 0..150 {
        let entries = json!([{"key": format!("k/{key}"), "value": key}]);
        let message = json!({"message_type": "state_sync", "payload": {"entries": entries}});
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
        let task = json!({"task_id": format!("t-{key}"), "task_type": "painting"});
        let answer = world.post(&format!("{}/tasks", server.address), &task);
        assert_eq!(answer.expect("an answer").0, 201);
    }
    let of = |folder: &str| *sequences(&world, folder).last().expect("its own end");
    let (ours, theirs) = (of(DATA), of("server"));
    // The last to be written is at the server: which end of its journal the bridge keeps.
    let news = format!("{}/api/audit?event=store.witness&limit=1", server.address);
    let mut known = Value::Null;
    world.wait("each side to know what the other keeps", || {
        let newest = world.get(&news)?["entries"][0]["seq"].clone();
        if std::mem::replace(&mut known, newest.clone()) == newest {
            return None;
        }
        let kept = sequences(&world, "server")[0] >= ours && sequences(&world, DATA)[0] >= theirs;
        let told = witnessed(&world, DATA) >= ours && witnessed(&world, "server") >= theirs;
        (kept && told).then_some(())
    });
    bridge.kill();
    server.kill();

    for (folder, peer) in [(DATA, "server"), ("server", DATA)] {
        let data = copy(&world, folder, &format!("cut-{}", folder.len()));
        let last = cut(&data);
        let (code, answer) = verify(&world, &data, &[]);
        assert_eq!((code, &answer["sound"]), (Some(0), &json!(true)), "by itself: {answer}");
        let peer = world.path(peer);
        let (code, answer) = verify(&world, &data, &["--against", peer.to_str().expect("text")]);
        assert_eq!(code, Some(1), "{answer}");
        let first = answer["first_fault"].as_str().expect("a fault");
        let named = format!("frames {} to ", last + 1);
        assert!(first.starts_with(&named) && first.contains("was seen by"), "{answer}");
    }
}

#[test]
fn the_first_heartbeat_of_a_session_shows_the_ends_on_either_transport() {
    for transport in ["websocket", "http"] {
        let world = World::new();
        world.write("one/.loki/config.yaml", IDLE);
        let server = world.server("server", 0);
        let more = [("LOKI_OPENCLAW_TRANSPORT", transport)];
        let bridge = world.bridge_with("one", &server.address, "loki-one", &more);
        // At the register each had shown an end from before it.
        let registered = |address: &str| {
            let log = format!("{address}/api/audit?event=openclaw.register&limit=1");
            world.wait("the register", || {
                let entry = world.get(&log)?["entries"][0]["seq"].as_str()?.to_owned();
                entry.split('.').next()?.parse::<u64>().ok()
            })
        };
        let (ours, theirs) = (registered(&bridge.address), registered(&server.address));
        world.wait("a later end on both sides", || {
            let told = witnessed(&world, DATA) >= ours && witnessed(&world, "server") >= theirs;
            told.then_some(())
        });
        assert_eq!(bridge.stop(), Some(0), "{transport}");
        assert_eq!(server.stop(), Some(0), "{transport}");
    }
}
