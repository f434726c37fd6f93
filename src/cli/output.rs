//! The one place that prints: data goes to standard output, talk to standard error. A reader that
//! went away ends the output and is no error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{LazyLock, OnceLock};

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table};
use indicatif::MultiProgress;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Value;

/// How a command shows its data.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON: one value a line.
    pub json: bool,
}

impl Output {
    /// Shows one object: as it is, or as a table of its members, those that are named first.
    pub fn object(self, value: &Value, first: &[&str]) {
        if self.json {
            line(&value.to_string());
            return;
        }
        let named = first.iter().filter_map(|name| Some((*name, value.get(name)?)));
        let members = value.as_object().into_iter().flatten();
        let others = members.map(|(name, value)| (name.as_str(), value));
        let others = others.filter(|(name, _)| !first.contains(name));
        let row = |(name, value): (&str, &Value)| vec![name.replace('_', " "), plain(value)];
        table(&[], named.chain(others).map(row).collect(), false);
    }

    /// Shows a list: a line each, or a table of these members, the most important first.
    pub fn list(self, values: &[Value], columns: &[&str]) {
        self.list_as(values, columns, Clone::clone);
    }

    /// Shows one of a list that has no end: as a line, with these members in columns that usually
    /// fit. `false` when nobody reads any more.
    pub fn line(self, value: &Value, columns: &[(&str, usize)]) -> bool {
        if self.json {
            return line(&value.to_string());
        }
        let cell = |(name, width): &(&str, usize)| {
            format!("{:<width$}", plain(value.get(name).unwrap_or(&Value::Null)))
        };
        line(columns.iter().map(cell).collect::<Vec<_>>().join("  ").trim_end())
    }

    /// As [`Output::list`], for few rows of long texts: a value too long goes on in the next line.
    pub fn texts(self, values: &[Value], columns: &[&str]) {
        if self.json {
            return self.list(values, columns);
        }
        Self::list_or_none(columns, cells(values.iter().cloned(), columns), false);
    }

    /// As [`Output::list`], with a table that shows each value as `shown` has it.
    pub fn list_as(self, values: &[Value], columns: &[&str], shown: impl Fn(&Value) -> Value) {
        if self.json {
            // Whoever reads no further needs no more of it.
            let _ = values.iter().all(|value| line(&value.to_string()));
            return;
        }
        Self::list_or_none(columns, cells(values.iter().map(shown), columns), true);
    }

    fn list_or_none(columns: &[&str], rows: Vec<Vec<String>>, cut: bool) {
        if rows.is_empty() {
            say("there is nothing to show");
        } else {
            table(columns, rows, cut);
        }
    }
}

fn cells(values: impl Iterator<Item = Value>, columns: &[&str]) -> Vec<Vec<String>> {
    let cell = |value: &Value, column: &&str| plain(value.get(column).unwrap_or(&Value::Null));
    let row = |value: Value| columns.iter().map(|column| cell(&value, column)).collect();
    values.map(row).collect()
}

/// Writes a line of data; `false` when nobody reads any more.
pub fn line(text: &str) -> bool {
    writeln!(io::stdout().lock(), "{text}").is_ok()
}

/// Writes data as it is; `false` when nobody reads any more.
pub fn raw(bytes: &[u8]) -> bool {
    io::stdout().lock().write_all(bytes).is_ok()
}

/// What is drawn again and again at the bottom of a terminal.
pub fn screen() -> &'static MultiProgress {
    static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
    &SCREEN
}

/// Says something to the person at the terminal.
pub fn say(text: &str) {
    // In one piece: the screen is drawn again after each.
    let _ = Talk.write_all(format!("{text}\n").as_bytes());
}

/// Says what cannot be read of a store, the same sentence whoever found it.
pub fn missing(sentence: impl AsRef<str>) {
    say(&format!("warning: a part of the store cannot be read: {}", sentence.as_ref()));
}

/// Takes out of an answer what it names as missing.
pub fn take_damage(answer: &mut Value) -> Vec<String> {
    let damage = answer.as_object_mut().and_then(|members| members.remove("damage"));
    damage.and_then(|damage| serde_json::from_value(damage).ok()).unwrap_or_default()
}

/// Says something when everything else is said: what is logged until then comes before it.
pub fn say_last(text: &'static str) {
    // The first word is the reason, if there are more.
    let _ = LAST.set(text);
}

static LAST: OnceLock<&str> = OnceLock::new();

/// Says what was kept for the end.
pub fn end() {
    if let Some(text) = LAST.get() {
        say(text);
    }
}

/// Standard error, above what is drawn there.
pub struct Talk;

impl io::Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        screen().suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Says what went wrong.
pub fn error(text: &dyn std::fmt::Display) {
    say(&format!("error: {text}"));
}

/// Whether a person watches.
pub fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The columns of the terminal that a person watches.
pub fn terminal_width() -> usize {
    /// Of a terminal that does not tell.
    const USUAL: usize = 80;
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.map_or(USUAL, |size| usize::from(size.ws_col)).max(20)
}

/// A terminal that does not show the control characters that are typed: a `^C` in the last line
/// would shift what is drawn there. Dropped, it shows them again.
pub struct Silent(Termios);

impl Silent {
    /// `None` when standard error is no terminal.
    pub fn terminal() -> Option<Self> {
        let usual = tcgetattr(io::stderr()).ok()?;
        let mut silent = usual.clone();
        silent.local_modes.remove(LocalModes::ECHOCTL);
        tcsetattr(io::stderr(), OptionalActions::Now, &silent).ok()?;
        Some(Self(usual))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stderr(), OptionalActions::Now, &self.0);
    }
}

fn table(columns: &[&str], rows: Vec<Vec<String>>, cut: bool) {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let header: Vec<String> =
        columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
    match table.width() {
        Some(width) if cut => fill(&mut table, header, rows, usize::from(width)),
        _ => {
            if !header.is_empty() {
                table.set_header(header);
            }
            table.add_rows(rows);
            // Names and ids stand first, and are copied.
            if let Some(first) = table.column_mut(0) {
                first.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    for text in table.lines() {
        if !line(text.trim_end()) {
            return;
        }
    }
}

/// Fills a table for a terminal of this width: columns that do not fit are left out from the last
/// on, and only the last one that is shown is cut, so that an id can always be copied.
fn fill(table: &mut Table, mut header: Vec<String>, mut rows: Vec<Vec<String>>, width: usize) {
    /// What a column of cut text must have to be of use.
    const TEXT_WIDTH_MIN: usize = 10;
    /// A space before each value and one behind it.
    const PADDING: usize = 2;
    let needed = |at: usize, name: &String| {
        let longest = rows.iter().map(|row| row[at].chars().count()).max();
        longest.unwrap_or_default().max(name.chars().count()) + PADDING
    };
    let (mut left, mut fits) = (width, 0);
    for (at, name) in header.iter().enumerate() {
        let needed = needed(at, name);
        if needed > left && left < TEXT_WIDTH_MIN + PADDING {
            break;
        }
        left = left.saturating_sub(needed);
        fits += 1;
    }
    let fits = fits.max(1);
    header.truncate(fits);
    for row in &mut rows {
        row.truncate(fits);
    }
    table.set_truncation_indicator("…").set_header(header);
    for row in rows {
        let mut row = Row::from(row);
        row.max_height(1);
        table.add_row(row);
    }
    for column in table.column_iter_mut().take(fits - 1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// A value as a person reads it. Control characters of others never reach the terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Object(members) if members.is_empty() => "-".to_owned(),
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

    #[test]
    fn a_table_fits_its_terminal() {
        let shown = |width: u16| {
            let mut table = Table::new();
            table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
            let header = ["ID", "STATUS", "TEXT", "PEER"].map(str::to_owned).to_vec();
            let row = ["0123456789abcdef", "pending", "some text of a task", "loki-7"];
            fill(&mut table, header, vec![row.map(str::to_owned).to_vec()], usize::from(width));
            table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(60),
            [
                " ID                STATUS   TEXT                 PEER",
                " 0123456789abcdef  pending  some text of a task  loki-7",
            ]
        );
        assert_eq!(
            shown(40),
            [" ID                STATUS   TEXT", " 0123456789abcdef  pending  some text…"]
        );
        assert_eq!(shown(30), [" ID                STATUS", " 0123456789abcdef  pending"]);
        for width in 1..80 {
            let wide = |line: &String| line.chars().count() > usize::from(width.max(18));
            assert!(!shown(width).iter().any(wide), "{width}");
        }
    }
}
