//! The audit log when it is large: an event that occurs once in a million entries, a summary, a
//! search, an export and a verification, asked by the real command with the bridge running, killed
//! and stopped.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::program;
use crate::support::{self, Outcome, Report, Scale, Watch, figure};
use storage::database::Database;
use storage::event::Event;
use storage::record::Level;
use storage::transaction::Act;

/// Entries of a decision, and so of a frame at least.
const BATCH: u64 = 50;

/// Decisions that wait for the disk together.
const WAITING: usize = 4;

/// A rare event comes once in so many entries.
const RARE: u64 = 1_000_000;

/// Times that a question is asked; the middle one counts.
const TIMES: usize = 5;

/// Nobody is there: what is measured is the log.
const NOWHERE: &str = "http://127.0.0.1:9";

/// An agent that serves no task: a bridge wants one.
const PROJECT: &str = "openclaw:\n  enabled: true\nagents:\n  - type: eng-qa\n    \
                       command: [\"true\"]\n    task_types: [testing]\n";

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let entries = scale.number("LOKI_BENCH_MESSAGES", 10_000_000, 20_000);
    let rare = scale.pick(RARE, 10_000).min(entries / 2);
    let mut report = Report::new("audit");
    let folder = support::folder()?;
    let project = folder.path();
    let data = project.join(".loki/openclaw");
    std::fs::create_dir_all(&data)?;
    std::fs::write(project.join(".loki/config.yaml"), PROJECT)?;
    let took = fill(&data, entries, rare)?;
    let found = usize::try_from(entries / rare)?;
    let killed = answers(project, found, entries)?;
    let bridge = program::bridge(project, NOWHERE, "loki-bench")?;
    let running = answers(project, found, entries)?;
    bridge.stop()?;
    let stopped = answers(project, found, entries)?;
    for (how, mut figures) in [("running", running), ("killed", killed), ("stopped", stopped)] {
        figures.push(("written/s", figure(support::rate(entries, took))));
        figures.push(("MB on disk", figure(support::disk_bytes(&data)) / 1e6));
        report.row(&format!("{entries} entries, {how}"), figures);
    }
    report.note(format!(
        "The time of the whole command, its start included, the middle of {TIMES}. The rare event \
         stands once in {rare} entries; wanted: under 100 ms."
    ));
    Ok(report)
}

/// How long each question takes.
fn answers(project: &Path, found: usize, entries: u64) -> Outcome<Vec<(&'static str, f64)>> {
    let rare = || asked(project, &["tail", "--event", "key.rotate", "-n", "1000"]);
    let middle = |ask: &dyn Fn() -> Outcome<(Vec<u8>, u64)>| -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            times.push(ask()?.1);
        }
        Ok(figure(support::percentile(&mut times, 50)) / 1_000.0)
    };
    let count = lines(&rare()?.0);
    if count != found {
        return Err(format!("of {found} rare entries {count} were found").into());
    }
    let summary = asked(project, &["summary"])?;
    let counted: serde_json::Value = serde_json::from_slice(&summary.0)?;
    if counted["entries"].as_u64().is_none_or(|all| all < entries) {
        return Err(format!("of {entries} entries this was counted: {counted}").into());
    }
    let search = asked(project, &["search", "nowhere-at-all"])?;
    let export = asked(project, &["export", "--event", "task.*"])?;
    let exported = u64::try_from(lines(&export.0))?;
    let verified = asked(project, &["verify"])?;
    let verdict: serde_json::Value = serde_json::from_slice(&verified.0)?;
    let verified_entries = verdict["entries"].as_u64().unwrap_or_default();
    if verified_entries < entries || verdict["sound"] != true {
        return Err(format!("of {entries} entries this was verified: {verdict}").into());
    }
    Ok(vec![
        ("rare event ms", middle(&rare)?),
        ("last 20 ms", middle(&|| asked(project, &["tail"]))?),
        ("one resource ms", middle(&|| asked(project, &["tail", "--resource", "m-7"]))?),
        ("summary ms", figure(summary.1) / 1_000.0),
        ("search of all ms", figure(search.1) / 1_000.0),
        ("verified/s", figure(support::rate(verified_entries, Duration::from_micros(verified.1)))),
        ("exported/s", figure(support::rate(exported, Duration::from_micros(export.1)))),
    ])
}

/// The output of a command about the audit log, and its microseconds.
fn asked(project: &Path, arguments: &[&str]) -> Outcome<(Vec<u8>, u64)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loki"));
    command.current_dir(project).args(["enterprise", "audit"]).args(arguments);
    if arguments[0] != "export" {
        command.arg("--json");
    }
    let watch = Watch::start();
    let done = command.stdin(Stdio::null()).output()?;
    let took = watch.micros();
    if done.status.success() {
        return Ok((done.stdout, took));
    }
    Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&done.stderr)).into())
}

fn lines(output: &[u8]) -> usize {
    output.split(|byte| *byte == b'\n').count().saturating_sub(1)
}

/// Writes so many entries, as a busy bridge does, and leaves what a kill would: the newest segment
/// has no footer.
fn fill(data: &Path, entries: u64, rare: u64) -> Outcome<Duration> {
    let clock = loki_openclaw::clock::Clock::system();
    let database = Database::open(data, Box::new(move || clock.now()), Box::new(support::say))?.0;
    let store = database.store();
    let watch = Watch::start();
    let mut waiting = VecDeque::new();
    for first in (0..entries).step_by(usize::try_from(BATCH)?) {
        let acts: Vec<Act> = (first..entries.min(first + BATCH)).map(|at| act(at, rare)).collect();
        waiting.push_back(store.commit(move |transaction| {
            for act in acts {
                transaction.note(act);
            }
            Ok::<_, std::convert::Infallible>(())
        }));
        while waiting.len() > WAITING {
            if let Some(done) = waiting.pop_front() {
                done.wait()??;
            }
        }
    }
    for done in waiting {
        done.wait()??;
    }
    Ok(watch.elapsed())
}

/// An entry such as a message or a task has in its life.
fn act(number: u64, rare: u64) -> Act {
    let kinds = [
        (Event::MessageQueued, Level::Info),
        (Event::MessageSent, Level::Info),
        (Event::MessageDelivered, Level::Info),
        (Event::MessageReceived, Level::Info),
        (Event::MessageProcessed, Level::Info),
        (Event::MessageRetry, Level::Warning),
        (Event::TaskOffer, Level::Info),
    ];
    let at = usize::try_from(number).unwrap_or_default();
    let (event, level) =
        if number % rare == rare / 2 { (Event::KeyRotate, Level::Info) } else { kinds[at % 7] };
    let actor = format!("agent-{}", number % 50);
    Act::new(event, &actor, "default", &format!("m-{}", number / 7))
        .level(level)
        .details(format!(r#"{{"attempt":{},"status":202,"transport":"websocket"}}"#, number % 4))
}
