//! `loki openclaw agents`: the agents that the server knows, or those of the server whose data
//! directory this is, running or not.

use std::process::ExitCode;

use serde_json::Value;
use storage::record::Kind;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::{Done, look, output, output_of, past, store};
use crate::config::BridgeConfig;
use crate::server::life::Life;
use crate::server::model::{Agent, decode};
use crate::server::view;

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let agents = match of_folder(&config).await? {
        Some(agents) => agents,
        None => Client::server(&config)?.all("/agents", "agents").await?,
    };
    let columns = ["agent_id", "namespace", "status", "agent_types", "last_heartbeat"];
    output_of(global).list(&agents, &columns);
    Ok(ExitCode::SUCCESS)
}

/// Those of the server that has the data directory; `None` when that is none of a server. Of a
/// stopped one only who has configured no other server is told.
async fn of_folder(config: &BridgeConfig) -> Result<Option<Vec<Value>>, Failure> {
    let dir = &config.openclaw.data_dir;
    let has_other = config.openclaw.endpoint.is_some();
    let holder = match Client::holder(config) {
        Err(_) if has_other => return Ok(None),
        answer => answer?,
    };
    if let Some(holder) = holder {
        return match holder.is_of_bridge().await {
            Ok(false) => holder.all("/agents", "agents").await.map(Some),
            Err(failure) if !has_other => Err(failure),
            _ => Ok(None),
        };
    }
    if has_other || store::check_there(dir).is_err() {
        return Ok(None);
    }
    let inspect = past::inspect(config).await?;
    let ledger = &inspect.state().ledger;
    if !store::is_of_server(ledger) {
        return Ok(None);
    }
    output::say(&format!("the server is stopped; this is what {} tells", dir.display()));
    let agents = ledger.scan(Kind::Agent, "");
    let agents = agents.filter_map(|(_, entity)| decode::<Agent>(&entity.value));
    Ok(Some(agents.map(|agent| view::agent(&agent, ledger, &Life::default())).collect()))
}
