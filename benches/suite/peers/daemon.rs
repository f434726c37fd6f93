//! A peer's daemon on a free port of this machine, over a folder on the disk that counts. Dropped,
//! it is killed and its folder removed.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{self, Outcome, Watch};

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon.
pub struct Daemon {
    child: Child,
    /// Host and port.
    pub address: String,
    _folder: TempDir,
}

/// Starts a program with these arguments of its port and folder, unless it is not installed: then
/// its name.
pub fn start(
    program: &str,
    arguments: impl FnOnce(u16, &Path) -> Vec<String>,
) -> Outcome<Result<Daemon, String>> {
    let folder = support::folder()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(program);
    command.args(arguments(port, folder.path())).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(program.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let mut daemon = Daemon { child, address, _folder: folder };
    let watch = Watch::start();
    while TcpStream::connect(&daemon.address).is_err() {
        if let Some(status) = daemon.child.try_wait()? {
            return Err(format!("{program} ended with {status}").into());
        }
        if watch.elapsed() > PATIENCE {
            return Err(format!("{program} does not listen").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Ok(daemon))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
