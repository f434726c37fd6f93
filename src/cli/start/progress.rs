//! Shows how the tasks of a PRD get on: a bar on a terminal, a line for each change elsewhere. It
//! shows nothing of a task's content but the first words of its description.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bridge::task::{LocalTask, TaskStatus};
use crate::cli::output;

/// How often a bar is drawn again.
pub const REFRESH: Duration = Duration::from_millis(500);

/// Characters of a description.
const TEXT_MAX: usize = 60;

/// What was shown.
pub struct Progress {
    bar: Option<ProgressBar>,
    shown: HashMap<String, TaskStatus>,
}

impl Progress {
    /// For so many tasks.
    pub fn new(count: usize) -> Self {
        let bar = (output::is_terminal() && count > 0).then(|| {
            let bar = ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX));
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, shown: HashMap::new() }
    }

    /// Shows what has changed.
    pub fn show(&mut self, tasks: &[LocalTask]) {
        for task in tasks {
            let before = self.shown.insert(task.task_id.clone(), task.status);
            if before == Some(task.status) || task.status == TaskStatus::Pending {
                continue;
            }
            let agent = task.agent.as_deref().unwrap_or("-");
            let text =
                format!("{:<11} {agent}: {}", task.status.as_str(), short(&task.description));
            match &self.bar {
                Some(bar) => bar.println(text),
                None => output::say(&text),
            }
        }
        if let Some(bar) = &self.bar {
            let ended = tasks.iter().filter(|task| task.status.is_terminal()).count();
            bar.set_position(u64::try_from(ended).unwrap_or(u64::MAX));
            let running = tasks.iter().find(|task| task.status == TaskStatus::InProgress);
            bar.set_message(running.map_or_else(String::new, |task| {
                format!("{:.0} % {}", task.progress * 100.0, short(&task.description))
            }));
        }
    }

    /// Leaves the screen to others.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The first line of a description, as far as it fits.
fn short(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let first: String = first.chars().filter(|c| !c.is_control()).take(TEXT_MAX + 1).collect();
    match first.char_indices().nth(TEXT_MAX) {
        Some((cut, _)) => format!("{}…", &first[..cut]),
        None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_shown_by_its_first_words() {
        assert_eq!(short("one\ntwo"), "one");
        assert_eq!(short(&"ä".repeat(61)), format!("{}…", "ä".repeat(60)));
    }
}
