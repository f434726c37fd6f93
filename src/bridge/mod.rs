//! The agent's side: session, tasks, shared state and the local REST API. It never imports the
//! server, and prints nothing.

pub mod api;
pub mod board;
mod dial;
mod follow;
mod mail;
pub mod meter;
pub mod offer;
pub mod oldest;
pub mod open;
mod overview;
pub mod prd;
mod receive;
mod session;
pub mod settings;
pub mod status;
pub mod task;
#[cfg(test)]
mod tests;
pub mod witness;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use storage::event::Event;
use storage::record::{Direction, Level, MessageKey};
use storage::store::{CommitError, Store};
use storage::transaction::{Act, Body, Transaction};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::audit::is_written;
use crate::audit::witness::{Pace, Traffic};
use crate::clock::{Clock, Millis};
use crate::executor::{CancelHandle, Executor};
use crate::inspector::explain;
use crate::logging;
use crate::metrics::Exporter;
use crate::outbox::Gate;
use crate::protocol::{Envelope, Refusal};
use crate::shutdown::Shutdown;
use crate::{inbox, outbox};

use board::Board;
use mail::{Author, DESTINATION};
use oldest::{Oldest, Waiting};
use open::{Open, Slots};
use settings::Settings;
use status::{Health, LinkState, Snapshot};
use task::{LocalTask, TaskStatus};

/// What the parts of one bridge share.
struct Shared {
    settings: Settings,
    store: Store,
    clock: Clock,
    executor: Executor,
    author: Author,
    link: RwLock<LinkState>,
    /// What is worth showing of the journal, and what the server was shown.
    traffic: Traffic,
    pace: Mutex<Pace>,
    /// The circuit of the server.
    gate: Gate,
    /// Its tasks in the orders in which they are listed.
    board: Arc<Board>,
    /// Its tasks that hold a slot, as decisions see them.
    slots: Slots,
    /// Where the oldest waiting message is.
    oldest: Arc<Oldest>,
    /// A task or a message that somebody may wait for has changed.
    changed: Arc<Notify>,
    /// A person wants the link otherwise: connected now, or parked.
    steered: Notify,
    /// What ends a run that is followed, by task.
    runs: Mutex<HashMap<String, CancelHandle>>,
    shutdown: Shutdown,
}

/// A bridge that runs. Clones steer the same one.
#[derive(Clone)]
pub struct Bridge(Arc<Shared>);

/// The work of a bridge: dropping it ends the bridge at once, [`Running::finished`] waits for it.
pub struct Running {
    /// Steers it.
    pub bridge: Bridge,
    work: JoinSet<()>,
}

/// A message could not be accepted for sending.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is not valid.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not known to be durable.
    #[error(transparent)]
    Store(#[from] CommitError),
}

impl Bridge {
    /// Starts the session, when there is a server, and the work on tasks. What an earlier start
    /// left running is adopted.
    pub fn start(
        settings: Settings,
        store: Store,
        clock: Clock,
        executor: Executor,
        shutdown: Shutdown,
    ) -> Running {
        // Before anything is counted.
        Exporter::install();
        meter::describe();
        let author = Author {
            agent_id: settings.agent_id.as_str().into(),
            namespace: settings.namespace.as_str().into(),
            clock: clock.clone(),
        };
        let changed = Arc::new(Notify::new());
        let board = Arc::new(Board::new(&settings.namespace));
        let oldest = Arc::new(Oldest::default());
        let (wake, tasks, first) = (Arc::clone(&changed), Arc::clone(&board), Arc::clone(&oldest));
        store.listen(Box::new(move |published| {
            published.entries.iter().for_each(|(_, record, _)| logging::record(record));
            tasks.hear(published);
            first.hear(published);
            wake.notify_waiters();
            true
        }));
        board.fill(|| store.ledger());
        let traffic = Traffic::of(&store);
        let gate = Gate::new(clock.clone(), settings.retry.clone());
        let shared = Arc::new(Shared {
            gate,
            slots: Slots::new(board.holders()),
            board,
            oldest,
            settings,
            store,
            clock,
            executor,
            author,
            link: RwLock::default(),
            traffic,
            pace: Mutex::default(),
            changed,
            steered: Notify::new(),
            runs: Mutex::default(),
            shutdown,
        });
        shared.tell(shared.act(Event::SessionStart, &shared.settings.agent_id));
        let mut work = JoinSet::new();
        work.spawn(work::run(Arc::clone(&shared)));
        work.spawn(outbox::sweep::run(
            shared.store.clone(),
            shared.clock.clone(),
            shared.settings.retry.clone(),
            shared.shutdown.clone(),
        ));
        if shared.settings.server.is_some() {
            work.spawn(session::run(Arc::clone(&shared)));
        }
        Running { bridge: Self(shared), work }
    }

    /// What keeps messages on their way: the link, and until when the circuit is open and why.
    pub fn way(&self) -> (explain::Link, Option<(Millis, String)>) {
        let (link, gate) = (self.0.link.read(), self.0.gate.state());
        let reason = gate.reason.or_else(|| link.last_error.clone());
        let why = reason.unwrap_or_else(|| "it was not opened yet".to_owned());
        let until = gate.until.filter(|until| *until > self.0.clock.now());
        let circuit = until.map(|until| (until, why.clone()));
        let state = match (link.parked, link.connected, &self.0.settings.server) {
            (true, ..) => explain::Link::Parked,
            (_, true, _) => explain::Link::Up,
            (.., None) => explain::Link::Nowhere,
            _ => explain::Link::Down { since: link.since, why },
        };
        (state, circuit)
    }

    /// What the bridge was told.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The bridge's store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The bridge's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The state of the bridge, as the API shows it.
    pub fn snapshot(&self) -> Snapshot {
        let Shared { settings, store, link, gate, board, oldest, clock, .. } = &*self.0;
        let (gate, found) = (gate.state(), (&**board, &**oldest));
        status::snapshot(settings, store, &link.read(), &gate, found, clock)
    }

    /// The short state of the link.
    pub fn health(&self) -> Health {
        status::health(&self.0.settings, &self.0.store, &self.0.link.read())
    }

    /// How long the server remembers message ids, as it said last.
    pub fn dedup_window(&self) -> Duration {
        self.0.link.read().dedup_window.unwrap_or(outbox::again::DEDUP_WINDOW)
    }

    /// Another program took over the bridge's id, so that this one has to stop.
    pub fn is_replaced(&self) -> bool {
        self.0.link.read().replaced
    }

    /// The oldest message that waits.
    pub fn oldest(&self) -> Option<Waiting> {
        self.0.oldest.of(&self.0.store)
    }

    /// Its tasks in the orders in which they are listed, and their counts.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Its tasks that are not over, and what changes from now on.
    pub fn open(&self) -> Open {
        Open::new(self.0.board.news(), &self.0.settings.namespace)
    }

    /// Every task of the bridge; it reads all that ever ended.
    pub fn tasks(&self) -> Vec<LocalTask> {
        task::list(&self.0.store.ledger(), &self.0.settings.namespace)
    }

    /// Returns after the next change of the store.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Puts the tasks of a PRD into the bridge's queue, in their order and in the trace `trace`.
    /// Those that were completed are kept; those that failed wait for their next attempt.
    ///
    /// # Errors
    /// When they are not known to be durable.
    pub async fn add(
        &self,
        tasks: Vec<prd::Task>,
        trace: Option<String>,
    ) -> Result<(), CommitError> {
        let shared = Arc::clone(&self.0);
        let commit = self.0.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
            let now = tx.now();
            let (actor, namespace) = (&shared.settings.agent_id, &shared.settings.namespace);
            for (position, prd) in (1_u64..).zip(tasks) {
                let known = task::get(tx.ledger(), namespace, &prd.task_id);
                let task = match known {
                    None => LocalTask {
                        traceparent: trace.clone(),
                        ..LocalTask::of_prd(prd, position, now)
                    },
                    Some(mut known) => {
                        known.position = position;
                        if matches!(known.status, TaskStatus::Failed | TaskStatus::Cancelled) {
                            known.again();
                            known.traceparent.clone_from(&trace);
                        }
                        known
                    }
                };
                task::put(tx, Event::TaskCreate, actor, namespace, &task);
            }
            Ok(())
        });
        meter::durable(commit).await.map(|_| ())
    }

    /// Accepts a message for sending; it is durable when this returns. Sent again it is accepted
    /// again, and on its way once.
    ///
    /// # Errors
    /// When it is not valid, its id is that of another message, or it is not known to be durable.
    pub async fn send(&self, envelope: Envelope) -> Result<(), SendError> {
        queue(&self.0.store, envelope).await
    }

    /// Records how the work that the bridge was started with has ended.
    pub fn conclude(&self, is_done: bool) {
        let (event, level) = if is_done {
            (Event::SessionComplete, Level::Info)
        } else {
            (Event::SessionFail, Level::Warning)
        };
        self.0.tell(self.0.act(event, &self.0.settings.agent_id).level(level));
    }

    /// Records that something was given to the API that is not a message. Nobody waits for it.
    fn note_rejected(&self, refusal: &Refusal) {
        let details = serde_json::json!({"code": refusal.code.as_str(), "field": refusal.field});
        let act = self.0.act(Event::MessageRejected, "").level(Level::Warning);
        self.0.tell(act.details(details.to_string()));
    }

    /// Stops as the first signal does: what runs may end, and nothing new is taken.
    pub fn drain(&self) {
        self.0.shutdown.drain();
    }

    /// Ends the session until [`Bridge::reconnect`].
    pub fn disconnect(&self) {
        self.0.link.write().parked = true;
        self.0.steered.notify_one();
    }

    /// Connects again, now.
    pub fn reconnect(&self) {
        self.0.link.write().parked = false;
        self.0.gate.reset();
        self.0.steered.notify_one();
    }
}

/// Accepts a message for sending by whichever bridge has this store next. An id that is known is
/// the same message again, or is refused.
async fn queue(store: &Store, envelope: Envelope) -> Result<(), SendError> {
    crate::protocol::validate(&envelope)?;
    if let Some(room) = store.room() {
        room.await?;
    }
    let bodies = store.clone();
    // Made here, as everybody waits while a decision runs.
    let body = Body::new(envelope.raw());
    let commit = store.commit(move |tx| -> Result<(), Refusal> {
        let peer = envelope.to().unwrap_or(DESTINATION).to_owned();
        if !outbox::is_known(tx, &envelope, DESTINATION, &peer) {
            inbox::check_room(&bodies)?;
        }
        if outbox::stage_with(tx, &envelope, (DESTINATION, &peer), || body).is_none() {
            let (direction, namespace) = (Direction::Outbound, envelope.namespace());
            let message_id = envelope.message_id().unwrap_or_default();
            let key = MessageKey { direction, namespace, peer: &peer, message_id };
            inbox::check_same(tx, &bodies, &key, &envelope)?;
        }
        Ok(())
    });
    Ok(meter::durable(commit).await??)
}

impl Running {
    /// Waits until everything has ended, which the shutdown that was given at the start asks for.
    pub async fn finished(mut self) {
        while let Some(ended) = self.work.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the bridge ended by itself");
                self.bridge.0.shutdown.stop();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.bridge.0.shutdown.stop();
    }
}

impl Shared {
    fn act(&self, event: Event, resource: &str) -> Act {
        Act::new(event, &self.settings.agent_id, &self.settings.namespace, resource)
    }

    /// Records an informative event by itself, if such events are written. Nobody waits for it.
    fn tell(&self, act: Act) {
        // On a full disk the room is for what must be written.
        if self.store.is_full() || !is_written(&self.settings.audit, act.event, act.level) {
            return;
        }
        drop(self.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
            tx.note(act);
            Ok(())
        }));
    }

    /// Records what is informative only, if such events are written.
    fn note(&self, tx: &mut Transaction<'_>, act: Act) {
        if !self.store.is_full() && is_written(&self.settings.audit, act.event, act.level) {
            tx.note(act);
        }
    }
}
