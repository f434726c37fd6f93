//! Opens what the data directory holds, for the commands that write: the store, and the id that
//! the bridge keeps. It decides nothing about what is in them.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use migrations::{MigrateError, Migrated};
use rustix::fs::{Access, access, statvfs};
use serde_json::Value;
use storage::database::{Database, OpenError};
use storage::ledger::Ledger;
use storage::record::Kind;

use crate::bridge::api::stopped;
use crate::bridge::task::LocalTask;
use crate::cli::client::{self, Client};
use crate::cli::failure::{Code, Failure};
use crate::cli::output;
use crate::clock::Clock;
use crate::config::{BridgeConfig, StoreRules};
use crate::protocol::Refusal;
use crate::server::mail;
use crate::server::model::{self, Task};
use crate::shutdown::Shutdown;
use crate::upkeep;

/// The file of the data directory with the id of a bridge that was given none.
pub const AGENT_ID_FILE: &str = "agent_id";

/// How long a program that has the store open and does not answer is waited for: a bridge that
/// starts, or another command.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the store of a directory. When it stops for good, so does the program.
pub fn open(
    dir: &Path,
    rules: &StoreRules,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<Database, Failure> {
    migrated(dir, rules, clock, shutdown).map(|(database, _)| database)
}

/// The same, and what a migration did before.
pub fn migrated(
    dir: &Path,
    rules: &StoreRules,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<(Database, Option<Migrated>), Failure> {
    let (clock, shutdown) = (clock.clone(), shutdown.clone());
    let fatal = move |reason: &str| {
        tracing::error!(reason, "the store has stopped");
        shutdown.stop();
    };
    let opened =
        migrations::open(dir, upkeep::sizes(rules), Box::new(move || clock.now()), Box::new(fatal));
    let (database, report, migrated) = opened.map_err(|error| migrate_failure(dir, &error))?;
    if let Some(Migrated { from, to, files, left }) = &migrated {
        output::say(&format!(
            "the store {} was brought from format {from} to {to}: {files} files written anew",
            dir.display()
        ));
        for left in left {
            output::say(&format!("warning: left as it is: {left}"));
        }
    }
    for unreadable in &report.unreadable {
        output::say(&format!("warning: a part of the store cannot be read: {unreadable}"));
    }
    Ok((database, migrated))
}

/// Why a store was not brought to the format of this version, or not opened.
pub fn migrate_failure(dir: &Path, error: &MigrateError) -> Failure {
    match error {
        MigrateError::Open(error) => not_opened(dir, error),
        other => store_failure(other),
    }
}

/// Whether a program has the store of this directory open. The look takes the lock for no longer
/// than it lasts, and shares it with other looks.
pub fn is_held(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join("journal").join("lock")) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Fails when there is no store in a directory, or it is somebody else's.
pub fn check_there(dir: &Path) -> Result<(), Failure> {
    readable(&dir.join("journal")).map_err(|error| unreadable(dir, &error))
}

/// Lists a journal, and opens one of its files: whoever may list them may still not read them.
fn readable(journal: &Path) -> io::Result<()> {
    let mut paths = std::fs::read_dir(journal)?.filter_map(|entry| Some(entry.ok()?.path()));
    let segment = paths.find(|path| path.extension().is_some_and(|ending| ending == "log"));
    match segment.map(File::open) {
        Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// Why a store is not there, and what to do.
fn unreadable(dir: &Path, error: &io::Error) -> Failure {
    let shown = dir.display();
    let text = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => format!(
            "there is no store in {shown}: start a bridge there first, or name another folder \
             with --data-dir"
        ),
        io::ErrorKind::PermissionDenied => {
            let owner = std::fs::metadata(dir).map_or_else(
                |_| "another user".to_owned(),
                |found| format!("the user with the number {}", found.uid()),
            );
            format!(
                "the store in {shown} may not be read: it belongs to {owner}; look as that user"
            )
        }
        _ => format!("cannot read the store in {shown}: {error}"),
    };
    Failure::new(Code::Store, text)
}

/// Has the running bridge do what this path and body ask for, or does it on the store of a stopped
/// one. Also says whether one runs. Whoever has the store open for a moment is waited for.
pub async fn post(
    config: &BridgeConfig,
    path: &str,
    body: &Value,
) -> Result<(Value, bool), Failure> {
    let clock = Clock::system();
    loop {
        let failure = match post_once(config, path, body).await {
            Err(failure) if failure.code == Code::Unreachable => failure,
            done => return done,
        };
        if Duration::from_millis(clock.monotonic()) > PATIENCE {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn post_once(
    config: &BridgeConfig,
    path: &str,
    body: &Value,
) -> Result<(Value, bool), Failure> {
    if let Some(answer) = change(config, path, body).await? {
        return Ok((answer, false));
    }
    // A server decides about its dead letters too. One message is quick, many are not.
    let answer = match Client::holder(config)? {
        Some(holder) if is_of_letters(path) => holder.post_patiently(path, body).await,
        _ => Client::bridge(config).await?.post(path, body).await,
    };
    Ok((answer?, true))
}

/// Whether a call is about messages that wait for a person: a server has them as a bridge has.
fn is_of_letters(path: &str) -> bool {
    matches!(path, "/api/openclaw/retry" | "/api/openclaw/prune")
}

/// Changes the store of a stopped program, under the store's lock. `None` when the bridge runs: it
/// has to be asked.
async fn change(config: &BridgeConfig, path: &str, body: &Value) -> Result<Option<Value>, Failure> {
    let dir = &config.openclaw.data_dir;
    if is_held(dir) {
        return Ok(None);
    }
    check_there(dir)?;
    let clock = Clock::system();
    let database = match open(dir, &config.openclaw.store, &clock, &Shutdown::default()) {
        // Somebody was quicker.
        Err(_) if is_held(dir) => return Ok(None),
        opened => opened?,
    };
    let answer = changed(config, &database, &clock, (path, body)).await;
    close(database)?;
    answer.map(Some)
}

async fn changed(
    config: &BridgeConfig,
    database: &Database,
    clock: &Clock,
    (path, body): (&str, &Value),
) -> Result<Value, Failure> {
    let dir = &config.openclaw.data_dir;
    let of_server = is_of_server(&database.store().ledger());
    if of_server && !is_of_letters(path) {
        let text = format!("{} belongs to a server: name that of a bridge", dir.display());
        return Err(Failure::new(Code::Usage, text));
    }
    // A server needs no id, and its folder none either.
    let agent_id = agent_id(dir, config.openclaw.agent_id.as_deref(), !of_server)?;
    let owner = (agent_id.as_str(), &config.openclaw);
    let body = body.to_string();
    let given_up = of_server.then(|| mail::returns(database.store(), clock));
    let answer = stopped::answer(database, owner, clock, (path, body.as_bytes()), given_up);
    answer.await.map_err(|refusal| past_failure(&refusal))
}

/// The failure for what a store answers in the place of a bridge.
pub fn past_failure(refusal: &Refusal) -> Failure {
    match refusal.problem().status {
        500.. => Failure::new(Code::Store, refusal.detail.as_str()),
        status => client::refused(status, &refusal.detail),
    }
}

/// Whether a server wrote these entities: only servers keep a registry.
pub fn is_of_server(ledger: &Ledger) -> bool {
    ledger.scan(Kind::Agent, "").next().is_some()
        || ledger.scan(Kind::Task, "").any(|(_, entity)| {
            model::decode::<Task>(&entity.value).is_some()
                && serde_json::from_slice::<LocalTask>(&entity.value).is_err()
        })
}

/// Stops a store so that its next start has nothing to recover.
pub fn close(database: Database) -> Result<(), Failure> {
    database.close().map_err(|error| store_failure(&error))
}

/// Fails when a program has the store of this directory open.
pub fn check_free(dir: &Path) -> Result<(), Failure> {
    if is_held(dir) { Err(in_use(dir)) } else { Ok(()) }
}

fn in_use(dir: &Path) -> Failure {
    let text = format!(
        "the store {} is in use by another process: stop a bridge with `loki stop`, or name \
         another folder with --data-dir",
        dir.display()
    );
    Failure::new(Code::Store, text)
}

/// Why a store was not opened, and what to do about it.
fn not_opened(dir: &Path, error: &OpenError) -> Failure {
    match (error, folder(dir)) {
        (OpenError::Locked { .. }, _) => in_use(dir),
        (OpenError::Io { .. }, Err(advice)) => {
            Failure::new(Code::Store, format!("{error}; {advice}"))
        }
        _ => store_failure(error),
    }
}

/// Free bytes below which a new store takes no messages: three segments of the journal and the
/// reserve.
const FREE_BYTES_MIN: u64 = 128 << 20;

/// The folder in which a store is, or would be made, and its free bytes.
///
/// # Errors
/// A sentence that says what to do when a store there cannot be written to.
pub fn folder(dir: &Path) -> Result<(&Path, u64), String> {
    let there = dir.ancestors().find(|above| above.exists());
    let there = there.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = there.display();
    if !there.is_dir() {
        return Err(format!("{name} is no folder: remove it, or name another with --data-dir"));
    }
    if access(there, Access::WRITE_OK).is_err() {
        return Err(format!(
            "{name} cannot be written to: make it writable, or name another folder with --data-dir"
        ));
    }
    let free = statvfs(there).map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize));
    if free < FREE_BYTES_MIN {
        let (free, wanted) = (free >> 20, FREE_BYTES_MIN >> 20);
        return Err(format!(
            "{free} MiB are free in {name}: make room for {wanted} MiB or more, or name another \
             folder with --data-dir"
        ));
    }
    Ok((there, free))
}

fn store_failure(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Store, error.to_string())
}

/// Makes the data directory if need be.
pub fn make(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|error| {
        let advice = folder(dir).err().map_or_else(String::new, |advice| format!("; {advice}"));
        Failure::new(Code::Store, format!("cannot make {}: {error}{advice}", dir.display()))
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
    fn a_store_of_somebody_else_is_told_from_none() {
        let dir = tempfile::tempdir().unwrap();
        let told = |kind: io::ErrorKind| unreadable(dir.path(), &kind.into());
        let foreign = told(io::ErrorKind::PermissionDenied);
        let owner = format!("the number {};", dir.path().metadata().unwrap().uid());
        assert!(foreign.message.contains("may not be read"), "{foreign}");
        assert!(foreign.message.contains(&owner), "{foreign}");
        assert!(told(io::ErrorKind::NotFound).message.starts_with("there is no store in"));
        assert_eq!(foreign.code, Code::Store);
        let missing = check_there(dir.path()).unwrap_err().message;
        assert!(missing.contains(&dir.path().display().to_string()), "{missing}");
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        assert!(check_there(dir.path()).is_ok());
    }

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
