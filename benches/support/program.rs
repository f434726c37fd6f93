//! The real programs: started in a folder, asked over HTTP, stopped or killed. It knows nothing of
//! their inside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Outcome, Watch};

/// How long a program may take to start: far above what is measured.
const PATIENCE: Duration = Duration::from_mins(2);

/// Time between two looks at whether a program is there.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A running program. Dropped, it is killed.
pub struct Program {
    child: Child,
    /// Its base URL.
    pub address: String,
    /// From the start of the process until it listened.
    pub opened: Duration,
    log: PathBuf,
}

/// `openclaw-server` over the data of this folder.
pub fn server(data: &Path) -> Outcome<Program> {
    server_with(data, "")
}

/// The same, with a configuration file of this content.
pub fn server_with(data: &Path, config: &str) -> Outcome<Program> {
    let file = data.with_extension("yaml");
    fs::write(&file, config)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
    command.arg("--config").arg(&file).arg("--data-dir").arg(data);
    command.env("OPENCLAW_LISTEN", "127.0.0.1:0");
    start(command, data)
}

/// `loki start --openclaw` in a project folder.
pub fn bridge(project: &Path, endpoint: &str, agent_id: &str) -> Outcome<Program> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loki"));
    command.current_dir(project).args(["start", "--openclaw"]);
    command.env("LOKI_OPENCLAW_ENDPOINT", endpoint).env("LOKI_OPENCLAW_AGENT_ID", agent_id);
    command.env("LOKI_DASHBOARD_PORT", "0");
    start(command, &project.join(".loki/openclaw"))
}

fn start(mut command: Command, data: &Path) -> Outcome<Program> {
    let (endpoint, log) = (data.join("endpoint"), data.with_extension("log"));
    fs::create_dir_all(data)?;
    let _ = fs::remove_file(&endpoint);
    for proxy in ["HTTP_PROXY", "http_proxy"] {
        command.env_remove(proxy);
    }
    let messages = File::options().create(true).append(true).open(&log)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages);
    let watch = Watch::start();
    let mut child = command.spawn()?;
    while watch.elapsed() < PATIENCE {
        let text = fs::read_to_string(&endpoint).unwrap_or_default();
        if text.trim().starts_with("http") {
            let (opened, address) = (watch.elapsed(), text.trim().to_owned());
            return Ok(Program { child, address, opened, log });
        }
        if let Some(status) = child.try_wait()? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("the program ended with {status}: {said}").into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("the program did not listen within {PATIENCE:?}").into())
}

impl Program {
    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The host and port.
    pub fn host(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// A JSON answer of this program.
    pub async fn get(&self, client: &reqwest::Client, path: &str) -> Outcome<Value> {
        let answer = client.get(format!("{}{path}", self.address)).send().await?;
        Ok(answer.json().await?)
    }

    /// Kills it as a crash would.
    pub fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits for that; it must end with 0.
    pub fn stop(mut self) -> Outcome<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).ok_or("a process has a number")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        Err(format!("the program ended with {status}: {said}").into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client for the programs of this machine.
pub fn client() -> Outcome<reqwest::Client> {
    // Another part of the process may have chosen it already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().build()?)
}
