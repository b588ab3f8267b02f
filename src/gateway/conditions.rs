//! Conditional requests (RFC 9110, section 13). Entity tags come from a file's version, dates from its mtime.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, header};

use crate::types::{Hash, Timestamp};

/// The first second since 1970 that an HTTP date cannot express: `httpdate` panics from there on.
const YEAR_10000: u64 = 253_402_300_800;

/// What a client compares its copy of a file with.
#[derive(Clone, Debug)]
pub(super) struct Validators {
    /// A strong tag, in its quotes; `None` while the file is being written.
    pub(super) etag: Option<String>,
    /// When the content last changed, in whole seconds; `None` if an HTTP date cannot express it.
    pub(super) modified: Option<SystemTime>,
}

/// The outcome of the conditions of a GET or HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Validators {
    pub(super) fn new(version: Option<Hash>, modified: Timestamp) -> Self {
        // 128 bits are enough to be unique to a version, and short enough to read.
        let etag = version.map(|version| format!("\"{}\"", &version.to_string()[..32]));
        let seconds = u64::try_from(modified.seconds).ok().filter(|seconds| *seconds < YEAR_10000);
        let modified = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Self { etag, modified }
    }

    /// The value of `Last-Modified`.
    pub(super) fn last_modified(&self) -> Option<String> {
        self.modified.map(httpdate::fmt_http_date)
    }

    /// Checks the conditions in the order of section 13.2.2.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Verdict {
        if let Some(tags) = text(headers, &header::IF_MATCH) {
            if !self.matches(&tags, Weak::Differs) {
                return Verdict::Failed;
            }
        } else if self.changed_since(headers, &header::IF_UNMODIFIED_SINCE) == Some(true) {
            return Verdict::Failed;
        }
        if let Some(tags) = text(headers, &header::IF_NONE_MATCH) {
            if self.matches(&tags, Weak::Same) {
                return Verdict::NotModified;
            }
        } else if self.changed_since(headers, &header::IF_MODIFIED_SINCE) == Some(false) {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether the conditions of a request allow its change. `there`: what the request would change; `None` if nothing.
    pub(super) fn allow_change(there: Option<&Self>, headers: &HeaderMap) -> bool {
        if let Some(tags) = text(headers, &header::IF_MATCH) {
            if !there.is_some_and(|own| own.matches(&tags, Weak::Differs)) {
                return false;
            }
        } else if there.is_some_and(|own| {
            own.changed_since(headers, &header::IF_UNMODIFIED_SINCE) == Some(true)
        }) {
            return false;
        }
        let tags = text(headers, &header::IF_NONE_MATCH);
        !tags.is_some_and(|tags| there.is_some_and(|own| own.matches(&tags, Weak::Same)))
    }

    /// `If-Range`: whether a part may be sent because the client has the rest of this very version. A date is no strong
    /// validator: a file can change twice in a second.
    pub(super) fn allows_part(&self, headers: &HeaderMap) -> bool {
        match text(headers, &header::IF_RANGE) {
            None => true,
            Some(tag) => self.etag.as_deref() == Some(tag.trim()),
        }
    }

    /// Whether the content changed after the date in a header. `None` if either date is missing: then the header is
    /// ignored (13.1.3, 13.1.4).
    fn changed_since(&self, headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
        Some(self.modified? > date(headers, name)?)
    }

    fn matches(&self, tags: &str, weak: Weak) -> bool {
        if tags.trim() == "*" {
            return true;
        }
        let Some(own) = self.etag.as_deref() else { return false };
        tags.split(',').map(str::trim).any(|tag| match (tag.strip_prefix("W/"), weak) {
            (Some(tag), Weak::Same) => tag == own,
            (Some(_), Weak::Differs) => false,
            (None, _) => tag == own,
        })
    }
}

/// Whether a weak tag matches the strong tag of the same text.
#[derive(Clone, Copy)]
enum Weak {
    Same,
    Differs,
}

/// All lines of a header as one list.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// The date in a header. An invalid one counts as missing.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use header::{
        IF_MATCH as MATCH, IF_MODIFIED_SINCE as SINCE, IF_NONE_MATCH as NONE,
        IF_UNMODIFIED_SINCE as UNTIL,
    };

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLIER: &str = "Sunday, 06-Nov-94 08:49:36 GMT";

    fn judge(lines: &[(HeaderName, &str)]) -> Verdict {
        let time = Timestamp { seconds: 784_111_777, nanos: 999 };
        let validators = Validators::new(Some(Hash([0xab; 32])), time);
        validators.judge(&headers(lines))
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        let own = format!("\"{}\"", "ab".repeat(16));
        let weak = format!("W/{own}");
        let list = format!("\"x\", {own}");
        for (lines, expected) in [
            (vec![], Verdict::Send),
            (vec![(NONE, own.as_str())], Verdict::NotModified),
            (vec![(NONE, &weak)], Verdict::NotModified),
            (vec![(NONE, &list)], Verdict::NotModified),
            (vec![(NONE, "*")], Verdict::NotModified),
            (vec![(NONE, "\"x\"")], Verdict::Send),
            (vec![(NONE, "\"x\""), (SINCE, DATE)], Verdict::Send),
            (vec![(MATCH, &own)], Verdict::Send),
            (vec![(MATCH, "*")], Verdict::Send),
            (vec![(MATCH, &weak)], Verdict::Failed),
            (vec![(MATCH, "\"x\"")], Verdict::Failed),
            (vec![(MATCH, &own), (UNTIL, EARLIER)], Verdict::Send),
            (vec![(UNTIL, EARLIER)], Verdict::Failed),
            (vec![(UNTIL, DATE)], Verdict::Send),
            (vec![(SINCE, DATE)], Verdict::NotModified),
            (vec![(SINCE, LATER)], Verdict::NotModified),
            (vec![(SINCE, EARLIER)], Verdict::Send),
            (vec![(SINCE, "yesterday")], Verdict::Send),
        ] {
            assert_eq!(judge(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_change_is_let_through_by_its_conditions() {
        let own =
            Validators::new(Some(Hash([0xab; 32])), Timestamp { seconds: 784_111_777, nanos: 0 });
        let tag = own.etag.clone().unwrap();
        for (lines, with, without) in [
            (vec![], true, true),
            (vec![(MATCH, tag.as_str())], true, false),
            (vec![(MATCH, "*")], true, false),
            (vec![(MATCH, "\"x\"")], false, false),
            (vec![(NONE, "*")], false, true),
            (vec![(NONE, &tag)], false, true),
            (vec![(NONE, "\"x\"")], true, true),
            (vec![(UNTIL, DATE)], true, true),
            (vec![(UNTIL, EARLIER)], false, true),
        ] {
            let headers = headers(&lines);
            assert_eq!(Validators::allow_change(Some(&own), &headers), with, "{lines:?}");
            assert_eq!(Validators::allow_change(None, &headers), without, "{lines:?}");
        }
    }

    #[test]
    fn a_time_that_http_cannot_say_is_none() {
        let of =
            |seconds| Validators::new(Some(Hash::ZERO), Timestamp { seconds, nanos: 999_999_999 });
        let last = 253_402_300_799;
        assert_eq!(of(last).last_modified().unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(of(0).last_modified().unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        for seconds in [last + 1, i64::MAX, -1, i64::MIN] {
            assert_eq!(of(seconds).last_modified(), None, "{seconds}");
            for name in [SINCE, UNTIL] {
                assert_eq!(of(seconds).judge(&headers(&[(name, DATE)])), Verdict::Send);
            }
        }
    }

    #[test]
    fn a_part_is_sent_only_of_the_version_that_the_client_has() {
        let validators = Validators::new(Some(Hash([0xab; 32])), Timestamp::default());
        let own = validators.etag.clone().unwrap();
        let allows = |value: &str| validators.allows_part(&headers(&[(header::IF_RANGE, value)]));
        assert!(allows(&own) && validators.allows_part(&HeaderMap::new()));
        assert!(!allows("\"x\"") && !allows(&format!("W/{own}")) && !allows(DATE));
        let writing = Validators::new(None, Timestamp::default());
        assert!(!writing.allows_part(&headers(&[(header::IF_RANGE, &own)])));
        assert_eq!(writing.judge(&headers(&[(header::IF_NONE_MATCH, &own)])), Verdict::Send);
    }
}
