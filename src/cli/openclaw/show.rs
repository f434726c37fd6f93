//! `loki openclaw show ID`: one message with its content and history, also of a stopped
//! bridge.

use std::process::ExitCode;

use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of, past};
use crate::protocol::is_identifier;

/// Runs the command.
pub async fn run(global: &Global, id: &str) -> Done {
    if !is_identifier(id) {
        return Err(Failure::new(Code::Usage, format!("{id} cannot be the id of a message")));
    }
    let path = format!("/api/openclaw/messages/{id}");
    let message = past::get(&look(global)?, &path, &[]).await?;
    output_of(global).object(&message);
    Ok(ExitCode::SUCCESS)
}
