//! Reads what a command prints: task updates, its result, and bounded copies of the rest. It
//! knows no process; the supervisor hands it bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::spec::OutputFormat;

/// The largest result. It travels in one message of 1 MiB, and sealing it adds a third.
pub(super) const RESULT_BYTES_MAX: usize = 640 * 1024;

/// The longest line that is understood: a result, and what stands around it.
const LINE_BYTES_MAX: usize = RESULT_BYTES_MAX + 64 * 1024;

/// The longest line that is an update: an artifact's part is a fragment, not a file.
const UPDATE_BYTES_MAX: usize = 64 * 1024;

/// How much of the standard output is kept: enough to see what went wrong, also after a thousand
/// runs that nobody looked at.
const STDOUT_BYTES_MAX: usize = 1024 * 1024;

/// When the list of updates is started again. The bridge reads it many times a second.
const PROGRESS_BYTES_MAX: usize = 1024 * 1024;

/// How much of the tail of the standard error is kept on disk.
const STDERR_BYTES_MAX: usize = 64 * 1024;

/// How much of it becomes an error message: it travels in a message and is read by a person.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// A progress report of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Update {
    /// How much is done, from 0 to 1.
    pub progress: f64,
    /// What is being done, when the command said so.
    pub message: Option<String>,
    /// The whole object as it was printed: it may carry more, such as an artifact.
    pub object: Box<RawValue>,
}

/// The members of a printed object that mean something here.
#[derive(Deserialize)]
struct Line<'line> {
    #[serde(default, rename = "type")]
    kind: Option<serde_json::Value>,
    #[serde(default)]
    progress: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default, borrow, deserialize_with = "present")]
    result: Option<&'line RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    response: Option<&'line RawValue>,
    #[serde(default)]
    item: Option<serde_json::Value>,
}

/// Reads a member that is there, also when it is `null`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Takes the standard output apart.
#[derive(Debug)]
pub(super) struct Stdout {
    format: OutputFormat,
    /// The line, or for [`OutputFormat::GeminiDocument`] the text, that is not complete yet.
    pending: Vec<u8>,
    document: Vec<u8>,
    /// The rest of an overlong line is skipped.
    skipping: bool,
    /// A line that was too long seemed to have the result.
    lost_result: bool,
    result: Option<Box<RawValue>>,
    copy: File,
    copied: usize,
    progress: File,
    progressed: usize,
}

/// Why there is no result although the command gave one.
#[derive(Debug)]
pub(super) struct ResultTooLarge;

impl Stdout {
    pub(super) fn new(format: OutputFormat, copy: File, progress: File) -> Self {
        Self {
            format,
            pending: Vec::new(),
            document: Vec::new(),
            skipping: false,
            lost_result: false,
            result: None,
            copy,
            copied: 0,
            progress,
            progressed: 0,
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        let room = STDOUT_BYTES_MAX.saturating_sub(self.copied).min(bytes.len());
        // A full disk loses what is for people to read, and not the result.
        let _ = self.copy.write_all(&bytes[..room]);
        self.copied += room;
        if self.format == OutputFormat::GeminiDocument {
            let room = LINE_BYTES_MAX.saturating_sub(self.document.len());
            self.lost_result |= bytes.len() > room;
            self.document.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..at]);
            self.end_line();
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        let room = LINE_BYTES_MAX.saturating_sub(self.pending.len());
        self.pending.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if bytes.len() > room {
            // Cannot be read any more. Whether it had a result shows in what is here of it.
            let object = self.pending.trim_ascii_start().starts_with(b"{");
            let key = b"\"result\"";
            if object && self.pending.windows(key.len()).any(|part| part == key) {
                self.lost_result = true;
                self.result = None;
            }
            self.pending.clear();
            self.skipping = true;
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.pending);
        self.skipping = false;
        // Only an object counts; without this look a list would be read as one, by position.
        let object = line.trim_ascii();
        if !object.starts_with(b"{") {
            return;
        }
        let Ok(read) = serde_json::from_slice::<Line<'_>>(object) else { return };
        if let Some(update) = update(&read, object) {
            self.report(&update);
        }
        let result = match self.format {
            OutputFormat::Lines => read.result.map(ToOwned::to_owned),
            OutputFormat::CodexEvents => agent_message(&read),
            OutputFormat::GeminiDocument => None,
        };
        if let Some(result) = result {
            self.lost_result = result.get().len() > RESULT_BYTES_MAX;
            self.result = Some(result);
        }
    }

    fn report(&mut self, update: &Update) {
        let Ok(mut line) = serde_json::to_vec(update) else { return };
        line.push(b'\n');
        if self.progressed + line.len() > PROGRESS_BYTES_MAX {
            let _ = self.progress.set_len(0);
            self.progressed = 0;
        }
        self.progressed += line.len();
        let _ = self.progress.write_all(&line);
    }

    /// The result, after the last byte.
    pub(super) fn finish(mut self) -> Result<Option<Box<RawValue>>, ResultTooLarge> {
        self.end_line();
        if self.format == OutputFormat::GeminiDocument && !self.lost_result {
            self.result = gemini_response(&self.document);
            self.lost_result =
                self.result.as_ref().is_some_and(|result| result.get().len() > RESULT_BYTES_MAX);
        }
        if self.lost_result { Err(ResultTooLarge) } else { Ok(self.result) }
    }
}

/// The update in a line, if its `progress` is a number. Out of bounds, it is the nearest bound.
fn update(line: &Line<'_>, object: &[u8]) -> Option<Update> {
    let progress = line.progress.as_ref()?.as_f64()?.clamp(0.0, 1.0);
    if object.len() > UPDATE_BYTES_MAX {
        return None;
    }
    let message = line.message.as_ref().and_then(|message| message.as_str().map(str::to_owned));
    Some(Update { progress, message, object: serde_json::from_slice(object).ok()? })
}

/// What the agent said in an `item.completed` event of `codex exec --json`.
fn agent_message(line: &Line<'_>) -> Option<Box<RawValue>> {
    let completed = line.kind.as_ref()?.as_str()? == "item.completed";
    let item = line.item.as_ref().filter(|_| completed)?;
    // Events of before November 2025 name the type `item_type` and the message otherwise.
    let kind = item.get("type").or_else(|| item.get("item_type"))?.as_str()?;
    let said = matches!(kind, "agent_message" | "assistant_message");
    serde_json::value::to_raw_value(item.get("text").filter(|_| said)?).ok()
}

/// The `response` of the object that begins on a line of its own, after whatever was logged.
fn gemini_response(document: &[u8]) -> Option<Box<RawValue>> {
    let starts = document.split_inclusive(|&byte| byte == b'\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line.starts_with(b"{")))
    });
    starts.filter(|&(_, object)| object).find_map(|(start, _)| {
        let mut objects = serde_json::Deserializer::from_slice(&document[start..]).into_iter();
        let object: Line<'_> = objects.next()?.ok()?;
        object.response.map(ToOwned::to_owned)
    })
}

/// Keeps the tail of the standard error, in memory and on disk.
#[derive(Debug)]
pub(super) struct Stderr {
    tail: VecDeque<u8>,
    copy: File,
    copied: usize,
}

impl Stderr {
    pub(super) fn new(copy: File) -> Self {
        Self { tail: VecDeque::new(), copy, copied: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let surplus = self.tail.len().saturating_sub(STDERR_BYTES_MAX);
        self.tail.drain(..surplus);
        // As above, a full disk loses the copy only.
        let _ = if self.copied + bytes.len() <= 2 * STDERR_BYTES_MAX {
            self.copied += bytes.len();
            self.copy.write_all(bytes)
        } else {
            // Twice the tail is on disk: begin again with the tail, at one more write a byte.
            self.copied = self.tail.len();
            let emptied = self.copy.set_len(0);
            emptied.and_then(|()| self.copy.write_all(self.tail.make_contiguous()))
        };
    }

    /// The last 8 KiB as text, without the character that the cut may have split.
    pub(super) fn message(&mut self) -> String {
        let tail = self.tail.make_contiguous();
        let mut tail = &tail[tail.len().saturating_sub(MESSAGE_BYTES_MAX)..];
        while let [0x80..=0xBF, rest @ ..] = tail {
            tail = rest;
        }
        String::from_utf8_lossy(tail).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: OutputFormat, pieces: &[&[u8]]) -> Result<Option<String>, ResultTooLarge> {
        let file = || tempfile::tempfile().expect("a file");
        let mut stdout = Stdout::new(format, file(), file());
        for piece in pieces {
            stdout.push(piece);
        }
        stdout.finish().map(|result| result.map(|result| result.get().to_owned()))
    }

    #[test]
    fn the_last_object_with_a_result_counts_however_the_bytes_come() {
        let whole =
            b"x\r\n {\"result\": [1]} \r\n[2]\n{\"result\": 1, \"result\": 2}\n{\"other\": 3}\n";
        let one_by_one: Vec<_> = whole.chunks(1).collect();
        let read = read(OutputFormat::Lines, &one_by_one).expect("a result");
        assert_eq!(read.as_deref(), Some("[1]"));
    }

    #[test]
    fn an_overlong_line_costs_the_result_only_when_it_had_it() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let result = format!("{{\"result\": \"{long}\"}}\n");
        let noise = format!("{{\"log\": \"{long}\"}}\n");
        let short: &[u8] = b"{\"result\": 1}\n";
        let read = |pieces: &[&[u8]]| read(OutputFormat::Lines, pieces);
        assert!(read(&[result.as_bytes()]).is_err());
        assert!(read(&[short, result.as_bytes()]).is_err());
        assert_eq!(read(&[result.as_bytes(), short]).expect("a result").as_deref(), Some("1"));
        assert_eq!(read(&[short, noise.as_bytes()]).expect("a result").as_deref(), Some("1"));
        assert_eq!(read(&[noise.as_bytes()]).expect("no result"), None);
    }

    #[test]
    fn the_message_is_the_tail_cut_between_characters() {
        let mut stderr = Stderr::new(tempfile::tempfile().expect("a file"));
        stderr.push("é".repeat(STDERR_BYTES_MAX).as_bytes());
        stderr.push(b"!");
        let message = stderr.message();
        assert_eq!(message.len(), MESSAGE_BYTES_MAX - 1);
        assert!(message.ends_with("é!") && !message.contains('\u{fffd}'));
    }
}
