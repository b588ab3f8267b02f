//! A bar on the terminal while uploads are finished; nothing where there is no terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::types::Progress;

/// Shows how much is still on its way.
#[derive(Debug)]
pub(super) struct UploadBar {
    bar: ProgressBar,
    most: u64,
}

impl UploadBar {
    /// A meter named after what it is about.
    pub(super) fn new(name: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), most: 0 };
        }
        let style = ProgressStyle::with_template(
            "{prefix}: {bar:24} {binary_bytes} of {binary_total_bytes} sent, {binary_bytes_per_sec} {msg}",
        );
        // The template above is right; were it not, the default style does.
        let bar = ProgressBar::no_length()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar: bar.with_prefix(name.to_owned()), most: 0 }
    }

    /// What is on its way now. More may be written meanwhile: then the whole grows.
    pub(super) fn show(&mut self, progress: &Progress) {
        let sent = self.bar.position();
        self.most = self.most.max(sent + progress.unsent_bytes);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - progress.unsent_bytes);
        let trouble = progress.trouble.as_ref().map(|trouble| format!("(retrying: {trouble})"));
        self.bar.set_message(trouble.unwrap_or_default());
        self.bar.tick();
    }

    /// Prints a line without tearing the bar.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| complain!("{line}"));
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
