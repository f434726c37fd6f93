//! What the parts of a running server share, and how they commit a decision. It starts nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use storage::commit::Commit;
use storage::event::Event;
use storage::record::{Fact, Kind};
use storage::store::{CommitError, Store};
use storage::transaction::Transaction;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::census::Census;
use super::desk::{Desk, Rules, millis};
use super::life::{Bells, Life};
use super::mailboxes::Mailboxes;
use super::measure::{self, Disk};
use super::registry;
use crate::audit::witness::Traffic;
use crate::clock::{Clock, Millis};
use crate::inbox;
use crate::inspector::answer;
use crate::logging;
use crate::metrics::Exporter;
use crate::protocol::Refusal;

/// WebSockets at once: each costs a few buffers and a file descriptor, of which a process has
/// often 65,536.
pub const SOCKETS_MAX: usize = 10_000;

/// The shared parts of a running server.
pub struct Core {
    /// Everything durable.
    pub store: Store,
    /// Time and chance.
    pub clock: Clock,
    /// What the server goes by.
    pub rules: Rules,
    /// Signs of life.
    pub life: Life,
    /// What is worth showing of the journal to agents.
    pub traffic: Traffic,
    /// What lies in the mailboxes.
    pub mailboxes: Mailboxes,
    /// Tasks and agents by status, and what is to be retired.
    pub census: Census,
    /// Monotonic time before which no message ids are forgotten.
    pub forgets_at: AtomicU64,
    /// Who waits for a mailbox or a task.
    pub bells: Bells,
    /// Wakes the scheduler.
    pub wake: Notify,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
    /// Room for WebSockets; each holds one permit until its conversation ended.
    pub sockets: Arc<Semaphore>,
    /// What `/metrics` shows.
    pub exporter: Exporter,
    /// The files of the store, if it has some.
    pub disk: Option<Disk>,
    /// Monotonic time of the start.
    pub started: Millis,
}

impl Core {
    /// The shared parts over an open store. Nothing runs yet.
    pub fn new(
        store: Store,
        clock: Clock,
        rules: Rules,
        stopping: watch::Receiver<bool>,
        disk: Option<Disk>,
    ) -> Arc<Self> {
        let core = Arc::new(Self {
            started: clock.monotonic(),
            mailboxes: Mailboxes::new(millis(rules.max_age)),
            census: Census::new(millis(rules.retention)),
            forgets_at: AtomicU64::new(0),
            traffic: Traffic::of(&store),
            store,
            clock,
            rules,
            life: Life::default(),
            bells: Bells::default(),
            wake: Notify::new(),
            stopping,
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
            exporter: Exporter::install(),
            disk,
        });
        measure::describe();
        core.listen();
        core.store.messages(|messages| core.mailboxes.fill(messages));
        core.census.fill(&core.store);
        core
    }

    /// Commits a decision of the server.
    pub fn decide<R, F>(self: &Arc<Self>, decide: F) -> Commit<Result<R, Refusal>>
    where
        F: FnOnce(&mut Desk<'_, '_>) -> Result<R, Refusal> + Send + 'static,
        R: Send + 'static,
    {
        let core = Arc::clone(self);
        self.store.commit(move |tx: &mut Transaction<'_>| {
            let Self { clock, life, rules, store, traffic, .. } = &*core;
            decide(&mut Desk { tx, clock, life, rules, store, traffic, prepared: None })
        })
    }

    /// Commits a decision and waits until it is durable.
    ///
    /// # Errors
    /// The decision's refusal, or `unavailable` when the store cannot write.
    pub async fn decided<R, F>(self: &Arc<Self>, decide: F) -> Result<R, Refusal>
    where
        F: FnOnce(&mut Desk<'_, '_>) -> Result<R, Refusal> + Send + 'static,
        R: Send + 'static,
    {
        let begun = Instant::now();
        let decided = self.decide(decide).await;
        measure::commit(begun, decided.is_ok());
        decided.map_err(|error| unavailable(&error))?
    }

    /// What cannot be read of the store, a sentence each.
    pub fn missing(&self) -> Vec<String> {
        self.disk.as_ref().map_or_else(Vec::new, |disk| answer::missing(disk.journal()))
    }

    /// Rings for what each durable frame touched, as long as the server lives.
    fn listen(self: &Arc<Self>) {
        let core = Arc::downgrade(self);
        self.store.listen(Box::new(move |published| {
            let Some(core) = core.upgrade() else { return false };
            core.mailboxes.hear(published);
            for mailbox in core.mailboxes.take_back(published, &core.store) {
                core.bells.ring(&mailbox);
            }
            core.census.hear(published);
            let mut wakes = false;
            for (_, record, _) in published.entries.iter() {
                measure::record(record);
                logging::record(record);
                if record.event == Event::Register {
                    registry::registered(&core.life, record);
                }
                match &record.fact {
                    Fact::Accept(head) if !head.destination.is_empty() => {
                        core.bells.ring(&head.destination);
                    }
                    Fact::Put(write) => match write.key.kind {
                        Kind::Task => core.bells.ring(&task_bell(&write.key.name)),
                        // A task waits, an agent is there, a slot is free, a deadline is set.
                        Kind::Agent | Kind::Waiting | Kind::Lease => wakes = true,
                        _ => {}
                    },
                    _ => {}
                }
            }
            if wakes {
                core.wake.notify_one();
            }
            true
        }));
    }
}

/// The bell of a task, by the name of its entity.
pub fn task_bell(name: &str) -> String {
    format!("task\0{name}")
}

/// The refusal when the store cannot write.
pub fn unavailable(error: &CommitError) -> Refusal {
    inbox::unwritten(error).retry_after(inbox::RETRY_AFTER_SECONDS)
}
