//! A progress bar on the terminal while uploads are finished; without a terminal, occasional lines.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use parking_lot::Mutex;

use super::daemon_report::describe_progress;
use super::output::span;
use crate::types::Progress;

/// The delay of the first line without a terminal. Each pause is twice as long as the one before, up to `LINES_MAX`.
const LINES: Duration = Duration::from_secs(5);
const LINES_MAX: Duration = Duration::from_mins(1);

/// Anything faster shows no bar, which would only flash.
const APPEARS: Duration = Duration::from_millis(500);

/// The most characters of a name before a bar.
const NAME_MAX: usize = 25;

/// A bar takes what the rest of the line leaves of the terminal's width, so no line wraps.
const SENDING: &str =
    "{prefix}: {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}{left}";
const RETRYING: &str = "{prefix}: {binary_bytes} of {binary_total_bytes}; retrying: {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    // The templates here are valid; if one were not, the default style would be used.
    let style = ProgressStyle::with_template(template);
    let left = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // Before anything has moved, nobody knows.
        if state.per_sec() > 0.0 {
            // The bar can be drawn without it.
            let _ = write!(text, ", {} left", span(state.eta().as_secs()));
        }
    };
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("left", left)
}

/// The end of a name, which tells more than its beginning, in a third of a usual line.
fn shortened(name: &str) -> String {
    match name.chars().rev().nth(NAME_MAX) {
        None => name.to_owned(),
        Some(_) => {
            let kept: Vec<char> = name.chars().rev().take(NAME_MAX).collect();
            std::iter::once('…').chain(kept.into_iter().rev()).collect()
        }
    }
}

/// Shows how much is still unsent.
#[derive(Debug)]
pub(super) struct UploadBar {
    bar: ProgressBar,
    begun: Instant,
    /// Whether the bar has been drawn. A bar that has not is not drawn for a line, either.
    is_drawn: bool,
    most: u64,
    /// The part of `most` that the bucket has confirmed.
    confirmed: u64,
    /// What the store had taken at the first look.
    moved: Option<u64>,
    /// Used without a terminal.
    lines: Option<Lines>,
}

/// Lines of progress, for logs.
#[derive(Debug)]
struct Lines {
    name: String,
    last: Instant,
    pause: Duration,
    /// What the store had taken at the last line, or at the first look.
    moved: Option<u64>,
}

impl UploadBar {
    /// A bar labelled with what it is about.
    pub(super) fn new(name: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            let lines =
                Lines { name: name.to_owned(), last: Instant::now(), pause: LINES, moved: None };
            let bar = ProgressBar::hidden();
            return Self {
                bar,
                begun: Instant::now(),
                is_drawn: false,
                most: 0,
                confirmed: 0,
                moved: None,
                lines: Some(lines),
            };
        }
        let bar = ProgressBar::no_length().with_style(style(SENDING)).with_prefix(shortened(name));
        let begun = Instant::now();
        let (is_drawn, most, confirmed, moved, lines) = (false, 0, 0, None, None);
        Self { bar, begun, is_drawn, most, confirmed, moved, lines }
    }

    /// Shows what is unsent now. If more is written meanwhile, the total grows.
    pub(super) fn show(&mut self, progress: &Progress) {
        if let Some(lines) = &mut self.lines {
            lines.show(progress);
            return;
        }
        if self.begun.elapsed() < APPEARS {
            return;
        }
        self.is_drawn = true;
        let moved = progress.moved_bytes;
        let sent = moved.saturating_sub(*self.moved.get_or_insert(moved));
        self.most = self.most.max(self.confirmed + progress.unsent_bytes);
        self.confirmed = self.most - progress.unsent_bytes;
        self.bar.set_length(self.most);
        // A pack counts as unsent until its last byte is sent, so bytes that were sent of it are shown, too.
        self.bar.set_position(self.confirmed.max(sent.min(self.most)));
        self.bar.set_style(style(if progress.trouble.is_some() { RETRYING } else { SENDING }));
        self.bar.set_message(progress.trouble.clone().unwrap_or_default());
        self.bar.tick();
    }

    /// Prints a line of an answer without tearing the bar.
    pub(super) fn tell(&self, line: &str) {
        match self.is_drawn {
            true => self.bar.suspend(|| say!("{line}")),
            false => say!("{line}"),
        }
    }

    /// Prints a line for the user without tearing the bar.
    pub(super) fn say(&self, line: &str) {
        match self.is_drawn {
            true => self.bar.suspend(|| complain!("{line}")),
            false => complain!("{line}"),
        }
    }
}

impl Lines {
    fn show(&mut self, progress: &Progress) {
        self.moved.get_or_insert(progress.moved_bytes);
        if self.last.elapsed() >= self.pause && !progress.is_done() {
            let moved = progress.moved_bytes.saturating_sub(self.moved.unwrap_or_default());
            let rate = u64::try_from(self.last.elapsed().as_millis())
                .ok()
                .and_then(|time| moved.saturating_mul(1000).checked_div(time));
            let rate = rate.filter(|rate| *rate > 0);
            let rate = rate.map(|rate| format!("; {}/s", ByteSize::b(rate))).unwrap_or_default();
            complain!("{}: {}{rate}", self.name, describe_progress(progress));
            self.moved = Some(progress.moved_bytes);
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

/// The progress of work on many files.
#[derive(Debug, Default)]
pub(super) struct WorkTally {
    /// Entries that were found.
    pub found: AtomicU64,
    /// Entries that are done, including those that existed already.
    pub done: AtomicU64,
    /// Entries that existed already.
    pub there: AtomicU64,
    /// Bytes of the files that were found.
    pub bytes_found: AtomicU64,
    /// Bytes that were transferred.
    pub bytes: AtomicU64,
}

/// Shows the progress of work on files if it takes longer than a moment: on a terminal a line that is overwritten,
/// otherwise a line now and then.
#[derive(Debug)]
pub(super) struct WorkBar {
    name: String,
    begun: Instant,
    bar: Option<ProgressBar>,
    next_line: Mutex<(Duration, Duration)>,
}

impl WorkBar {
    /// How often it is updated.
    pub(super) const TICK: Duration = Duration::from_millis(200);
    /// Faster work shows no bar.
    const MOMENT: Duration = Duration::from_secs(1);

    /// A bar labelled with the verb.
    pub(super) fn new(name: &str) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::no_length().with_style(style("{wide_msg}")));
        Self {
            name: name.to_owned(),
            begun: Instant::now(),
            bar,
            next_line: Mutex::new((LINES, LINES)),
        }
    }

    /// Updates the bar.
    pub(super) fn show(&self, tally: &WorkTally) {
        let since = self.begun.elapsed();
        if let Some(bar) = &self.bar {
            if since >= Self::MOMENT {
                bar.set_message(self.line(tally));
                bar.tick();
            }
            return;
        }
        let mut next = self.next_line.lock();
        if since >= next.0 {
            next.1 = LINES_MAX.min(next.1 * 2);
            next.0 = since + next.1;
            complain!("{}", self.line(tally));
        }
    }

    fn line(&self, tally: &WorkTally) -> String {
        let [done, found, bytes, all, there] =
            [&tally.done, &tally.found, &tally.bytes, &tally.bytes_found, &tally.there]
                .map(|count| count.load(Relaxed));
        let rate = bytes.saturating_mul(1000)
            / u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(1).max(1);
        let of = if all > bytes { format!(" of {}", ByteSize::b(all)) } else { String::new() };
        let left = all.saturating_sub(bytes).checked_div(rate).filter(|left| *left > 0);
        let left = left.map_or_else(String::new, |left| format!(", {} left", span(left)));
        let there =
            if there > 0 { format!(", {there} of them there already") } else { String::new() };
        format!(
            "{}: {done} of {} done{there}, {}{of}, {}/s{left}",
            self.name,
            found.max(done),
            ByteSize::b(bytes),
            ByteSize::b(rate)
        )
    }

    /// Prints a line for the user without tearing the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| complain!("{line}")),
            None => complain!("{line}"),
        }
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A counter on the terminal.
#[derive(Debug)]
pub(super) struct CheckBar(ProgressBar);

impl CheckBar {
    /// A counter labelled with what is counted.
    pub(super) fn new(name: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = style("{prefix}: {wide_bar} {pos} of {len}{left}");
        Self(ProgressBar::no_length().with_style(style).with_prefix(shortened(name)))
    }

    /// Shows `done` of `all`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_leaves_room_for_the_bar() {
        assert_eq!(shortened("/home/u/vault"), "/home/u/vault");
        let short = shortened("/home/user/projects/2026/ä vault with a name");
        assert!(short.starts_with('…') && short.ends_with("/ä vault with a name"), "{short}");
        assert_eq!(short.chars().count(), NAME_MAX + 1);
    }
}
