//! The headless mode of each provider: how its program is called with a task. It runs nothing.
//!
//! Flags as documented in November 2026: <https://code.claude.com/docs/en/cli-reference>,
//! <https://developers.openai.com/codex/noninteractive>,
//! <https://geminicli.com/docs/cli/headless>. All three append their standard input, the task as
//! JSON, to the prompt. Each may edit files of the project and nothing beyond: a task that needs
//! more wants a `command` of its own.

use std::str::FromStr;

use super::agents::AgentTask;
use super::spec::OutputFormat;

/// The longest prompt given as an argument: Linux allows 128 KiB for one (`MAX_ARG_STRLEN`).
/// The whole description is on the standard input anyway.
const PROMPT_BYTES_MAX: usize = 96 * 1024;

/// A provider's program that runs the agents without a command of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `claude -p`.
    Claude,
    /// `codex exec`.
    Codex,
    /// `gemini -p`.
    Gemini,
}

/// A `provider` that is not one of `claude`, `codex` and `gemini`.
#[derive(Debug, thiserror::Error)]
#[error("unknown provider `{0}`; known are claude, codex, gemini")]
pub struct UnknownProvider(String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        match name {
            "claude" => Ok(Self::Claude),
            "codex" => Ok(Self::Codex),
            "gemini" => Ok(Self::Gemini),
            other => Err(UnknownProvider(other.to_owned())),
        }
    }
}

impl Provider {
    /// The program that must be in `PATH`, which is also the provider's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The variables that the program may need to reach its service beside the user's files.
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &[
                "ANTHROPIC_API_KEY",
                "ANTHROPIC_AUTH_TOKEN",
                "ANTHROPIC_BASE_URL",
                "CLAUDE_CODE_OAUTH_TOKEN",
                "CLAUDE_CONFIG_DIR",
                "HTTPS_PROXY",
                "NO_PROXY",
            ],
            Self::Codex => {
                &["CODEX_API_KEY", "CODEX_HOME", "OPENAI_API_KEY", "HTTPS_PROXY", "NO_PROXY"]
            }
            Self::Gemini => &[
                "GEMINI_API_KEY",
                "GOOGLE_API_KEY",
                "GOOGLE_APPLICATION_CREDENTIALS",
                "GOOGLE_CLOUD_LOCATION",
                "GOOGLE_CLOUD_PROJECT",
                "GOOGLE_GENAI_USE_VERTEXAI",
                "HTTPS_PROXY",
                "NO_PROXY",
            ],
        }
    }

    pub(super) fn output(self) -> OutputFormat {
        match self {
            // `--output-format json` prints one line, whose `result` is the answer.
            Self::Claude => OutputFormat::Lines,
            Self::Codex => OutputFormat::CodexEvents,
            Self::Gemini => OutputFormat::GeminiDocument,
        }
    }

    /// Program and arguments for a task.
    pub(super) fn command(self, agent_type: &str, task: &AgentTask<'_>) -> Vec<String> {
        let flags: &[&str] = match self {
            Self::Claude => &["-p", "--output-format", "json", "--permission-mode", "acceptEdits"],
            Self::Codex => {
                &["exec", "--json", "--sandbox", "workspace-write", "--skip-git-repo-check"]
            }
            Self::Gemini => &["--output-format", "json", "--approval-mode", "auto_edit"],
        };
        let mut command = vec![self.program().to_owned()];
        command.extend(flags.iter().map(|&flag| flag.to_owned()));
        if let Some(model) = task.model {
            command.extend(["--model".to_owned(), model.to_owned()]);
        }
        if self == Self::Gemini {
            command.push("-p".to_owned());
        }
        command.push(prompt(agent_type, task));
        command
    }
}

/// What the provider is asked. It begins with a word of ours: a description that begins with a
/// hyphen is never read as a flag.
fn prompt(agent_type: &str, task: &AgentTask<'_>) -> String {
    let mut prompt = format!(
        "You work as the agent {agent_type} on a task of the type {}, in the current folder.\n\n",
        task.task_type
    );
    let files = task.files.iter().fold(String::new(), |list, file| format!("{list}\n- {file}"));
    let rest = format!("{}{files}", if files.is_empty() { "" } else { "\n\nFiles:" });
    let whole = prompt.len() + task.description.len() + rest.len() <= PROMPT_BYTES_MAX;
    if whole {
        prompt.push_str(task.description);
        prompt.push_str(&rest);
    } else {
        prompt.push_str(
            "The task is the JSON document on your standard input: do what its `description` \
             says, with its `files`.",
        );
    }
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task<'a>(description: &'a str, files: &'a [String]) -> AgentTask<'a> {
        AgentTask { task_type: "code_review", description, files, model: Some("m-1") }
    }

    #[test]
    fn each_provider_is_called_in_its_headless_mode() {
        let files = ["a.py".to_owned(), "b c.py".to_owned()];
        let prompt = "You work as the agent review-code on a task of the type code_review, in the \
                      current folder.\n\n--help me\n\nFiles:\n- a.py\n- b c.py";
        let cases = [
            (
                Provider::Claude,
                "claude -p --output-format json --permission-mode acceptEdits --model m-1",
            ),
            (
                Provider::Codex,
                "codex exec --json --sandbox workspace-write --skip-git-repo-check --model m-1",
            ),
            (
                Provider::Gemini,
                "gemini --output-format json --approval-mode auto_edit --model m-1 -p",
            ),
        ];
        for (provider, flags) in cases {
            let mut expected: Vec<_> = flags.split(' ').collect();
            expected.push(prompt);
            let command = provider.command("review-code", &task("--help me", &files));
            assert_eq!(command, expected);
            assert_eq!(provider.program().parse::<Provider>().expect("its name"), provider);
        }
    }

    #[test]
    fn a_description_too_long_for_an_argument_is_left_to_the_standard_input() {
        let long = "x".repeat(PROMPT_BYTES_MAX);
        let command = Provider::Claude.command("eng-qa", &task(&long, &[]));
        let prompt = command.last().expect("a prompt");
        assert!(prompt.len() < 500 && prompt.contains("standard input"), "{prompt}");
    }
}
