//! The `Range` header (RFC 9110, section 14): one range of bytes, or the whole file.

use std::ops::Range;

/// The part of a file that a `Range` selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// The whole file, with 200: there is no `Range`, or one that may be ignored (another unit, several ranges,
    /// malformed).
    All,
    /// These bytes, with 206; never empty.
    Part(Range<u64>),
    /// No bytes that exist: 416.
    Beyond,
}

/// Parses the header for a file of `size` bytes.
pub(super) fn requested(header: Option<&str>, size: u64) -> RequestedRange {
    let Some(set) = header.and_then(|header| {
        let (unit, set) = header.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(set.trim())
    }) else {
        return RequestedRange::All;
    };
    let Some((first, last)) = set.split_once('-').filter(|_| !set.contains(',')) else {
        return RequestedRange::All;
    };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => RequestedRange::All,
        (Some(first), _) if last.is_empty() || number(last).is_some() => {
            let end = number(last).map_or(size, |last| last.saturating_add(1).min(size));
            if first < size { RequestedRange::Part(first..end) } else { RequestedRange::Beyond }
        }
        (None, Some(count)) if first.is_empty() => {
            let count = count.min(size);
            if count > 0 {
                RequestedRange::Part(size - count..size)
            } else {
                RequestedRange::Beyond
            }
        }
        _ => RequestedRange::All,
    }
}

/// Digits only; a number that overflows becomes `u64::MAX`.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_heeded_and_nothing_else() {
        let part = |range: Range<u64>| RequestedRange::Part(range);
        for (header, size, expected) in [
            ("bytes=0-0", 10, part(0..1)),
            ("bytes=2-5", 10, part(2..6)),
            ("BYTES = 2-", 10, part(2..10)),
            ("bytes=9-100", 10, part(9..10)),
            ("bytes=-3", 10, part(7..10)),
            ("bytes=-30", 10, part(0..10)),
            ("bytes=0-99999999999999999999", 10, part(0..10)),
            ("bytes=10-", 10, RequestedRange::Beyond),
            ("bytes=10-12", 10, RequestedRange::Beyond),
            ("bytes=-0", 10, RequestedRange::Beyond),
            ("bytes=0-", 0, RequestedRange::Beyond),
            ("bytes=-5", 0, RequestedRange::Beyond),
            ("bytes=5-2", 10, RequestedRange::All),
            ("bytes=0-1,4-5", 10, RequestedRange::All),
            ("bytes=", 10, RequestedRange::All),
            ("bytes=-", 10, RequestedRange::All),
            ("bytes=a-b", 10, RequestedRange::All),
            ("bytes=+1-2", 10, RequestedRange::All),
            ("bytes=1--2", 10, RequestedRange::All),
            ("lines=0-1", 10, RequestedRange::All),
            ("0-1", 10, RequestedRange::All),
        ] {
            assert_eq!(requested(Some(header), size), expected, "{header} of {size}");
        }
        assert_eq!(requested(None, 10), RequestedRange::All);
    }
}
