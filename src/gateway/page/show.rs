//! Numbers and times for people.

use maud::{Markup, html};

use crate::gateway::metadata::rfc3339;
use crate::types::Timestamp;

/// `1.2 MB`: three digits at most, powers of a thousand.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    for unit in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        value /= 1000.0;
        // A value that would be rounded to 1000 is shown in the next unit.
        if value < 999.5 {
            return if value < 9.95 {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
    }
    "more than anyone has".to_owned()
}

/// `2026-11-23 09:00` from `2026-11-23T09:00:00.123Z`; script turns it into local time.
pub(super) fn minute(rfc3339: &str) -> String {
    rfc3339.get(..16).unwrap_or(rfc3339).replace('T', " ")
}

/// A time; script turns it into local time.
pub(super) fn when(time: Timestamp) -> Markup {
    let text = rfc3339(time);
    html! { time datetime=(text) { (minute(&text)) " UTC" } }
}

/// `1 change`, `2 changes`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_951, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (3 << 30, "3.2 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(minute("2026-11-23T09:00:00.123Z"), "2026-11-23 09:00");
    }
}
