//! Why a message or a call is refused, in the two forms that the wire has: the `error` of a `nack`
//! and an RFC 9457 problem document. It decides nothing: the callers judge.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The reason for a refusal, from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// Not JSON, not an object, a key twice, or nested too deeply.
    Malformed,
    /// A required field is absent.
    MissingField,
    /// A field has a value that it may not have.
    InvalidField,
    /// A type that nobody here knows, and no recipient who might.
    UnknownType,
    /// Another major version of the protocol.
    UnsupportedVersion,
    /// The message id is older than the memory of ids.
    StaleId,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The credentials do not allow this.
    Forbidden,
    /// The task was never granted to this agent.
    NotOwner,
    /// There is no such page, message or agent.
    NotFound,
    /// The page does not take this method.
    MethodNotAllowed,
    /// There is no such task.
    UnknownTask,
    /// The recipient never registered, so far.
    UnknownAgent,
    /// The task's status does not allow this.
    WrongState,
    /// The task id is taken.
    TaskExists,
    /// The message id came before, with another body.
    IdConflict,
    /// Another instance registered under the same agent id.
    SessionReplaced,
    /// It was here and is no more.
    Gone,
    /// The state's version is not the one that the writer knew.
    StateConflict,
    /// More than the limit of bytes or messages.
    TooLarge,
    /// The idempotency key came before, with another body.
    IdempotencyMismatch,
    /// Too many calls in a short time.
    RateLimited,
    /// More unacknowledged messages than the window allows.
    WindowExceeded,
    /// An earlier message of the same lane was refused and will come again.
    LaneBlocked,
    /// Not now.
    Unavailable,
    /// No room on the disk.
    StorageFull,
    /// The server gave up delivering the message to its recipient.
    Undeliverable,
    /// A code that this version does not know; the detail names it.
    Unrecognized,
}

/// Code, name, HTTP status, whether it is worth trying again, and a title for people.
type Row = (ErrorCode, &'static str, u16, bool, &'static str);

const ROWS: [Row; 28] = [
    (ErrorCode::Malformed, "malformed", 400, false, "Malformed message"),
    (ErrorCode::MissingField, "missing_field", 400, false, "Missing field"),
    (ErrorCode::InvalidField, "invalid_field", 400, false, "Invalid field"),
    (ErrorCode::UnknownType, "unknown_type", 400, false, "Unknown message type"),
    (ErrorCode::UnsupportedVersion, "unsupported_version", 400, false, "Unsupported version"),
    (ErrorCode::StaleId, "stale_id", 400, false, "Message id too old"),
    (ErrorCode::Unauthorized, "unauthorized", 401, false, "Unauthorized"),
    (ErrorCode::Forbidden, "forbidden", 403, false, "Forbidden"),
    (ErrorCode::NotOwner, "not_owner", 403, false, "Not the owner of the task"),
    (ErrorCode::NotFound, "not_found", 404, false, "Not found"),
    (ErrorCode::MethodNotAllowed, "method_not_allowed", 405, false, "Method not allowed"),
    (ErrorCode::UnknownTask, "unknown_task", 404, false, "Unknown task"),
    (ErrorCode::UnknownAgent, "unknown_agent", 404, true, "Unknown agent"),
    (ErrorCode::WrongState, "wrong_state", 409, false, "Wrong state"),
    (ErrorCode::TaskExists, "task_exists", 409, false, "Task exists"),
    (ErrorCode::IdConflict, "id_conflict", 409, false, "Message id conflict"),
    (ErrorCode::SessionReplaced, "session_replaced", 409, false, "Session replaced"),
    (ErrorCode::Gone, "gone", 410, false, "Gone"),
    (ErrorCode::StateConflict, "state_conflict", 412, false, "State conflict"),
    (ErrorCode::TooLarge, "too_large", 413, false, "Too large"),
    (ErrorCode::IdempotencyMismatch, "idempotency_mismatch", 422, false, "Idempotency mismatch"),
    (ErrorCode::RateLimited, "rate_limited", 429, true, "Rate limited"),
    (ErrorCode::WindowExceeded, "window_exceeded", 429, true, "Window exceeded"),
    (ErrorCode::LaneBlocked, "lane_blocked", 429, true, "Lane blocked"),
    (ErrorCode::Unavailable, "unavailable", 503, true, "Unavailable"),
    (ErrorCode::StorageFull, "storage_full", 507, true, "Storage full"),
    (ErrorCode::Undeliverable, "undeliverable", 410, false, "Undeliverable"),
    (ErrorCode::Unrecognized, "unrecognized", 400, false, "Unrecognized error"),
];

impl ErrorCode {
    /// Every code, in the order of the specification.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.into_iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.0 == self).unwrap_or(&ROWS[0])
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The status of an HTTP response with this code.
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// Whether the same message may succeed later, unless the refusal itself says otherwise.
    pub fn retryable(self) -> bool {
        self.row().3
    }

    /// A few words for people, the `title` of a problem document.
    pub fn title(self) -> &'static str {
        self.row().4
    }

    /// The code of that name; `None` for a name that this version does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// A refusal: what is wrong, where, and whether to try again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// The reason.
    pub code: ErrorCode,
    /// One lower-case sentence that says what is wrong and what to do. It holds no content.
    pub detail: String,
    /// Path of the field at fault, as in `payload.task_id`.
    pub field: Option<String>,
    /// Whether the same message may succeed later.
    pub retryable: bool,
    /// The earliest moment for that, in seconds from now.
    pub retry_after_seconds: Option<u64>,
    /// What is there instead: the current state of a `state_conflict`.
    pub current: Option<Box<Value>>,
}

impl Refusal {
    /// A refusal with the code's own judgement of whether to try again.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            retryable: code.retryable(),
            retry_after_seconds: None,
            current: None,
        }
    }

    /// A required field is absent.
    pub fn missing(field: impl Into<String>) -> Self {
        let field = field.into();
        Self::new(ErrorCode::MissingField, format!("add the required field {field}")).at(field)
    }

    /// A field has a wrong value; `wanted` completes "the field must be ...".
    pub fn invalid(field: impl Into<String>, wanted: &str) -> Self {
        let field = field.into();
        Self::new(ErrorCode::InvalidField, format!("the field {field} must be {wanted}")).at(field)
    }

    /// The same, with the path of the field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same, retryable after `seconds`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retryable = true;
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The same, with another judgement of whether to try again.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// The same, with what is there instead.
    #[must_use]
    pub fn with_current(mut self, current: Value) -> Self {
        self.current = Some(Box::new(current));
        self
    }

    /// The problem document of an HTTP response.
    pub fn problem(&self) -> Problem {
        Problem {
            problem_type: format!("urn:openclaw:error:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.http_status(),
            code: self.code.as_str().to_owned(),
            detail: Some(self.detail.clone()),
            field: self.field.clone(),
            retryable: Some(self.retryable),
            retry_after_seconds: self.retry_after_seconds,
            current: self.current.as_deref().cloned(),
        }
    }

    /// Reads a problem document. `None` when it is none of ours: a proxy's page has no `code`.
    pub fn from_problem(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Problem>(body).ok().map(Self::from)
    }

    /// Builds a refusal from the parts that a peer sent; what it left out follows from the code.
    pub(super) fn from_parts(name: &str, detail: Option<String>, retryable: Option<bool>) -> Self {
        let detail = detail.unwrap_or_else(|| "the peer gave no reason".to_owned());
        let refusal = match ErrorCode::from_name(name) {
            Some(code) => Self::new(code, detail),
            None => Self::new(ErrorCode::Unrecognized, format!("{name}: {detail}")),
        };
        let retryable = retryable.unwrap_or(refusal.retryable);
        refusal.with_retryable(retryable)
    }
}

/// A problem document of RFC 9457 with our members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A name for the kind of problem, `urn:openclaw:error:` and the code.
    #[serde(rename = "type", default)]
    pub problem_type: String,
    /// A few words for people.
    #[serde(default)]
    pub title: String,
    /// The status of the response.
    #[serde(default)]
    pub status: u16,
    /// The error code.
    pub code: String,
    /// What is wrong and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Path of the field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whether the same request may succeed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The earliest moment for that, in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// What is there instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Value>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let mut refusal = Self::from_parts(&problem.code, problem.detail, problem.retryable);
        refusal.field = problem.field;
        refusal.retry_after_seconds = problem.retry_after_seconds;
        refusal.current = problem.current.map(Box::new);
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row_and_reads_back() {
        for code in ErrorCode::all() {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(code));
            assert_eq!(ROWS.iter().filter(|row| row.1 == code.as_str()).count(), 1);
        }
        assert_eq!(ErrorCode::from_name("teapot"), None);
    }

    #[test]
    fn the_specification_names_every_code_that_is_sent() {
        let specification = include_str!("../../docs/protocol.md");
        for code in ErrorCode::all().filter(|code| *code != ErrorCode::Unrecognized) {
            let name = format!("`{}`", code.as_str());
            let retryable = if code.retryable() { "yes" } else { "no" };
            let columns = format!(" | {} | {retryable} | ", code.http_status());
            let has_row = |line: &str| line.contains(&name) && line.contains(&columns);
            assert!(specification.lines().any(has_row), "{name}{columns}");
        }
    }

    #[test]
    fn the_retryable_codes_are_those_of_the_specification() {
        let retryable: Vec<_> =
            ErrorCode::all().filter(|code| code.retryable()).map(ErrorCode::as_str).collect();
        let wanted = [
            "unknown_agent",
            "rate_limited",
            "window_exceeded",
            "lane_blocked",
            "unavailable",
            "storage_full",
        ];
        assert_eq!(retryable, wanted);
    }

    #[test]
    fn a_problem_document_has_the_members_of_rfc_9457_and_reads_back() {
        let refusal = Refusal::missing("payload.task_id");
        let text = serde_json::to_string(&refusal.problem()).unwrap();
        assert_eq!(
            text,
            r#"{"type":"urn:openclaw:error:missing_field","title":"Missing field","status":400,"#
                .to_owned()
                + r#""code":"missing_field","detail":"add the required field payload.task_id","#
                + r#""field":"payload.task_id","retryable":false}"#
        );
        assert_eq!(Refusal::from_problem(text.as_bytes()), Some(refusal));
        let refusal = Refusal::new(ErrorCode::StorageFull, "free some space").retry_after(7);
        let text = serde_json::to_vec(&refusal.problem()).unwrap();
        assert_eq!(Refusal::from_problem(&text), Some(refusal));
        let refusal = Refusal::new(ErrorCode::StateConflict, "read the key again")
            .with_current(serde_json::json!({"version": 3}));
        let text = serde_json::to_vec(&refusal.problem()).unwrap();
        assert_eq!(Refusal::from_problem(&text), Some(refusal));
    }

    #[test]
    fn a_foreign_body_is_no_problem_document_and_an_unknown_code_keeps_its_name() {
        for body in ["<html>", "{}", r#"{"detail":"no"}"#, "[]"] {
            assert_eq!(Refusal::from_problem(body.as_bytes()), None, "{body}");
        }
        let refusal = Refusal::from_problem(br#"{"code":"teapot","retryable":true}"#).unwrap();
        assert_eq!(refusal.code, ErrorCode::Unrecognized);
        assert_eq!(refusal.detail, "teapot: the peer gave no reason");
        assert!(refusal.retryable);
    }
}
