//! The one place that prints: data goes to standard output, talk to standard error. A reader that
//! went away ends the output and is no error.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

/// How a command shows its data.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON: one value a line.
    pub json: bool,
}

impl Output {
    /// Shows one object: as it is, or as a table of its members.
    pub fn object(self, value: &Value) {
        if self.json {
            return line(&value.to_string());
        }
        let members = value.as_object().into_iter().flatten();
        let rows = members.map(|(name, value)| vec![name.clone(), plain(value)]).collect();
        table(&[], rows);
    }

    /// Shows a list: a line each, or a table of these members.
    pub fn list(self, values: &[Value], columns: &[&str]) {
        if self.json {
            for value in values {
                line(&value.to_string());
            }
            return;
        }
        let cell = |value: &Value, column: &&str| plain(value.get(column).unwrap_or(&Value::Null));
        let row = |value| columns.iter().map(|column| cell(value, column)).collect();
        table(columns, values.iter().map(row).collect());
    }
}

/// Writes a line of data.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes data as it is.
pub fn raw(bytes: &[u8]) {
    let _ = io::stdout().lock().write_all(bytes);
}

/// Says something to the person at the terminal.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says what went wrong.
pub fn error(text: &dyn std::fmt::Display) {
    say(&format!("error: {text}"));
}

/// Whether a person watches.
pub fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

fn table(columns: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !columns.is_empty() {
        table.set_header(columns.iter().map(|name| name.to_uppercase().replace('_', " ")));
    }
    table.add_rows(rows);
    for text in table.lines() {
        line(text.trim_end());
    }
}

/// A value as a person reads it. Control characters of others never reach the terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("{name} {}", plain(value));
            members.iter().map(member).collect::<Vec<_>>().join(", ")
        }
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_without_control_characters() {
        let value = serde_json::json!({"a": "x\u{1b}[2Jy", "b": [1, null]});
        assert_eq!(plain(&value), "a x [2Jy, b 1, -");
    }
}
