//! The peers, started here on the same disk and spoken to in their own protocols with as little
//! work as possible: those that are installed, each as durable as it gets, and NATS as it comes.
//! `benches/peers/run` installs them and puts the figures beside ours.

mod beanstalk;
mod daemon;
mod nats;
mod redis;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{self, MESSAGE_BYTES, Outcome, Report, Scale, Watch, figure};
use daemon::Daemon;

/// The content of every message.
pub const CONTENT: [u8; MESSAGE_BYTES] = [b'x'; MESSAGE_BYTES];

/// Clients of the second measurement.
const CLIENTS: u64 = 64;

/// Commands of a pipeline.
const PIPELINE: usize = 16;

/// A connection to a peer.
pub trait Client: Sized + Send + 'static {
    /// Opens the connection of client `number`; the first one prepares what all need.
    fn connect(address: &str, number: u64) -> impl Future<Output = Outcome<Self>> + Send;

    /// Puts a batch in, and waits until the peer has confirmed it.
    fn enqueue(&mut self, batch: usize) -> impl Future<Output = Outcome<()>> + Send;

    /// The same, takes as many out, and confirms them.
    fn live(&mut self, batch: usize) -> impl Future<Output = Outcome<()>> + Send;
}

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let run = Duration::from_millis(scale.number("LOKI_BENCH_MILLIS", 5_000, 100));
    let mut report = Report::new("peers");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(daemon) = found(&mut report, redis::start())? {
            let name = "Redis Streams, AOF always, one command a round trip";
            compare::<redis::Redis>(&mut report, name, &daemon, run, 1).await?;
            let name = "Redis Streams, AOF always, pipeline of 16";
            compare::<redis::Redis>(&mut report, name, &daemon, run, PIPELINE).await?;
        }
        if let Some(daemon) = found(&mut report, beanstalk::start())? {
            let name = "beanstalkd, fsync each put";
            compare::<beanstalk::Beanstalk>(&mut report, name, &daemon, run, 1).await?;
        }
        if let Some(daemon) = found(&mut report, nats::start())? {
            let name = "NATS JetStream, its default: not durable";
            compare::<nats::Nats>(&mut report, name, &daemon, run, 1).await?;
        }
        Outcome::Ok(())
    })?;
    sqlite(&mut report, run)?;
    report.note(format!(
        "Messages of {MESSAGE_BYTES} bytes; {CLIENTS} clients in the columns of 64."
    ));
    Ok(report)
}

/// The daemon, or a note that it is not installed.
fn found(report: &mut Report, started: Outcome<Result<Daemon, String>>) -> Outcome<Option<Daemon>> {
    match started? {
        Ok(daemon) => Ok(Some(daemon)),
        Err(program) => {
            report.note(format!("{program} is not installed, so it was not measured."));
            Ok(None)
        }
    }
}

async fn compare<C: Client>(
    report: &mut Report,
    name: &str,
    daemon: &Daemon,
    run: Duration,
    batch: usize,
) -> Outcome<()> {
    let one = rate::<C>(daemon, 1, run, batch, false).await?;
    let many = rate::<C>(daemon, CLIENTS, run, batch, false).await?;
    let lives = rate::<C>(daemon, CLIENTS, run, batch, true).await?;
    let figures = vec![
        ("enqueue/s, 1", figure(one.0)),
        ("enqueue/s, 64", figure(many.0)),
        ("p99 us, 64", figure(many.1)),
        ("lives/s, 64", figure(lives.0)),
    ];
    report.row(name, figures);
    Ok(())
}

/// Messages a second, and the time below which 99 of 100 batches were confirmed.
async fn rate<C: Client>(
    daemon: &Daemon,
    clients: u64,
    run: Duration,
    batch: usize,
    whole: bool,
) -> Outcome<(u64, u64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut connected = Vec::new();
    for number in 0..clients {
        connected.push(C::connect(&daemon.address, number).await?);
    }
    let mut tasks: JoinSet<Outcome<Vec<u64>>> = JoinSet::new();
    let watch = Watch::start();
    for mut client in connected {
        let stop = Arc::clone(&stop);
        tasks.spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let one = Watch::start();
                if whole {
                    client.live(batch).await?;
                } else {
                    client.enqueue(batch).await?;
                }
                times.push(one.micros());
            }
            Ok(times)
        });
    }
    tokio::time::sleep(run).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    let took = watch.elapsed();
    let messages = (times.len() * batch) as u64;
    Ok((support::rate(messages, took), support::percentile(&mut times, 99)))
}

/// `SQLite` by Python's own module, as no daemon speaks for it.
fn sqlite(report: &mut Report, run: Duration) -> Outcome<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/sqlite.py");
    let folder = support::folder()?;
    let mut command = Command::new("python3");
    command.arg(script).arg(folder.path()).arg(run.as_secs_f64().to_string());
    let Ok(output) = command.output() else {
        report.note("python3 is not installed, so SQLite was not measured.".to_owned());
        return Ok(());
    };
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let measured: Value = serde_json::from_slice(&output.stdout)?;
    let get = |name: &str| measured[name].as_f64().ok_or("sqlite.py printed no figure");
    let figures = vec![
        ("enqueue/s, 1", get("single")?),
        ("enqueue/s, batches of 100", get("batched")?),
        ("lives/s, batches of 100", get("lives")?),
    ];
    report.row("SQLite, WAL, synchronous=FULL", figures);
    Ok(())
}
