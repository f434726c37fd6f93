//! What is asked of the audit log, which is the journal read by event. It reads nothing.

pub mod csv;
pub mod forward;
pub mod heads;
pub mod query;
pub mod sign;
pub mod syslog;
pub mod verify;
pub mod witness;

use storage::event::Event;
use storage::record::Level;

use crate::config::{Audit, AuditLevel};

/// A name of an event, or a beginning of some with a `*`, that fits no event; the sentence says
/// what does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event is called {asked}{}", hint(nearest.as_deref()))]
pub struct UnknownEvent {
    /// What was asked for.
    pub asked: String,
    /// The name or beginning that is closest.
    pub nearest: Option<String>,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Checks that some event has this name, or begins with what stands before the `*`.
///
/// # Errors
/// When none does.
pub fn check_event(asked: &str) -> Result<(), UnknownEvent> {
    let (names, is_known): (Vec<String>, bool) = if let Some(beginning) = asked.strip_suffix('*') {
        let groups = Event::ALL.iter().filter_map(|event| event.name().split_once('.'));
        let groups = groups.map(|(group, _)| format!("{group}.*")).collect();
        (groups, Event::ALL.iter().any(|event| event.name().starts_with(beginning)))
    } else {
        let names = Event::ALL.iter().map(|event| event.name().to_owned()).collect();
        (names, Event::parse(asked).is_some())
    };
    if is_known {
        return Ok(());
    }
    let distance = |name: &String| strsim::damerau_levenshtein(asked, name);
    let nearest = names.into_iter().min_by_key(distance);
    // A third of the letters may be wrong: farther is another word.
    let nearest = nearest.filter(|name| distance(name) <= name.len().div_ceil(3));
    Err(UnknownEvent { asked: asked.to_owned(), nearest })
}

/// Whether a purely informative event is written, as the configuration says.
pub fn is_written(audit: &Audit, event: Event, level: Level) -> bool {
    let lowest = match audit.level {
        AuditLevel::Debug => Level::Debug,
        AuditLevel::Info => Level::Info,
        AuditLevel::Warning => Level::Warning,
        // This program has no level above an error.
        AuditLevel::Error | AuditLevel::Critical => Level::Error,
    };
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => event.name().starts_with(prefix),
        None => event.name() == pattern,
    };
    audit.enabled && level >= lowest && !audit.exclude_events.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_name_or_its_beginning() {
        for good in ["message.queued", "openclaw.*", "*", "message.re*", "auth.token.*"] {
            assert_eq!(check_event(good), Ok(()), "{good}");
        }
        let told = [
            ("openclaw.conect", "; did you mean openclaw.connect?"),
            ("mesage.*", "; did you mean message.*?"),
            ("task", ""),
            ("", ""),
        ];
        for (bad, hint) in told {
            let error = check_event(bad).expect_err(bad).to_string();
            assert_eq!(error, format!("no event is called {bad}{hint}"));
        }
    }
}
