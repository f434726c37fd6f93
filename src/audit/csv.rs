//! Entries of the audit log as comma-separated values (RFC 4180).

use serde_json::Value;

/// The first line.
pub const HEADER: &str =
    "seq,timestamp,event,level,actor,resource,namespace,details,metadata,chain_hash\r\n";

/// A shown entry as a line, without its end.
pub fn row(entry: &Value) -> String {
    let names = HEADER.trim_end().split(',');
    let cell = |name: &str| match &entry[name] {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    names.map(cell).collect::<Vec<_>>().join(",")
}

/// In quotes when it needs them.
fn quoted(text: &str) -> String {
    let is_plain = !text.contains(['"', ',', '\r', '\n']);
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_a_separator_in_it_is_quoted() {
        let entry = json!({
            "seq": "1.0", "timestamp": "2026-02-15T14:30:00.000Z", "event": "task.fail",
            "level": "error", "actor": "a,b", "resource": "line\nbreak", "namespace": "",
            "details": {"error": "he said \"no\""}, "metadata": {"epoch": 1}, "chain_hash": "ab",
        });
        let expected = concat!(
            "1.0,2026-02-15T14:30:00.000Z,task.fail,error,\"a,b\",\"line\nbreak\",,",
            r#""{""error"":""he said \""no\""""}","{""epoch"":1}",ab"#,
        );
        assert_eq!(row(&entry), expected);
        assert_eq!(row(&json!({"details": null})), ",,,,,,,,,");
        assert_eq!(HEADER.matches(',').count(), row(&json!({})).matches(',').count());
    }
}
