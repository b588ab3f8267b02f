//! A bar on the terminal while uploads are finished; a line now and then where there is no terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::daemon_report::describe_progress;
use crate::types::Progress;

/// When the first line comes where there is no terminal; each pause is twice as long as the one before, up to `LINES_MAX`.
const LINES: Duration = Duration::from_secs(5);
const LINES_MAX: Duration = Duration::from_mins(1);

/// What is done sooner shows no bar: it would only flash.
const APPEARS: Duration = Duration::from_millis(500);

/// Shows how much is still on its way.
#[derive(Debug)]
pub(super) struct UploadBar {
    bar: ProgressBar,
    begun: Instant,
    most: u64,
    /// Where there is no terminal.
    lines: Option<Lines>,
}

/// Lines of progress, for logs.
#[derive(Debug)]
struct Lines {
    name: String,
    last: Instant,
    pause: Duration,
}

impl UploadBar {
    /// A meter named after what it is about.
    pub(super) fn new(name: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            let lines = Lines { name: name.to_owned(), last: Instant::now(), pause: LINES };
            let bar = ProgressBar::hidden();
            return Self { bar, begun: Instant::now(), most: 0, lines: Some(lines) };
        }
        let style = ProgressStyle::with_template(
            "{prefix}: {bar:24} {binary_bytes} of {binary_total_bytes} sent, {binary_bytes_per_sec} {msg}",
        );
        // The template above is right; were it not, the default style does.
        let bar = ProgressBar::no_length()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let bar = bar.with_prefix(name.to_owned());
        Self { bar, begun: Instant::now(), most: 0, lines: None }
    }

    /// What is on its way now. More may be written meanwhile: then the whole grows.
    pub(super) fn show(&mut self, progress: &Progress) {
        if let Some(lines) = &mut self.lines {
            lines.show(progress);
            return;
        }
        if self.begun.elapsed() < APPEARS {
            return;
        }
        let sent = self.bar.position();
        self.most = self.most.max(sent + progress.unsent_bytes);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - progress.unsent_bytes);
        let trouble = progress.trouble.as_ref().map(|trouble| format!("(retrying: {trouble})"));
        self.bar.set_message(trouble.unwrap_or_default());
        self.bar.tick();
    }

    /// Prints a line of an answer without tearing the bar.
    pub(super) fn tell(&self, line: &str) {
        self.bar.suspend(|| say!("{line}"));
    }

    /// Prints a line for people without tearing the bar.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| complain!("{line}"));
    }
}

impl Lines {
    fn show(&mut self, progress: &Progress) {
        if self.last.elapsed() >= self.pause && !progress.is_done() {
            complain!("{}: {}", self.name, describe_progress(progress));
            self.last = Instant::now();
            self.pause = LINES_MAX.min(self.pause * 2);
        }
    }
}

impl Drop for UploadBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A count of things on the terminal.
#[derive(Debug)]
pub(super) struct CheckBar(ProgressBar);

impl CheckBar {
    /// A count named after what is counted.
    pub(super) fn new(name: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{prefix}: {bar:24} {pos} of {len}, {eta} left");
        // As above.
        let bar = ProgressBar::no_length()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar.with_prefix(name.to_owned()))
    }

    /// So many of so many.
    pub(super) fn show(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }
}

impl Drop for CheckBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
