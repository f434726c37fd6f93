//! The real server under most of the load that it can carry, for half an hour, with one agent that
//! is away and whose messages expire: whether memory, lag, latency and disk still grow in the last
//! third.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::load::{self, Load, Part};
use crate::support::program::{self, Program};
use crate::support::{self, Outcome, Report, Scale, Watch, figure};

/// Agents that send, and agents that take what they send.
const PRODUCERS: usize = 64;
const CONSUMERS: usize = 8;

/// The share of what it can carry that is sent, in percent.
const LOAD_PERCENT: u64 = 80;

/// Of so many messages one is for the agent that is away.
const DEAD_ONE_IN: u64 = 100;

/// When a message for the agent that is away expires: a part of the whole time, and never so soon
/// that the server can find it expired when it comes.
const EXPIRES_AFTER: u32 = 20;
const EXPIRES_AFTER_MIN: Duration = Duration::from_secs(30);

/// How long messages, their ids and the audit log are kept: a part of the whole time, so that in
/// the last third as much goes as comes.
const KEPT_PART: u32 = 6;

/// Samples of the whole time.
const SAMPLES: u32 = 90;

/// How often messages are let go.
const TICK: Duration = Duration::from_millis(10);

/// A figure is flat when the second half of the last third is at most so much above the first.
const FLAT_PERCENT: f64 = 5.0;

/// What is acknowledged for an agent that is away when the server is killed.
const LEFT: u64 = 64;

/// What the start after the kill may take, and the first delivery after that.
const OPEN_MOST: Duration = Duration::from_secs(2);
const FIRST_MOST: Duration = Duration::from_secs(1);

/// Without its messages for this long an agent gets them no more.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// Latency moves more than what is stored.
const FLAT_LATENCY_PERCENT: f64 = 50.0;

/// One look at the server.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    memory_mib: f64,
    lag_records: f64,
    p99_micros: f64,
    disk_mb: f64,
    acknowledged: f64,
}

/// From the start of the killed server until it listened, and from then until what it had
/// acknowledged arrived: the first and the last of it.
struct Back {
    opened: Duration,
    first: Duration,
    all: Duration,
}

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let whole = Duration::from_secs(scale.number("LOKI_BENCH_SECONDS", 1_800, 2));
    let probe = scale.pick(Duration::from_secs(10), Duration::from_millis(300));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(steady(whole, probe))
}

async fn steady(whole: Duration, probe: Duration) -> Outcome<Report> {
    let folder = support::folder()?;
    let data = folder.path().join("server");
    let kept = (whole / KEPT_PART).as_secs().max(1);
    let config =
        format!("dedup_window_seconds: {kept}\nretention: {kept}s\naudit:\n  retention: {kept}s\n");
    let server = program::server_with(&data, &config)?;
    let most = carried(&server, probe).await?;
    let rate = (most * LOAD_PERCENT / 100).max(1);
    let (live, dead) = (Load::new(0), Load::new(0));
    let gone = Load::new(0);
    let away = load::start(server.host(), vec![Part::consumer("away")], &gone).await?;
    gone.stop();
    load::ended(away).await?;
    let agents = load::start(server.host(), parts("live"), &live).await?;
    let expires_after = (whole / EXPIRES_AFTER).max(EXPIRES_AFTER_MIN);
    let expires_after = support::micros(expires_after) / 1_000;
    let sender = Part { expires_after, ..Part::producer("hopeful", "away", 1) };
    let hopeful = load::start(server.host(), vec![sender], &dead).await?;
    let client = program::client()?;
    let begun = Watch::start();
    let (mut samples, mut let_go) = (Vec::new(), 0);
    while begun.elapsed() < whole {
        tokio::time::sleep(TICK).await;
        let due = rate * support::micros(begun.elapsed()) / 1_000_000;
        live.more(due - let_go);
        dead.more(due / DEAD_ONE_IN - let_go / DEAD_ONE_IN);
        let_go = due;
        if begun.elapsed() >= whole / SAMPLES * (u32::try_from(samples.len())? + 1) {
            samples.push(sample(&server, &client, &data, &live).await?);
        }
    }
    let behind = live.waiting();
    dead.stop();
    load::ended(hopeful).await?;
    leave(server.host(), "patient").await?;
    // It is busy when it goes, and so are they.
    live.more(rate);
    server.kill()?;
    drop(agents);
    let back = back(&data, &config, "patient").await?;
    Ok(report(&samples, whole, ([most, rate, behind], back)))
}

/// Has messages acknowledged for an agent that the server knows and that is away.
async fn leave(host: &str, agent_id: &str) -> Outcome<()> {
    let known = Load::new(0);
    let agent = load::start(host, vec![Part::consumer(agent_id)], &known).await?;
    known.stop();
    load::ended(agent).await?;
    let left = Load::new(LEFT);
    let sender = load::start(host, vec![Part::producer("careful", agent_id, 1)], &left).await?;
    until(|| left.sent.load(Ordering::Relaxed) >= LEFT).await?;
    left.stop();
    load::ended(sender).await
}

/// Starts the server again over what the kill left, and fetches what waits for an agent.
async fn back(data: &Path, config: &str, agent_id: &str) -> Outcome<Back> {
    let server = program::server_with(data, config)?;
    let (listens, waits) = (Watch::start(), Load::new(0));
    let agent = load::start(server.host(), vec![Part::consumer(agent_id)], &waits).await?;
    until(|| waits.received.load(Ordering::Relaxed) > 0).await?;
    let first = listens.elapsed();
    until(|| waits.received.load(Ordering::Relaxed) >= LEFT).await?;
    let all = listens.elapsed();
    waits.stop();
    load::ended(agent).await?;
    let opened = server.opened;
    server.stop()?;
    Ok(Back { opened, first, all })
}

async fn until(is_so: impl Fn() -> bool) -> Outcome<()> {
    let begun = Watch::start();
    while !is_so() {
        if begun.elapsed() > STUCK_AFTER {
            return Err("messages that were acknowledged do not arrive".into());
        }
        tokio::time::sleep(TICK / 10).await;
    }
    Ok(())
}

fn parts(kind: &str) -> Vec<Part> {
    let receivers: Vec<String> = (0..CONSUMERS).map(|at| format!("{kind}-consumer-{at}")).collect();
    let mut parts: Vec<Part> = receivers.iter().map(|id| Part::consumer(id)).collect();
    for at in 0..PRODUCERS {
        let id = format!("{kind}-producer-{at}");
        parts.push(Part::producer(&id, &receivers[at % CONSUMERS], 1));
    }
    parts
}

/// Lives a second when nothing is held back.
async fn carried(server: &Program, probe: Duration) -> Outcome<u64> {
    let load = Load::new(u64::MAX);
    let agents = load::start(server.host(), parts("probe"), &load).await?;
    let watch = Watch::start();
    tokio::time::sleep(probe).await;
    let received = load.received.load(Ordering::Relaxed);
    let rate = support::rate(received, watch.elapsed());
    // What lay in a mailbox for ever would keep the history since then.
    load.drained().await;
    load.stop();
    load::ended(agents).await?;
    Ok(rate)
}

async fn sample(
    server: &Program,
    client: &reqwest::Client,
    data: &Path,
    load: &Arc<Load>,
) -> Outcome<Sample> {
    let address = format!("{}/metrics", server.address);
    let metrics = client.get(address).send().await?.text().await?;
    let lag = metrics.lines().find_map(|line| line.strip_prefix("openclaw_view_lag_records "));
    Ok(Sample {
        memory_mib: figure(support::resident_kib(Some(server.pid()))) / 1_024.0,
        lag_records: lag.ok_or("the metrics have no view lag")?.trim().parse()?,
        p99_micros: figure(support::percentile(&mut load.times(), 99)),
        disk_mb: figure(support::disk_bytes(data)) / 1e6,
        acknowledged: figure(load.sent.load(Ordering::Relaxed)),
    })
}

fn report(
    samples: &[Sample],
    whole: Duration,
    ([most, rate, behind], back): ([u64; 3], Back),
) -> Report {
    let mut report = Report::new("steady");
    let third = samples.len() / 3;
    let thirds = ["first third", "second third", "last third"];
    for (name, part) in thirds.iter().zip(samples.chunks(third.max(1))) {
        report.row(name, means(part).to_vec());
    }
    let last = &samples[samples.len() - third.min(samples.len())..];
    let (early, late) = last.split_at(last.len() / 2);
    let growth: Vec<(&'static str, f64)> = means(early)
        .iter()
        .zip(means(late))
        .map(|((name, early), (_, late))| (*name, 100.0 * (late - early) / early.max(1.0)))
        .collect();
    let limit = |name: &str| if name == "p99 us" { FLAT_LATENCY_PERCENT } else { FLAT_PERCENT };
    for (name, percent) in &growth {
        let verdict = if *percent <= limit(name) { "flat" } else { "NOT flat" };
        report.note(format!("{name}: {verdict}, {percent:+.1} % within the last third"));
    }
    report.row("growth within the last third, %", growth);
    after_a_kill(&mut report, &back);
    let sent = samples.last().map_or(0.0, |sample| sample.acknowledged);
    report.note(format!(
        "{} s at {rate} messages a second, {LOAD_PERCENT} % of the {most} that it carried before; \
         {sent:.0} were acknowledged, {behind} could not be sent in time. One in {DEAD_ONE_IN} \
         more is for an agent that is away, and expires.",
        whole.as_secs()
    ));
    report
}

fn after_a_kill(report: &mut Report, back: &Back) {
    let millis = |time: Duration| figure(support::micros(time)) / 1_000.0;
    let verdict = |time, most| if time <= most { "within" } else { "NOT within" };
    report.note(format!(
        "Killed under this load it is back {} {} ms, and what it had acknowledged before begins to \
         arrive {} {} ms after that.",
        verdict(back.opened, OPEN_MOST),
        OPEN_MOST.as_millis(),
        verdict(back.first, FIRST_MOST),
        FIRST_MOST.as_millis(),
    ));
    let figures = vec![
        ("open ms", millis(back.opened)),
        ("first message ms later", millis(back.first)),
        ("64 messages ms later", millis(back.all)),
    ];
    report.row("after a kill", figures);
}

fn means(samples: &[Sample]) -> [(&'static str, f64); 4] {
    let mean = |of: fn(&Sample) -> f64| {
        samples.iter().map(of).sum::<f64>() / figure(samples.len().max(1) as u64)
    };
    [
        ("MiB in memory", mean(|sample| sample.memory_mib)),
        ("view lag records", mean(|sample| sample.lag_records)),
        ("p99 us", mean(|sample| sample.p99_micros)),
        ("MB on disk", mean(|sample| sample.disk_mb)),
    ]
}
