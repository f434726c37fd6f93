//! `loki openclaw show ID`: one message with its content and history, also of a stopped
//! bridge.

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of, past};
use crate::protocol::is_identifier;

/// The members in the order in which a person needs them.
const MEMBERS: [&str; 5] = ["message_id", "status", "reason", "attempts", "next_attempt_at"];

/// The columns of the attempts.
const TRIES: [&str; 5] = ["attempt", "started_at", "duration_ms", "outcome", "error"];

/// The columns of the history.
const STEPS: [&str; 6] = ["at", "event", "status", "reason", "attempts", "error"];

/// Runs the command.
pub async fn run(global: &Global, id: &str) -> Done {
    if !is_identifier(id) {
        return Err(Failure::new(Code::Usage, format!("{id} cannot be the id of a message")));
    }
    let path = format!("/api/openclaw/messages/{id}");
    let mut message = past::get(&look(global)?, &path, &[]).await?;
    let output = output_of(global);
    if global.json {
        output.object(&message, &[]);
        return Ok(ExitCode::SUCCESS);
    }
    let mut taken = |name: &str| message.as_object_mut().and_then(|it| it.remove(name));
    let (payload, tries, history) = (taken("payload"), taken("tries"), taken("history"));
    let list = |value: Option<Value>| {
        value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (tries, history) = (list(tries), list(history));
    output.object(&message, &MEMBERS);
    output::line("\n payload");
    // Control characters are escaped in JSON.
    let payload = serde_json::to_string_pretty(&payload.unwrap_or_default());
    for text in payload.unwrap_or_default().lines() {
        output::line(&format!("   {text}"));
    }
    output::line("");
    if !tries.is_empty() {
        output.texts(&tries, &TRIES);
        output::line("");
    }
    output.texts(&history, &STEPS);
    Ok(ExitCode::SUCCESS)
}
