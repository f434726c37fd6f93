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
use super::model::{self, Agent, Task, TaskStatus, decode};
use super::{mail, registry, retire, tasks};
use crate::protocol::{Refusal, SERVER_AGENT_ID};

/// Offers in one decision at the most, so that nothing else waits long for the committer.
const OFFERS_MAX: usize = 128;

/// Tasks or messages that one decision ends, at the most.
const EXPIRED_MAX: usize = 128;

/// Waiting tasks that one decision looks at, at the most.
const LOOKED_AT_MAX: usize = 1_000;

/// The scheduler looks again after this time at the latest.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// A task that could not be ended is tried again after this time.
const ASIDE: Duration = Duration::from_mins(1);

/// Runs until the server stops.
pub async fn run(core: Arc<Core>) {
    grace(&core);
    let mut stopping = core.stopping.clone();
    loop {
        if step(&core).await {
            continue;
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
pub fn grace(core: &Core) {
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
    let aside = core.life.aside(core.clock.monotonic());
    let deadline = tasks::deadlines(&ledger).find(|(_, task)| !aside.contains(task));
    let deadline = deadline.map(|(at, _)| at.saturating_sub(core.clock.now()));
    let soonest = offers.into_iter().chain(deadline).min();
    let soonest = soonest.map_or(LOOK_AGAIN_MAX, Duration::from_millis);
    soonest.clamp(Duration::from_millis(1), LOOK_AGAIN_MAX)
}

/// One round; says whether more is to be done at once. A decision that cannot be written is tried
/// again later, and keeps none of the others from being made.
pub async fn step(core: &Arc<Core>) -> bool {
    end_offers(core).await;
    let mut more = end_silence(core).await;
    let now = core.clock.now();
    let lain = core.mailboxes.overdue(now, EXPIRED_MAX);
    let is_all = lain.len() < EXPIRED_MAX;
    if !lain.is_empty() {
        let ended = core.decided(move |desk| {
            mail::give_up(desk, &lain, now);
            Ok(())
        });
        more |= written("mail that lay too long", ended.await).is_some() && !is_all;
    }
    more |= end_tasks(core).await;
    more |= written("the end of a retention", retire::step(core).await).unwrap_or(false);
    written("why tasks wait", assign(core).await);
    more
}

/// Says on stderr what could not be written.
fn written<T>(what: &str, decided: Result<T, Refusal>) -> Option<T> {
    decided
        .inspect_err(|refusal| tracing::warn!(what, %refusal, "the scheduler could not write"))
        .ok()
}

/// Takes back what was offered and not answered.
async fn end_offers(core: &Arc<Core>) {
    let now = core.clock.monotonic();
    for (task, attempt) in core.life.overdue_offers(now) {
        let (namespace, task_id) = task.clone();
        let ended =
            core.decided(move |desk| tasks::offer_timed_out(desk, &namespace, &task_id, attempt));
        if written("an offer that was not answered", ended.await).is_none() {
            core.life.offered(task, attempt, now.saturating_add(millis(LOOK_AGAIN_MAX)));
        }
    }
}

/// Takes back what those have who gave no sign of life.
async fn end_silence(core: &Arc<Core>) -> bool {
    let (now, patience) = (core.clock.monotonic(), core.rules.patience());
    let mut more = false;
    for agent in core.life.silent(now, patience, usize::MAX) {
        let (namespace, agent_id) = agent.clone();
        let ended = core.decided(move |desk| registry::silent(desk, &namespace, &agent_id));
        let rest = written("a lost agent", ended.await);
        if rest != Some(false) {
            core.life.expect(&agent, now.saturating_sub(patience));
        }
        more |= rest == Some(true);
    }
    more
}

/// Ends tasks whose deadline has passed: many at once, and each by itself when that fails.
async fn end_tasks(core: &Arc<Core>) -> bool {
    let monotonic = core.clock.monotonic();
    let aside = core.life.aside(monotonic);
    let overdue = tasks::overdue(&core.store.ledger(), core.clock.now(), EXPIRED_MAX, &aside);
    let (all, is_all) = (overdue.clone(), overdue.len() < EXPIRED_MAX);
    if overdue.is_empty() {
        return false;
    }
    let ended = core.decided(move |desk| expire(desk, &overdue)).await;
    if let Some(rest) = written("tasks whose deadline passed", ended) {
        return rest || !is_all;
    }
    for task in all {
        let one = [task.clone()];
        let ended = core.decided(move |desk| expire(desk, &one)).await;
        if written("a task whose deadline passed", ended).is_none() {
            core.life.put_aside(task, monotonic.saturating_add(millis(ASIDE)));
        }
    }
    !is_all
}

/// Ends tasks whose deadline has passed; says whether some are left.
fn expire(desk: &mut Desk<'_, '_>, overdue: &[Name]) -> Result<bool, Refusal> {
    for (namespace, task_id) in overdue {
        if desk.is_laden() {
            return Ok(true);
        }
        if let Some(mut task) = desk.find_task(namespace, task_id) {
            tasks::expire(desk, &mut task)?;
        }
    }
    Ok(false)
}

/// Offers what waits to the agents that fit. Each decision looks at a bounded number of tasks, and
/// at none when no agent of the namespace is free.
async fn assign(core: &Arc<Core>) -> Result<(), Refusal> {
    let mut namespace = waiting_namespace(core, "");
    while let Some(here) = namespace {
        let mut from = Some(String::new());
        while let Some(after) = from {
            let place = here.clone();
            let round = core.decided(move |desk| match_waiting(desk, &place, &after)).await;
            // The other namespaces must not wait for this one.
            let Some(round) = written("an offer", round) else { break };
            let now = core.clock.monotonic();
            let until = now.saturating_add(millis(core.rules.offer_timeout));
            for (task, attempt) in round.offers {
                core.life.offered(task, attempt, until);
            }
            from = round.next;
        }
        // No identifier has a character as low as this one.
        namespace = waiting_namespace(core, &format!("{here}\u{1}"));
    }
    let mut unseen = core.census.unseen();
    while !unseen.is_empty() {
        let places = unseen[..unseen.len().min(LOOKED_AT_MAX)].to_vec();
        let seen = core.decided(move |desk| Ok(explain(desk, &places))).await?;
        unseen.drain(..seen);
    }
    Ok(())
}

/// The first namespace behind `after` in which a task waits.
fn waiting_namespace(core: &Core, after: &str) -> Option<String> {
    let ledger = core.store.ledger();
    let (key, _) = ledger.scan_after(Kind::Waiting, after).next()?;
    key.name.split('\0').next().map(str::to_owned)
}

/// What one look at waiting tasks came to.
#[derive(Debug, Default)]
pub struct Round {
    /// What was offered, with its attempt.
    pub offers: Vec<(Name, u32)>,
    /// Where to go on, if there is more to look at and somebody to offer it to.
    pub next: Option<String>,
}

/// Offers waiting tasks of a namespace, from a place on, to the agents that fit best, in the order
/// of the waiting.
///
/// # Errors
/// When a message cannot be written.
pub fn match_waiting(
    desk: &mut Desk<'_, '_>,
    namespace: &str,
    after: &str,
) -> Result<Round, Refusal> {
    let mut staff = staff(desk, namespace);
    let mut round = Round::default();
    let prefix = format!("{namespace}\0");
    let places: Vec<Arc<str>> = {
        let first = if after.is_empty() { &prefix } else { after };
        let waiting = desk.tx.ledger().scan_after(Kind::Waiting, first);
        let here = waiting.take_while(|(key, _)| key.name.starts_with(&prefix));
        here.take(LOOKED_AT_MAX).map(|(key, _)| Arc::clone(&key.name)).collect()
    };
    for place in &places {
        if !staff.iter().any(Candidate::is_free) {
            round.next = None;
            return Ok(round);
        }
        round.next = Some(place.to_string());
        let Some(mut task) = waiting(desk, place) else { continue };
        match matching::choose(&task, &mut staff) {
            Ok(chosen) => {
                let agent_id = chosen.agent.agent_id.clone();
                match tasks::offer(desk, &mut task, &agent_id) {
                    Ok(()) => {
                        chosen.running += 1;
                        round.offers.push((name(namespace, &task.task_id), task.attempt));
                    }
                    // The others must not wait for one that no agent can be sent.
                    Err(refusal) => tasks::fail(desk, namespace, &task.task_id, &refusal)?,
                }
            }
            Err(reason) => keep_waiting(desk, task, reason),
        }
        if round.offers.len() == OFFERS_MAX || desk.is_laden() {
            return Ok(round);
        }
    }
    if places.len() < LOOKED_AT_MAX {
        round.next = None;
    }
    Ok(round)
}

/// The task of a place among the waiting.
fn waiting(desk: &Desk<'_, '_>, place: &str) -> Option<Task> {
    let [namespace, .., task_id] = model::parts(place)[..] else { return None };
    desk.find_task(namespace, task_id).filter(|task| task.status == TaskStatus::Pending)
}

/// Says why a task still waits, where that is new.
fn keep_waiting(desk: &mut Desk<'_, '_>, mut task: Task, reason: &str) {
    if task.pending_reason.as_deref() != Some(reason) {
        task.pending_reason = Some(reason.to_owned());
        desk.put_task(Event::TaskUpdate, SERVER_AGENT_ID, &task);
    }
}

/// Says why each of these tasks waits, unless somebody is free for it after all. How many of them
/// it came to: at least one.
fn explain(desk: &mut Desk<'_, '_>, places: &[Arc<str>]) -> usize {
    let mut candidates: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for (seen, place) in places.iter().enumerate() {
        if desk.is_laden() {
            return seen;
        }
        let Some(task) = waiting(desk, place) else { continue };
        let staff = candidates
            .entry(task.namespace.clone())
            .or_insert_with(|| staff(desk, &task.namespace));
        if let Err(reason) = matching::choose(&task, staff) {
            keep_waiting(desk, task, reason);
        }
    }
    places.len()
}

fn staff(desk: &Desk<'_, '_>, namespace: &str) -> Vec<Candidate> {
    registry::staffed(desk, namespace)
        .into_iter()
        .map(|(agent, running)| {
            let who = name(namespace, &agent.agent_id);
            let is_open = desk.life.takes_offers(&who) && !agent.is_leaving();
            Candidate { agent, running, is_open }
        })
        .collect()
}
