//! In what a server differs from Amazon's, found out while it is used. Nothing here decides what is believed: only how
//! it is asked.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a store was seen to do otherwise.
#[derive(Debug, Default)]
pub(super) struct Quirks {
    /// It refuses a put with `x-amz-checksum-crc32`.
    pub(super) without_checksums: AtomicBool,
    /// It answers a range by the whole object.
    pub(super) ignores_ranges: AtomicBool,
    /// It refuses `If-None-Match`, and one machine alone writes there: we look before each put.
    pub(super) looks_first: AtomicBool,
}

/// How the file that remembers quirks names the first. The second shows by itself, and the third is found out anew.
const NO_CHECKSUMS: &str = "no checksums";

impl Quirks {
    /// For people, a line each.
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
        lines
    }

    /// What is worth remembering: a line for each.
    pub(super) fn text(&self) -> String {
        if self.without_checksums.load(Relaxed) {
            format!("{NO_CHECKSUMS}\n")
        } else {
            String::new()
        }
    }

    /// Takes in what was remembered; unknown lines are passed over. What is not so any more shows at the next put.
    pub(super) fn recall(&self, text: &str) {
        self.without_checksums.store(text.lines().any(|line| line.trim() == NO_CHECKSUMS), Relaxed);
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
}
