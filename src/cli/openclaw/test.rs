//! `loki openclaw test`: whether the configured server answers. It registers nothing.

use std::process::ExitCode;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::{Done, look, output_of};

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let server = Client::server(&look(global)?)?;
    let (_, mut health) = server.any("/health", &[]).await?;
    if let Some(members) = health.as_object_mut() {
        members.insert("server".to_owned(), server.base().into());
    }
    output_of(global).object(&health, &[]);
    Ok(ExitCode::SUCCESS)
}
