//! Wakes on published frames and on time, and runs the decisions that nobody asks for: matching,
//! offers that were not answered, lost agents, deadlines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use storage::event::Event;
use storage::record::Kind;

use super::core::Core;
use super::desk::{Desk, millis};
use super::life::{Name, name};
use super::matching::{self, Candidate};
use super::model::{self, Agent, Presence, Task, TaskStatus, decode};
use super::{registry, tasks};
use crate::protocol::{Refusal, SERVER_AGENT_ID};

/// Offers in one decision at the most, so that nothing else waits long for the committer.
const OFFERS_MAX: usize = 128;

/// Tasks that one decision looks at, at the most.
const EXPIRED_MAX: usize = 128;

/// The scheduler looks again after this time at the latest.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Heartbeat intervals without a sign of life after which an agent is lost.
const MISSED_MAX: u32 = 3;

/// Runs until the server stops.
pub async fn run(core: Arc<Core>) {
    grace(&core);
    let mut stopping = core.stopping.clone();
    loop {
        match step(&core).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(refusal) => tracing::warn!(%refusal, "the scheduler could not write"),
        }
        let wait = wait(&core);
        tokio::select! {
            () = core.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// After a start every offer and every agent has its full time again.
fn grace(core: &Core) {
    let now = core.clock.monotonic();
    let ledger = core.store.ledger();
    for (_, entity) in ledger.scan(Kind::Agent, "") {
        if let Some(agent) = decode::<Agent>(&entity.value) {
            core.life.expect(&name(&agent.namespace, &agent.agent_id), now);
        }
    }
    let until = now.saturating_add(millis(core.rules.offer_timeout));
    for (key, _) in ledger.scan(Kind::Lease, "slot\0") {
        let [_, namespace, _, task_id] = model::parts(&key.name)[..] else { continue };
        let task = ledger.get(&model::task_key(namespace, task_id));
        let task = task.and_then(|entity| decode::<Task>(&entity.value));
        if let Some(task) = task.filter(|task| task.status == TaskStatus::Offered) {
            core.life.offered(name(namespace, task_id), task.attempt, until);
        }
    }
}

fn wait(core: &Core) -> Duration {
    let offers = core.life.next_offer_due().map(|due| due.saturating_sub(core.clock.monotonic()));
    let ledger = core.store.ledger();
    let deadline = tasks::deadlines(&ledger).next();
    let deadline = deadline.map(|(at, _)| at.saturating_sub(core.clock.now()));
    let soonest = offers.into_iter().chain(deadline).min();
    let soonest = soonest.map_or(LOOK_AGAIN_MAX, Duration::from_millis);
    soonest.clamp(Duration::from_millis(1), LOOK_AGAIN_MAX)
}

/// One round; says whether more is to be done at once.
///
/// # Errors
/// When the store cannot write.
pub async fn step(core: &Arc<Core>) -> Result<bool, Refusal> {
    for ((namespace, task_id), attempt) in core.life.overdue_offers(core.clock.monotonic()) {
        core.decided(move |desk| tasks::offer_timed_out(desk, &namespace, &task_id, attempt))
            .await?;
    }
    for (namespace, agent_id) in silent(core) {
        core.decided(move |desk| registry::lost(desk, &namespace, &agent_id)).await?;
    }
    let overdue = tasks::overdue(&core.store.ledger(), core.clock.now(), EXPIRED_MAX);
    let mut more = overdue.len() == EXPIRED_MAX;
    if !overdue.is_empty() {
        core.decided(move |desk| expire(desk, &overdue)).await?;
    }
    if core.store.ledger().scan(Kind::Waiting, "").next().is_some() {
        let offers = core.decided(match_waiting).await?;
        more |= offers.len() == OFFERS_MAX;
        let until = core.clock.monotonic().saturating_add(millis(core.rules.offer_timeout));
        for (task, attempt) in offers {
            core.life.offered(task, attempt, until);
        }
    }
    Ok(more)
}

/// Agents that are counted as online and gave no sign of life for too long.
fn silent(core: &Core) -> Vec<Name> {
    let now = core.clock.monotonic();
    let patience = millis(core.rules.heartbeat).saturating_mul(u64::from(MISSED_MAX));
    let ledger = core.store.ledger();
    let agents = ledger.scan(Kind::Agent, "");
    agents
        .filter_map(|(_, entity)| decode::<Agent>(&entity.value))
        .filter(|agent| agent.status != Presence::Lost)
        .map(|agent| name(&agent.namespace, &agent.agent_id))
        .filter(|agent| core.life.vital(agent).seen.saturating_add(patience) <= now)
        .collect()
}

/// Ends tasks whose deadline has passed.
fn expire(desk: &mut Desk<'_, '_>, overdue: &[Name]) -> Result<(), Refusal> {
    for (namespace, task_id) in overdue {
        if let Some(mut task) = desk.find_task(namespace, task_id) {
            tasks::expire(desk, &mut task)?;
        }
    }
    Ok(())
}

/// Offers waiting tasks to the agents that fit best, in the order of the waiting. Gives back what
/// was offered, with its attempt.
///
/// # Errors
/// When an offer cannot be written.
pub fn match_waiting(desk: &mut Desk<'_, '_>) -> Result<Vec<(Name, u32)>, Refusal> {
    let waiting: Vec<Name> = desk
        .tx
        .ledger()
        .scan(Kind::Waiting, "")
        .filter_map(|(key, _)| match model::parts(&key.name)[..] {
            [namespace, .., task_id] => Some(name(namespace, task_id)),
            _ => None,
        })
        .collect();
    let mut candidates: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    let mut offers = Vec::new();
    for (namespace, task_id) in waiting {
        if offers.len() == OFFERS_MAX {
            break;
        }
        let Some(mut task) = desk.find_task(&namespace, &task_id) else { continue };
        let staff = candidates.entry(namespace.clone()).or_insert_with(|| staff(desk, &namespace));
        match matching::choose(&task, staff) {
            Ok(chosen) => {
                let agent_id = chosen.agent.agent_id.clone();
                match tasks::offer(desk, &mut task, &agent_id) {
                    Ok(()) => {
                        chosen.running += 1;
                        offers.push((name(&namespace, &task_id), task.attempt));
                    }
                    // The others must not wait for one that no agent can be sent.
                    Err(refusal) => tasks::fail(desk, &namespace, &task_id, &refusal)?,
                }
            }
            Err(reason) if task.pending_reason.as_deref() != Some(reason) => {
                task.pending_reason = Some(reason.to_owned());
                desk.put_task(Event::TaskUpdate, SERVER_AGENT_ID, &task);
            }
            Err(_) => {}
        }
    }
    Ok(offers)
}

fn staff(desk: &Desk<'_, '_>, namespace: &str) -> Vec<Candidate> {
    registry::staffed(desk, namespace)
        .into_iter()
        .map(|(agent, running)| {
            let is_open = desk.life.takes_offers(&name(namespace, &agent.agent_id));
            Candidate { agent, running, is_open }
        })
        .collect()
}
