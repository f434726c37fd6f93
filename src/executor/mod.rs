//! Runs one task as a command under a supervisor process that outlives the bridge. It knows no
//! protocol, queue or configuration: it is given a command and leaves an [`Outcome`] on disk.
//!
//! ```text
//! bridge ── Executor::start ──► run folder (spec, input, lock) ──► supervisor ──► command
//!    ▲                              │   progress, outcome.json ◄──────┘  (own process group)
//!    └──────── Run::update, wait ◄──┘
//! ```
//!
//! The folder is the only thing that both sides share. Its `lock` file is locked by the bridge
//! before the folder gets its name, and handed to the supervisor as its standard input: there is
//! no moment at which a run that is alive has a free lock. A free lock and no outcome is therefore
//! a supervisor that died, and a folder without `started` is a command that never ran.

pub mod agents;
mod environment;
mod folder;
mod output;
mod process;
mod providers;
mod run;
mod spec;
pub mod supervise;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tracing::warn;

use crate::clock::Clock;

use folder::{Created, Folder};
pub use output::Update;
pub use providers::{Provider, UnknownProvider};
pub use run::{CancelHandle, Run};
pub use spec::{Failure, Outcome, OutputFormat, RunKey, RunSpec, Status};

/// Starts runs and finds those that an earlier process of ours left behind. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Executor {
    /// Where the run folders are; nobody else writes there.
    dir: PathBuf,
    /// The arguments that start our own program as a supervisor; the run folder is added.
    supervisor: Vec<OsString>,
    /// The folder in which commands run.
    project_dir: PathBuf,
    clock: Clock,
}

/// Why a run could not be started. Nothing was run, and starting it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The specification has no program to run.
    #[error("task {task_id} has an empty command")]
    EmptyCommand {
        /// The task.
        task_id: String,
    },
    /// The run folder could not be written.
    #[error("cannot write the run folder in {}: {source}", dir.display())]
    Folder {
        /// The folder of all runs.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The supervisor process could not be started.
    #[error("cannot start the supervisor of task {task_id}: {source}")]
    Supervisor {
        /// The task.
        task_id: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Executor {
    /// Runs are kept in `dir` and run in `project_dir`; `supervisor` is the program and the hidden
    /// command that calls [`supervise::main`] with the folder that is appended.
    pub fn new(
        dir: PathBuf,
        supervisor: Vec<OsString>,
        project_dir: PathBuf,
        clock: Clock,
    ) -> Self {
        // The supervisor keeps working when this process changes its own folder.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self { dir: absolute(dir), supervisor, project_dir: absolute(project_dir), clock }
    }

    /// Runs a command, once for a task and attempt: when that run exists already, whatever its
    /// state, it is followed and nothing is started.
    ///
    /// # Errors
    /// [`StartError`]; nothing was run then.
    pub async fn start(&self, run: RunSpec) -> Result<Run, StartError> {
        let this = self.clone();
        blocking(move || this.start_blocking(&run)).await
    }

    /// Every run on disk, in no order: still running, or finished and not yet forgotten. One whose
    /// command never began is started; one whose supervisor died ends as `supervisor_lost`.
    ///
    /// # Errors
    /// When the folder of runs cannot be listed. A single unreadable run is left alone and logged.
    pub async fn adopt(&self) -> io::Result<Vec<Run>> {
        let this = self.clone();
        blocking(move || this.adopt_blocking()).await
    }

    fn start_blocking(&self, spec: &RunSpec) -> Result<Run, StartError> {
        if spec.command.first().is_none_or(String::is_empty) {
            return Err(StartError::EmptyCommand { task_id: spec.task_id.clone() });
        }
        let failed = |source| StartError::Folder { dir: self.dir.clone(), source };
        let created = Folder::create(&self.dir, spec, &self.project_dir).map_err(failed)?;
        match created {
            Created::New(folder, lock) => {
                if let Err(source) = self.launch(&folder, lock, &spec.pass_env) {
                    // Nothing ran: without its folder the run can be started again.
                    if let Err(error) = folder.remove() {
                        warn!(%error, task_id = spec.task_id, "cannot remove a run folder");
                    }
                    return Err(StartError::Supervisor { task_id: spec.task_id.clone(), source });
                }
                Ok(Run::follow(folder, spec.key(), self.clock.clone()))
            }
            Created::Exists(folder) => self.resume(folder).map_err(failed),
        }
    }

    fn adopt_blocking(&self) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for folder in Folder::list(&self.dir)? {
            let path = folder.path().to_owned();
            match self.resume(folder) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    warn!(path = %path.display(), %error, "a run folder is unreadable, left alone");
                }
            }
        }
        Ok(runs)
    }

    /// Follows the run of an existing folder, after starting it when its command never began.
    fn resume(&self, folder: Folder) -> io::Result<Run> {
        let spec = folder.spec()?;
        let key = spec.run.key();
        if let Some(lock) = folder.take_lock()? {
            // Looked at under the lock: a supervisor that still lived a moment ago is done now.
            if !folder.has_started() && folder.outcome()?.is_none() {
                self.launch(&folder, lock, &spec.run.pass_env)?;
            }
        }
        Ok(Run::follow(folder, key, self.clock.clone()))
    }

    /// Starts the supervisor and hands it the lock as its standard input.
    fn launch(&self, folder: &Folder, lock: std::fs::File, pass: &[String]) -> io::Result<()> {
        let mut arguments = self.supervisor.iter();
        let program = arguments.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "no supervisor program is configured")
        })?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(folder.path())
            .env_clear()
            .envs(environment::inherited(std::env::vars_os(), pass))
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .stderr(Stdio::from(folder.append_to_log()?));
        // Dropped, not killed: the runtime waits for it when it ends, so that no dead child stays
        // in the process table.
        drop(tokio::process::Command::from(command).spawn()?);
        Ok(())
    }

    /// The folder of all runs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Runs file work on the pool that may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking work is never cancelled once it runs; the runtime itself is going away.
            Err(_) => std::future::pending().await,
        },
    }
}
