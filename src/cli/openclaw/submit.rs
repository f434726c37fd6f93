//! `loki openclaw submit`: gives the server a task.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::trace::Trace;
use crate::cli::{Done, look, output_of};

/// The task.
#[derive(Args, Debug)]
pub struct Arguments {
    /// What is to be done
    description: String,
    /// What kind of work it is
    #[arg(long = "type", default_value = "general")]
    task_type: String,
    /// How urgent it is
    #[arg(long, default_value = "normal", value_parser = ["critical", "high", "normal", "low"])]
    priority: String,
    /// The only agent that may have it
    #[arg(long)]
    target_agent: Option<String>,
    /// When it must be done, as 2026-02-15T14:30:00Z
    #[arg(long)]
    deadline: Option<String>,
    /// A file that it is about; may be given more than once
    #[arg(long = "file")]
    files: Vec<String>,
    /// A skill that the agent must have; may be given more than once
    #[arg(long = "skill")]
    skills: Vec<String>,
    /// The model that it must run on
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    trace: Trace,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let server = Client::server(&config)?;
    let (model, skills) = (arguments.model, arguments.skills);
    let requirements = (model.is_some() || !skills.is_empty())
        .then(|| json!({ "model": model, "skills": skills }));
    let body = json!({
        "task_type": arguments.task_type,
        "description": arguments.description,
        "priority": arguments.priority,
        "target_agent": arguments.target_agent,
        "deadline": arguments.deadline,
        "files": arguments.files,
        "requirements": requirements,
        "namespace": config.openclaw.namespace,
    });
    let trace = arguments.trace.context();
    let answer = server.post_traced("/tasks", &body, trace.as_deref()).await?;
    output_of(global).object(&answer, &["task_id", "status"]);
    Ok(ExitCode::SUCCESS)
}
