//! A disk that is full, and one that may only be read: a clear sentence, no panic, and nothing that
//! was acknowledged is missing when there is room again. It mounts small file systems, and says so
//! when it may not.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Program, World, output, say};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// Room for three segments of the journal, the reserve, and as much again.
const SIZE: &str = "size=160m";

/// Bytes of a message that fills the disk.
const LARGE: usize = 400_000;

/// A small file system. Dropped, it is unmounted.
pub struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one.
    fn mount(folder: &Path) -> Option<Self> {
        Self::of_size(folder, SIZE)
    }

    /// The same, with an option of `mount` for its size.
    pub fn of_size(folder: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "none"]).arg(folder);
        let mounted = mount.output().is_ok_and(|it| it.status.success());
        if !mounted {
            say("skipped: this user may not mount a small file system");
        }
        mounted.then(|| Self(folder.to_owned()))
    }

    fn is_read_only(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,ro"]).arg(&self.0);
        assert!(mount.status().expect("mount runs").success());
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let path = self.0.join("fill");
        let mut file = File::options().create(true).append(true).open(path).expect("a file");
        while file.write_all(&[0; 4_096]).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("fill")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sends messages with growing numbers, and remembers which were acknowledged.
struct Sender<'a> {
    world: &'a World,
    path: &'static str,
    count: u64,
    acknowledged: Vec<String>,
}

impl Sender<'_> {
    fn send(&mut self, address: &str, bytes: usize) -> Result<(), Value> {
        self.count += 1;
        let key = format!("k-{}", self.count);
        let mut message = json!({
            "message_type": "state_sync", "message_id": format!("m-{}", self.count),
            "payload": {"entries": [{"key": key, "value": "x".repeat(bytes)}]},
        });
        if self.path == "/messages" {
            message["agent_id"] = "plain".into();
        }
        let url = format!("{address}{}", self.path);
        let (status, answer) = self.world.post(&url, &message).expect("an answer");
        if status == 202 {
            self.acknowledged.push(key);
            return Ok(());
        }
        assert!(status == 503 || status == 507, "{status} {answer}");
        Err(answer)
    }

    /// Sends until there is no room, and on; then until there is room again.
    fn through_a_full_disk(&mut self, disk: &Disk, address: &str) {
        for _ in 0..20 {
            self.send(address, LARGE).expect("there is room");
        }
        disk.fill();
        let refusal = self.world.wait("the disk to be full", || self.send(address, LARGE).err());
        assert_eq!(refusal["retryable"], true, "{refusal}");
        let detail = refusal["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("No space left on device"), "{refusal}");
        for _ in 0..20 {
            // A small one may find a place where a large one does not.
            let _ = self.send(address, 10);
        }
        disk.free();
        self.world.wait("the disk to have room", || self.send(address, LARGE).ok());
    }

    fn has_arrived(&self, server: &Program) {
        for key in &self.acknowledged {
            let cell = self.world.get(&format!("{}/state/default/{key}", server.address));
            assert!(cell.is_some_and(|cell| cell["version"] == 1), "{key} is missing");
        }
    }
}

#[test]
fn a_server_outlives_a_full_disk_and_loses_nothing() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("small")) else { return };
    let server = world.server("small/server", 0);
    let mut sender =
        Sender { world: &world, path: "/messages", count: 0, acknowledged: Vec::new() };
    sender.through_a_full_disk(&disk, &server.address);
    server.kill();
    let server = world.server("small/server", 0);
    sender.has_arrived(&server);
    assert_eq!(server.stop(), Some(0));
    assert!(!world.logs().contains("panicked"));
}

#[test]
fn a_bridge_outlives_a_full_disk_and_loses_nothing() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("small")) else { return };
    world.write("small/one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let bridge = world.bridge("small/one", &server.address, "loki-one");
    let mut sender =
        Sender { world: &world, path: "/api/openclaw/send", count: 0, acknowledged: Vec::new() };
    sender.through_a_full_disk(&disk, &bridge.address);
    bridge.kill();
    let bridge = world.bridge("small/one", &server.address, "loki-one");
    let status = format!("{}/api/openclaw/status", bridge.address);
    world.wait("everything to be delivered", || {
        world.get(&status).filter(|status| status["messages_pending"] == 0)
    });
    sender.has_arrived(&server);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
    assert!(!world.logs().contains("panicked"));
}

#[test]
fn a_store_that_may_only_be_read_is_named_and_left_alone() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("small")) else { return };
    world.write("small/one/.loki/config.yaml", IDLE);
    let server = world.server("small/server", 0);
    let bridge = world.bridge("small/one", &server.address, "loki-one");
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));
    disk.is_read_only();
    let mut start = world.loki("small/one", "http://127.0.0.1:9");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
    serve.arg("--data-dir").arg(world.path("small/server")).args(["--listen", "127.0.0.1:0"]);
    for command in [start.args(["start", "--openclaw"]), &mut serve] {
        let (code, _, stderr) = output(command);
        assert_eq!(code, Some(3), "{stderr}");
        assert!(
            stderr.contains("Read-only file system") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    let mut look = world.loki("small/one", "http://127.0.0.1:9");
    let (code, _, stderr) = output(look.args(["openclaw", "messages", "--json"]));
    assert_eq!(code, Some(0), "{stderr}");
}
