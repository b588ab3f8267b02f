//! How a server differs from Amazon's, and how far it can be believed, as found out in use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// An echoed checksum is believed for objects up to this many times as long as the longest whose length a HEAD confirmed.
/// A store that truncates long bodies is exposed by the first of them.
const REACH: u64 = 16;

/// Observed deviations of a store.
#[derive(Debug, Default)]
pub(super) struct Quirks {
    /// It refuses a put with `x-amz-checksum-crc32`.
    pub(super) without_checksums: AtomicBool,
    /// It answers a range request with the whole object.
    pub(super) ignores_ranges: AtomicBool,
    /// It refuses `If-None-Match`, and only one machine writes to it: a HEAD precedes each put.
    pub(super) looks_first: AtomicBool,
    /// The length of the longest object whose checksum it echoed and whose length a HEAD confirmed.
    held: AtomicU64,
    /// Something in it was not what it should be: its echo alone proves nothing any more.
    keeps_less: AtomicBool,
}

/// The names of quirks in the file that remembers them. Of the other quirks, one shows by itself, and one is found out
/// anew.
const NO_CHECKSUMS: &str = "no checksums";
const KEEPS_LESS: &str = "keeps less";
const ECHO_HELD: &str = "echo held up to ";

impl Quirks {
    /// Whether an answer to a put that echoes the checksum of `length` bytes proves that they are there (C5).
    pub(super) fn echo_proves(&self, length: u64) -> bool {
        let held = self.held.load(Relaxed);
        held > 0 && length <= held.saturating_mul(REACH) && !self.keeps_less.load(Relaxed)
    }

    /// Notes that a HEAD confirmed the length of an object whose checksum the store had echoed.
    pub(super) fn echo_held(&self, length: u64) {
        self.held.fetch_max(length, Relaxed);
    }

    /// Notes that a HEAD or a GET contradicted what was put, or what must be there.
    pub(super) fn contradicted(&self, name: &str) {
        if !self.keeps_less.swap(true, Relaxed) {
            tracing::warn!(
                object = name,
                "the store holds less than it should: from now on it is asked after each put what is there"
            );
        }
    }

    /// The quirks in words for people, a line each.
    pub(super) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.without_checksums.load(Relaxed) {
            let line = "the store refuses checksums: what it took is verified by its ETag, or by reading it back";
            lines.push(line.to_owned());
        }
        if self.ignores_ranges.load(Relaxed) {
            let line =
                "the store ignores ranges: each cold read fetches a whole object, which is slow";
            lines.push(line.to_owned());
        }
        if self.keeps_less.load(Relaxed) {
            let line = "the store was seen to hold less than it should: it is asked after each put what is there, which \
                        doubles the requests; see s3vault check --read-data";
            lines.push(line.to_owned());
        }
        lines
    }

    /// What is worth remembering, a line each.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let flags = [(&self.without_checksums, NO_CHECKSUMS), (&self.keeps_less, KEEPS_LESS)];
        for (flag, line) in flags {
            if flag.load(Relaxed) {
                text.push_str(line);
                text.push('\n');
            }
        }
        match self.held.load(Relaxed) {
            0 => text,
            held => format!("{text}{ECHO_HELD}{held}\n"),
        }
    }

    /// Restores what was remembered; unknown lines are skipped. If checksums are no longer refused, the next put shows it.
    /// That the store held less than it should is never taken back.
    pub(super) fn recall(&self, text: &str) {
        let says = |word| text.lines().any(|line| line.trim() == word);
        self.without_checksums.store(says(NO_CHECKSUMS), Relaxed);
        self.keeps_less.fetch_or(says(KEEPS_LESS), Relaxed);
        let held =
            text.lines().filter_map(|line| line.trim().strip_prefix(ECHO_HELD)?.parse().ok());
        self.held.fetch_max(held.max().unwrap_or(0), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back() {
        let quirks = Quirks::default();
        assert!(quirks.text().is_empty() && quirks.describe().is_empty());
        quirks.without_checksums.store(true, Relaxed);
        let later = Quirks::default();
        later.recall(&format!("something new\n{}", quirks.text()));
        assert!(later.without_checksums.load(Relaxed));
        assert!(later.describe()[0].contains("read"));
        later.recall("");
        assert!(later.describe().is_empty());
    }

    #[test]
    fn c5_an_echo_is_worth_what_was_seen_of_it() {
        let quirks = Quirks::default();
        assert!(!quirks.echo_proves(0) && !quirks.echo_proves(1));
        quirks.echo_held(100);
        assert!(quirks.echo_proves(1600) && !quirks.echo_proves(1601));
        let later = Quirks::default();
        later.recall(&format!("echo held up to x\n{}", quirks.text()));
        assert!(later.echo_proves(1600) && !later.echo_proves(1601));
        later.contradicted("pack/1");
        assert!(!later.echo_proves(1) && later.describe()[0].contains("less"));
        let last = Quirks::default();
        last.recall(&later.text());
        last.recall(&quirks.text());
        last.echo_held(100);
        assert!(!last.echo_proves(1), "that is not forgotten");
    }
}
