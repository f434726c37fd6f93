//! `loki start`: runs the bridge with the tasks of a PRD, with those of the server, or both. It
//! wires the parts together; each of them works by itself.

mod embedded;
mod progress;
mod serve;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use storage::database::Database;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::arguments::Global;
use super::failure::{Code, Failure};
use super::{Done, output, output_of, store, trace};
use crate::audit::check_event;
use crate::audit::forward::Forward;
use crate::audit::sign::Signer;
use crate::bridge::board::Place;
use crate::bridge::open::Open;
use crate::bridge::prd::{self, PrdError, Task};
use crate::bridge::settings::{Agents, Settings};
use crate::bridge::task::{LocalTask, Origin, TaskStatus};
use crate::bridge::{Bridge, Running};
use crate::clock::{Clock, Millis};
use crate::config::{BridgeConfig, Overrides, process_environment};
use crate::executor::{Executor, agents};
use crate::shutdown::Shutdown;
use crate::transport::connect::Way;
use crate::upkeep;

use embedded::Embedded;
use progress::Progress;

/// How long the last answers of the API may take when everything else has ended.
const GRACE: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Arguments {
    /// Connect to the server
    #[arg(long)]
    openclaw: bool,
    /// Run a server in the same process
    #[arg(long)]
    embedded: bool,
    /// Go on after the PRD, with tasks of the server
    #[arg(long)]
    keep_running: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The file with the tasks
    #[arg(value_name = "PRD.md")]
    prd: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let overrides = Overrides {
        openclaw: arguments.openclaw,
        embedded: arguments.embedded,
        ..global.overrides()
    };
    let loaded = BridgeConfig::load(&overrides, &process_environment())?;
    for warning in &loaded.warnings {
        output::say(&format!("warning: {warning}"));
    }
    let mut config = loaded.config;
    protected(&config)?;
    for event in &config.audit.exclude_events {
        check_event(event).map_err(|error| {
            Failure::new(Code::Usage, format!("enterprise.audit.exclude_events: {error}"))
        })?;
    }
    if arguments.prd.is_none() && !config.openclaw.enabled && !arguments.embedded {
        let text = "nothing to do: name a PRD, or take tasks from a server with --openclaw";
        return Err(Failure::new(Code::Usage, text));
    }
    let data_dir = config.openclaw.data_dir.clone();
    // It is kept when the store is open, so that a start that is refused leaves nothing behind.
    let agent_id = store::agent_id(&data_dir, config.openclaw.agent_id.as_deref(), false)?;
    let tasks = match &arguments.prd {
        None => Vec::new(),
        Some(path) => prd::read(path, &agent_id).map_err(|error| {
            let text = match &error {
                PrdError::Unreadable { .. } => {
                    format!("{error}: name a Markdown file with the tasks")
                }
                _ => format!("{}: {error}", path.display()),
            };
            Failure::new(Code::Usage, text)
        })?,
    };
    let agents = Agents::of_config(&config);
    if arguments.dry_run {
        return Ok(plan(global, &agents, &config, &tasks));
    }
    check_agents(&agents)?;
    store::check_free(&data_dir)?;
    let listener = serve::listen(&config.dashboard).await?;
    let shutdown = Shutdown::default();
    if !arguments.embedded {
        return started(global, &arguments, &config, (listener, shutdown), tasks).await;
    }
    let settings = (&config.openclaw.store, &config.audit);
    let embedded = Embedded::start(&data_dir, settings, &shutdown).await?;
    config.openclaw.enabled = true;
    config.openclaw.endpoint = Some(embedded.url());
    let done = started(global, &arguments, &config, (listener, shutdown), tasks).await;
    embedded.stop().await?;
    done
}

/// To ignore a protection that somebody asked for would be worse than not to start.
fn protected(config: &BridgeConfig) -> Result<(), Failure> {
    let wanted = [("openclaw.authorization.enabled", config.openclaw.authorization.enabled)];
    let Some((name, _)) = wanted.into_iter().find(|(_, is_wanted)| *is_wanted) else {
        return Ok(());
    };
    let text = format!(
        "{name} is not available in this version; turn it off and protect the link by other means"
    );
    Err(Failure::new(Code::Usage, text))
}

/// Shows which agent would do what.
fn plan(global: &Global, agents: &Agents, config: &BridgeConfig, tasks: &[Task]) -> ExitCode {
    let shares = config.openclaw.enabled && config.openclaw.features.task_sharing;
    let elsewhere = if shares { "shared" } else { "nobody" };
    let row = |task: &Task| {
        let agent = agents.choose(&task.task_type, task.model.as_deref());
        let agent = agent.map_or(elsewhere, |agent| agent.agent_type.as_str());
        json!({
            "task_id": task.task_id,
            "type": task.task_type,
            "agent": agent,
            "description": task.description,
        })
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    output_of(global).list(&rows, &["task_id", "type", "agent", "description"]);
    ExitCode::SUCCESS
}

fn check_agents(agents: &Agents) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    agents::check(agents.all(), agents.provider(), &path, &std::env::current_dir()?)
        .map_err(|error| Failure::new(Code::Usage, error.to_string()))
}

async fn started(
    global: &Global,
    arguments: &Arguments,
    config: &BridgeConfig,
    (listener, shutdown): (TcpListener, Shutdown),
    tasks: Vec<Task>,
) -> Done {
    let clock = Clock::system();
    let endpoint = config.openclaw.endpoint.as_deref().unwrap_or_default();
    let way = Way::find(endpoint, &config.openclaw.tls);
    let way = way.map_err(|text| Failure::new(Code::Usage, text))?;
    let data_dir = &config.openclaw.data_dir;
    serve::forget(data_dir);
    let database = store::open(data_dir, &config.openclaw.store, &clock, &shutdown)?;
    database.set_dedup_window(config.openclaw.dedup_window);
    let bridge = &config.openclaw;
    database.set_retention(upkeep::retention(&bridge.store, bridge.retention));
    let agent_id = store::agent_id(data_dir, config.openclaw.agent_id.as_deref(), true)?;
    let supervisor = vec![std::env::current_exe()?.into_os_string(), "supervise".into()];
    let executor =
        Executor::new(data_dir.join("runs"), supervisor, std::env::current_dir()?, clock.clone());
    let settings = Settings::of_config(config, &agent_id, clock.message_id());
    let settings = Settings { way, ..settings };
    let prd = tasks.iter().map(|task| task.task_id.clone()).collect();
    let watch = Watch { prd, since: clock.now() };
    let running =
        Bridge::start(settings, database.store().clone(), clock, executor, shutdown.clone());
    let bridge = running.bridge.clone();
    // Before the tasks are added, so that it hears of all of them.
    let open = bridge.open();
    let mut services = JoinSet::new();
    services.spawn(shutdown.clone().on_signals()?);
    let signer = sign(&database, data_dir)?;
    let journal = (database.store(), database.reader());
    let forward = Forward::new(&config.audit.syslog, journal, data_dir, &shutdown);
    if let Some(forward) = forward {
        services.spawn(forward.run());
    }
    // Nothing goes before those who read it hold it.
    database.set_audit_retention(config.audit.retention);
    let endpoint = serve::spawn(&mut services, listener, (&bridge, &database), config, &shutdown)?;
    bridge.add(tasks, trace::inherited()).await?;
    let stays = arguments.prd.is_none() || arguments.keep_running;
    follow(running, (&watch, open), &shutdown, stays).await;
    endpoint.remove();
    let code = report(global, &bridge, &watch);
    // A caller that keeps its connection open does not keep the program.
    let ended = async { while services.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, ended).await;
    services.shutdown().await;
    drop(bridge);
    signer.finish();
    store::close(database)?;
    Ok(code)
}

/// Begins to sign the ends of the audit log.
fn sign(database: &Database, data_dir: &Path) -> Result<Signer, Failure> {
    let failed = |error| Failure::new(Code::Store, format!("cannot sign the audit log: {error}"));
    Signer::start(database, data_dir).map_err(failed)
}

/// The tasks that this start is about.
struct Watch {
    /// The ids of those of the PRD.
    prd: HashSet<String>,
    /// When it began.
    since: Millis,
}

impl Watch {
    fn is_of_prd(&self, task: &LocalTask) -> bool {
        task.origin != Origin::Offered && self.prd.contains(&task.task_id)
    }

    /// It is one of the PRD, or was under way since the start.
    fn is_shown(&self, task: &LocalTask) -> bool {
        let is_new = task.finished_at.is_none_or(|at| at >= self.since);
        self.is_of_prd(task) || (task.origin == Origin::Offered && is_new)
    }

    /// All of them.
    fn tasks(&self, bridge: &Bridge) -> Vec<LocalTask> {
        let mut tasks = bridge.tasks();
        tasks.retain(|task| self.is_shown(task));
        tasks
    }

    /// Shows what has changed of them, and gives back whether those of the PRD have ended.
    fn show(
        &self,
        (bridge, shutdown): (&Bridge, &Shutdown),
        open: &mut Open,
        progress: &mut Progress,
    ) -> bool {
        let mut changed = open.read(bridge.store());
        changed.retain(|task| self.is_shown(task));
        changed.sort_by_cached_key(Place::written);
        let active: Vec<&LocalTask> = open.tasks().filter(|task| self.is_shown(task)).collect();
        progress.show(&changed, &active, &bridge.snapshot(), shutdown.phase());
        !active.into_iter().any(|task| self.is_of_prd(task))
    }
}

/// Shows progress until the bridge has ended, which it does when every task of the PRD has and
/// nothing keeps it running, or somebody stops it.
async fn follow(
    running: Running,
    (watch, mut open): (&Watch, Open),
    shutdown: &Shutdown,
    stays: bool,
) {
    let bridge = running.bridge.clone();
    let mut progress = Progress::new(watch.prd.len());
    let finished = running.finished();
    tokio::pin!(finished);
    loop {
        if watch.show((&bridge, shutdown), &mut open, &mut progress) && !stays {
            shutdown.drain();
        }
        let changed = async {
            let _ = tokio::time::timeout(progress::REFRESH, bridge.changed()).await;
            tokio::time::sleep(progress::SETTLE).await;
        };
        tokio::select! {
            () = &mut finished => break,
            () = changed => {}
        }
    }
    watch.show((&bridge, shutdown), &mut open, &mut progress);
    progress.finish();
}

/// What of a result fits a table: its own summary, if it has one.
fn summary(result: serde_json::Value) -> serde_json::Value {
    match result.get("summary") {
        Some(summary) if summary.is_string() => summary.clone(),
        _ => result,
    }
}

/// The table at the end, and the exit code that follows from it.
fn report(global: &Global, bridge: &Bridge, watch: &Watch) -> ExitCode {
    let tasks = watch.tasks(bridge);
    let row = |task: &LocalTask| {
        let error = task.error.as_ref().and_then(|error| error.message.clone());
        let result = task.result.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok());
        let result: serde_json::Value = result.unwrap_or_default();
        let result = if global.json { result } else { summary(result) };
        json!({
            "task_id": task.task_id,
            "status": task.status.as_str(),
            "agent": task.agent,
            "seconds": task.duration_seconds().map(|it| (it * 10.0).round() / 10.0),
            "result": error.map_or(result, Into::into),
        })
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    if !rows.is_empty() {
        let columns = ["task_id", "status", "agent", "seconds", "result"];
        output_of(global).texts(&rows, &columns);
    }
    let mut of_prd = tasks.iter().filter(|task| watch.is_of_prd(task));
    let good = of_prd.all(|task| task.status == TaskStatus::Completed);
    match bridge.health().messages_pending {
        0 => {}
        1 => output::say("1 message waits; the next start delivers it"),
        count => output::say(&format!("{count} messages wait; the next start delivers them")),
    }
    if tasks.iter().any(|task| watch.is_of_prd(task)) {
        bridge.conclude(good);
    }
    if bridge.is_replaced() {
        output::say_last("another program registered with this agent id, so this one has stopped");
    }
    if good && !bridge.is_replaced() { ExitCode::SUCCESS } else { Code::NotSo.into() }
}
