//! Shows how the tasks get on: a picture that is drawn again on a terminal, a line for each change
//! elsewhere. It shows nothing of a task's content but the first words of its description.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bridge::status::Snapshot;
use crate::bridge::task::{LocalTask, TaskStatus};
use crate::cli::output;
use crate::shutdown::Phase;

/// How often the picture is drawn again when nothing happens.
pub const REFRESH: Duration = Duration::from_millis(500);

/// How long a change may wait for the next one, so that many are one look.
pub const SETTLE: Duration = Duration::from_millis(100);

/// Characters of a line that no terminal limits.
const LINE_MAX: usize = 120;

/// Tasks under way that the picture has room for.
const ACTIVE_MAX: usize = 8;

/// What was shown.
pub struct Progress {
    bar: Option<ProgressBar>,
    /// As long as the bar is there.
    _silent: Option<output::Silent>,
    shown: HashMap<String, TaskStatus>,
    /// How many of them have ended.
    ended: u64,
    connected: bool,
}

impl Progress {
    /// For so many tasks of a PRD; 0: for those of the server.
    pub fn new(count: usize) -> Self {
        let bar = output::is_terminal().then(|| {
            let bar = ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX));
            let template = if count > 0 {
                "{msg}{bar:30} {pos} of {len} done, {elapsed}"
            } else {
                "{msg}{pos} done, {elapsed}"
            };
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            output::screen().add(bar)
        });
        let silent = bar.as_ref().and_then(|_| output::Silent::terminal());
        Self { bar, _silent: silent, shown: HashMap::new(), ended: 0, connected: false }
    }

    /// Shows the tasks that have changed, and those that are not over.
    pub fn show(
        &mut self,
        changed: &[LocalTask],
        open: &[&LocalTask],
        link: &Snapshot,
        phase: Phase,
    ) {
        for task in changed {
            let before = self.shown.insert(task.task_id.clone(), task.status);
            self.ended += u64::from(task.status.is_terminal());
            self.ended -= u64::from(before.is_some_and(TaskStatus::is_terminal));
            let is_news = task.status.is_terminal() || self.bar.is_none();
            if is_news && before != Some(task.status) && task.status != TaskStatus::Pending {
                let width = self.bar.as_ref().map_or(LINE_MAX, |_| output::terminal_width());
                output::say(&line(task, width));
            }
        }
        let Some(bar) = &self.bar else {
            if link.connected && !self.connected {
                output::say(&told(link));
            }
            self.connected = link.connected;
            return;
        };
        let width = output::terminal_width();
        let picture = picture(open, link, phase);
        bar.set_message(picture.iter().map(|line| cut(line, width - 1) + "\n").collect::<String>());
        bar.set_length(u64::try_from(self.shown.len()).unwrap_or(u64::MAX));
        bar.set_position(self.ended);
        bar.tick();
    }

    /// Leaves the screen to others.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The lines above the bar.
fn picture(open: &[&LocalTask], link: &Snapshot, phase: Phase) -> Vec<String> {
    let mut lines = Vec::new();
    let active: Vec<&&LocalTask> =
        open.iter().filter(|task| task.status != TaskStatus::Pending).collect();
    if phase > Phase::Running && !active.is_empty() {
        lines.push("stopping: what runs may end; Ctrl-C again stops at once".to_owned());
    }
    if link.server.is_some() {
        lines.push(told(link));
    }
    for task in active.iter().take(ACTIVE_MAX) {
        let percent = format!("{:.0} %", task.progress * 100.0);
        let agent = task.agent.as_deref().unwrap_or("-");
        let (status, text) = (task.status.as_str(), first(&task.description));
        lines.push(format!("  {status:<11} {percent:>5}  {agent}: {text}"));
    }
    if active.len() > ACTIVE_MAX {
        lines.push(format!("  and {} more", active.len() - ACTIVE_MAX));
    }
    lines
}

/// The state of the link, and what waits for it.
fn told(link: &Snapshot) -> String {
    let server = link.server.as_deref().unwrap_or_default();
    if link.connected {
        return format!("connected to {server} as {}", link.agent_id);
    }
    let waiting = match link.messages_pending {
        0 => String::new(),
        1 => "; 1 message waits".to_owned(),
        count => format!("; {count} messages wait"),
    };
    match &link.last_error {
        None => format!("connecting to {server}{waiting}"),
        Some(reason) => {
            let reason = reason.strip_prefix(&format!("cannot reach {server}: ")).unwrap_or(reason);
            format!("not connected to {server}{waiting}: {reason}")
        }
    }
}

/// What happened to a task.
fn line(task: &LocalTask, width: usize) -> String {
    let agent = task.agent.as_deref().unwrap_or("-");
    let text = format!("{:<11} {agent}: {}", task.status.as_str(), first(&task.description));
    let time = task.duration_seconds().map_or_else(String::new, |time| format!(" ({time:.1} s)"));
    cut(&text, width.saturating_sub(time.chars().count())) + &time
}

/// The first line of a description, without control characters.
fn first(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::prd;

    fn link(connected: bool, pending: u64, error: Option<&str>) -> Snapshot {
        serde_json::from_value(serde_json::json!({
            "connected": connected, "agent_id": "loki-1", "namespace": "default",
            "server": "http://server", "transport": null, "session_id": null, "since": null,
            "last_error": error, "messages": {}, "messages_pending": pending,
            "oldest_pending_seconds": null, "tasks": {}, "circuit": "closed", "version": "1",
        }))
        .unwrap()
    }

    #[test]
    fn a_text_is_cut_to_its_width() {
        assert_eq!(first("one\ntwo"), "one");
        assert_eq!(cut(&"ä".repeat(60), 60), "ä".repeat(60));
        assert_eq!(cut(&"ä".repeat(61), 60), format!("{}…", "ä".repeat(59)));
    }

    #[test]
    fn the_picture_tells_the_link_what_waits_and_what_runs() {
        assert_eq!(told(&link(true, 3, None)), "connected to http://server as loki-1");
        assert_eq!(told(&link(false, 0, None)), "connecting to http://server");
        assert_eq!(
            told(&link(false, 2, Some("cannot reach http://server: it is not there"))),
            "not connected to http://server; 2 messages wait: it is not there"
        );
        let text = "- [ ] one\n".repeat(12);
        let tasks = prd::parse(&text, "loki-1").unwrap().into_iter();
        let mut tasks: Vec<LocalTask> = tasks.map(|task| LocalTask::of_prd(task, 1, 0)).collect();
        for task in &mut tasks[1..11] {
            task.status = TaskStatus::InProgress;
            task.progress = 0.25;
        }
        tasks[0].started_at = Some(0);
        tasks[0].finish(TaskStatus::Completed, 5_000);
        assert_eq!(line(&tasks[0], 80), "completed   -: one (5.0 s)");
        assert_eq!(line(&tasks[0], 22), "completed   -… (5.0 s)");
        let open: Vec<&LocalTask> = tasks[1..].iter().collect();
        let lines = picture(&open, &link(true, 0, None), Phase::Running);
        assert_eq!(lines.len(), 1 + ACTIVE_MAX + 1, "{lines:#?}");
        assert_eq!(lines[1], "  in_progress  25 %  -: one");
        assert_eq!(lines.last().map(String::as_str), Some("  and 2 more"));
        let lines = picture(&open, &link(true, 0, None), Phase::Draining);
        assert!(lines[0].starts_with("stopping"), "{lines:#?}");
    }
}
