//! `loki openclaw explain ID`: one sentence on a message, why it is not delivered yet or what became
//! of it, also of a stopped bridge.

use std::process::ExitCode;

use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of, past};
use crate::protocol::is_identifier;

/// Runs the command.
pub async fn run(global: &Global, id: &str) -> Done {
    if !is_identifier(id) {
        return Err(Failure::new(Code::Usage, format!("{id} cannot be the id of a message")));
    }
    let path = format!("/api/openclaw/messages/{id}/explain");
    let answer = past::get(&look(global)?, &path, &[]).await?;
    if global.json {
        output_of(global).object(&answer, &[]);
    } else {
        output::line(answer["explanation"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}
