//! An acknowledgement means that the disk has it: while a file system is frozen, so that no write
//! ends, nothing is acknowledged. It mounts small file systems, and says so when it may not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::support::{World, say};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// How long an answer is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Room for the reserve and for some segments; the file that holds it is sparse.
const DISK_BYTES: u64 = 512 << 20;

/// A file system in a file. Dropped, it is thawed and unmounted.
struct Disk(PathBuf);

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

impl Disk {
    /// `None` where this user may not mount one.
    fn mount(world: &World, name: &str) -> Option<Self> {
        let (image, folder) = (world.path(&format!("{name}.image")), world.path(name));
        File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("an image");
        fs::create_dir_all(&folder).expect("a folder");
        let image_name = image.to_string_lossy().into_owned();
        let mounted = run("mkfs.ext4", &["-q", "-F"], &image)
            && run("mount", &["-o", "loop", &image_name], &folder)
            && run("fsfreeze", &["--freeze"], &folder)
            && run("fsfreeze", &["--unfreeze"], &folder);
        if !mounted {
            say("skipped: this user may not mount and freeze a small file system");
        }
        mounted.then(|| Self(folder))
    }

    /// What `look` sees while nothing can be written. It must not panic: a process that waits for a
    /// frozen disk cannot even be killed.
    fn while_frozen<T>(&self, look: impl FnOnce() -> T) -> T {
        assert!(run("fsfreeze", &["--freeze"], &self.0));
        let seen = look();
        assert!(run("fsfreeze", &["--unfreeze"], &self.0));
        seen
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze"], &self.0);
        run("umount", &["-l"], &self.0);
    }
}

/// The status of the answer to a POST, if one comes soon.
fn soon(url: &str, body: &Value) -> Option<u16> {
    let client = Client::builder().no_proxy().timeout(SILENCE).build().ok()?;
    client.post(url).json(body).send().ok().map(|answer| answer.status().as_u16())
}

fn sync(id: &str) -> Value {
    json!({"message_type": "state_sync", "message_id": id, "agent_id": "plain",
        "payload": {"entries": [{"key": id, "value": 1}]}})
}

fn delivered(world: &World, bridge: &str) -> Option<u64> {
    let status = world.get(&format!("{bridge}/api/openclaw/status"))?;
    Some(status["messages"]["delivered"].as_u64().unwrap_or(0))
}

#[test]
fn the_server_acknowledges_nothing_that_its_disk_does_not_have() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world, "ice") else { return };
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("ice/server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    world.wait("the bridge to be connected", || {
        world.get(&format!("{}/api/openclaw/health", bridge.address))
    });
    let messages = format!("{}/messages", server.address);
    let tasks = format!("{}/tasks", server.address);
    let outgoing = format!("{}/api/openclaw/send", bridge.address);
    let mut mine = sync("over-the-bridge");
    mine["agent_id"] = "loki-one".into();
    let (sent, early) = disk.while_frozen(|| {
        let sent = soon(&outgoing, &mine);
        let early = [soon(&messages, &sync("m")), soon(&tasks, &json!({"task_type": "testing"}))];
        (sent, (early, delivered(&world, &bridge.address)))
    });
    assert_eq!(sent, Some(202), "the bridge's own disk is well");
    assert_eq!(early, ([None, None], Some(0)), "acknowledged although nothing was written");
    world.wait("the message to be delivered", || {
        delivered(&world, &bridge.address).filter(|count| *count > 0)
    });
    assert_eq!(soon(&messages, &sync("m")), Some(202));
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));
}

#[test]
fn the_bridge_acknowledges_nothing_that_its_disk_does_not_have() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world, "ice") else { return };
    world.write("ice/one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("ice/one", &server.address, "loki-one");
    world.wait("the bridge to be connected", || {
        world.get(&format!("{}/api/openclaw/health", bridge.address))
    });
    let messages = format!("{}/messages", server.address);
    let outgoing = format!("{}/api/openclaw/send", bridge.address);
    let mut down = sync("to-the-bridge");
    down["to"] = "loki-one".into();
    let mut mine = sync("of-the-bridge");
    mine["agent_id"] = "loki-one".into();
    let (sent, early, mailbox) = disk.while_frozen(|| {
        let sent = soon(&messages, &down);
        let early = soon(&outgoing, &mine);
        (sent, early, world.get(&format!("{messages}?agent_id=loki-one")))
    });
    assert_eq!((sent, early), (Some(202), None), "acknowledged although nothing was written");
    let mailbox = mailbox.expect("the mailbox");
    assert_eq!(mailbox["messages"][0]["message_id"], "to-the-bridge", "{mailbox}");
    world.wait("the bridge to have taken it", || {
        let mailbox = world.get(&format!("{messages}?agent_id=loki-one"))?;
        (mailbox["messages"] == json!([])).then_some(())
    });
    assert_eq!(soon(&outgoing, &mine), Some(202));
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));
}
