//! `loki openclaw show ID`: one message with its content and history.

use std::process::ExitCode;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of};
use crate::protocol::is_identifier;

/// Runs the command.
pub async fn run(global: &Global, id: &str) -> Done {
    if !is_identifier(id) {
        return Err(Failure::new(Code::Usage, format!("{id} cannot be the id of a message")));
    }
    let bridge = Client::bridge(&look(global)?)?;
    let message = bridge.get(&format!("/api/openclaw/messages/{id}"), &[]).await?;
    output_of(global).object(&message);
    Ok(ExitCode::SUCCESS)
}
