//! Which messages a command changes, as a person names them, and who that person is.

use clap::Args;
use serde_json::{Value, json};

use super::messages::reasons;
use crate::cli::moment;

/// The variables that may tell who works at this terminal.
const NAMES: [&str; 2] = ["USER", "LOGNAME"];

/// Letters of a name in the audit log at the most.
const NAME_CHARS_MAX: usize = 128;

/// Which messages; of ids and filters together, those of the ids that pass the filters.
#[derive(Args, Debug)]
pub struct Selection {
    /// Their ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// That have their status for this reason
    #[arg(long, value_parser = reasons())]
    reason: Option<String>,
    /// Of this type
    #[arg(long = "type")]
    message_type: Option<String>,
    /// For this agent
    #[arg(long, visible_alias = "to")]
    peer: Option<String>,
    /// Written at this time or later: 2026-02-15T14:30:00Z, or 15m for the last 15 minutes
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    since: Option<String>,
    /// Written before this time
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    until: Option<String>,
}

impl Selection {
    /// The body of a change of these messages, if they have this status.
    pub fn body(self, status: Option<&str>) -> Value {
        json!({
            "message_ids": self.ids,
            "status": status,
            "reason": self.reason,
            "type": self.message_type,
            "peer": self.peer,
            "since": self.since,
            "until": self.until,
            "actor": actor(),
        })
    }
}

/// Who gives this command, for the audit log; `None` when that is not known.
pub fn actor() -> Option<String> {
    named(|name| std::env::var(name).ok())
}

fn named(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let name = NAMES.iter().find_map(|name| variable(name).filter(|it| !it.is_empty()))?;
    let letter = |letter: char| match letter {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | ':' | '-' => letter,
        _ => '_',
    };
    Some(name.chars().take(NAME_CHARS_MAX).map(letter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_the_name_of_the_environment_in_the_letters_of_an_id() {
        let named = |pairs: &[(&str, &str)]| {
            let value = |(_, value): &(&str, &str)| (*value).to_owned();
            named(|name| pairs.iter().find(|pair| pair.0 == name).map(value))
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[("USER", ""), ("LOGNAME", "ada")]).as_deref(), Some("ada"));
        assert_eq!(named(&[("USER", "ada l\u{e9}"), ("LOGNAME", "x")]).as_deref(), Some("ada_l_"));
    }
}
