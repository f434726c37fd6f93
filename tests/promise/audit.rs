//! The audit log at the command line: by event, by level, and followed while the bridge comes and
//! goes.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{World, output};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n";
const NOWHERE: &str = "http://127.0.0.1:9";

/// A program that would go on for ever.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_is_followed_through_a_kill_a_stop_and_a_start() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let follow = |more: &[&str]| {
        let mut command = world.loki("one", NOWHERE);
        command.args(["enterprise", "audit", "tail", "--follow", "--json"]);
        command.args(["--event", "store.open"]).args(more).stdin(Stdio::null());
        let mut tail = command.stdout(Stdio::piped()).spawn().expect("a tail");
        let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
        let next = move || {
            let line = lines.next().expect("one more entry").expect("text");
            let entry: Value = serde_json::from_str(&line).expect("json");
            assert_eq!(entry["event"], "store.open");
            entry["details"]["epoch"].as_u64().expect("an epoch")
        };
        (Killed(tail), next)
    };
    let (_tail, mut next) = follow(&[]);
    assert_eq!(next(), 1);
    bridge.kill();
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    assert_eq!(next(), 2);
    assert_eq!(bridge.stop(), Some(0));
    // A command opens the store of a stopped bridge too.
    let (code, ..) = output(world.loki("one", NOWHERE).args(["openclaw", "retry"]));
    assert_eq!(code, Some(0));
    assert_eq!(next(), 3);

    // Whatever comes first after it began to look is new to this one.
    let (_tail, mut next) = follow(&["-n", "0"]);
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::Builder::new().spawn(move || tell.send(next()));
    let first = world.wait("an entry that is new", || {
        output(world.loki("one", NOWHERE).args(["openclaw", "retry"]));
        told.try_recv().ok()
    });
    assert!(first > 3, "{first}");
    reader.expect("a thread").join().expect("no panic").expect("told");
    let tail = ["enterprise", "audit", "tail", "-n", "0"];
    let (code, data, _) = output(world.loki("one", NOWHERE).args(tail));
    assert_eq!((code, data.as_str()), (Some(0), ""));
}

#[test]
fn the_log_is_searched_by_event_and_level_and_time() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    bridge.kill();
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let tail = |more: &[&str]| {
        let mut command = world.loki("one", NOWHERE);
        let (code, data, talk) =
            output(command.args(["enterprise", "audit", "tail", "--json"]).args(more));
        (code, data.lines().count(), talk)
    };
    let check = || {
        assert_eq!(tail(&["--event", "store.open"]).1, 2);
        assert_eq!(tail(&["--event", "store.open", "-n", "1"]).1, 1);
        assert_eq!(tail(&["--event", "store.o*"]).1, 2);
        assert!(tail(&["--event", "store.*"]).1 >= 3);
        assert_eq!(tail(&["--event", "store.open", "--event", "store.recover"]).1, 3);
        assert_eq!(tail(&["--event", "store.recover", "--level", "warning"]).1, 1);
        assert_eq!(tail(&["--event", "store.open", "--level", "warning"]).1, 0);
        assert_eq!(tail(&["--event", "store.*", "--actor", "nobody"]).1, 0);
        assert_eq!(tail(&["--event", "store.open", "--since", "1h"]).1, 2);
        let later = ["--event", "store.*", "--since", "2999-01-01T00:00:00Z"];
        assert_eq!(tail(&later), (Some(0), 0, String::new()));
        let told = "error: no event is called store.opn; did you mean store.open?\n";
        assert_eq!(tail(&["--event", "store.opn"]), (Some(2), 0, told.to_owned()));
    };
    check();
    assert_eq!(bridge.stop(), Some(0));
    check();
}
