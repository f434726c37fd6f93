//! Opens what the data directory holds, for the commands that write: the store, and the id that
//! the bridge keeps. It decides nothing about what is in them.

use std::path::Path;

use storage::database::{Database, OpenError};

use super::failure::{Code, Failure};
use super::output;
use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// The file of the data directory with the id of a bridge that was given none.
const AGENT_ID_FILE: &str = "agent_id";

/// Opens the store of a directory. When it stops for good, so does the program.
pub fn open(dir: &Path, clock: &Clock, shutdown: &Shutdown) -> Result<Database, Failure> {
    let (clock, shutdown) = (clock.clone(), shutdown.clone());
    let fatal = move |reason: &str| {
        tracing::error!(reason, "the store has stopped");
        shutdown.stop();
    };
    let opened = Database::open(dir, Box::new(move || clock.now()), Box::new(fatal));
    let (database, report) = opened.map_err(|error: OpenError| store_failure(&error))?;
    for unreadable in &report.unreadable {
        output::say(&format!("warning: a part of the store cannot be read: {unreadable}"));
    }
    Ok(database)
}

/// Stops a store so that its next start has nothing to recover.
pub fn close(database: Database) -> Result<(), Failure> {
    database.close().map_err(|error| store_failure(&error))
}

fn store_failure(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Store, error.to_string())
}

/// Makes the data directory if need be.
pub fn make(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|error| {
        Failure::new(Code::Store, format!("cannot make {}: {error}", dir.display()))
    })
}

/// The id of the bridge: the configured one, the one that an earlier start kept, or a new one.
pub fn agent_id(dir: &Path, configured: Option<&str>, keep: bool) -> Result<String, Failure> {
    if let Some(id) = configured {
        return Ok(id.to_owned());
    }
    let path = dir.join(AGENT_ID_FILE);
    if let Ok(kept) = std::fs::read_to_string(&path)
        && crate::protocol::is_identifier(kept.trim())
    {
        return Ok(kept.trim().to_owned());
    }
    let id = format!("loki-{}", std::process::id());
    if keep {
        make(dir)?;
        std::fs::write(&path, format!("{id}\n")).map_err(|error| {
            Failure::new(Code::Store, format!("cannot write {}: {error}", path.display()))
        })?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_was_chosen_once_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = agent_id(dir.path(), None, true).unwrap();
        std::fs::write(dir.path().join(AGENT_ID_FILE), "loki-7\n").unwrap();
        assert!(first.starts_with("loki-"));
        assert_eq!(agent_id(dir.path(), None, true).unwrap(), "loki-7");
        assert_eq!(agent_id(dir.path(), Some("mine"), true).unwrap(), "mine");
    }
}
