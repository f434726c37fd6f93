//! Entries of the audit log as syslog messages (RFC 5424). It sends nothing.

use std::fmt::Write as _;

use serde_json::Value;

/// The facility of audit logs, RFC 5424, section 6.2.1.
const LOG_AUDIT: u8 = 13;

/// Names the parameters. The number is the one that RFC 5612 leaves to whoever has none.
const ELEMENT: &str = "loki@32473";

/// What a shown entry is in syslog, in one line without its end: event as MSGID, details as the
/// message, the rest as parameters.
pub fn message(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let severity = match text("level") {
        "error" => 3,
        "warning" => 4,
        "debug" => 7,
        _ => 6,
    };
    let metadata = &entry["metadata"];
    let host = word(metadata["host"].as_str().unwrap_or_default(), 255);
    let pid = word(&metadata["pid"].as_u64().map(|pid| pid.to_string()).unwrap_or_default(), 128);
    let mut message = format!(
        "<{}>1 {} {host} loki-openclaw {pid} {} [{ELEMENT}",
        LOG_AUDIT * 8 + severity,
        text("timestamp"),
        word(text("event"), 32),
    );
    for name in ["seq", "actor", "resource", "namespace", "chain_hash"] {
        if !text(name).is_empty() {
            // Writing into a string does not fail.
            let _ = write!(message, " {name}=\"{}\"", value(text(name)));
        }
    }
    message.push(']');
    if !entry["details"].is_null() {
        // JSON has no raw control characters.
        let _ = write!(message, " {}", entry["details"]);
    }
    message
}

/// Printable ASCII, so long at the most, or the sign for nothing.
fn word(text: &str, length_max: usize) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(length_max).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}

/// A parameter's value, RFC 5424, section 6.3.3. A line stays one line.
fn value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' | ']' => value.extend(['\\', letter]),
            control if control.is_control() => value.push(' '),
            other => value.push(other),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_a_message_of_rfc_5424() {
        let entry = json!({
            "seq": "12.3", "timestamp": "2026-02-15T14:30:00.000Z", "event": "message.failed",
            "level": "error", "actor": "loki-1", "resource": "a\"b]c\\d\ne", "namespace": "default",
            "details": {"error": "no\nroute"}, "chain_hash": "ab",
            "metadata": {"epoch": 1, "host": "node 7", "pid": 42, "version": "0.1.0"},
        });
        let expected = "<107>1 2026-02-15T14:30:00.000Z node7 loki-openclaw 42 message.failed \
                        [loki@32473 seq=\"12.3\" actor=\"loki-1\" resource=\"a\\\"b\\]c\\\\d e\" \
                        namespace=\"default\" chain_hash=\"ab\"] {\"error\":\"no\\nroute\"}";
        assert_eq!(message(&entry), expected);
        let bare = json!({
            "seq": "1.0", "timestamp": "2026-02-15T14:30:00.000Z", "event": "store.open",
            "level": "info", "actor": "", "resource": "", "namespace": "", "details": null,
            "metadata": {"epoch": 1},
        });
        let expected = "<110>1 2026-02-15T14:30:00.000Z - loki-openclaw - store.open \
                        [loki@32473 seq=\"1.0\"]";
        assert_eq!(message(&bare), expected);
    }

    #[test]
    fn a_level_has_its_severity() {
        for (level, priority) in [("error", 107), ("warning", 108), ("info", 110), ("debug", 111)] {
            let begins = format!("<{priority}>1 ");
            assert!(message(&json!({"level": level})).starts_with(&begins), "{level}");
        }
    }
}
