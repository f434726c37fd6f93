//! Where people wait for long work: a terminal shows what is done, since when and for how long
//! still; elsewhere, and with `--json`, standard error stays empty.

use std::ffi::OsStr;

use serde_json::json;

use crate::support::{World, output};
use crate::terminal::program_on_terminal;

const NOWHERE: &str = "http://127.0.0.1:9";

/// The commands that work on a stopped store, each with what it says that it does.
const COMMANDS: [(&str, &str); 4] = [
    ("store rebuild", "making the rows"),
    ("store compact", "writing files anew"),
    ("enterprise audit verify", "verifying"),
    ("enterprise audit export", "exporting"),
];

/// A stopped bridge with some messages, a third of them shredded.
fn world() -> World {
    let world = World::new();
    world.write("one/.loki/config.yaml", "agents:\n  - type: eng-qa\n    command: [\"true\"]\n");
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let url = format!("{}/api/openclaw/send", bridge.address);
    for number in 0..30 {
        let payload = json!({"entries": [{"key": "k", "value": "x".repeat(10_000)}]});
        let message = json!({
            "message_type": "state_sync", "payload": payload, "message_id": format!("m-{number}"),
        });
        assert_eq!(world.post(&url, &message).expect("an answer").0, 202);
    }
    let ids: Vec<String> = (0..10).map(|number| format!("m-{number}")).collect();
    let url = format!("{}/api/openclaw/prune", bridge.address);
    let pruned = world.post(&url, &json!({"message_ids": ids, "shred": true}));
    assert_eq!(pruned.expect("an answer").1["shredded"], 10);
    assert_eq!(bridge.stop(), Some(0));
    world
}

/// What a command shows on a terminal, with its data elsewhere.
fn watched(world: &World, arguments: &str) -> String {
    let loki = world.loki("one", NOWHERE);
    let line = format!("{} {arguments} > data", loki.get_program().to_string_lossy());
    let (code, shown) = program_on_terminal(world, &[], OsStr::new("/bin/sh"), &["-c", &line]);
    assert_eq!(code, 0, "{arguments}: {shown}");
    let data = std::fs::read_to_string(world.path("one/data")).expect("the data");
    assert!(!data.is_empty() && !data.contains('\u{1b}'), "{arguments}: {data}");
    shown
}

#[test]
fn a_terminal_shows_how_far_it_is_and_nothing_else_does() {
    let world = world();
    for (command, what) in COMMANDS {
        let shown = watched(&world, command);
        assert!(shown.contains(&format!("{what}, ")), "{command}: {shown:?}");
        // How much there is to read or write is known beforehand. The bridge may have written anew
        // already what there was.
        let is_known = shown.contains(" %, ") && shown.contains("s so far");
        assert!(is_known || command == "store compact", "{command}: {shown:?}");
        // Nothing of it stays: the last line is cleared.
        assert!(shown.ends_with("\u{1b}[2K"), "{shown:?}");

        let shown = watched(&world, &format!("{command} --json"));
        assert_eq!(shown, "", "{command} --json");
        let (code, data, talk) =
            output(world.loki("one", NOWHERE).args(command.split(' ').collect::<Vec<_>>()));
        assert_eq!((code, talk.as_str()), (Some(0), ""), "{command}");
        assert!(!data.is_empty() && !data.contains('\u{1b}'), "{command}: {data}");
    }
    let bridge = world.bridge("one", NOWHERE, "loki-one");
    let shown = watched(&world, "store compact");
    assert!(shown.contains("the bridge writes files anew"), "{shown:?}");
    let (_, _, talk) = output(world.loki("one", NOWHERE).args(["store", "compact"]));
    assert_eq!(talk, "");
    // On the same terminal the entries themselves tell how far an export is.
    let loki = world.loki("one", NOWHERE);
    let export = ["enterprise", "audit", "export"];
    let (_, shown) = program_on_terminal(&world, &[], loki.get_program(), &export);
    assert!(shown.contains("message.queued") && !shown.contains("exporting"), "{shown}");
    assert_eq!(bridge.stop(), Some(0));
}
