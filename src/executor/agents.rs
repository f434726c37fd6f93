//! Chooses the agent for a task and builds its command. It starts nothing and reads no
//! configuration; which agent type serves which task type is told by the caller.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::providers::Provider;
use super::spec::{OutputFormat, RunSpec};

/// One configured agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its type, such as `eng-backend`.
    pub agent_type: String,
    /// Program and arguments; empty for a bare name, which runs on the provider.
    pub command: Vec<String>,
    /// The task types that it serves; empty for those of its type.
    pub task_types: Vec<String>,
    /// The models that it runs on; empty for any.
    pub models: Vec<String>,
    /// How long one of its tasks may run.
    pub timeout: Option<Duration>,
    /// Variables of its commands, beside the inherited ones.
    pub env: BTreeMap<String, String>,
}

/// The parts of a task that choose an agent and make its command. Required skills are not among
/// them: they choose among the agents of a namespace, which the server does.
#[derive(Clone, Copy, Debug)]
pub struct AgentTask<'a> {
    /// What kind of work it is.
    pub task_type: &'a str,
    /// What is to be done.
    pub description: &'a str,
    /// The files that it is about.
    pub files: &'a [String],
    /// The model that it must run on.
    pub model: Option<&'a str>,
}

/// Why an agent cannot run tasks. The person who wrote the configuration acts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// A bare name, and nothing that says on what it runs.
    #[error("agent {agent_type} has no `command`, and no `provider` is configured")]
    NoProvider {
        /// The agent.
        agent_type: String,
    },
    /// Its program is not there.
    #[error(
        "agent {agent_type} needs the program `{program}`, which is not in PATH: install it, or \
         give the agent another `command`"
    )]
    ProgramMissing {
        /// The agent.
        agent_type: String,
        /// The program as configured.
        program: String,
    },
}

/// The first agent that serves the task: its type is named by the task, or among its own
/// `task_types`, or, without those, `serves(task type, agent type)`; and it runs on the task's
/// model.
pub fn choose<'agents>(
    agents: &'agents [AgentSpec],
    task: &AgentTask<'_>,
    serves: impl Fn(&str, &str) -> bool,
) -> Option<&'agents AgentSpec> {
    agents.iter().find(|agent| {
        let named = task.task_type == agent.agent_type;
        let listed = if agent.task_types.is_empty() {
            serves(task.task_type, &agent.agent_type)
        } else {
            agent.task_types.iter().any(|listed| listed == task.task_type)
        };
        let model = task.model.is_none_or(|model| {
            agent.models.is_empty() || agent.models.iter().any(|known| known == model)
        });
        (named || listed) && model
    })
}

/// What an agent runs for a task. `input` is the task as JSON, the standard input.
///
/// # Errors
/// [`AgentError::NoProvider`] for a bare name without a provider.
pub fn run_spec(
    agent: &AgentSpec,
    provider: Option<Provider>,
    task: &AgentTask<'_>,
    (task_id, attempt): (&str, u64),
    input: Vec<u8>,
) -> Result<RunSpec, AgentError> {
    let mut run = RunSpec {
        task_id: task_id.to_owned(),
        attempt,
        command: agent.command.clone(),
        env: agent.env.clone(),
        pass_env: Vec::new(),
        timeout: agent.timeout,
        output: OutputFormat::Lines,
        stdin: input,
    };
    if run.command.is_empty() {
        let provider = provider.ok_or_else(|| no_provider(agent))?;
        run.command = provider.command(&agent.agent_type, task);
        run.pass_env = provider.variables().iter().map(|&name| name.to_owned()).collect();
        run.output = provider.output();
    }
    Ok(run)
}

/// Checks, before any task is taken, that the program of every agent exists: in the `PATH` of its
/// own `env` or else in `path`, or, when it is named with a slash, in the project folder.
///
/// # Errors
/// [`AgentError`] for the first agent that could not run.
pub fn check(
    agents: &[AgentSpec],
    provider: Option<Provider>,
    path: &OsStr,
    project_dir: &Path,
) -> Result<(), AgentError> {
    for agent in agents {
        let program = match agent.command.first() {
            Some(program) => program,
            None => provider.ok_or_else(|| no_provider(agent))?.program(),
        };
        let path = agent.env.get("PATH").map_or(path, OsStr::new);
        if !exists(program, path, project_dir) {
            let (agent_type, program) = (agent.agent_type.clone(), program.to_owned());
            return Err(AgentError::ProgramMissing { agent_type, program });
        }
    }
    Ok(())
}

fn no_provider(agent: &AgentSpec) -> AgentError {
    AgentError::NoProvider { agent_type: agent.agent_type.clone() }
}

fn exists(program: &str, path: &OsStr, project_dir: &Path) -> bool {
    let executable = |file: &Path| {
        file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return executable(&project_dir.join(program));
    }
    // A relative entry of PATH is looked up where the command runs.
    std::env::split_paths(path).any(|folder| executable(&project_dir.join(folder).join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(agent_type: &str) -> AgentSpec {
        AgentSpec { agent_type: agent_type.to_owned(), ..AgentSpec::default() }
    }

    fn task<'a>(task_type: &'a str, model: Option<&'a str>) -> AgentTask<'a> {
        AgentTask { task_type, description: "do it", files: &[], model }
    }

    #[test]
    fn the_first_agent_that_serves_the_type_and_model_is_chosen() {
        let mut agents = ["eng-qa", "review-code", "own", "eng-api", "review-code"].map(agent);
        agents[1].models = vec!["small".to_owned()];
        agents[2].task_types = vec!["translate".to_owned()];
        let serves = |task: &str, agent: &str| match task {
            "code_review" => agent == "review-code",
            "general" => agent.starts_with("eng-"),
            "translate" => agent == "eng-api",
            _ => false,
        };
        let cases = [
            ("code_review", None, Some(1)),
            ("code_review", Some("small"), Some(1)),
            ("code_review", Some("large"), Some(4)),
            ("general", None, Some(0)),
            ("eng-api", None, Some(3)),
            ("translate", None, Some(2)),
            ("own", None, Some(2)),
            ("deployment", None, None),
        ];
        for (task_type, model, expected) in cases {
            let chosen = choose(&agents, &task(task_type, model), serves);
            let at = chosen.and_then(|chosen| agents.iter().position(|a| std::ptr::eq(a, chosen)));
            assert_eq!(at, expected, "{task_type} {model:?}");
        }
    }

    #[test]
    fn a_bare_name_runs_on_the_provider_and_a_command_on_itself() {
        let bare = run_spec(
            &agent("eng-qa"),
            Some(Provider::Codex),
            &task("testing", None),
            ("t", 1),
            b"{}".to_vec(),
        )
        .expect("a run");
        assert_eq!(bare.command[..2], ["codex", "exec"]);
        assert_eq!(bare.output, OutputFormat::CodexEvents);
        assert!(bare.pass_env.contains(&"CODEX_HOME".to_owned()));
        let own = AgentSpec { command: vec!["sh".to_owned()], ..agent("eng-qa") };
        let own = run_spec(&own, None, &task("testing", None), ("t", 1), Vec::new());
        assert_eq!(own.expect("a run").command, ["sh"]);
        let nothing = run_spec(&agent("a"), None, &task("testing", None), ("t", 1), Vec::new());
        assert_eq!(nothing.expect_err("no provider"), no_provider(&agent("a")));
    }

    #[test]
    fn a_missing_program_is_told_before_any_task() {
        let project = tempfile::tempdir().expect("a folder");
        let script = project.path().join("agent.sh");
        std::fs::write(&script, "#!/bin/sh\n").expect("a script");
        let check_one = |command: &str, path: &str| {
            let agent = AgentSpec { command: vec![command.to_owned()], ..agent("eng-qa") };
            check(&[agent], None, OsStr::new(path), project.path())
        };
        assert_eq!(check_one("sh", "/usr/bin:/bin"), Ok(()));
        let missing = check_one("./agent.sh", "/bin").expect_err("not executable");
        assert_eq!(
            missing.to_string(),
            "agent eng-qa needs the program `./agent.sh`, which is not in PATH: install it, or \
             give the agent another `command`"
        );
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        assert_eq!(check_one("./agent.sh", "/bin"), Ok(()));
        assert!(check_one("agent.sh", "/bin").is_err());
        assert_eq!(
            check(&[agent("eng-qa")], None, OsStr::new("/bin"), project.path()),
            Err(no_provider(&agent("eng-qa")))
        );
    }
}
