//! What the bridge needs to know, taken from the configuration, and the agents of this machine.
//! Reads no file and starts nothing.

use std::time::Duration;

use crate::config::{Audit, BridgeConfig, Features, Secret, Transport};
use crate::executor::Provider;
use crate::executor::agents::{AgentSpec, AgentTask, choose};
use crate::protocol::agents::{agent_types_for, serves, task_types};
use crate::protocol::payload::Register;
use crate::transport::connect::Way;

/// The agents of this machine and the provider of those without a command.
#[derive(Clone, Debug)]
pub struct Agents {
    agents: Vec<AgentSpec>,
    provider: Option<Provider>,
}

impl Agents {
    /// These agents, in order of preference.
    pub fn new(agents: Vec<AgentSpec>, provider: Option<Provider>) -> Self {
        Self { agents, provider }
    }

    /// The agents of the configuration.
    pub fn of_config(config: &BridgeConfig) -> Self {
        let provider = match config.provider {
            crate::config::Provider::Claude => Provider::Claude,
            crate::config::Provider::Codex => Provider::Codex,
            crate::config::Provider::Gemini => Provider::Gemini,
        };
        let agent = |agent: &crate::config::Agent| AgentSpec {
            agent_type: agent.agent_type.clone(),
            command: agent.command.clone(),
            task_types: agent.task_types.clone(),
            models: agent.models.clone(),
            timeout: agent.timeout,
            env: agent
                .env
                .iter()
                .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
                .collect(),
        };
        Self::new(config.agents.iter().map(agent).collect(), Some(provider))
    }

    /// All of them.
    pub fn all(&self) -> &[AgentSpec] {
        &self.agents
    }

    /// Who runs the tasks of agents without a command.
    pub fn provider(&self) -> Option<Provider> {
        self.provider
    }

    /// The first agent that serves this type of task, on this model.
    pub fn choose(&self, task_type: &str, model: Option<&str>) -> Option<&AgentSpec> {
        let task = AgentTask { task_type, description: "", files: &[], model };
        choose(&self.agents, &task, |task_type, agent_type| serves(task_type, &[agent_type]))
    }

    /// The agent of this type.
    pub fn named(&self, agent_type: &str) -> Option<&AgentSpec> {
        self.agents.iter().find(|agent| agent.agent_type == agent_type)
    }

    /// The types of the agents, without repetition.
    pub fn types(&self) -> Vec<String> {
        distinct(self.agents.iter().map(|agent| agent.agent_type.clone()))
    }

    /// The types of the agents that serve this type of task, the best first.
    pub fn serving(&self, task_type: &str) -> Vec<String> {
        let listed = self.agents.iter().filter(|agent| {
            agent.task_types.iter().any(|listed| listed == task_type)
                || agent.agent_type == task_type
        });
        let usual: Vec<&str> = self
            .agents
            .iter()
            .filter(|agent| agent.task_types.is_empty())
            .map(|agent| agent.agent_type.as_str())
            .collect();
        let usual = agent_types_for(task_type, &usual).into_iter().map(str::to_owned);
        let listed = listed.map(|agent| agent.agent_type.clone());
        distinct(listed.chain(usual))
    }

    /// The task types that are served here.
    pub fn capabilities(&self) -> Vec<String> {
        let own = self.agents.iter().flat_map(|agent| agent.task_types.iter().cloned());
        let usual = task_types().filter(|name| !self.serving(name).is_empty()).map(str::to_owned);
        distinct(usual.chain(own))
    }

    /// The models that the agents name.
    pub fn models(&self) -> Vec<String> {
        distinct(self.agents.iter().flat_map(|agent| agent.models.iter().cloned()))
    }
}

/// How often a WebSocket is tried while `auto` has to take HTTP, section 4 of the protocol.
const WEBSOCKET_RETRY: Duration = Duration::from_mins(5);

/// What one bridge is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bridge's id.
    pub agent_id: String,
    /// One start of the bridge: tells a reconnect from another program with the same id.
    pub instance_id: String,
    /// The namespace it lives in.
    pub namespace: String,
    /// The server, as shown to people; none: the bridge stays alone.
    pub server: Option<String>,
    /// How often it says that it is alive, unless the server asks for another interval.
    pub heartbeat_interval: Duration,
    /// How many tasks run at once.
    pub max_concurrent_tasks: u32,
    /// How long running tasks may take to end when the bridge stops.
    pub drain_timeout: Duration,
    /// How long received ids are remembered.
    pub dedup_window: Duration,
    /// The bearer token shown to the server.
    pub token: Option<Secret>,
    /// How envelopes travel.
    pub transport: Transport,
    /// What leads to the server, which its owner finds out.
    pub way: Way,
    /// How long one attempt waits for its answer.
    pub timeout: Duration,
    /// How often a WebSocket is tried while `auto` has to take HTTP.
    pub websocket_retry: Duration,
    /// The parts of the protocol in use.
    pub features: Features,
    /// What is written to the audit log beside what the queue needs.
    pub audit: Audit,
    /// When a failed attempt, also one to connect, is repeated.
    pub retry: crate::outbox::Policy,
    /// The agents of this machine.
    pub agents: Agents,
}

impl Settings {
    /// The settings of a configuration; the server is dropped when the bridge is not enabled.
    pub fn of_config(config: &BridgeConfig, agent_id: &str, instance_id: String) -> Self {
        let bridge = &config.openclaw;
        Self {
            agent_id: agent_id.to_owned(),
            instance_id,
            namespace: bridge.namespace.clone(),
            server: bridge.endpoint.clone().filter(|_| bridge.enabled),
            heartbeat_interval: bridge.heartbeat_interval,
            max_concurrent_tasks: bridge.max_concurrent_tasks,
            drain_timeout: bridge.drain_timeout,
            dedup_window: bridge.dedup_window,
            token: bridge.auth_token.clone(),
            transport: bridge.transport,
            way: Way::default(),
            timeout: bridge.message_timeout,
            websocket_retry: WEBSOCKET_RETRY,
            features: bridge.features.clone(),
            audit: config.audit.clone(),
            retry: bridge.retry.clone(),
            agents: Agents::of_config(config),
        }
    }

    /// How many tasks run at once.
    pub fn slots(&self) -> usize {
        usize::try_from(self.max_concurrent_tasks).unwrap_or(usize::MAX)
    }

    /// What the bridge presents to the server, without what changes from session to session.
    pub fn profile(&self) -> Register {
        Register {
            name: Some("Loki Mode".to_owned()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            provider: self.agents.provider().map(|provider| provider.program().to_owned()),
            capabilities: self.agents.capabilities(),
            agent_types: self.agents.types(),
            max_concurrent_tasks: Some(self.max_concurrent_tasks),
            supported_models: self.agents.models(),
            instance_id: Some(self.instance_id.clone()),
            heartbeat_interval: Some(self.heartbeat_interval.as_secs_f64()),
            ..Register::default()
        }
    }
}

fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_follows_from_the_agents() {
        let agent = |name: &str, task_types: &[&str]| AgentSpec {
            agent_type: name.to_owned(),
            task_types: task_types.iter().map(|&name| name.to_owned()).collect(),
            ..AgentSpec::default()
        };
        let list = vec![agent("eng-qa", &[]), agent("gardener", &["gardening"])];
        let agents = Agents::new(list, Some(Provider::Claude));
        let wanted = ["testing", "full_stack_development", "general", "gardening"];
        assert_eq!(agents.capabilities(), wanted);
        assert_eq!(agents.serving("gardening"), ["gardener"]);
        assert!(agents.choose("gardening", Some("any")).is_some());
        assert!(agents.choose("design", None).is_none());
    }
}
