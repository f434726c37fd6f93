//! A bridge that starts over a large backlog, after a kill and after a clean stop: how long until
//! it answers, what it then has in memory, how long its status and a list take, and how long until
//! the first message reaches the server. The bridge is the real program, in a fresh process.

use std::path::Path;
use std::time::Duration;

use crate::support::program::Program;
use crate::support::stub::Stub;
use crate::support::{self, MESSAGE_BYTES, Outcome, Report, Scale, Watch, figure, program};
use loki_openclaw::outbox;
use loki_openclaw::protocol::parse_one;
use storage::database::Database;

/// Messages accepted in one decision while the backlog is made.
const BATCH: u64 = 1_000;

const AGENT_ID: &str = "loki-bench";

const NAMESPACE: &str = "default";

/// An agent that serves no task: a bridge wants one.
const PROJECT: &str = "openclaw:\n  enabled: true\nagents:\n  - type: eng-qa\n    \
                       command: [\"true\"]\n    task_types: [testing]\n";

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let most = scale.number("LOKI_BENCH_MESSAGES", 1_000_000, 2_000);
    let mut report = Report::new("recover");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build()?;
    for messages in scale.pick(vec![most / 10, most], vec![most]) {
        let folder = support::folder()?;
        let data = folder.path().join(".loki/openclaw");
        std::fs::create_dir_all(&data)?;
        std::fs::write(folder.path().join(".loki/config.yaml"), PROJECT)?;
        let accepted = fill(&data, messages)?;
        runtime.block_on(async {
            let stub = Stub::start().await?;
            for how in ["a kill", "a clean stop"] {
                let name = format!("{messages} pending, {how}");
                let (bridge, mut figures) = start(folder.path(), &stub, messages).await?;
                figures.push(("accepted/s before", figure(support::rate(messages, accepted))));
                figures.push(("MB on disk", figure(support::disk_bytes(&data)) / 1e6));
                report.row(&name, figures);
                // A bridge with a link waits a little for what is under way, which is not measured.
                let url = format!("{}/api/openclaw/disconnect", bridge.address);
                program::client()?.post(url).send().await?.error_for_status()?;
                bridge.stop()?;
            }
            Outcome::Ok(())
        })?;
    }
    report.note(
        "Wanted with 1,000,000: open within 2,000 ms, under 200 MiB in memory, the first message \
         1,000 ms later."
            .to_owned(),
    );
    Ok(report)
}

async fn start(
    project: &Path,
    stub: &Stub,
    messages: u64,
) -> Outcome<(Program, Vec<(&'static str, f64)>)> {
    let begun = Watch::start();
    let (project, address) = (project.to_owned(), stub.address.clone());
    let started =
        tokio::task::spawn_blocking(move || program::bridge(&project, &address, AGENT_ID));
    let (bridge, arrived) = tokio::join!(started, async {
        stub.first().await?;
        Outcome::Ok(begun.elapsed())
    });
    let (bridge, arrived) = (bridge??, arrived?);
    let memory = support::resident_kib(Some(bridge.pid()));
    let client = program::client()?;
    let watch = Watch::start();
    let status = bridge.get(&client, "/api/openclaw/status").await?;
    let status_took = watch.elapsed();
    let unfinished = |word: &str| status["messages"][word].as_u64().unwrap_or(0);
    if unfinished("pending") + unfinished("sending") != messages {
        return Err(format!("{messages} messages were accepted; the status has {status}").into());
    }
    let watch = Watch::start();
    let page = bridge.get(&client, "/api/openclaw/messages?limit=50").await?;
    let list_took = watch.elapsed();
    if page["messages"].as_array().is_none_or(Vec::is_empty) {
        return Err(format!("a list of messages was {page}").into());
    }
    let millis = |time: Duration| figure(support::micros(time)) / 1_000.0;
    let figures = vec![
        ("open ms", millis(bridge.opened)),
        ("first message ms later", millis(arrived.saturating_sub(bridge.opened))),
        ("MiB in memory", figure(memory) / 1_024.0),
        ("MiB after a status and a list", resident(&bridge)),
        ("status ms", millis(status_took)),
        ("list of 50 ms", millis(list_took)),
    ];
    Ok((bridge, figures))
}

fn resident(program: &Program) -> f64 {
    figure(support::resident_kib(Some(program.pid()))) / 1_024.0
}

/// Makes a backlog, as a bridge without a server does, and leaves what a crash would.
fn fill(data: &Path, messages: u64) -> Outcome<Duration> {
    let clock = loki_openclaw::clock::Clock::system();
    let database = Database::open(data, Box::new(move || clock.now()), Box::new(support::say))?.0;
    let store = database.store();
    let watch = Watch::start();
    for first in (0..messages).step_by(usize::try_from(BATCH)?) {
        while let Some(room) = store.room() {
            room.wait()?;
        }
        let envelopes = (first..messages.min(first + BATCH)).map(|number| {
            parse_one(message(number)).map_err(|rejected| rejected.refusal.to_string())
        });
        let envelopes = envelopes.collect::<Result<Vec<_>, _>>()?;
        let done = store.commit(move |transaction| {
            for envelope in &envelopes {
                outbox::stage(transaction, envelope, "openclaw-server", "openclaw-server")
                    .ok_or("the id is known")?;
            }
            Ok::<_, &str>(())
        });
        done.wait()??;
    }
    Ok(watch.elapsed())
}

fn message(number: u64) -> String {
    let content = "x".repeat(MESSAGE_BYTES - r#"{"data":""}"#.len());
    let id = format!("bench-{number:012}");
    format!(
        concat!(
            r#"{{"message_type":"note","message_id":"{}","agent_id":"{}","namespace":"{}","#,
            r#""to":"other","payload":{{"data":"{}"}}}}"#
        ),
        id, AGENT_ID, NAMESPACE, content
    )
}
