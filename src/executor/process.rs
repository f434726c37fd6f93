//! Ends every process of a run and nobody else's. It starts none and writes no file.
//!
//! Three marks identify them: the process group, the parent (a supervisor adopts the orphans of
//! its command), and the `LOKI_RUN` variable that a whole family inherits. A number alone is
//! never believed: the system gives the numbers of dead processes to strangers.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::environment::RUN_VARIABLE;

/// How often the family is looked for before it is given up, in all for a few seconds: one that
/// forks as fast as it is killed, or hangs in an uninterruptible wait, is not ours to end.
const SWEEPS_MAX: usize = 1_000;

/// The pause between two looks: a killed process needs a moment to end.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// The group of a run's command, and what tells it from a later group with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pid: i32,
    /// Clock ticks from boot to the start of the process, and the boot: never equal for two.
    began: String,
}

impl Group {
    /// The group that the live process `pid` leads.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { pid, began: began(pid)? })
    }

    /// As it stands in the file `pid`.
    pub(super) fn to_text(&self) -> String {
        format!("{} {}\n", self.pid, self.began)
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (pid, began) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, began: began.to_owned() })
    }

    /// Kills the group, unless its leader is gone or is another process by now.
    pub(super) fn kill_if_same(&self) {
        if began(self.pid).as_ref() == Some(&self.began) {
            signal_group(self.pid.unsigned_abs(), Signal::KILL);
        }
    }
}

/// When a process began; `None` when there is no such process.
fn began(pid: i32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, also parentheses; proc_pid_stat(5) counts
    // from 1, and field 22, the start time, is the twentieth after the name.
    let ticks = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?;
    Some(format!("{ticks} {}", boot.trim()))
}

/// Sends a signal to a process group; one that is gone is done already.
pub(super) fn signal_group(group: u32, signal: Signal) {
    let group = i32::try_from(group).ok().and_then(Pid::from_raw);
    // Group 1 would be everybody's; it is never a command's.
    if let Some(group) = group.filter(|group| !group.is_init()) {
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// Makes this process the parent of the orphans of its descendants, where the system knows that.
pub(super) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    {
        // Without it only the process group is ended, which is what other systems offer.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
}

/// Kills the children of this process and the orphans that become its children by that, and waits
/// for them, until none is left. Only for a process whose children are all of one run.
pub(super) fn kill_children() {
    for _ in 0..SWEEPS_MAX {
        let children = children();
        for &child in &children {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        for &child in &children {
            // A number stays a child's own until it is waited for here.
            let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        }
        if children.is_empty() {
            return;
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
}

fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_pid();
    let threads = fs::read_dir(format!("/proc/{own}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let all = lists.map(Result::unwrap_or_default).collect::<Vec<_>>().join(" ");
    all.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Kills what carries the mark of `run`, until a look finds nothing. Returns whether all ended.
pub(super) fn kill_marked(run: &Path) -> bool {
    let mut mark = Vec::from(RUN_VARIABLE.as_bytes());
    mark.push(b'=');
    mark.extend_from_slice(run.as_os_str().as_bytes());
    (0..SWEEPS_MAX).any(|_| {
        let killed = processes().filter(|&pid| kill_if_marked(pid, &mark)).count();
        if killed > 0 {
            std::thread::sleep(SWEEP_PAUSE);
        }
        killed == 0
    })
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills the process when its environment has the mark. The process is held by a descriptor
/// while it is looked at, so that its number cannot become another's in between.
fn kill_if_marked(pid: i32, mark: &[u8]) -> bool {
    let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) else {
        return false;
    };
    let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // A dead process has an empty environment.
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|variable| variable == mark)
        && rustix::process::pidfd_send_signal(handle, Signal::KILL).is_ok()
}
