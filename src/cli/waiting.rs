//! How far work is that takes long, for the person who waits at the terminal: what is being done,
//! since when, and for how long still. Elsewhere, and with `--json`, nothing is shown.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::arguments::Global;
use super::output;

/// How often what is shown is drawn again.
const REFRESH: Duration = Duration::from_millis(200);

/// Of work whose end is not known.
const OPEN: &str = "{spinner} {msg}, {elapsed}";

/// Of work whose end is known.
const BOUNDED: &str = "{msg} {bar:30} {percent:>3} %, {elapsed} so far{left}";

/// What is shown; dropped, it leaves the screen.
pub struct Waiting(Option<ProgressBar>);

impl Waiting {
    /// For a command that begins with this.
    pub fn new(global: &Global, what: &'static str) -> Self {
        Self::shown(!global.json, what)
    }

    /// The same for a command whose data tells how far it is, where it goes to the terminal too.
    pub fn beside_data(global: &Global, what: &'static str) -> Self {
        Self::shown(!global.json && !std::io::stdout().is_terminal(), what)
    }

    fn shown(is_wanted: bool, what: &'static str) -> Self {
        let bar = (is_wanted && output::is_terminal()).then(|| {
            let bar = output::screen().add(ProgressBar::new_spinner());
            bar.set_style(style(OPEN));
            bar.set_message(what);
            bar.enable_steady_tick(REFRESH);
            bar
        });
        Self(bar)
    }

    /// Whether somebody sees it, so that it is worth finding out how far it is.
    pub fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Now this is done, and its end is not known.
    pub fn step(&self, what: impl Into<Cow<'static, str>>) {
        if let Some(bar) = &self.0 {
            bar.set_style(style(OPEN));
            bar.set_message(what);
            bar.unset_length();
        }
    }

    /// So much of this is done; of nothing the end is not known.
    pub fn at(&self, done: u64, all: u64) {
        let Some(bar) = self.0.as_ref().filter(|_| all > 0) else { return };
        let is_new = bar.length().is_none();
        if is_new {
            bar.set_style(style(BOUNDED));
            // What went before says nothing of how fast this goes.
            bar.set_position(0);
            bar.reset_eta();
        }
        bar.set_length(all);
        bar.set_position(done.min(all));
        if is_new {
            // However soon it is over.
            bar.force_draw();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("left", left)
}

/// For how long still, once something is done by which that can be told.
fn left(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    if state.pos() > 0 && state.len().is_some_and(|all| state.pos() < all) {
        // What is drawn is in memory.
        let _ = write!(text, ", {:#} left", HumanDuration(state.eta()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_drawn() {
        for template in [OPEN, BOUNDED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        let bar = ProgressBar::hidden();
        let waiting = Waiting(Some(bar.clone()));
        waiting.at(0, 0);
        assert!(waiting.is_shown() && bar.length().is_none());
        waiting.at(30, 10);
        assert_eq!((bar.position(), bar.length()), (10, Some(10)));
        waiting.step("more");
        assert_eq!((bar.message().as_str(), bar.length()), ("more", None));
        drop(waiting);
        assert!(bar.is_finished());
    }
}
