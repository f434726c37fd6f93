//! Starts and kills the real programs, and asks their APIs. It knows nothing of their inside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loki_openclaw::clock::Clock;
use parking_lot::Mutex;
use serde_json::Value;
use storage::inspect::{AuditFilter, Inspect};
use tempfile::TempDir;

/// How long anything in these tests may take: far above what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A folder with a project and the data of both programs, removed at the end.
pub struct World {
    folder: TempDir,
    client: reqwest::blocking::Client,
    clock: Clock,
    logs: Mutex<Vec<PathBuf>>,
}

impl World {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let client = reqwest::blocking::Client::builder().no_proxy().timeout(PATIENCE);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = client.build().expect("a client");
        Self { folder, client, clock: Clock::system(), logs: Mutex::default() }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in it, with the folders above it.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// Starts a server on this port (0: a free one) with the data folder `name`.
    pub fn server(&self, name: &str, port: u16) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
        let data = self.path(name);
        command.arg("--data-dir").arg(&data);
        command.env("OPENCLAW_LISTEN", format!("127.0.0.1:{port}"));
        command.env("OPENCLAW_HEARTBEAT", "1");
        self.start(command, &data)
    }

    /// A `loki` command in the project folder `project`, connected to `endpoint`.
    pub fn loki(&self, project: &str, endpoint: &str) -> Command {
        let folder = self.path(project);
        fs::create_dir_all(&folder).expect("a project folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_loki"));
        command.current_dir(folder);
        command.env_remove("HTTP_PROXY").env_remove("http_proxy");
        command.env("LOKI_OPENCLAW_ENABLED", "true").env("LOKI_OPENCLAW_ENDPOINT", endpoint);
        command.env("LOKI_OPENCLAW_HEARTBEAT", "1").env("LOKI_DASHBOARD_PORT", "0");
        command
    }

    /// Starts a bridge that runs until it is stopped.
    pub fn bridge(&self, project: &str, endpoint: &str, agent_id: &str) -> Program {
        self.bridge_with(project, endpoint, agent_id, &[])
    }

    /// Starts a bridge with more in its environment.
    pub fn bridge_with(
        &self,
        project: &str,
        endpoint: &str,
        agent_id: &str,
        more: &[(&str, &str)],
    ) -> Program {
        let mut command = self.loki(project, endpoint);
        command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_AGENT_ID", agent_id);
        command.envs(more.iter().copied());
        self.start(command, &self.path(project).join(".loki/openclaw"))
    }

    /// Starts a program that writes its address into the folder `data`.
    pub fn start(&self, mut command: Command, data: &Path) -> Program {
        let endpoint = data.join("endpoint");
        let _ = fs::remove_file(&endpoint);
        fs::create_dir_all(data).expect("a data folder");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .expect("a log");
        self.logs.lock().push(data.with_extension("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let address = self.wait("the program's address", || {
            if let Some(status) = child.try_wait().expect("a status") {
                let log = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
                panic!("the program ended with {status}: {log}");
            }
            fs::read_to_string(&endpoint).ok().filter(|text| text.trim().starts_with("http"))
        });
        Program { child, address: address.trim().to_owned() }
    }

    /// Asks again until `look` has an answer.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = self.clock.monotonic();
        loop {
            if let Some(found) = look() {
                return found;
            }
            let waited = Duration::from_millis(self.clock.monotonic() - begun);
            assert!(waited < PATIENCE, "waited {waited:?} for {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// A JSON answer of a GET; `None` when nobody answers or it is an error.
    pub fn get(&self, url: &str) -> Option<Value> {
        self.client.get(url).send().ok()?.error_for_status().ok()?.json().ok()
    }

    /// The text of a GET; `None` when nobody answers or it is an error.
    pub fn text(&self, url: &str) -> Option<String> {
        self.client.get(url).send().ok()?.error_for_status().ok()?.text().ok()
    }

    /// The status and JSON answer of a POST.
    pub fn post(&self, url: &str, body: &Value) -> Option<(u16, Value)> {
        let response = self.client.post(url).json(body).send().ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().unwrap_or(Value::Null)))
    }

    /// What the programs said so far.
    pub fn logs(&self) -> String {
        self.logs.lock().iter().filter_map(|log| fs::read_to_string(log).ok()).collect()
    }

    /// Milliseconds that never jump.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Drop for World {
    /// A failed test shows what the programs said.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut out = std::io::stderr().lock();
        for log in self.logs.lock().iter() {
            let text = fs::read_to_string(log).unwrap_or_default();
            let _ = writeln!(out, "--- {}\n{text}", log.display());
        }
    }
}

/// A running program. Dropped, it is killed.
pub struct Program {
    child: Child,
    /// Its base URL.
    pub address: String,
}

impl Program {
    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ended(mut self, world: &World) -> Option<i32> {
        world.wait("the program to end", || self.child.try_wait().expect("a status")).code()
    }

    /// Asks it to stop and waits; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal();
        self.child.wait().expect("reaped").code()
    }

    /// Asks it to stop.
    pub fn signal(&self) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output: Output = command.stdin(Stdio::null()).output().expect("the program runs");
    let text = |mut bytes: &[u8]| {
        let mut text = String::new();
        let _ = bytes.read_to_string(&mut text);
        text
    };
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Tells whoever runs the tests a seed or a figure.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// How often each id was received, by the audit log.
pub fn received(folder: &Path) -> BTreeMap<String, usize> {
    let inspect = Inspect::open(folder).expect("the store");
    assert!(inspect.damage().is_empty(), "{:?}", inspect.damage());
    let events = vec!["message.received".to_owned()];
    let mut filter = AuditFilter { events, ..AuditFilter::default() };
    let mut times = BTreeMap::new();
    loop {
        let page = inspect.audit(&filter).expect("the audit log");
        for entry in page.entries {
            *times.entry(entry.record.resource.to_string()).or_default() += 1;
        }
        filter.before = page.next;
        if filter.before.is_none() {
            return times;
        }
    }
}
