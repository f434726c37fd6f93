//! Whole lives of messages through the real server over WebSockets: durable acknowledgement to
//! whoever sent it, hand-over to its recipient, durable acknowledgement of that. The agents are in
//! this process and take their share of the same processors.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::load::{self, Load, Part};
use crate::support::{self, MESSAGE_BYTES, Outcome, Report, Scale, Watch, figure, program};

/// Agents that send.
const PRODUCERS: u64 = 64;

/// Twice what Redis Streams reach with one command a round trip: lives a second.
const WANTED: f64 = 42_000.0;

/// Messages in a frame, as a pipeline of the peers.
const BATCH: u64 = 16;

/// Time between two looks at whether everything has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Without any progress for this long the benchmark gives up.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// Runs the benchmark, or its short form.
///
/// # Errors
/// When something that is measured does not work.
pub fn measure(short: bool) -> Outcome<Report> {
    let scale = Scale::of(short);
    let messages = scale.number("LOKI_BENCH_MESSAGES", 200_000, 512);
    let mut report = Report::new("lifecycle");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (name, producers, consumers, batch) in [
        ("1 producer, 1 consumer", 1, 1, 1),
        ("64 producers, 1 consumer", PRODUCERS, 1, 1),
        ("64 agents in a ring", PRODUCERS, 0, 1),
        ("64 producers, 1 consumer, frames of 16", PRODUCERS, 1, BATCH),
    ] {
        let share = if producers == 1 { messages / 8 } else { messages };
        let figures = runtime.block_on(lives(share, producers, consumers, batch))?;
        report.row(name, figures);
    }
    report.note(format!(
        "Messages with {MESSAGE_BYTES} bytes of payload, {messages} of them (an eighth with one \
         producer). A producer sends a frame and waits until it is acknowledged. {WANTED} lives a \
         second are wanted with 64 producers."
    ));
    Ok(report)
}

async fn lives(
    messages: u64,
    producers: u64,
    consumers: u64,
    batch: u64,
) -> Outcome<Vec<(&'static str, f64)>> {
    let folder = support::folder()?;
    let server = program::server(&folder.path().join("server"))?;
    let client = program::client()?;
    let load = Load::new(messages);
    let used = || [Some(server.pid()), None].map(support::processor_micros);
    let before = used();
    let begun = Watch::start();
    let mut agents = load::start(server.host(), parts(producers, consumers, batch), &load).await?;
    let connected = begun.elapsed();
    let mut last = (Watch::start(), 0);
    let mut sent_after = None;
    while load.received.load(Ordering::Relaxed) < messages {
        tokio::time::sleep(LOOK_AGAIN).await;
        while let Some(ended) = agents.try_join_next() {
            ended??;
        }
        let now = load.received.load(Ordering::Relaxed);
        if now > last.1 {
            last = (Watch::start(), now);
        }
        if last.0.elapsed() > STUCK_AFTER {
            return Err(format!("only {now} of {messages} messages arrived").into());
        }
        if sent_after.is_none() && load.sent.load(Ordering::Relaxed) >= messages {
            sent_after = Some(begun.elapsed());
        }
    }
    // The last acknowledgements are durable when the server has nothing unfinished.
    while server.get(&client, "/health").await?["storage"]["unfinished_messages"] != 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let took = begun.elapsed().saturating_sub(connected);
    let enqueued = sent_after.unwrap_or(took + connected).saturating_sub(connected);
    let after = used();
    load.stop();
    load::ended(agents).await?;
    let mut times = load.times();
    server.stop()?;
    let extra = load.received.load(Ordering::Relaxed) - messages;
    let each = |index: usize| figure(after[index] - before[index]) / figure(messages);
    Ok(vec![
        ("lives/s", figure(support::rate(messages, took))),
        ("acknowledged/s", figure(support::rate(messages, enqueued))),
        ("p50 us", figure(support::percentile(&mut times, 50))),
        ("p99 us", figure(support::percentile(&mut times, 99))),
        ("server CPU us a life", each(0)),
        ("agents' CPU us a life", each(1)),
        ("delivered again", figure(extra)),
    ])
}

/// Without consumers each agent sends to the next one, and the last to the first.
fn parts(producers: u64, consumers: u64, batch: u64) -> Vec<Part> {
    let names = |kind: &'static str, count: u64| (0..count).map(move |at| format!("{kind}-{at}"));
    let receivers: Vec<String> = names("consumer", consumers).collect();
    let mut parts: Vec<Part> = receivers.iter().map(|id| Part::consumer(id)).collect();
    for (at, id) in names("producer", producers).enumerate() {
        let next = format!("producer-{}", (at as u64 + 1) % producers);
        let to = match receivers.as_slice() {
            [] => &next,
            some => &some[at % some.len()],
        };
        parts.push(Part::producer(&id, to, batch));
    }
    parts
}
