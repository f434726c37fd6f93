//! `agents` and `provider`: who runs tasks on this machine. Runs nothing, and does not know which
//! task types a type serves when its entry names none.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::check::{self, Rule};
use super::error::ConfigError;
use super::field::{Field, Raw, Refused, choice};
use super::known::{Known, nearest};
use super::secret::Secret;
use super::source::Source;
use super::yaml::{Entry, Node, Value};

choice! {
    /// The command-line program that runs the tasks of agents without a command of their own.
    Provider, expected "one of claude, codex, gemini", {
        /// Claude Code.
        Claude = "claude",
        /// Codex CLI.
        Codex = "codex",
        /// Gemini CLI.
        Gemini = "gemini",
    }
}

/// An agent on this machine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Agent {
    /// The agent type, such as `eng-backend`.
    pub agent_type: String,
    /// The program and its arguments; empty: the provider runs the task.
    pub command: Vec<String>,
    /// The task types it serves besides its own name; empty: the usual ones of its type.
    pub task_types: Vec<String>,
    /// The models it can use; empty: any.
    pub models: Vec<String>,
    /// How long one task may run; none: as long as it takes.
    pub timeout: Option<Duration>,
    /// Environment variables that the command gets besides the few that every command gets.
    pub env: BTreeMap<String, Secret>,
}

static KEYS: [Known<Agent>; 6] = [
    Known::key("type", |agent| &mut agent.agent_type),
    Known::key("command", |agent| &mut agent.command),
    Known::key("task_types", |agent| &mut agent.task_types),
    Known::key("models", |agent| &mut agent.models),
    Known::key("timeout", |agent| &mut agent.timeout),
    Known::key("env", |agent| &mut agent.env),
];

/// Adds to what is there: the key may stand more than once, and the lists are then joined.
impl Field for Vec<Agent> {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let Raw::Node(path, Node { value: Value::List(items), .. }) = raw else {
            return Err(Refused::Expected("a list of agent types or of mappings with `type`"));
        };
        for item in items {
            let name = format!("agents[{}]", self.len());
            self.push(agent(path, item, &name).map_err(|error| Refused::Inside(Box::new(error)))?);
        }
        Ok(())
    }

    fn show(&self) -> Option<String> {
        let types: Vec<&str> = self.iter().map(|agent| agent.agent_type.as_str()).collect();
        Some(format!("[{}]", types.join(", ")))
    }
}

fn agent(path: &Path, item: &Node, name: &str) -> Result<Agent, ConfigError> {
    let bad = |node: &Node, key: String, value: String, expected: &str| ConfigError::BadValue {
        source_of_value: Source::File { path: path.to_owned(), line: node.line },
        key,
        value,
        expected: expected.to_owned(),
    };
    let mut agent = match &item.value {
        Value::Text(agent_type) => Agent { agent_type: agent_type.clone(), ..Agent::default() },
        Value::Map(entries) => from_map(path, entries, name)?,
        _ => {
            let expected = "an agent type or a mapping with `type`";
            return Err(bad(item, name.to_owned(), item.quoted(), expected));
        }
    };
    match rules(&agent).into_iter().find(|(_, holds, _)| !holds) {
        None => Ok(agent),
        Some((key, _, expected)) => {
            let known = KEYS.iter().find(|known| known.key == key);
            let value = known.and_then(|known| known.show(&mut agent)).unwrap_or_default();
            Err(bad(item, format!("{name}.{key}"), format!("`{value}`"), expected))
        }
    }
}

fn rules(agent: &Agent) -> [Rule; 4] {
    let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
    let timeout = agent.timeout.map(|timeout| check::positive("timeout", timeout));
    [
        ("type", check::is_id(&agent.agent_type), check::ID),
        (
            "command",
            agent.command.first().is_none_or(|program| !program.is_empty()),
            "a program and its arguments",
        ),
        timeout.unwrap_or(("timeout", true, "")),
        ("env", agent.env.keys().all(is_name), "names of environment variables"),
    ]
}

fn from_map(path: &Path, entries: &[Entry], name: &str) -> Result<Agent, ConfigError> {
    let mut agent = Agent::default();
    for entry in entries {
        let key = format!("{name}.{}", entry.key);
        let line = entry.line;
        let path = path.to_owned();
        if entry.repeated {
            return Err(ConfigError::Duplicate { path, line, key });
        }
        let Some(known) = KEYS.iter().find(|known| known.key == entry.key) else {
            let nearest = nearest(&entry.key, KEYS.iter().map(|known| known.key));
            let nearest = nearest.map(|near| format!("{name}.{near}"));
            return Err(ConfigError::UnknownKey { path, line, key, nearest });
        };
        if matches!(entry.node.value, Value::Null) {
            continue;
        }
        let raw = Raw::Node(&path, &entry.node);
        let source = Source::File { path: path.clone(), line };
        known.set(&mut agent, raw, &source).map_err(|error| match error {
            ConfigError::BadValue { source_of_value, value, expected, .. } => {
                ConfigError::BadValue { source_of_value, key, value, expected }
            }
            other => other,
        })?;
    }
    Ok(agent)
}
