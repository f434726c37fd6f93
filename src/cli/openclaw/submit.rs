//! `loki openclaw submit`: gives the server a task.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::{Done, look, output_of};

/// The task.
#[derive(Args, Debug)]
pub struct Arguments {
    /// What is to be done
    description: String,
    /// What kind of work it is
    #[arg(long = "type", default_value = "general")]
    task_type: String,
    /// critical, high, normal or low
    #[arg(long, default_value = "normal")]
    priority: String,
    /// The only agent that may have it
    #[arg(long)]
    target_agent: Option<String>,
    /// When it must be done
    #[arg(long)]
    deadline: Option<String>,
    /// A file that it is about; may be given more than once
    #[arg(long = "file")]
    files: Vec<String>,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let server = Client::server(&config)?;
    let body = json!({
        "task_type": arguments.task_type,
        "description": arguments.description,
        "priority": arguments.priority,
        "target_agent": arguments.target_agent,
        "deadline": arguments.deadline,
        "files": arguments.files,
        "namespace": config.openclaw.namespace,
    });
    let answer = server.post("/tasks", &body).await?;
    output_of(global).object(&answer, &[]);
    Ok(ExitCode::SUCCESS)
}
