//! `loki openclaw send`: gives the bridge a message to deliver, or its store when it is stopped.

use std::io::Read as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::trace::Trace;
use crate::cli::{Done, look, output, output_of, store};
use crate::clock::Clock;

/// The message.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Its type
    message_type: String,
    /// Its payload: JSON, @FILE, or - for standard input
    #[arg(long, default_value = "{}")]
    payload: String,
    /// The agent that it is for; without one, the server itself
    #[arg(long)]
    to: Option<String>,
    /// After this time no delivery starts
    #[arg(long)]
    expires_at: Option<String>,
    /// Messages with the same key are delivered in order
    #[arg(long)]
    ordering_key: Option<String>,
    /// Its id, instead of a new one
    #[arg(long)]
    message_id: Option<String>,
    #[command(flatten)]
    trace: Trace,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let payload = read(&arguments.payload)?;
    let body = body(arguments, &payload, &Clock::system());
    let (answer, running) = store::post(&look(global)?, "/api/openclaw/send", &body).await?;
    if global.json {
        output_of(global).object(&answer, &[]);
    } else {
        output::line(answer["message_id"].as_str().unwrap_or_default());
        let when =
            if running { "" } else { "; the bridge is stopped and sends it at its next start" };
        output::say(&format!("the message is on disk{when}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The message, with an id in any case: whoever asks again because no answer came asks for the
/// same message.
fn body(arguments: Arguments, payload: &Value, clock: &Clock) -> Value {
    json!({
        "message_type": arguments.message_type,
        "payload": payload,
        "to": arguments.to,
        "expires_at": arguments.expires_at,
        "ordering_key": arguments.ordering_key,
        "message_id": arguments.message_id.unwrap_or_else(|| clock.message_id()),
        "traceparent": arguments.trace.context(),
    })
}

fn read(given: &str) -> Result<Value, Failure> {
    let usage = |text: String| Failure::new(Code::Usage, text);
    let text = match (given, given.strip_prefix('@')) {
        ("-", _) => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| usage(format!("cannot read standard input: {error}")))?;
            text
        }
        (_, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| usage(format!("cannot read {path}: {error}")))?,
        _ => given.to_owned(),
    };
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| usage(format!("the payload is not valid JSON: {error}")))?;
    value.is_object().then_some(value).ok_or_else(|| usage("the payload is not an object".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_may_be_asked_for_twice_has_an_id() {
        let given = |message_id: Option<&str>| {
            let arguments = Arguments {
                message_type: "note".into(),
                payload: String::new(),
                to: None,
                expires_at: None,
                ordering_key: None,
                message_id: message_id.map(Into::into),
                trace: Trace::default(),
            };
            body(arguments, &json!({}), &Clock::simulated(0, 7))["message_id"].clone()
        };
        assert_eq!(given(Some("m-1")), "m-1");
        assert!(given(None).as_str().is_some_and(crate::protocol::is_identifier));
    }
}
