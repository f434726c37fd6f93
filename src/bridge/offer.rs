//! Whether to take an offered task: a pure decision. It neither answers nor starts anything.

use crate::clock::Millis;
use crate::protocol::payload::{RejectReason, TaskOffer};

use super::settings::Agents;

/// What the decision looks at besides the offer.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The agents of this machine.
    pub agents: &'a Agents,
    /// Tasks that hold a slot.
    pub busy: usize,
    /// How many tasks run at once.
    pub slots: usize,
    /// The bridge is about to stop.
    pub draining: bool,
    /// An earlier attempt at this task is still running here.
    pub still_running: bool,
    /// A task of this id is already here and is not the one on offer.
    pub taken: bool,
    /// Wall time.
    pub now: Millis,
}

/// What becomes of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is taken by the agent of this type.
    Accept {
        /// The agent type.
        agent: String,
    },
    /// It is declined.
    Reject {
        /// Why.
        reason: RejectReason,
        /// Why, for people.
        detail: String,
    },
}

/// Judges an offer. What cannot change soon is named before what can.
pub fn decide(offer: &TaskOffer, situation: &Situation<'_>) -> Decision {
    let reject = |reason, detail: String| Decision::Reject { reason, detail };
    if situation.draining {
        return reject(RejectReason::ShuttingDown, "the agent is about to stop".to_owned());
    }
    if situation.still_running {
        // The server counts that attempt as lost. When it has ended, the offer comes again.
        let detail = "an earlier attempt at this task is still running here".to_owned();
        return reject(RejectReason::Capacity, detail);
    }
    if situation.taken {
        let detail = "a task of the agent's own has this id".to_owned();
        return reject(RejectReason::Policy, detail);
    }
    let model = offer.requirements.as_ref().and_then(|needs| needs.model.as_deref());
    let Some(agent) = situation.agents.choose(&offer.task_type, model) else {
        let detail = match model {
            Some(model) => format!("no agent here serves {} on {model}", offer.task_type),
            None => format!("no agent here serves {}", offer.task_type),
        };
        return reject(RejectReason::Unsupported, detail);
    };
    if offer.deadline.is_some_and(|deadline| deadline <= situation.now) {
        return reject(RejectReason::Deadline, "the deadline has passed".to_owned());
    }
    if situation.busy >= situation.slots {
        let detail = format!("all {} slots are taken", situation.slots);
        return reject(RejectReason::Capacity, detail);
    }
    Decision::Accept { agent: agent.agent_type.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::agents::AgentSpec;
    use crate::protocol::payload::Requirements;

    fn agents() -> Agents {
        let agent = |name: &str, models: &[&str]| AgentSpec {
            agent_type: name.to_owned(),
            command: vec!["true".to_owned()],
            models: models.iter().map(|&model| model.to_owned()).collect(),
            ..AgentSpec::default()
        };
        Agents::new(vec![agent("review-code", &["small"]), agent("eng-backend", &[])], None)
    }

    fn offer(task_type: &str, model: Option<&str>, deadline: Option<Millis>) -> TaskOffer {
        let needs = |model: &str| Requirements { model: Some(model.into()), ..Default::default() };
        TaskOffer {
            task_id: "t-1".into(),
            task_type: task_type.into(),
            requirements: model.map(needs),
            deadline,
            ..TaskOffer::default()
        }
    }

    fn outcome(offer: &TaskOffer, change: impl FnOnce(&mut Situation<'_>)) -> String {
        let agents = agents();
        let mut situation = Situation {
            agents: &agents,
            busy: 0,
            slots: 1,
            draining: false,
            still_running: false,
            taken: false,
            now: 1_000,
        };
        change(&mut situation);
        match decide(offer, &situation) {
            Decision::Accept { agent } => agent,
            Decision::Reject { reason, .. } => reason.as_str().to_owned(),
        }
    }

    #[test]
    fn an_offer_is_taken_by_the_first_agent_that_serves_it() {
        let table = [
            ("code_review", None, None, "review-code"),
            ("code_review", Some("small"), None, "review-code"),
            ("code_review", Some("large"), None, "unsupported"),
            ("backend_development", Some("large"), Some(1_001), "eng-backend"),
            ("backend_development", None, Some(1_000), "deadline"),
            ("eng-backend", None, None, "eng-backend"),
            ("gardening", None, None, "unsupported"),
        ];
        for (task_type, model, deadline, wanted) in table {
            let offer = offer(task_type, model, deadline);
            assert_eq!(outcome(&offer, |_| {}), wanted, "{task_type} {model:?} {deadline:?}");
        }
    }

    #[test]
    fn an_offer_is_declined_for_the_reason_that_lasts_longest() {
        let good = offer("general", None, None);
        assert_eq!(outcome(&good, |now| now.busy = 1), "capacity");
        assert_eq!(outcome(&good, |now| now.taken = true), "policy");
        let running = |now: &mut Situation<'_>| (now.still_running, now.taken) = (true, true);
        assert_eq!(outcome(&good, running), "capacity");
        let both = |now: &mut Situation<'_>| (now.busy, now.draining) = (1, true);
        assert_eq!(outcome(&good, both), "shutting_down");
        let unsupported = offer("gardening", None, None);
        assert_eq!(outcome(&unsupported, |now| now.busy = 1), "unsupported");
    }
}
