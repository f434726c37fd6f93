//! The server program: reads its configuration, opens the store, runs the server until a signal.
//! Everything that it does is in the library.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What one thread takes and another one frees costs a third less than with that of glibc, and the
/// memory of a large backlog stays as small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use clap::Parser;
use loki_openclaw::audit::check_event;
use loki_openclaw::audit::forward::Forward;
use loki_openclaw::audit::sign::Signer;
use loki_openclaw::clock::Clock;
use loki_openclaw::config::{ServerConfig, ServerOverrides, process_environment};
use loki_openclaw::server::{Disk, Rules, Server, ServerSettings, StartError};
use loki_openclaw::shutdown::Shutdown;
use loki_openclaw::{logging, upkeep};
use storage::database::Database;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Usage, configuration, port taken.
const EXIT_CONFIG: u8 = 2;

/// The store is missing, corrupt, locked, or stopped.
const EXIT_STORE: u8 = 3;

/// How long the last entries may take to syslog.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);

/// The coordination server of the `OpenClaw` protocol.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Read this configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Keep the journal here.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Listen on this address; port 0 takes a free one.
    #[arg(long)]
    listen: Option<String>,
}

/// Why the program ends, and with which code.
struct Exit(u8, String);

fn main() -> ExitCode {
    let Options { config, data_dir, listen } = Options::parse();
    let overrides = ServerOverrides { config, data_dir, listen };
    match configure(&overrides).and_then(|config| run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit(code, text)) => {
            say(&format!("openclaw-server: {text}"));
            ExitCode::from(code)
        }
    }
}

/// Talk goes to stderr; when that is gone there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn configure(overrides: &ServerOverrides) -> Result<ServerConfig, Exit> {
    let refused = |text: String| Exit(EXIT_CONFIG, text);
    let loaded = ServerConfig::load(overrides, &process_environment())
        .map_err(|error| refused(error.to_string()))?;
    for warning in &loaded.warnings {
        say(&format!("openclaw-server: {warning}"));
    }
    let config = loaded.config;
    for event in &config.audit.exclude_events {
        check_event(event).map_err(|error| refused(format!("audit.exclude_events: {error}")))?;
    }
    // To ignore a protection that somebody asked for would be worse than not to start.
    let tls = &config.tls;
    let unprotected = [
        ("auth_enabled", config.auth_enabled),
        ("authorization.enabled", config.authorization.enabled),
        ("tls", tls.cert.is_some() || tls.key.is_some() || tls.client_ca.is_some()),
    ];
    match unprotected.into_iter().find(|(_, is_wanted)| *is_wanted) {
        Some((name, _)) => Err(refused(format!(
            "{name} is not available in this version; turn it off and protect the address by \
             other means"
        ))),
        None => Ok(config),
    }
}

fn run(config: &ServerConfig) -> Result<(), Exit> {
    let level = config.log_level.as_str();
    let errors = std::io::stderr();
    let _log = logging::start(level, config.log_format, logging::has_colours(), errors);
    let store = |text: String| Exit(EXIT_STORE, text);
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| store(format!("{}: {error}", config.data_dir.display())))?;
    let clock = Clock::system();
    let wall = clock.clone();
    let (fatal, failures) = mpsc::unbounded_channel();
    let now = Box::new(move || wall.now());
    let failed = Box::new(move |reason: &str| {
        // Nobody listens when the program ends anyway.
        let _ = fatal.send(reason.to_owned());
    });
    let sizes = upkeep::sizes(&config.store);
    let opened = migrations::open(&config.data_dir, sizes, now, failed);
    let (database, _, migrated) = opened.map_err(|error| store(error.to_string()))?;
    if let Some(done) = migrated {
        say(&format!("openclaw-server: the store was brought to format {}", done.to));
    }
    database.set_dedup_window(config.dedup_window);
    database.set_retention(upkeep::retention(&config.store, config.retention));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| store(format!("cannot start the runtime: {error}")))?;
    let signer = Signer::start(&database, &config.data_dir)
        .map_err(|error| store(format!("cannot sign the audit log: {error}")))?;
    let served = runtime.block_on(serve(config, &database, clock, failures));
    drop(runtime);
    signer.finish();
    let closed = database.close().map_err(|error| store(error.to_string()));
    served.and(closed)
}

async fn serve(
    config: &ServerConfig,
    database: &Database,
    clock: Clock,
    mut failures: mpsc::UnboundedReceiver<String>,
) -> Result<(), Exit> {
    let signals = |error: std::io::Error| Exit(EXIT_CONFIG, format!("no signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let settings = ServerSettings {
        listen: config.listen,
        store: database.store().clone(),
        clock,
        rules: rules(config),
        disk: Some(Disk::of(database)),
    };
    let running = Server::start(settings).await.map_err(|error| match error {
        StartError::Listen { .. } => Exit(EXIT_CONFIG, error.to_string()),
        StartError::Store(_) => Exit(EXIT_STORE, error.to_string()),
    })?;
    say(&format!("listening on {}", running.url()));
    let endpoint = config.data_dir.join("endpoint");
    write_endpoint(&endpoint, &running.url(), database)?;
    let shutdown = Shutdown::default();
    let mut forwards = forward(config, database, &shutdown);
    let failure = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        failure = failures.recv() => failure,
    };
    if let Some(reason) = &failure {
        say(&format!("openclaw-server: the store has stopped: {reason}"));
    }
    tokio::select! {
        () = running.stop() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    shutdown.stop();
    // What syslog does not take now it gets at the next start.
    let _ = tokio::time::timeout(FORWARD_TIMEOUT, forwards.join_next()).await;
    // It may be gone already.
    let _ = std::fs::remove_file(&endpoint);
    failure.map_or(Ok(()), |reason| Err(Exit(EXIT_STORE, reason)))
}

/// Sends the audit log to syslog, if a server of it is configured.
fn forward(config: &ServerConfig, database: &Database, shutdown: &Shutdown) -> JoinSet<()> {
    let mut forwards = JoinSet::new();
    let journal = (database.store(), database.reader());
    let to = Forward::new(&config.audit.syslog, journal, &config.data_dir, shutdown);
    // Nothing goes before those who read it hold it.
    database.set_audit_retention(config.audit.retention);
    if let Some(forward) = to {
        forwards.spawn(async move {
            // It retries what fails, and has no error of its own.
            let _ = forward.run().await;
        });
    }
    forwards
}

fn write_endpoint(path: &Path, url: &str, database: &Database) -> Result<(), Exit> {
    database
        .with_reserve(|| std::fs::write(path, format!("{url}\n")))
        .map_err(|error| Exit(EXIT_STORE, format!("{}: {error}", path.display())))
}

fn rules(config: &ServerConfig) -> Rules {
    Rules {
        heartbeat: config.heartbeat_interval,
        offer_timeout: config.offer_timeout,
        max_attempts: config.max_attempts,
        dedup_window: config.dedup_window,
        max_age: config.max_age,
        retention: config.retention,
        merge_prefixes: config.state.merge_prefixes.clone(),
        hosts: config.hosts.clone(),
        audit: config.audit.clone(),
        reject_prefixes: config.state.reject_prefixes.clone(),
    }
}
