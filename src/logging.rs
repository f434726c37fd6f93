//! The log on standard error: how much of it, in which form, and the steps of tasks and messages
//! in it, from what is recorded of them. Of contents it never has anything.

use std::io;

use storage::record::{Level, Record};
use tracing::{debug, enabled, info};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::trace;

/// Lines that wait for a standard error that takes none; beyond them the newest are lost.
const LINES_MAX: usize = 10_000;

/// Writes what this program logs from now on, at `level` and above, to `writer`, on a thread of its
/// own: whoever logs may be whom everybody waits for, and nobody waits for whoever reads a log.
/// What is not written yet is when the answer is dropped.
#[must_use = "dropped, it ends the log"]
pub fn start<W>(level: &str, format: LogFormat, colours: bool, writer: W) -> WorkerGuard
where
    W: io::Write + Send + 'static,
{
    let lines = NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX);
    let (writer, guard) = lines.thread_name("log").finish(writer);
    let filter = EnvFilter::new(format!("off,loki_openclaw={level},storage={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let builder = builder.with_writer(writer).with_ansi(colours && format == LogFormat::Text);
    let builder = builder.log_internal_errors(false);
    // Whoever has begun to log before goes on with it.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    guard
}

/// Whether what standard error shows may have colours.
pub fn has_colours() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::IsTerminal::is_terminal(&io::stderr()) && !plain
}

/// Logs what has become durable: a step of a task as information, what happened to a message for
/// those who want everything.
pub fn record(record: &Record) {
    let event = record.event.name();
    let (actor, namespace) = (&*record.actor, &*record.namespace);
    let traceparent = || trace::of_object(record.details.as_bytes());
    if event.starts_with("task.") {
        let task_id = &*record.resource;
        if record.level > Level::Debug && enabled!(tracing::Level::INFO) {
            let traceparent = traceparent();
            info!(event, task_id, actor, namespace, traceparent, "a task went a step on");
        }
    } else if event.starts_with("message.") && enabled!(tracing::Level::DEBUG) {
        let (message_id, traceparent) = (&*record.resource, traceparent());
        debug!(event, message_id, actor, namespace, traceparent, "a message went a step on");
    }
}
