//! What is read: from the running program, or, when none runs or the one that does does not know,
//! from the journal in the data directory. Nothing is written.

use std::path::Path;

use serde_json::Value;
use storage::inspect::{Inspect, told};

use super::client::{self, Client};
use super::failure::{Code, Failure};
use super::{output, store};
use crate::bridge::api::past;
use crate::config::BridgeConfig;

/// The answer of the running program to this path and query; `None` when the store has to tell.
///
/// # Errors
/// When the program that has the store open does not answer, or refuses.
pub async fn asked(
    config: &BridgeConfig,
    path: &str,
    query: &[(&str, String)],
) -> Result<Option<Value>, Failure> {
    let Some(holder) = Client::holder(config)? else { return Ok(None) };
    match holder.get(path, query).await {
        Err(failure) if failure.absent => Ok(None),
        answer => answer.map(Some),
    }
}

/// The answer of the bridge to this path and query, or that of its store when it is stopped.
///
/// # Errors
/// When neither has an answer.
pub async fn get(
    config: &BridgeConfig,
    path: &str,
    query: &[(&str, String)],
) -> Result<Value, Failure> {
    if let Some(answer) = asked(config, path, query).await? {
        return Ok(answer);
    }
    let inspect = quietly(&config.openclaw.data_dir)?;
    let target = client::target(path, query);
    let read = tokio::task::spawn_blocking(move || past::answer(inspect, &target)).await;
    let (answer, damage) = read.map_err(|error| Failure::new(Code::Store, error.to_string()))?;
    damage.iter().for_each(output::missing);
    answer.map_err(|refusal| store::past_failure(&refusal))
}

/// The store as it lies there, its state found.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub async fn inspect(config: &BridgeConfig) -> Result<Inspect, Failure> {
    let inspect = open(&config.openclaw.data_dir)?;
    let read = tokio::task::spawn_blocking(move || {
        inspect.state();
        inspect
    });
    read.await.map_err(|error| Failure::new(Code::Store, error.to_string()))
}

/// The store as it lies there, without a word about damage.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn quietly(dir: &Path) -> Result<Inspect, Failure> {
    store::check_there(dir)?;
    Inspect::open(dir).map_err(|error| Failure::new(Code::Store, error.to_string()))
}

fn open(dir: &Path) -> Result<Inspect, Failure> {
    let inspect = quietly(dir)?;
    told(&inspect.damage()).iter().for_each(output::missing);
    Ok(inspect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_without_a_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = BridgeConfig::default();
        config.openclaw.data_dir = dir.path().to_path_buf();
        let failure = get(&config, "/api/audit", &[]).await.unwrap_err();
        assert_eq!(failure.code, Code::Store);
        assert!(failure.message.contains(&dir.path().display().to_string()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
