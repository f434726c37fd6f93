//! Where messages and the audit log are read: from the running bridge, or, when nobody who knows
//! them answers, from the journal in the data directory. Nothing is written.

use std::path::Path;

use serde_json::Value;
use storage::inspect::Inspect;

use super::client::{self, Client};
use super::failure::{Code, Failure};
use super::output;
use crate::bridge::api::past;
use crate::config::BridgeConfig;

/// The answer of the bridge to this path and query, or that of its store when it is stopped.
pub async fn get(
    config: &BridgeConfig,
    path: &str,
    query: &[(&str, String)],
) -> Result<Value, Failure> {
    let asked = async { Client::bridge(config)?.get(path, query).await };
    match asked.await {
        Err(failure) if failure.absent => {}
        answer => return answer,
    }
    let inspect = open(&config.openclaw.data_dir)?;
    let target = client::target(path, query);
    let read = tokio::task::spawn_blocking(move || past::answer(inspect, &target)).await;
    let answer = read.map_err(|error| Failure::new(Code::Store, error.to_string()))?;
    answer.map_err(|refusal| match refusal.problem().status {
        500.. => Failure::new(Code::Store, refusal.detail),
        status => client::refused(status, &refusal.detail),
    })
}

fn open(dir: &Path) -> Result<Inspect, Failure> {
    let missing = || {
        let text = format!("no bridge is running and {} has no store", dir.display());
        Failure::new(Code::Store, text)
    };
    if !dir.join("journal").is_dir() {
        return Err(missing());
    }
    let inspect = Inspect::open(dir);
    let inspect = inspect.map_err(|error| Failure::new(Code::Store, error.to_string()))?;
    let damage = inspect.damage();
    if inspect.reader().segments().is_empty() && damage.is_empty() {
        return Err(missing());
    }
    for one in &damage {
        output::say(&format!(
            "warning: a part of the store cannot be read: {}, {}",
            one.segment.display(),
            one.reason
        ));
    }
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
