//! `loki openclaw cancel ID`: asks the server to cancel a task.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::arguments::Global;
use crate::cli::client::{Client, target};
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of};
use crate::protocol::is_identifier;

/// Runs the command.
pub async fn run(global: &Global, id: &str, reason: Option<String>) -> Done {
    if !is_identifier(id) {
        return Err(Failure::new(Code::Usage, format!("{id} cannot be the id of a task")));
    }
    let config = look(global)?;
    let namespace = [("namespace", config.openclaw.namespace.clone())];
    let path = target(&format!("/tasks/{id}/cancel"), &namespace);
    let task = Client::server(&config)?.post(&path, &json!({ "reason": reason })).await?;
    let shown = if global.json { task } else { json!({ "task_id": id, "status": task["status"] }) };
    output_of(global).object(&shown, &["task_id", "status"]);
    Ok(ExitCode::SUCCESS)
}
