//! Nine agents that take their mail at once, with and without a tenth that has a large mailbox and
//! reads nothing: whether the nine notice it. The two are run in turn, as the speed of a machine
//! drifts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::load::{self, Load, Part};
use crate::support::program::{self, Program};
use crate::support::{self, Outcome, Report, Scale, Watch, figure};

/// Agents that read.
const LIVE: usize = 9;

/// Agents that send, for each that reads.
const PRODUCERS_EACH: usize = 7;

/// Messages that lie in the mailbox of the one that reads nothing.
const BACKLOG: u64 = 20_000;

/// Frames of the backlog are larger, so that it is made in a moment.
const BACKLOG_BATCH: u64 = 50;

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let run = Duration::from_millis(scale.number("LOKI_BENCH_MILLIS", 5_000, 200));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new("fair");
    let mut ratios = Vec::new();
    for round in 0..scale.pick(5, 1) {
        let (alone, beside) = runtime.block_on(async {
            let alone = delivered(run, 0).await?;
            Outcome::Ok((alone, delivered(run, scale.pick(BACKLOG, BACKLOG / 100)).await?))
        })?;
        let percent = support::percent(beside, alone);
        ratios.push(percent);
        report.row(
            &format!("round {round}"),
            vec![
                ("nine alone/s", figure(alone)),
                ("nine beside the deaf one/s", figure(beside)),
                ("% of alone", percent),
            ],
        );
    }
    ratios.sort_by(f64::total_cmp);
    report.row("median", vec![("% of alone", ratios[ratios.len() / 2])]);
    report.note("Wanted: at least 95 % of alone in the median.".to_owned());
    Ok(report)
}

/// Messages a second that nine agents get, beside a mailbox with such a backlog.
async fn delivered(run: Duration, backlog: u64) -> Outcome<u64> {
    let folder = support::folder()?;
    let server = program::server(&folder.path().join("server"))?;
    let deaf = Load::new(0);
    let mut others = load::Agents::new();
    if backlog > 0 {
        let part = Part { is_deaf: true, ..Part::consumer("deaf") };
        others = load::start(server.host(), vec![part], &deaf).await?;
        fill(&server, backlog).await?;
    }
    let load = Load::new(u64::MAX);
    let agents = load::start(server.host(), parts(), &load).await?;
    let watch = Watch::start();
    tokio::time::sleep(run).await;
    let rate = support::rate(load.received.load(Ordering::Relaxed), watch.elapsed());
    load.stop();
    deaf.stop();
    load::ended(agents).await?;
    load::ended(others).await?;
    server.kill()?;
    Ok(rate)
}

async fn fill(server: &Program, backlog: u64) -> Outcome<()> {
    let load: Arc<Load> = Load::new(backlog);
    let part = Part::producer("hopeful", "deaf", BACKLOG_BATCH);
    let agents = load::start(server.host(), vec![part], &load).await?;
    while load.sent.load(Ordering::Relaxed) < backlog {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    load.stop();
    load::ended(agents).await
}

fn parts() -> Vec<Part> {
    let live: Vec<String> = (0..LIVE).map(|at| format!("live-{at}")).collect();
    let mut parts: Vec<Part> = live.iter().map(|id| Part::consumer(id)).collect();
    for at in 0..LIVE * PRODUCERS_EACH {
        parts.push(Part::producer(&format!("producer-{at}"), &live[at % LIVE], 1));
    }
    parts
}
