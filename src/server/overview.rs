//! The server as its dashboard shows it. It changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use storage::record::Status;

use super::core::Core;
use super::model::Presence;
use crate::clock::{Millis, rfc3339};
use crate::dashboard::{Gauges, Subject, tally};
use crate::protocol::SERVER_AGENT_ID;

/// Namespaces with open tasks that are named: the page asks for the tasks of each.
const NAMESPACES_MAX: usize = 8;

/// A server that runs.
pub(super) struct Overview {
    /// Its parts.
    pub core: Arc<Core>,
    /// When it was started.
    pub started_at: Millis,
}

impl Overview {
    /// When the oldest message was accepted that lies in a mailbox.
    fn oldest(&self) -> Option<Millis> {
        let oldest = self.core.mailboxes.oldest()?;
        self.core.store.messages(|all| all.live(oldest).map(|live| live.accepted_at))
    }
}

impl Subject for Overview {
    fn gauges(&self) -> Gauges {
        let core = &self.core;
        let (waiting, failed) = core.store.messages(|messages| {
            let failed = tally::outbound(messages, |status| status == Status::Failed);
            (tally::outbound(messages, tally::waits), failed)
        });
        let agents = core.census.agents().into_iter();
        let online = agents.filter(|(presence, _)| *presence == Presence::Online);
        let online: usize = online.map(|(_, count)| count).sum();
        let waited = self.oldest().map(|at| core.clock.now().saturating_sub(at) / 1_000);
        Gauges {
            is_up: !*core.stopping.borrow(),
            link_ms: None,
            waiting,
            failed,
            oldest_seconds: waited.unwrap_or(0),
            agents: u64::try_from(online).unwrap_or(u64::MAX),
        }
    }

    fn overview(&self) -> Value {
        let core = &self.core;
        let tasks = core.census.tasks().into_iter();
        let tasks: BTreeMap<&str, usize> =
            tasks.map(|(status, count)| (status.as_str(), count)).collect();
        let agents = core.census.agents().into_iter();
        let agents: BTreeMap<&str, usize> =
            agents.map(|(presence, count)| (presence.as_str(), count)).collect();
        let (counts, peers) = core
            .store
            .messages(|messages| (tally::counts(messages), tally::by_destination(messages)));
        json!({
            "program": "openclaw-server",
            "version": env!("CARGO_PKG_VERSION"),
            "agent_id": SERVER_AGENT_ID,
            "started_at": rfc3339(self.started_at),
            "messages": counts,
            "unfinished": peers,
            "oldest_waiting_at": self.oldest().map(rfc3339),
            "tasks": tasks,
            "namespaces": core.census.namespaces(NAMESPACES_MAX),
            "agents": agents,
            "storage": core.disk.as_ref().map(super::Disk::overview),
            "damage": core.missing(),
            "routes": routes(core.disk.is_some()),
        })
    }
}

/// What the page may ask for here, so that it shows nothing that there is not.
fn routes(has_files: bool) -> Value {
    let mut routes = json!({
        "tasks": "/tasks",
        "agents": "/agents",
    });
    if has_files {
        let of_files = [
            ("audit", "/api/audit"),
            ("messages", "/api/openclaw/messages"),
            ("causes", "/api/openclaw/causes"),
            ("explain", "/api/openclaw/messages/{id}/explain"),
            ("retry", "/api/openclaw/retry"),
            ("prune", "/api/openclaw/prune"),
        ];
        for (name, route) in of_files {
            routes[name] = route.into();
        }
    }
    routes
}
