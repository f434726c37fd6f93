//! The supervisor: a process of its own that runs one command to its end and leaves the outcome on
//! disk. It talks to nobody, and it knows the bridge only as the writer of `cancel`.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{Clock, Millis};

use super::environment::RUN_VARIABLE;
use super::folder::Folder;
use super::output::{RESULT_BYTES_MAX, Stderr, Stdout};
use super::process::{self, Group};
use super::spec::{Failure, Outcome, RunSpec, Status, StoredSpec};

/// How often `cancel` is looked for: a person does not notice it, and it is one system call.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a command may put its things in order after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// How long the output of a family that was killed may still come: it lies in the pipes already.
const DRAIN: Duration = Duration::from_secs(5);

/// How often the outcome is written again when the disk is full: for an hour, in which somebody
/// may notice. The work is done, and only this process knows its result.
const OUTCOME_TRIES_MAX: u32 = 3_600;

/// The pause in between.
const OUTCOME_RETRY: Duration = Duration::from_secs(1);

/// How much is read at a time: the size of a pipe.
const READ_BYTES: usize = 64 * 1024;

/// The exit status of a supervisor that left an outcome.
const DONE: u8 = 0;

/// The exit status of one that could not: the reason is in the run's `log`.
const FAILED: u8 = 1;

/// Supervises the run in `run_dir` and returns the exit status of this process. The folder's lock
/// must be this process's standard input, as [`super::Executor::start`] hands it over.
pub fn main(run_dir: &Path) -> u8 {
    let folder = Folder::at(run_dir);
    match supervise(&folder) {
        Ok(()) => DONE,
        Err(error) => {
            tell(&folder, &error);
            FAILED
        }
    }
}

/// The log is the only place that is left when the folder cannot be used; if not even that works,
/// the missing outcome says so.
fn tell(folder: &Folder, error: &io::Error) {
    if let Ok(mut log) = folder.append_to_log() {
        let _ = io::Write::write_all(&mut log, format!("{error}\n").as_bytes());
    }
}

fn supervise(folder: &Folder) -> io::Result<()> {
    let _lock = inherited_lock(folder)?;
    // In a session of its own: what the terminal sends to the bridge does not arrive here.
    rustix::process::setsid()?;
    process::adopt_orphans();
    let spec = folder.spec()?;
    if folder.outcome()?.is_some() {
        return Ok(());
    }
    // An error here is a command that ran already.
    folder.mark_started()?;
    let clock = Clock::system();
    let times = Times { started_at: clock.now(), began: clock.monotonic() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(folder, &spec)).unwrap_or_else(|error| {
        End::failed("supervisor_failed", format!("the supervisor failed: {error}"))
    });
    // Also after an error of ours: nothing of the command is left when the outcome is there.
    reap(folder);
    let outcome = ended.outcome(&clock, &times);
    let mut tries = 1;
    while let Err(error) = folder.write_outcome(&outcome) {
        // A folder that somebody removed does not come back: nobody waits for this outcome.
        if tries == OUTCOME_TRIES_MAX || error.kind() == io::ErrorKind::NotFound {
            return Err(error);
        }
        tries += 1;
        std::thread::sleep(OUTCOME_RETRY);
    }
    Ok(())
}

/// The lock that the bridge handed over, after making sure that it is this folder's and held.
fn inherited_lock(folder: &Folder) -> io::Result<std::fs::File> {
    let refused = || {
        let text = "a supervisor is started by the bridge, which hands over the run's lock";
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    };
    let lock = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (ours, named) = (lock.metadata()?, std::fs::metadata(folder.path().join("lock"))?);
    if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
        return Err(refused());
    }
    lock.try_lock().map_err(|_| refused())?;
    Ok(lock)
}

struct Times {
    started_at: Millis,
    began: Millis,
}

/// The end of the command, before it has its times.
struct End {
    status: Status,
    result: Option<Box<serde_json::value::RawValue>>,
    error: Option<Failure>,
    exit_code: Option<i32>,
}

impl End {
    fn failed(code: &str, message: String) -> Self {
        let error = Some(Failure { code: code.to_owned(), message });
        Self { status: Status::Failed, result: None, error, exit_code: None }
    }

    fn cancelled(reason: String) -> Self {
        Self { status: Status::Cancelled, ..Self::failed("cancelled", reason) }
    }

    fn outcome(self, clock: &Clock, times: &Times) -> Outcome {
        let taken = Duration::from_millis(clock.monotonic().saturating_sub(times.began));
        Outcome {
            status: self.status,
            result: self.result,
            error: self.error,
            started_at: times.started_at,
            finished_at: clock.now(),
            duration_seconds: taken.as_secs_f64(),
            exit_code: self.exit_code,
        }
    }
}

/// Why a command was made to end.
enum Stop {
    Cancelled(String),
    TimedOut(Duration),
}

/// Runs the command to its end.
async fn run(folder: &Folder, spec: &StoredSpec) -> io::Result<End> {
    ignore_signals()?;
    if let Some(reason) = folder.cancel_reason() {
        return Ok(End::cancelled(reason));
    }
    let mut child = match start(folder, spec) {
        Ok(child) => child,
        Err(end) => return Ok(end),
    };
    let group = child.id().unwrap_or_default();
    if let Some(group) = Group::of(group) {
        folder.write_pid(&group.to_text())?;
    }
    let copy = folder.append("stdout")?;
    let mut stdout = Stdout::new(spec.run.output, copy, folder.append("progress")?);
    let mut stderr = Stderr::new(folder.append("stderr")?);
    let (stop, exit) = {
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut talk = std::pin::pin!(talk(pipes, &spec.run.stdin, &mut stdout, &mut stderr));
        let mut talked = None;
        let mut ending = std::pin::pin!(end(folder, &spec.run, &mut child, group));
        let ended = loop {
            tokio::select! {
                ended = &mut ending => break ended?,
                result = &mut talk, if talked.is_none() => talked = Some(result),
            }
        };
        // A descendant that holds a pipe open would keep it from ending.
        reap(folder);
        if talked.is_none() {
            talked = tokio::time::timeout(DRAIN, talk).await.ok();
        }
        talked.transpose()?;
        ended
    };
    Ok(judge(stop, exit, stdout, &mut stderr))
}

/// The signals that end the bridge do not end what outlives it. A stop of the whole machine
/// reaches the command itself, whose end is then recorded.
fn ignore_signals() -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::hangup(), SignalKind::terminate()] {
        // The handler stays for the life of the process, also without a listener.
        drop(signal(kind)?);
    }
    Ok(())
}

/// Starts the command in its own process group. What cannot be started is an end of its own.
fn start(folder: &Folder, spec: &StoredSpec) -> Result<Child, End> {
    let program = spec.run.command.first().map(String::as_str).unwrap_or_default();
    let project = spec.project_dir.display();
    if !spec.project_dir.is_dir() {
        let message = format!("the project folder {project} does not exist");
        return Err(End::failed("project_folder_missing", message));
    }
    let mut command = Command::new(program);
    command
        .args(spec.run.command.iter().skip(1))
        .current_dir(&spec.project_dir)
        .envs(&spec.run.env)
        .env("LOKI_TASK_ID", &spec.run.task_id)
        .env("LOKI_TASK_ATTEMPT", spec.run.attempt.to_string())
        .env(RUN_VARIABLE, folder.path())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => End::failed(
            "command_not_found",
            format!("the program `{program}` was found neither in PATH nor in {project}"),
        ),
        io::ErrorKind::PermissionDenied => End::failed(
            "command_not_started",
            format!("the program `{program}` is not executable by this user"),
        ),
        _ => End::failed(
            "command_not_started",
            format!("the program `{program}` cannot be started: {error}"),
        ),
    })
}

type Pipes = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

/// Feeds the command its task and reads both of its outputs to their end.
async fn talk(
    (stdin, out, err): Pipes,
    input: &[u8],
    stdout: &mut Stdout,
    stderr: &mut Stderr,
) -> io::Result<()> {
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its task is free not to.
            let _ = stdin.write_all(input).await;
        }
        Ok(())
    };
    let out = drain(out, |bytes| stdout.push(bytes));
    let err = drain(err, |bytes| stderr.push(bytes));
    tokio::try_join!(feed, out, err).map(|_| ())
}

async fn drain<R: AsyncRead + Unpin>(
    from: Option<R>,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        take(&bytes[..read]);
    }
}

/// Waits for the command to end, or makes it.
async fn end(
    folder: &Folder,
    run: &RunSpec,
    child: &mut Child,
    group: u32,
) -> io::Result<(Option<Stop>, ExitStatus)> {
    let stop = tokio::select! {
        // Looked at in this order: one that ended in time is not cancelled afterwards.
        biased;
        exit = child.wait() => return Ok((None, exit?)),
        stop = stop_of(folder, run.timeout) => stop,
    };
    process::signal_group(group, Signal::TERM);
    let exit = if let Ok(exit) = tokio::time::timeout(GRACE, child.wait()).await {
        exit?
    } else {
        process::signal_group(group, Signal::KILL);
        child.wait().await?
    };
    Ok((Some(stop), exit))
}

async fn stop_of(folder: &Folder, timeout: Option<Duration>) -> Stop {
    let timed_out = async {
        match timeout {
            Some(timeout) => {
                tokio::time::sleep(timeout).await;
                Stop::TimedOut(timeout)
            }
            None => std::future::pending().await,
        }
    };
    let cancelled = async {
        let mut ticks = tokio::time::interval(CANCEL_INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(reason) = folder.cancel_reason() {
                return Stop::Cancelled(reason);
            }
        }
    };
    tokio::select! {
        stop = cancelled => stop,
        stop = timed_out => stop,
    }
}

/// Ends every descendant of this process and whatever else carries the run's mark.
fn reap(folder: &Folder) {
    if let Some(group) = folder.read_pid().as_deref().and_then(Group::from_text) {
        group.kill_if_same();
    }
    process::kill_children();
    process::kill_marked(folder.path());
}

fn judge(stop: Option<Stop>, exit: ExitStatus, stdout: Stdout, stderr: &mut Stderr) -> End {
    let exit_code = exit.code();
    let failed = |code: &str, message| End { exit_code, ..End::failed(code, message) };
    match stop {
        Some(Stop::Cancelled(reason)) => return End { exit_code, ..End::cancelled(reason) },
        Some(Stop::TimedOut(timeout)) => {
            let seconds = timeout.as_secs_f64();
            let mut message = format!("the command took longer than {seconds} s");
            let said = stderr.message();
            if !said.is_empty() {
                message.push_str("; it said last: ");
                message.push_str(&said);
            }
            return failed("timeout", message);
        }
        None => {}
    }
    if exit.success() {
        return match stdout.finish() {
            Ok(result) => End { status: Status::Completed, result, error: None, exit_code },
            Err(_) => failed(
                "result_too_large",
                format!(
                    "the result is larger than {RESULT_BYTES_MAX} bytes: leave it in a file and \
                     print its path"
                ),
            ),
        };
    }
    let (code, how) = match (exit_code, exit.signal()) {
        (Some(code), _) => (format!("exit_{code}"), format!("exited with status {code}")),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            (format!("signal_{signal}"), format!("was ended by signal {signal}"))
        }
    };
    let mut message = stderr.message();
    if message.is_empty() {
        message = format!("the command {how} and wrote nothing to its standard error");
    }
    failed(&code, message)
}
