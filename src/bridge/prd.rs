//! Reads a PRD (Markdown) into tasks. Pure but for [`read`]; it runs nothing, chooses no agent and
//! keeps no state: the same text gives the same task ids, whatever the order of its items.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::clock::{Millis, parse_rfc3339, rfc3339};

/// The longest PRD. Without a checklist the whole file is one description, which must fit into
/// one message of 1 MiB also when it is escaped and sealed (base64 adds a third).
pub const PRD_BYTES_MAX: usize = 512 * 1024;

/// The most tasks of one PRD: each becomes records in the journal, and a file with more of them
/// is a generated list that belongs into the server's queue.
pub const PRD_TASKS_MAX: usize = 10_000;

/// The longest name (task type, skill, model, agent), as in section 1 of the protocol.
const NAME_BYTES_MAX: usize = 128;

/// Digits of the digest in a task id, section 9 of the protocol.
const DIGEST_DIGITS: usize = 8;

/// The type of an item that names none.
const TYPE_DEFAULT: &str = "general";

/// The priority of an item that names none.
const PRIORITY_DEFAULT: &str = "normal";

/// The priorities of section 2 of the protocol, most urgent first.
const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];

/// The names that an attribute comment may use.
const ATTRIBUTES: [&str; 7] =
    ["type", "priority", "skills", "files", "model", "deadline", "target_agent"];

/// One task of a PRD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// `<agent_id>-<8 hex digits>-<n>`; see [`parse`].
    pub task_id: String,
    /// What kind of work it is; `general` when the item does not say.
    pub task_type: String,
    /// The item's text without its attributes, or the whole file.
    pub description: String,
    /// The files that it is about, as written.
    pub files: Vec<String>,
    /// `critical`, `high`, `normal` or `low`.
    pub priority: String,
    /// Skills that the agent must have.
    pub skills: Vec<String>,
    /// The model that it must run on.
    pub model: Option<String>,
    /// When it must be done.
    pub deadline: Option<Millis>,
    /// The only agent that may do it, when it is shared.
    pub target_agent: Option<String>,
    /// The line of the file where it stands, counted from 1.
    pub line: usize,
}

/// Why a PRD cannot be used. The person who wrote the file acts.
#[derive(Debug, thiserror::Error)]
pub enum PrdError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not text.
    #[error("the PRD is not UTF-8 text")]
    NotText,
    /// Nothing is written in it.
    #[error("the PRD is empty: write what is to be done, or a checklist of `- [ ]` items")]
    Empty,
    /// It is longer than [`PRD_BYTES_MAX`].
    #[error("the PRD has {bytes} bytes or more, and at most {PRD_BYTES_MAX} are read: split it")]
    TooLong {
        /// Its length as far as it was read.
        bytes: usize,
    },
    /// It has more items than [`PRD_TASKS_MAX`].
    #[error("line {line}: the PRD has more than {PRD_TASKS_MAX} unchecked items: split it")]
    TooManyTasks {
        /// Where the first item too many stands.
        line: usize,
    },
    /// An attribute comment says something that cannot be understood.
    #[error("line {line}: {problem}")]
    Attribute {
        /// The line of the comment, counted from 1.
        line: usize,
        /// A sentence that names the attribute or value, and the nearest right one.
        problem: String,
    },
}

/// Reads the file at `path` and parses it; see [`parse`].
///
/// # Errors
/// [`PrdError`], each a sentence for the person who wrote the file.
pub fn read(path: &Path, agent_id: &str) -> Result<Vec<Task>, PrdError> {
    let unreadable = |source| PrdError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(PRD_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > PRD_BYTES_MAX {
        return Err(PrdError::TooLong { bytes: bytes.len() });
    }
    let text = String::from_utf8(bytes).map_err(|_| PrdError::NotText)?;
    parse(&text, agent_id)
}

/// The tasks of a PRD: its unchecked checklist items at every depth, in order, or the whole text
/// when it has no checklist. A checklist without unchecked items has no tasks: everything is done.
///
/// A task's id is the agent's id, the first 8 hex digits of the SHA-256 of text and attributes,
/// and a number that tells equal items apart: moving items around keeps their ids.
///
/// # Errors
/// [`PrdError`], when the text is empty or too long, or an attribute cannot be understood.
pub fn parse(text: &str, agent_id: &str) -> Result<Vec<Task>, PrdError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > PRD_BYTES_MAX {
        return Err(PrdError::TooLong { bytes: text.len() });
    }
    if text.trim().is_empty() {
        return Err(PrdError::Empty);
    }
    let checklist = scan(text);
    let mut tasks = Vec::with_capacity(checklist.unchecked.len());
    for item in &checklist.unchecked {
        if tasks.len() == PRD_TASKS_MAX {
            return Err(PrdError::TooManyTasks { line: item.line });
        }
        let task = item.task()?;
        // An item of only a comment says nothing that could be done.
        if !task.description.is_empty() {
            tasks.push(task);
        }
    }
    if !checklist.exists {
        let line = text.lines().position(|line| !line.trim().is_empty()).map_or(1, |at| at + 1);
        tasks.push(Task { description: text.trim().to_owned(), ..blank_task(line) });
    }
    number(&mut tasks, agent_id);
    Ok(tasks)
}

/// What [`scan`] finds: whether there is a checklist at all, and its unchecked items.
#[derive(Default)]
struct Checklist<'text> {
    exists: bool,
    unchecked: Vec<Item<'text>>,
}

/// One unchecked item: its first line and the indented lines that continue it.
struct Item<'text> {
    line: usize,
    indent: usize,
    lines: Vec<&'text str>,
}

fn scan(text: &str) -> Checklist<'_> {
    let mut found = Checklist::default();
    let mut fence: Option<&str> = None;
    let mut commented = false;
    let mut open = false;
    for (at, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if commented {
            commented = !line.contains("-->");
        } else if let Some(opening) = fence {
            if closes_fence(line, opening) {
                fence = None;
            }
        } else if let Some(opening) = fence_of(line) {
            fence = Some(opening);
            open = false;
        } else if line.starts_with("<!--") && !line.contains("-->") {
            commented = true;
            open = false;
        } else if let Some((checked, content)) = checkbox(line) {
            found.exists = true;
            open = !checked;
            if open {
                let lines = vec![content];
                found.unchecked.push(Item { line: at + 1, indent: indent_of(raw), lines });
            }
        } else {
            open &= continues(raw, found.unchecked.last());
            if let (true, Some(item)) = (open, found.unchecked.last_mut()) {
                item.lines.push(line);
            }
        }
    }
    found
}

/// Whether an indented line goes on with the text of the item above it, as in Markdown.
fn continues(raw: &str, item: Option<&Item<'_>>) -> bool {
    let line = raw.trim();
    let listed = list_marker(line).is_some() || line.starts_with('#') || line.starts_with('>');
    !line.is_empty() && !listed && item.is_some_and(|item| indent_of(raw) > item.indent)
}

fn indent_of(raw: &str) -> usize {
    raw.chars().take_while(|character| character.is_whitespace()).count()
}

/// The backticks or tildes that open fenced code; `None` for any other line.
fn fence_of(line: &str) -> Option<&str> {
    let mark = line.chars().next().filter(|&first| first == '`' || first == '~')?;
    let length = line.len() - line.trim_start_matches(mark).len();
    // Backticks on the rest of the line make it inline code.
    let inline = mark == '`' && line[length..].contains('`');
    (length >= 3 && !inline).then(|| &line[..length])
}

fn closes_fence(line: &str, opening: &str) -> bool {
    line.starts_with(opening) && line.chars().all(|character| opening.starts_with(character))
}

/// What follows a list marker (`-`, `*`, `+`, `1.`, `1)`); `None` for a line that has none.
fn list_marker(line: &str) -> Option<&str> {
    let digits = line.len() - line.trim_start_matches(|mark: char| mark.is_ascii_digit()).len();
    let rest = if digits == 0 {
        line.strip_prefix(['-', '*', '+'])?
    } else {
        // Markdown reads numbers of up to nine digits.
        line[digits..].strip_prefix(['.', ')']).filter(|_| digits <= 9)?
    };
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then(|| rest.trim())
}

/// Whether a checklist item is checked, and its text; `None` for any other line.
fn checkbox(line: &str) -> Option<(bool, &str)> {
    let item = list_marker(line)?;
    let (checked, rest) = if let Some(rest) = item.strip_prefix("[ ]") {
        (false, rest)
    } else {
        (true, item.strip_prefix("[x]").or_else(|| item.strip_prefix("[X]"))?)
    };
    let spaced = rest.starts_with([' ', '\t']);
    (spaced && !rest.trim().is_empty()).then(|| (checked, rest.trim()))
}

fn blank_task(line: usize) -> Task {
    Task {
        task_id: String::new(),
        task_type: TYPE_DEFAULT.to_owned(),
        description: String::new(),
        files: Vec::new(),
        priority: PRIORITY_DEFAULT.to_owned(),
        skills: Vec::new(),
        model: None,
        deadline: None,
        target_agent: None,
        line,
    }
}

impl Item<'_> {
    fn task(&self) -> Result<Task, PrdError> {
        let mut task = blank_task(self.line);
        let mut seen = Vec::new();
        let mut texts = Vec::with_capacity(self.lines.len());
        for (at, line) in self.lines.iter().enumerate() {
            let (text, comment) = split_comment(line);
            if let Some(comment) = comment {
                let result = apply(&mut task, comment, &mut seen);
                result.map_err(|problem| PrdError::Attribute { line: self.line + at, problem })?;
            }
            if !text.is_empty() {
                texts.push(text);
            }
        }
        task.description = texts.join("\n");
        Ok(task)
    }
}

/// The text of a line and the inside of the HTML comment that ends it.
fn split_comment(line: &str) -> (&str, Option<&str>) {
    let comment = line.strip_suffix("-->").and_then(|rest| {
        let at = rest.rfind("<!--")?;
        Some((rest[..at].trim_end(), rest[at + 4..].trim()))
    });
    match comment {
        Some((text, inside)) => (text, Some(inside)),
        None => (line, None),
    }
}

/// Reads `name: value; name: value` into the task. The error is a sentence without its line.
fn apply(task: &mut Task, comment: &str, seen: &mut Vec<&'static str>) -> Result<(), String> {
    for attribute in comment.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((written, value)) = attribute.split_once(':') else {
            return Err(format!(
                "`{attribute}` is not an attribute: write `name: value; name: value`, or move \
                 the comment to a line of its own"
            ));
        };
        let (written, value) = (written.trim(), value.trim());
        let Some(name) = ATTRIBUTES.into_iter().find(|&name| name == written) else {
            return Err(format!("unknown attribute `{written}`{}", hint(written, &ATTRIBUTES)));
        };
        if seen.contains(&name) {
            return Err(format!("attribute `{name}` is given twice"));
        }
        seen.push(name);
        if value.is_empty() {
            return Err(format!("attribute `{name}` has no value"));
        }
        set(task, name, value)?;
    }
    Ok(())
}

fn set(task: &mut Task, name: &'static str, value: &str) -> Result<(), String> {
    match name {
        "type" => task.task_type = named(name, value)?,
        "model" => task.model = Some(named(name, value)?),
        "target_agent" => task.target_agent = Some(named(name, value)?),
        "files" => task.files = list(value).map(str::to_owned).collect(),
        "skills" => {
            task.skills = list(value).map(|skill| named(name, skill)).collect::<Result<_, _>>()?;
        }
        "priority" => {
            if !PRIORITIES.contains(&value) {
                return Err(format!("unknown priority `{value}`{}", hint(value, &PRIORITIES)));
            }
            value.clone_into(&mut task.priority);
        }
        _ => {
            task.deadline = Some(parse_rfc3339(value).ok_or_else(|| {
                format!("deadline `{value}` is not a time such as 2026-12-31T18:00:00Z")
            })?);
        }
    }
    Ok(())
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// A model may be named with a slash (`vendor/model`); everything else has the protocol's alphabet.
fn named(attribute: &str, value: &str) -> Result<String, String> {
    let slash = attribute == "model";
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"._:-".contains(&byte) || (slash && byte == b'/')
    };
    if value.len() > NAME_BYTES_MAX || !value.bytes().all(allowed) {
        return Err(format!(
            "`{value}` cannot be a value of `{attribute}`: use up to {NAME_BYTES_MAX} letters, \
             digits and `.`, `_`, `:`, `-`"
        ));
    }
    Ok(value.to_owned())
}

/// `; did you mean …?`, or the whole choice when nothing is near.
fn hint(written: &str, known: &[&str]) -> String {
    let written = written.to_lowercase();
    let distance = |name: &&&str| strsim::damerau_levenshtein(&written, name);
    let nearest = known.iter().min_by_key(distance);
    // A third of the letters may be wrong, as compilers do it: farther is another word.
    match nearest.filter(|name| distance(name) <= name.len().div_ceil(3)) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; known are {}", known.join(", ")),
    }
}

/// Gives every task its id.
fn number(tasks: &mut [Task], agent_id: &str) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for task in tasks {
        let digest = digest(task);
        let count = counts.entry(digest.clone()).or_default();
        *count += 1;
        task.task_id = format!("{agent_id}-{digest}-{count}");
    }
}

/// The first hex digits of the SHA-256 of text and attributes. Each part is written with its
/// length, so that no two different tasks have the same bytes.
fn digest(task: &Task) -> String {
    let mut hasher = Sha256::new();
    let deadline = task.deadline.map(rfc3339);
    let mut part = |text: &str| {
        hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(text.as_bytes());
    };
    part(&task.description);
    part(&task.task_type);
    part(&task.priority);
    part(&task.files.join(","));
    part(&task.skills.join(","));
    part(task.model.as_deref().unwrap_or_default());
    part(deadline.as_deref().unwrap_or_default());
    part(task.target_agent.as_deref().unwrap_or_default());
    let mut hex = String::with_capacity(DIGEST_DIGITS);
    for byte in hasher.finalize().iter().take(DIGEST_DIGITS / 2) {
        // Writing into a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests;
