//! The power is cut under both programs at once: what they acknowledged is there when they start
//! again, is delivered, and is applied once. And a disk that fails ends each of them with code 3.
//! It mounts a disk whose power can be cut, and says so when it may not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use powercut::{Chance, Cut, Disk};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Program, World, say};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// Power cuts of the short form; `LOKI_POWER_CUTS` asks for more.
const CUTS: u64 = 4;

/// Messages and tasks that are asked for until the power goes.
const REQUESTS: u64 = 400;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn unavailable() -> bool {
    let why = Disk::unavailable();
    if let Some(why) = why {
        say(&format!("skipped: {why}"));
    }
    why.is_some()
}

/// A world whose programs keep their data in these folders.
fn world(server: &Path, bridge: &Path) -> World {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    for folder in [server, bridge] {
        fs::create_dir_all(folder).expect("a folder");
    }
    symlink(server, world.path("server")).expect("a link");
    symlink(bridge, world.path("one/.loki/openclaw")).expect("a link");
    world
}

fn send(world: &World, bridge: &Program, key: &str) -> Option<String> {
    let message = json!({"message_type": "state_sync",
        "payload": {"entries": [{"key": key, "value": key}]}});
    let answer = world.post(&format!("{}/api/openclaw/send", bridge.address), &message);
    let (status, answer) = answer?;
    (status == 202).then(|| answer["message_id"].as_str().expect("an id").to_owned())
}

fn submit(world: &World, server: &Program) -> Option<String> {
    let task = json!({"task_type": "of-nobody", "description": "waits"});
    let (status, answer) = world.post(&format!("{}/tasks", server.address), &task)?;
    (status == 201).then(|| answer["task_id"].as_str().expect("an id").to_owned())
}

#[test]
fn a_disk_that_fails_ends_each_program_with_code_3() {
    if unavailable() {
        return;
    }
    let disks = [(); 2].map(|()| Disk::mount(None).expect("a disk"));
    let world = world(&disks[0].path().join("server"), &disks[1].path().join("bridge"));
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    assert!(send(&world, &bridge, "k/1").is_some());
    assert!(submit(&world, &server).is_some());
    disks[1].cut();
    assert_eq!(send(&world, &bridge, "k/2"), None, "acknowledged on a disk that fails");
    assert_eq!(bridge.ended(&world), Some(3));
    disks[0].cut();
    assert_eq!(submit(&world, &server), None, "acknowledged on a disk that fails");
    assert_eq!(server.ended(&world), Some(3));
    for log in ["server.log", "one/.loki/openclaw.log"] {
        let said = fs::read_to_string(world.path(log)).expect("a log");
        assert!(said.contains("Input/output error"), "{log}: {said}");
        assert!(!said.contains("panicked"), "{log}: {said}");
    }
}

/// What was acknowledged before the power went.
#[derive(Default)]
struct Told {
    messages: BTreeSet<String>,
    tasks: BTreeSet<String>,
}

/// Uses both programs until the power goes; gives what the disk kept.
fn until_the_cut(chance: &mut Chance, from: &Path, told: &mut Told) -> TempDir {
    let disk = Disk::mount(Some(from)).expect("a disk");
    let world = world(&disk.path().join("server"), &disk.path().join("bridge"));
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let (events, done) = (disk.events(), chance.flip());
    disk.schedule(if chance.flip() {
        Cut::Sync(events.syncs + 1 + chance.below(150), done)
    } else {
        Cut::Change(events.changes + 1 + chance.below(400), done)
    });
    for number in 0..REQUESTS {
        if disk.is_dead() {
            break;
        }
        if number % 4 == 0 {
            told.tasks.extend(submit(&world, &server));
        } else {
            told.messages.extend(send(&world, &bridge, &format!("k/{}", chance.below(50))));
        }
    }
    disk.cut();
    bridge.kill();
    server.kill();
    let image = tempfile::tempdir().expect("a folder");
    disk.image(chance, image.path()).expect("an image");
    image
}

/// The ids that the server has from the bridge, each as often as it accepted it.
fn received(world: &World) -> Vec<String> {
    let mut command = world.loki("one", "http://127.0.0.1:9");
    let data = world.path("server");
    command.args(["openclaw", "messages", "--json", "--direction", "inbound", "--limit", "1000"]);
    command.arg("--data-dir").arg(data);
    let (code, data, talk) = crate::support::output(&mut command);
    assert_eq!(code, Some(0), "{talk}");
    let rows = data.lines().map(|line| serde_json::from_str::<Value>(line).expect("json"));
    rows.map(|row| row["message_id"].as_str().expect("an id").to_owned()).collect()
}

/// Starts both programs on what the disk kept, and looks.
fn examine(image: &Path, told: &Told, seed: u64) {
    let world = world(&image.join("server"), &image.join("bridge"));
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    for id in &told.messages {
        let url = format!("{}/api/openclaw/messages/{id}", bridge.address);
        world.wait("the message to be delivered", || {
            let message = world.get(&url);
            let message = message.unwrap_or_else(|| panic!("seed {seed}: {id} is gone"));
            (message["status"] == "delivered").then_some(())
        });
    }
    for id in &told.tasks {
        let task = world.get(&format!("{}/tasks/{id}", server.address));
        // It is offered again to an agent that will not have it.
        let status = task.as_ref().and_then(|task| task["status"].as_str());
        let waits = matches!(status, Some("pending" | "offered"));
        assert!(waits, "seed {seed}: {id}: {task:?}");
    }
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)), "seed {seed}");
    let there = received(&world);
    let once: BTreeSet<&String> = there.iter().collect();
    assert_eq!(once.len(), there.len(), "seed {seed}: a message was applied twice");
    let missing: Vec<_> = told.messages.iter().filter(|id| !once.contains(id)).collect();
    assert!(missing.is_empty(), "seed {seed}: not at the server: {missing:?}");
    for log in ["server.log", "one/.loki/openclaw.log"] {
        let said = fs::read_to_string(world.path(log)).expect("a log");
        assert!(!said.contains("panicked"), "seed {seed}: {log}: {said}");
    }
}

#[test]
fn what_both_programs_acknowledged_outlives_a_power_cut() {
    if unavailable() {
        return;
    }
    let (first, cuts) = (setting("LOKI_POWER_FIRST", 1), setting("LOKI_POWER_CUTS", CUTS));
    let mut acknowledged = 0;
    for seed in first..first + cuts {
        let mut chance = Chance::new(seed);
        let mut told = Told::default();
        let empty = tempfile::tempdir().expect("a folder");
        let image = until_the_cut(&mut chance, empty.path(), &mut told);
        say(&format!("seed {seed}: {} messages, {} tasks", told.messages.len(), told.tasks.len()));
        examine(image.path(), &told, seed);
        acknowledged += told.messages.len() + told.tasks.len();
    }
    say(&format!("figures: seeds={cuts} cuts={cuts} acknowledged={acknowledged} lost=0 twice=0"));
}
