//! The past state that a command means: `--at TIME|NAME`.

use std::time::{Duration, SystemTime};

use crate::os;
use crate::types::StateAt;

/// Units of `3h ago`, in seconds.
const UNITS: [(&str, u64); 13] = [
    ("s", 1),
    ("second", 1),
    ("m", 60),
    ("min", 60),
    ("minute", 60),
    ("h", 3600),
    ("hour", 3600),
    ("d", 86_400),
    ("day", 86_400),
    ("w", 604_800),
    ("week", 604_800),
    ("y", 31_557_600),
    ("year", 31_557_600),
];

/// Parses the value of `--at`. A text that is a time may also be a snapshot's name, which then takes precedence.
pub(super) fn state_at(text: &str) -> Result<StateAt, String> {
    if text.trim().is_empty() {
        return Err("it is empty; a time or the name of a snapshot is expected".into());
    }
    Ok(StateAt::Named(text.to_owned(), meant(text.trim()).map(Box::new)))
}

/// A moment: a time as [`state_at`] takes it, or a span, which counts back from now.
pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    let before = |span| SystemTime::now().checked_sub(span);
    let found = match meant(text.trim()) {
        Some(StateAt::Time(time)) => Some(time),
        Some(StateAt::Ago(ago)) => before(ago),
        Some(_) => None,
        None => span(text.trim()).and_then(before),
    };
    found.ok_or_else(|| "a time is RFC 3339, '2026-11-28 14:00', '3h ago' or 3h".to_owned())
}

/// The state that a text denotes, if it is not a name.
fn meant(text: &str) -> Option<StateAt> {
    if let Some(number) = text.strip_prefix("commit ") {
        return number.trim().parse().ok().map(StateAt::Commit);
    }
    if let Some(ago) = text.strip_suffix("ago") {
        return span(ago.trim()).map(StateAt::Ago);
    }
    if text == "now" {
        return Some(StateAt::Ago(Duration::ZERO));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(StateAt::Time(SystemTime::from(time)));
    }
    local(text).map(StateAt::Time)
}

/// `3h`, `3 hours`, `90s`.
fn span(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let unit = if unit.len() > 3 { unit.trim_end_matches('s') } else { unit };
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(*seconds)?))
}

/// `2026-11-28 14:00`, with or without seconds, or a day (its beginning), in local time.
fn local(text: &str) -> Option<SystemTime> {
    let (day, time) = match text.split_once([' ', 'T']) {
        Some((day, time)) => (day, time.trim()),
        None => (text, "0:00"),
    };
    let day: Vec<_> = day.split('-').collect();
    let time: Vec<_> = time.split(':').collect();
    let ([year, month, date], [hour, minute, rest @ ..]) = (&day[..], &time[..]) else {
        return None;
    };
    let second = match rest {
        [] => "0",
        [second] => second,
        _ => return None,
    };
    let number = |text: &str| text.parse::<i8>().ok();
    let date = jiff::civil::DateTime::new(
        year.parse().ok()?,
        number(month)?,
        number(date)?,
        number(hour)?,
        number(minute)?,
        number(second)?,
        0,
    );
    let date = date.ok()?;
    let (month, day) = (date.month().into(), date.day().into());
    let (hour, minute, second) = (date.hour().into(), date.minute().into(), date.second().into());
    os::local_time([date.year().into(), month, day, hour, minute, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<StateAt> {
        let StateAt::Named(name, meant) = state_at(text).unwrap() else { panic!("{text}") };
        assert_eq!(name, text);
        meant.map(|meant| *meant)
    }

    #[test]
    fn times_are_understood_as_people_write_them() {
        for (text, seconds) in [
            ("3h ago", 10_800),
            ("3 hours ago", 10_800),
            ("1 hour ago", 3600),
            ("2d ago", 172_800),
            ("30m ago", 1800),
            ("90s ago", 90),
            ("1w ago", 604_800),
            ("now", 0),
        ] {
            assert_eq!(at(text), Some(StateAt::Ago(Duration::from_secs(seconds))), "{text}");
        }
        let second = |seconds| StateAt::Time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at("2026-11-28T14:00:00Z"), Some(second(1_795_874_400)));
        assert_eq!(at("2026-11-28T15:00:00+01:00"), Some(second(1_795_874_400)));
        assert_eq!(at("commit 17"), Some(StateAt::Commit(17)));
        let Some(StateAt::Time(noon)) = at("2026-11-28 14:00") else { panic!("a local time") };
        assert_eq!(at("2026-11-28 14:00:00"), Some(StateAt::Time(noon)));
        assert_eq!(at("2026-11-28T14:00"), Some(StateAt::Time(noon)));
        let Some(StateAt::Time(midnight)) = at("2026-11-28") else { panic!("a day") };
        assert_eq!(noon.duration_since(midnight).unwrap(), Duration::from_hours(14));
    }

    #[test]
    fn what_is_no_time_is_a_name() {
        for text in
            ["before the move", "3x ago", "2026-13-01", "2026-11-28 25:00", "1-2-3-4", "h ago"]
        {
            assert_eq!(at(text), None, "{text}");
        }
        assert!(state_at(" ").is_err());
    }
}
