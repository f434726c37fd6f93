//! The log on standard error: how much of it, in which form, and the steps of tasks and messages
//! in it, from what is recorded of them. Of contents it never has anything.

use std::io;

use storage::record::{Level, Record};
use tracing::{debug, enabled, info};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::trace;

/// Writes what this program logs from now on, at `level` and above, to `writer`.
pub fn start<W>(level: &str, format: LogFormat, colours: bool, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(format!("off,loki_openclaw={level},storage={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let builder = builder.with_writer(writer).with_ansi(colours && format == LogFormat::Text);
    // Whoever has begun to log before goes on with it.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
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
