//! The coordination server: registry, matching, offers, shared state and their HTTP interface. It
//! prints nothing and reads no configuration: its owner opens the store and hands it over.

pub mod apply;
pub mod census;
pub mod core;
pub mod desk;
pub mod intake;
pub mod lanes;
pub mod life;
pub mod mail;
pub mod mailboxes;
pub mod matching;
pub mod measure;
pub mod members;
pub mod model;
mod overview;
pub mod progress;
pub mod registry;
pub mod retire;
mod routes;
pub mod scheduler;
pub mod shared;
pub mod tasks;
#[cfg(test)]
mod tests;
pub mod view;
pub mod witness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use storage::event::Event;
use storage::store::Store;
use storage::transaction::Act;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::core::Core;
pub use self::desk::Rules;
pub use self::measure::Disk;
use crate::clock::Clock;
use crate::dashboard::Dashboard;
use crate::inspector::rot;
use crate::protocol::SERVER_AGENT_ID;

/// How long connections may take to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server is started with.
pub struct ServerSettings {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The store, open and recovered. The server does not stop it.
    pub store: Store,
    /// Time and chance.
    pub clock: Clock,
    /// What the server goes by.
    pub rules: Rules,
    /// The files of the store, for the metrics; `None` when it has none.
    pub disk: Option<Disk>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or is not one of this machine.
    #[error("cannot listen on {address}: {source}; choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The store does not write.
    #[error("cannot write to the store: {0}")]
    Store(String),
}

/// A server that runs until it is stopped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    core: Arc<Core>,
}

/// The coordination server.
pub struct Server;

impl Server {
    /// Starts a server in this runtime.
    ///
    /// # Errors
    /// When the address cannot be used or the store does not write.
    pub async fn start(settings: ServerSettings) -> Result<Running, StartError> {
        let ServerSettings { listen, store, clock, rules, disk } = settings;
        let refused = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (stop, stopping) = watch::channel(false);
        let core = Core::new(store, clock, rules, stopping, disk);
        core.decided(|desk| {
            desk.note(Act::new(Event::SessionStart, SERVER_AGENT_ID, "", SERVER_AGENT_ID));
            Ok(())
        })
        .await
        .map_err(|refusal| StartError::Store(refusal.detail))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(scheduler::run(Arc::clone(&core)));
        if let Some(disk) = &core.disk {
            let (watched, ends) = (disk.journal().clone(), Arc::clone(&core));
            tasks.spawn(async move {
                tokio::select! {
                    () = rot::watch(ends.store.clone(), watched) => {}
                    () = stopped(&ends) => {}
                }
            });
        }
        let (page, looked_at) = (page(&core), Arc::clone(&core));
        let shown = Arc::clone(&page);
        tasks.spawn(async move { shown.run(looked_at.clock.clone(), stopped(&looked_at)).await });
        tasks.spawn(serve(listener, Arc::clone(&core), page));
        Ok(Running { address, stop, tasks, core })
    }
}

/// Returns when the server is to stop.
async fn stopped(core: &Core) {
    // An error says that the owner is gone, which ends the server as well.
    let _ = core.stopping.clone().wait_for(|stop| *stop).await;
}

async fn serve(listener: TcpListener, core: Arc<Core>, page: Arc<Dashboard>) {
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let (ending, router) = (Arc::clone(&core), routes::router(core, page, is_local));
    let stopped = async move { stopped(&ending).await };
    let listener = listener.tap_io(no_delay);
    let served = axum::serve(listener, router).with_graceful_shutdown(stopped);
    if let Err(error) = served.await {
        tracing::error!(%error, "the server stopped to listen");
    }
}

/// The dashboard of this server.
fn page(core: &Arc<Core>) -> Arc<Dashboard> {
    let subject = overview::Overview { core: Arc::clone(core), started_at: core.clock.now() };
    Dashboard::new(core.store.clone(), Box::new(subject))
}

/// Sends what is written at once: an answer that waits for the acknowledgement of an earlier one
/// comes 40 ms late.
fn no_delay(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection may be slow");
    }
}

impl Running {
    /// Where it is reached by HTTP.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no new work, answers what is under way, and ends. The store stays open.
    pub async fn stop(mut self) {
        // Nobody listens when everything ended by itself.
        let _ = self.stop.send(true);
        let tasks = &mut self.tasks;
        let joined = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a part of the server failed");
                }
            }
        });
        if joined.await.is_err() {
            // Somebody began a request and does not finish it.
            tracing::warn!("requests did not end in time");
            self.tasks.abort_all();
        }
        // The conversations are told by the same channel; each gives its permit back at its end.
        let all = u32::try_from(core::SOCKETS_MAX).unwrap_or(u32::MAX);
        let ended = tokio::time::timeout(DRAIN_TIMEOUT, self.core.sockets.acquire_many(all)).await;
        if ended.is_err() {
            tracing::warn!("connections did not end in time");
        }
        let noted = self.core.decided(|desk| {
            desk.note(Act::new(Event::SessionStop, SERVER_AGENT_ID, "", SERVER_AGENT_ID));
            Ok(())
        });
        if let Err(refusal) = noted.await {
            tracing::warn!(%refusal, "the stop could not be recorded");
        }
    }
}
