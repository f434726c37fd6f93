//! What each payload must hold, as tables. How a table is applied is in [`super::check`].

use crate::protocol::MessageType;

/// One field of an object.
#[derive(Debug)]
pub(super) struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Whether it may be absent.
    pub need: Need,
    /// What its value must be.
    pub kind: Kind,
}

/// Whether a field may be absent (or `null`, which is the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It may.
    Optional,
    /// It may not.
    Required,
    /// It may not unless the content is sealed.
    Content,
}

/// What a value must be.
#[derive(Debug)]
pub(super) enum Kind {
    /// An identifier, as in the envelope.
    Identifier,
    /// Any string.
    Text,
    /// A string of 1 to 512 bytes without control characters.
    Label,
    /// `true` or `false`.
    Flag,
    /// A whole number from zero to this.
    Count(u64),
    /// A number from zero.
    Amount,
    /// A number above zero.
    Interval,
    /// A number from 0 to 1.
    Ratio,
    /// An RFC 3339 time.
    Time,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A list of strings.
    Texts,
    /// A list of identifiers.
    Identifiers,
    /// A list of anything.
    Anything,
    /// Any JSON.
    Any,
    /// An object.
    Object(&'static [Rule]),
    /// A list of objects.
    Objects(&'static [Rule]),
}

const fn required(name: &'static str, kind: Kind) -> Rule {
    Rule { name, need: Need::Required, kind }
}

const fn optional(name: &'static str, kind: Kind) -> Rule {
    Rule { name, need: Need::Optional, kind }
}

const fn content(name: &'static str, kind: Kind) -> Rule {
    Rule { name, need: Need::Content, kind }
}

/// The largest count that fits a double exactly, as in most languages' JSON.
const WHOLE_MAX: u64 = (1 << 53) - 1;

const SMALL_MAX: u64 = u32::MAX as u64;

const ATTEMPT: Rule = optional("attempt", Kind::Count(SMALL_MAX));

const TASK_ID: Rule = required("task_id", Kind::Identifier);

const RUNNING: Rule = optional("running", Kind::Objects(&[TASK_ID, ATTEMPT]));

const SETTLED_BEFORE: Rule = optional("settled_before", Kind::Time);

const REGISTER: &[Rule] = &[
    optional("name", Kind::Text),
    optional("version", Kind::Text),
    optional("provider", Kind::Text),
    optional("capabilities", Kind::Texts),
    optional("agent_types", Kind::Texts),
    optional("max_concurrent_tasks", Kind::Count(SMALL_MAX)),
    optional("supported_models", Kind::Texts),
    optional("instance_id", Kind::Identifier),
    optional("heartbeat_interval", Kind::Interval),
    RUNNING,
    SETTLED_BEFORE,
    optional("journal_head", Kind::Any),
    optional("journal_shown", Kind::Texts),
    optional("peer_head", Kind::Any),
];

const HEARTBEAT: &[Rule] = &[
    optional("status", Kind::OneOf(&["idle", "busy", "draining"])),
    RUNNING,
    SETTLED_BEFORE,
    optional("cpu_percent", Kind::Amount),
    optional("memory_mb", Kind::Amount),
    optional("tokens", Kind::Count(WHOLE_MAX)),
    optional("journal_head", Kind::Any),
    optional("peer_head", Kind::Any),
];

const REQUIREMENTS: &[Rule] = &[
    optional("model", Kind::Text),
    optional("skills", Kind::Texts),
    optional("estimated_cost", Kind::Amount),
];

const TASK_TYPE: Rule = required("task_type", Kind::Label);

const PRIORITY: Rule = optional("priority", Kind::OneOf(&["critical", "high", "normal", "low"]));

const TASK_OFFER: &[Rule] = &[
    TASK_ID,
    TASK_TYPE,
    optional("description", Kind::Text),
    optional("files", Kind::Texts),
    PRIORITY,
    optional("deadline", Kind::Time),
    optional("requirements", Kind::Object(REQUIREMENTS)),
    optional("target_agent", Kind::Identifier),
    ATTEMPT,
    optional("offered_by", Kind::Identifier),
];

/// The body of a task submission.
pub(super) const SUBMISSION: &[Rule] = &[
    optional("task_id", Kind::Identifier),
    TASK_TYPE,
    optional("description", Kind::Text),
    optional("files", Kind::Texts),
    PRIORITY,
    optional("deadline", Kind::Time),
    optional("requirements", Kind::Object(REQUIREMENTS)),
    optional("target_agent", Kind::Identifier),
];

const TASK_ACCEPT: &[Rule] = &[
    TASK_ID,
    ATTEMPT,
    optional("assigned_agent", Kind::Label),
    optional("estimated_duration", Kind::Amount),
];

const REASONS: &[&str] = &["capacity", "unsupported", "deadline", "policy", "shutting_down"];

const TASK_REJECT: &[Rule] =
    &[TASK_ID, ATTEMPT, optional("reason", Kind::OneOf(REASONS)), optional("detail", Kind::Text)];

const ARTIFACT: &[Rule] = &[
    required("artifact_id", Kind::Label),
    optional("name", Kind::Text),
    optional("parts", Kind::Anything),
    optional("append", Kind::Flag),
    optional("last_chunk", Kind::Flag),
];

const TASK_UPDATE: &[Rule] = &[
    TASK_ID,
    ATTEMPT,
    optional("progress", Kind::Ratio),
    optional("message", Kind::Text),
    optional("status", Kind::Label),
    optional("artifact", Kind::Object(ARTIFACT)),
];

const TASK_ERROR: &[Rule] = &[optional("code", Kind::Text), optional("message", Kind::Text)];

const TASK_COMPLETE: &[Rule] = &[
    TASK_ID,
    ATTEMPT,
    optional("status", Kind::OneOf(&["completed", "failed"])),
    optional("result", Kind::Any),
    optional("error", Kind::Object(TASK_ERROR)),
    optional("cost_usd", Kind::Amount),
    optional("duration_seconds", Kind::Amount),
];

const TASK_CANCEL: &[Rule] = &[TASK_ID, ATTEMPT, optional("reason", Kind::Text)];

const TASK_INPUT: &[Rule] = &[TASK_ID, ATTEMPT, content("message", Kind::Text)];

const STATE_SYNC: &[Rule] = &[optional("entries", Kind::Objects(STATE_ENTRY))];

const STATE_ENTRY: &[Rule] = &[
    required("key", Kind::Label),
    optional("value", Kind::Any),
    optional("deleted", Kind::Flag),
    optional("version", Kind::Count(WHOLE_MAX)),
];

const QUERY_TYPES: &[&str] = &["supports_task_type", "supports_skill", "supports_model", "list"];

const CAPABILITY_QUERY: &[Rule] = &[
    required("query_type", Kind::OneOf(QUERY_TYPES)),
    optional("task_type", Kind::Label),
    optional("skill", Kind::Label),
    optional("model", Kind::Label),
];

const CAPABILITY_RESPONSE: &[Rule] = &[
    required("supported", Kind::Flag),
    optional("agent_types", Kind::Texts),
    optional("confidence", Kind::Ratio),
    optional("estimated_cost", Kind::Amount),
    optional("agents", Kind::Anything),
];

const MESSAGE_IDS: Rule = optional("message_ids", Kind::Identifiers);

const MESSAGE_ID: Rule = optional("message_id", Kind::Identifier);

const INDEX: Rule = optional("index", Kind::Count(SMALL_MAX));

const ACK: &[Rule] = &[
    MESSAGE_IDS,
    MESSAGE_ID,
    INDEX,
    optional("session_id", Kind::Identifier),
    optional("heartbeat_interval", Kind::Interval),
    optional("window", Kind::Count(SMALL_MAX)),
    optional("dedup_window_seconds", Kind::Count(WHOLE_MAX)),
    optional("server_time", Kind::Time),
    optional("journal_head", Kind::Any),
    optional("peer_head", Kind::Any),
    optional("peer_head_known", Kind::Any),
];

const NACK: &[Rule] =
    &[MESSAGE_IDS, MESSAGE_ID, INDEX, required("error", Kind::Object(NACK_ERROR))];

const NACK_ERROR: &[Rule] = &[
    required("code", Kind::Label),
    optional("message", Kind::Text),
    optional("field", Kind::Text),
    optional("retryable", Kind::Flag),
    optional("retry_after_seconds", Kind::Count(WHOLE_MAX)),
    optional("current", Kind::Any),
];

const ORIGIN: &[Rule] = &[
    optional("namespace", Kind::Identifier),
    optional("agent_id", Kind::Identifier),
    optional("to", Kind::Identifier),
    optional("message_id", Kind::Identifier),
    optional("message_type", Kind::Identifier),
    optional("task_id", Kind::Identifier),
    optional("task_type", Kind::Label),
];

/// The `sealed` member of a payload.
pub(super) const SEALED: &[Rule] = &[
    required("enc", Kind::Label),
    required("kid", Kind::Label),
    required("nonce", Kind::Text),
    required("ciphertext", Kind::Text),
    required("origin", Kind::Object(ORIGIN)),
];

/// The rules of a type; none for one that this version does not know.
pub(super) fn rules_of(message_type: &MessageType) -> &'static [Rule] {
    match message_type {
        MessageType::Register => REGISTER,
        MessageType::Heartbeat => HEARTBEAT,
        MessageType::TaskOffer => TASK_OFFER,
        MessageType::TaskAccept => TASK_ACCEPT,
        MessageType::TaskReject => TASK_REJECT,
        MessageType::TaskUpdate => TASK_UPDATE,
        MessageType::TaskComplete => TASK_COMPLETE,
        MessageType::TaskCancel => TASK_CANCEL,
        MessageType::TaskInput => TASK_INPUT,
        MessageType::StateSync => STATE_SYNC,
        MessageType::CapabilityQuery => CAPABILITY_QUERY,
        MessageType::CapabilityResponse => CAPABILITY_RESPONSE,
        MessageType::Ack => ACK,
        MessageType::Nack => NACK,
        MessageType::Other(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the fields at every depth.
    fn names(rules: &[Rule], found: &mut Vec<&'static str>) {
        for rule in rules {
            found.push(rule.name);
            if let Kind::Object(inner) | Kind::Objects(inner) = rule.kind {
                names(inner, found);
            }
        }
    }

    #[test]
    fn the_specification_names_every_type_and_field() {
        let specification = include_str!("../../../docs/protocol.md");
        let mut found = Vec::new();
        names(SEALED, &mut found);
        names(SUBMISSION, &mut found);
        for known in MessageType::KNOWN {
            assert!(specification.contains(&format!("`{known}`")), "{known}");
            names(rules_of(&known), &mut found);
        }
        assert!(found.len() > 100);
        for name in found {
            let written = [format!("`{name}`"), format!("\"{name}\"")];
            assert!(written.iter().any(|name| specification.contains(name)), "{name}");
        }
    }

    #[test]
    fn an_unknown_type_has_no_rules() {
        assert!(rules_of(&MessageType::Other("dance".to_owned())).is_empty());
    }
}
