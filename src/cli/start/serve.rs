//! Opens the bridge's own server and tells where it listens. Its routes are elsewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::database::Database;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::bridge::Bridge;
use crate::bridge::api::{self, Api};
use crate::cli::client::ENDPOINT_FILE;
use crate::cli::failure::{Code, Failure};
use crate::cli::output;
use crate::config::{BridgeConfig, Dashboard};
use crate::inspector::history::Stored;
use crate::metrics::Exporter;
use crate::shutdown::Shutdown;

/// The file with the address, which goes away with the bridge.
pub struct EndpointFile(PathBuf);

impl EndpointFile {
    /// Removes it.
    pub fn remove(self) {
        // One that is gone already says the same.
        let _ = std::fs::remove_file(self.0);
    }
}

/// Removes the address that a bridge left behind when it was killed, so that nobody is asked there
/// while this one opens its store.
pub fn forget(data_dir: &Path) {
    // Most often there is none.
    let _ = std::fs::remove_file(data_dir.join(ENDPOINT_FILE));
}

/// Takes the configured port.
pub async fn listen(dashboard: &Dashboard) -> Result<TcpListener, Failure> {
    let (host, port) = (dashboard.host.as_str(), dashboard.port);
    TcpListener::bind((host, port)).await.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} of {host} is taken: set LOKI_DASHBOARD_PORT to another one, or to 0"
            ),
            _ => format!("cannot listen on port {port} of {host}: {error}"),
        };
        Failure::new(Code::Usage, text)
    })
}

/// Serves the API, and writes its address where the other commands look for it.
pub fn spawn(
    services: &mut JoinSet<io::Result<()>>,
    listener: TcpListener,
    (bridge, database): (&Bridge, &Database),
    config: &BridgeConfig,
    shutdown: &Shutdown,
) -> Result<EndpointFile, Failure> {
    let base = format!("http://{}", listener.local_addr()?);
    let path = config.openclaw.data_dir.join(ENDPOINT_FILE);
    database.with_reserve(|| std::fs::write(&path, format!("{base}\n"))).map_err(|error| {
        Failure::new(Code::Store, format!("cannot write {}: {error}", path.display()))
    })?;
    output::say(&format!("listening on {base}"));
    let api = Api {
        bridge: bridge.clone(),
        history: Arc::new(Stored {
            store: bridge.store().clone(),
            view: database.view().clone(),
            journal: database.reader().clone(),
        }),
        view: database.view().clone(),
        journal: database.reader().clone(),
        upkeep: database.upkeep(),
        exporter: Exporter::install(),
        token: config.dashboard.token.clone(),
    };
    services.spawn(api::serve(listener, api, shutdown.clone()));
    Ok(EndpointFile(path))
}
