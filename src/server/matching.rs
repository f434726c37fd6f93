//! Who gets a task: the fit of a task and an agent, and the best of several. Pure functions; what
//! an offer does to the ledger is in [`super::tasks`].

use super::model::{Agent, Presence, Task};
use crate::protocol::agents::serves;

/// An agent that may be offered something.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The agent.
    pub agent: Agent,
    /// Tasks in its hands.
    pub running: u32,
    /// It takes offers: it is not draining and did not say that it is full.
    pub is_open: bool,
}

impl Candidate {
    /// Whether it takes another task now, if there is one that fits.
    pub fn is_free(&self) -> bool {
        self.agent.status == Presence::Online
            && self.is_open
            && self.running < self.agent.max_concurrent_tasks
    }
}

/// Why an agent does not get a task, the nearest miss last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// The task is for another agent, or came from this one.
    NotMeant,
    /// It lacks a skill or the model.
    Unable,
    /// It is not there.
    Away,
    /// It refused the task in this session.
    Refused,
    /// Its slots are taken, or it takes nothing now.
    Busy,
}

/// How well an agent fits: smaller is better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    is_undeclared: bool,
    had_it_last: bool,
    running: u32,
    agent_id: String,
}

/// Judges one agent for a task.
///
/// # Errors
/// Why it does not fit.
pub fn fit(task: &Task, candidate: &Candidate) -> Result<Rank, Unfit> {
    let agent = &candidate.agent;
    let target = task.target_agent.as_deref();
    let is_target = target == Some(agent.agent_id.as_str());
    let is_origin = task.offered_by.as_deref() == Some(agent.agent_id.as_str());
    if agent.namespace != task.namespace || (target.is_some() || is_origin) && !is_target {
        return Err(Unfit::NotMeant);
    }
    if !is_able(task, agent) {
        return Err(Unfit::Unable);
    }
    if agent.status != Presence::Online {
        return Err(Unfit::Away);
    }
    let refused = task.rejections.iter().any(|rejection| {
        rejection.agent_id == agent.agent_id
            && rejection.session_id.as_deref() == agent.session_id()
    });
    if refused {
        return Err(Unfit::Refused);
    }
    if !candidate.is_free() {
        return Err(Unfit::Busy);
    }
    Ok(Rank {
        is_undeclared: !declares(&task.task_type, agent),
        had_it_last: task.last_offered.as_deref() == Some(agent.agent_id.as_str()),
        running: candidate.running,
        agent_id: agent.agent_id.clone(),
    })
}

/// Whether the agent has each skill and the model that the task requires.
fn is_able(task: &Task, agent: &Agent) -> bool {
    let Some(wanted) = &task.requirements else { return true };
    let has =
        |skill: &String| agent.capabilities.contains(skill) || agent.agent_types.contains(skill);
    wanted.skills.iter().all(has)
        && wanted.model.as_ref().is_none_or(|model| agent.supported_models.contains(model))
}

/// Whether the agent says that it takes tasks of this type.
pub fn declares(task_type: &str, agent: &Agent) -> bool {
    agent.capabilities.iter().any(|capability| capability == task_type)
        || serves(task_type, &agent.agent_types)
}

/// The best agent for a task.
///
/// # Errors
/// Why the task stays pending, for people.
pub fn choose<'a>(
    task: &Task,
    candidates: &'a mut [Candidate],
) -> Result<&'a mut Candidate, &'static str> {
    let mut best: Option<(Rank, usize)> = None;
    let mut nearest = None;
    for (index, candidate) in candidates.iter().enumerate() {
        match fit(task, candidate) {
            Ok(rank) if best.as_ref().is_none_or(|(other, _)| rank < *other) => {
                best = Some((rank, index));
            }
            Ok(_) => {}
            Err(unfit) => nearest = nearest.max(Some(unfit)),
        }
    }
    let found = best.and_then(|(_, index)| candidates.get_mut(index));
    found.ok_or_else(|| reason(task, nearest))
}

/// Why nobody gets a task.
fn reason(task: &Task, nearest: Option<Unfit>) -> &'static str {
    let is_targeted = task.target_agent.is_some();
    match nearest {
        None | Some(Unfit::NotMeant) if is_targeted => "the target agent never registered",
        None | Some(Unfit::NotMeant) => "no other agent is registered in this namespace",
        Some(Unfit::Unable) if is_targeted => "the target agent does not meet the requirements",
        Some(Unfit::Unable) => "no agent meets the requirements",
        Some(Unfit::Away) if is_targeted => "the target agent is not online",
        Some(Unfit::Away) => "no suitable agent is online",
        Some(Unfit::Refused) => "every suitable agent refused the task",
        Some(Unfit::Busy) => "every suitable agent is busy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::payload::{RejectReason, Requirements};
    use crate::server::model::{Rejection, Session};

    fn agent(agent_id: &str) -> Candidate {
        let agent = Agent {
            agent_id: agent_id.to_owned(),
            namespace: "default".to_owned(),
            capabilities: vec!["python".to_owned()],
            agent_types: vec!["review-code".to_owned()],
            supported_models: vec!["opus".to_owned()],
            max_concurrent_tasks: 1,
            status: Presence::Online,
            session: Some(Session { session_id: "s-1".to_owned(), ..Session::default() }),
            ..Agent::default()
        };
        Candidate { agent, running: 0, is_open: true }
    }

    fn task() -> Task {
        Task {
            namespace: "default".to_owned(),
            task_type: "code_review".to_owned(),
            ..Task::default()
        }
    }

    fn rejected(session_id: &str) -> Vec<Rejection> {
        let session_id = Some(session_id.to_owned());
        let reason = RejectReason::Policy;
        vec![Rejection { agent_id: "a".to_owned(), session_id, reason }]
    }

    fn requires(skill: &str, model: &str) -> Requirements {
        let skills = vec![skill.to_owned()];
        Requirements { skills, model: Some(model.to_owned()), ..Requirements::default() }
    }

    #[test]
    fn an_agent_fits_or_there_is_a_reason() {
        type Edit = fn(&mut Task, &mut Candidate);
        let table: [(&str, Edit, Option<Unfit>); 15] = [
            ("as it is", |_, _| {}, None),
            ("its slot is taken", |_, a| a.running = 1, Some(Unfit::Busy)),
            ("it is full", |_, a| a.is_open = false, Some(Unfit::Busy)),
            ("it is lost", |_, a| a.agent.status = Presence::Lost, Some(Unfit::Away)),
            ("elsewhere", |t, _| t.namespace = "x".to_owned(), Some(Unfit::NotMeant)),
            ("targeted", |t, _| t.target_agent = Some("a".to_owned()), None),
            ("for another", |t, _| t.target_agent = Some("b".to_owned()), Some(Unfit::NotMeant)),
            ("its own", |t, _| t.offered_by = Some("a".to_owned()), Some(Unfit::NotMeant)),
            (
                "its own, targeted",
                |t, _| {
                    t.offered_by = Some("a".to_owned());
                    t.target_agent = Some("a".to_owned());
                },
                None,
            ),
            ("able", |t, _| t.requirements = Some(requires("python", "opus")), None),
            ("by agent type", |t, _| t.requirements = Some(requires("review-code", "opus")), None),
            ("no skill", |t, _| t.requirements = Some(requires("go", "opus")), Some(Unfit::Unable)),
            (
                "no model",
                |t, _| t.requirements = Some(requires("python", "x")),
                Some(Unfit::Unable),
            ),
            ("refused", |t, _| t.rejections = rejected("s-1"), Some(Unfit::Refused)),
            ("refused in another session", |t, _| t.rejections = rejected("s-0"), None),
        ];
        for (name, edit, wanted) in table {
            let (mut task, mut agent) = (task(), agent("a"));
            edit(&mut task, &mut agent);
            assert_eq!(fit(&task, &agent).err(), wanted, "{name}");
        }
    }

    #[test]
    fn who_declares_the_type_comes_first_then_who_did_not_have_it_then_the_idle() {
        let mut task = task();
        let mut all = [agent("a"), agent("b"), agent("c"), agent("d")];
        all[0].agent.agent_types.clear();
        all[1].agent.max_concurrent_tasks = 9;
        all[1].running = 1;
        task.last_offered = Some("c".to_owned());
        for wanted in ["d", "b", "c", "a"] {
            let chosen = choose(&task, &mut all).unwrap();
            assert_eq!(chosen.agent.agent_id, wanted);
            chosen.is_open = false;
        }
        assert_eq!(choose(&task, &mut all).err(), Some("every suitable agent is busy"));
    }

    #[test]
    fn the_reason_is_the_nearest_miss() {
        let mut task = task();
        let none = "no other agent is registered in this namespace";
        assert_eq!(choose(&task, &mut []).err(), Some(none));
        let mut lost = agent("a");
        lost.agent.status = Presence::Lost;
        let mut all = [lost, agent("b")];
        all[1].running = 1;
        assert_eq!(choose(&task, &mut all).err(), Some("every suitable agent is busy"));
        task.target_agent = Some("a".to_owned());
        assert_eq!(choose(&task, &mut all).err(), Some("the target agent is not online"));
        task.target_agent = Some("z".to_owned());
        assert_eq!(choose(&task, &mut all).err(), Some("the target agent never registered"));
    }
}
