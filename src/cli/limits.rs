//! Limits in text form: on the command line, in the configuration, and sent to a running daemon.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::collections::BTreeMap;

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};

use crate::types::{GIB, KIB, MIB, RateSchedule, RateWindow, StoreLimits};

/// The group of these options in `--help`.
const LIMITS: &str = "What it may ask of the store";

/// The lowest rates that work: stores abort transfers that stall, and readers wait for at most half a minute.
const UP_MIN: u64 = 16 * KIB;
const DOWN_MIN: u64 = 64 * KIB;
/// The most windows of a schedule.
const WINDOWS_MAX: usize = 32;
/// One slot is reserved for reads, so there must be two at least.
const REQUESTS_MIN: u32 = 2;
const REQUESTS_MAX: u32 = 10_000;
/// S3's limits for tags.
const TAGS_MAX: usize = 10;
const TAG_KEY_MAX: usize = 128;
const TAG_VALUE_MAX: usize = 256;
/// The word that removes a limit.
const UNLIMITED: &str = "unlimited";
/// Storage classes whose objects must be restored for hours before they can be read.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// Limits in words; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LimitWords {
    /// Send at most so much: 2MiB/s, 16Mbit/s; or by the time of the day: '08:00-18:00=2MiB/s,20MiB/s' (the last is for
    /// all other times); or unlimited
    #[arg(help_heading = LIMITS, long, value_name = "RATE", value_parser = up)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_up: Option<String>,
    /// Fetch at most so much; as --bandwidth-up
    #[arg(help_heading = LIMITS, long, value_name = "RATE", value_parser = down)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_down: Option<String>,
    /// Requests to the store at once, at least 2; or unlimited
    #[arg(help_heading = LIMITS, long, value_name = "N", value_parser = checked(requests))]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    pub max_requests: Option<String>,
    /// The storage class of the objects that hold file contents, as STANDARD_IA; or default
    #[arg(help_heading = LIMITS, long, value_name = "CLASS", value_parser = checked(class))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// A tag for each object that is put; may be repeated; or none
    #[arg(help_heading = LIMITS, long = "tag", value_name = "KEY=VALUE", value_parser = checked(tag))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Read at most so much ahead of a program that reads in order; 0: nothing; or auto
    #[arg(help_heading = LIMITS, long, value_name = "SIZE", value_parser = checked(read_ahead))]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    pub read_ahead: Option<String>,
}

/// In TOML, a value may also be a number.
fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrNumber {
        Text(String),
        Number(u64),
    }
    Ok(Some(match TextOrNumber::deserialize(from)? {
        TextOrNumber::Text(text) => text,
        TextOrNumber::Number(number) => number.to_string(),
    }))
}

/// A parser that checks the text and keeps it.
fn checked<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static
where
    T: 'static,
{
    move |text| parse(text).map(|_| text.to_owned())
}

fn up(text: &str) -> Result<String, String> {
    schedule(text, UP_MIN).map(|_| text.to_owned())
}

fn down(text: &str) -> Result<String, String> {
    schedule(text, DOWN_MIN).map(|_| text.to_owned())
}

impl LimitWords {
    /// Whether no limit is named.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Applies the limits that are named. An error says which word is not understood.
    pub(super) fn apply(&self, limits: &mut StoreLimits) -> Result<(), String> {
        let of = |name: &str, error: String| format!("{name}: {error}");
        if let Some(text) = &self.bandwidth_up {
            limits.bandwidth_up =
                schedule(text, UP_MIN).map_err(|error| of("bandwidth-up", error))?;
        }
        if let Some(text) = &self.bandwidth_down {
            limits.bandwidth_down =
                schedule(text, DOWN_MIN).map_err(|error| of("bandwidth-down", error))?;
        }
        if let Some(text) = &self.max_requests {
            limits.max_requests = requests(text).map_err(|error| of("max-requests", error))?;
        }
        if let Some(text) = &self.storage_class {
            limits.storage_class = class(text).map_err(|error| of("storage-class", error))?;
        }
        if let Some(text) = &self.read_ahead {
            limits.read_ahead = read_ahead(text).map_err(|error| of("read-ahead", error))?;
        }
        if !self.tags.is_empty() {
            let mut tags = BTreeMap::new();
            for text in &self.tags {
                tags.extend(tag(text).map_err(|error| of("tag", error))?);
            }
            if tags.len() > TAGS_MAX {
                return Err(format!("tag: an object has {TAGS_MAX} at most"));
            }
            limits.tags = tags;
        }
        Ok(())
    }
}

/// `08:00-18:00=2MiB/s,20MiB/s`
fn schedule(text: &str, least: u64) -> Result<RateSchedule, String> {
    let mut schedule = RateSchedule::default();
    let mut parts = text.split(',').map(str::trim).peekable();
    while let Some(part) = parts.next() {
        match part.split_once('=') {
            Some((time, limit)) => {
                let (from, until) = window(time.trim())?;
                let rate = rate(limit.trim(), least)?;
                schedule.windows.push(RateWindow { from, until, rate });
            }
            None if parts.peek().is_none() => schedule.otherwise = rate(part, least)?,
            None => return Err(format!("{part} is for all other times: it comes last")),
        }
    }
    if schedule.windows.len() > WINDOWS_MAX {
        return Err(format!("a day has {WINDOWS_MAX} parts at most"));
    }
    Ok(schedule)
}

/// `08:00-18:00`, in seconds of the day.
fn window(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("{text} is no part of a day: one is 08:00-18:00, or 22:00-06:00");
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (hour, minute) = (digits(hour).then_some(hour)?, digits(minute).then_some(minute)?);
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        let all = hour.checked_mul(60)?.checked_add(minute)?;
        (minute < 60 && all <= 24 * 60).then_some(all * 60 % (24 * 3600))
    };
    let (from, until) = text.split_once('-').ok_or_else(wrong)?;
    let (from, until) = (time(from).ok_or_else(wrong)?, time(until).ok_or_else(wrong)?);
    Ok((from, until))
}

/// `2MiB/s`, `16Mbit/s`, `unlimited`.
fn rate(text: &str, least: u64) -> Result<Option<u64>, String> {
    if text == UNLIMITED {
        return Ok(None);
    }
    let wrong = || format!("{text} is no rate: one is 2MiB/s, 500kB/s, 16Mbit/s or {UNLIMITED}");
    let size = text.strip_suffix("/s").unwrap_or(text).trim();
    let bits = [("kbit", 1000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)];
    let bits = bits.iter().find_map(|(unit, many)| Some((size.strip_suffix(unit)?, *many)));
    let bytes = match bits {
        Some((number, many)) => {
            let number: u64 = number.trim().parse().map_err(|_| wrong())?;
            number.checked_mul(many).ok_or_else(wrong)? / 8
        }
        None => size.parse::<ByteSize>().map_err(|_| wrong())?.as_u64(),
    };
    // A higher rate is no limit in practice, and would overflow the computation of the time.
    if bytes > 1 << 50 {
        return Err(wrong());
    }
    if bytes < least {
        let least = rate_text(Some(least));
        return Err(format!("{text} is too slow: less than {least} does not work"));
    }
    Ok(Some(bytes))
}

fn requests(text: &str) -> Result<Option<u32>, String> {
    if text == UNLIMITED {
        return Ok(None);
    }
    let number = text.parse().ok();
    let number = number.filter(|number| (REQUESTS_MIN..=REQUESTS_MAX).contains(number));
    let wrong = || {
        format!(
            "{text}: it is a number of {REQUESTS_MIN} (one place is for reads) to {REQUESTS_MAX}, or {UNLIMITED}"
        )
    };
    number.map(Some).ok_or_else(wrong)
}

fn class(text: &str) -> Result<Option<String>, String> {
    if text == "default" {
        return Ok(None);
    }
    if ARCHIVES.contains(&text) {
        return Err(format!(
            "objects in {text} cannot be read before they were brought back, which takes hours: every file would fail; \
             GLACIER_IR is cold and can be read at once"
        ));
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
        return Err(format!("{text} is no storage class: one is STANDARD_IA"));
    }
    Ok(Some(text.to_owned()))
}

/// A tag, or `none`.
fn tag(text: &str) -> Result<Option<(String, String)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = |why: &str| Err(format!("{text}: {why}"));
    let Some((key, value)) = text.split_once('=') else { return wrong("a tag is KEY=VALUE") };
    let good = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
    if key.is_empty() || !text.chars().all(good) {
        return wrong("a tag has letters, digits, blanks and + - = . _ : / @");
    }
    if key.chars().count() > TAG_KEY_MAX || value.chars().count() > TAG_VALUE_MAX {
        return wrong("a tag's key has 128 letters at most, its value 256");
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return wrong("keys that begin with aws: are Amazon's own");
    }
    Ok(Some((key.to_owned(), value.to_owned())))
}

fn read_ahead(text: &str) -> Result<Option<u64>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| Some(size.as_u64()))
        .map_err(|_| format!("{text} is no size: one is 8MiB, or auto"))
}

/// A size in a form that can be parsed again.
fn size_text(bytes: u64) -> String {
    let units = [
        (GIB, "GiB"),
        (MIB, "MiB"),
        (KIB, "KiB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1000, "kB"),
    ];
    let whole = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

pub(super) fn rate_text(rate: Option<u64>) -> String {
    rate.map_or_else(|| UNLIMITED.to_owned(), |rate| format!("{}/s", size_text(rate)))
}

fn schedule_text(schedule: &RateSchedule) -> String {
    let clock = |second: u32| format!("{:02}:{:02}", second / 3600, second / 60 % 60);
    let windows = schedule.windows.iter().map(|window| {
        format!("{}-{}={}", clock(window.from), clock(window.until), rate_text(window.rate))
    });
    let all: Vec<_> = windows.chain([rate_text(schedule.otherwise)]).collect();
    all.join(",")
}

/// Each limit: its name, and its value in a form that can be parsed again.
pub(super) fn described(limits: &StoreLimits) -> [(&'static str, String); 6] {
    let tags: Vec<_> = limits.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let tags = if tags.is_empty() { "none".to_owned() } else { tags.join(", ") };
    let most = limits.max_requests.map_or_else(|| UNLIMITED.to_owned(), |most| most.to_string());
    [
        ("bandwidth-up", schedule_text(&limits.bandwidth_up)),
        ("bandwidth-down", schedule_text(&limits.bandwidth_down)),
        ("max-requests", most),
        ("storage-class", limits.storage_class.clone().unwrap_or_else(|| "default".to_owned())),
        ("tag", tags),
        ("read-ahead", limits.read_ahead.map_or_else(|| "auto".to_owned(), size_text)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(words: &LimitWords) -> Result<StoreLimits, String> {
        let mut limits = StoreLimits::default();
        words.apply(&mut limits).map(|()| limits)
    }

    #[test]
    fn rates_and_schedules_are_understood_and_read_back() {
        for (text, bytes) in [
            ("2MiB/s", 2 * MIB),
            ("2MiB", 2 * MIB),
            ("500kB/s", 500_000),
            ("16Mbit/s", 2_000_000),
            ("1 Gbit/s", 125_000_000),
            ("100000", 100_000),
        ] {
            let found = schedule(text, DOWN_MIN).unwrap();
            assert_eq!((found.otherwise, found.windows.len()), (Some(bytes), 0), "{text}");
            assert_eq!(schedule(&schedule_text(&found), 0).unwrap(), found);
        }
        let found = schedule("08:00-18:00=2MiB/s, 22:00-6:00=unlimited,20MiB/s", UP_MIN).unwrap();
        assert_eq!(schedule_text(&found), "08:00-18:00=2MiB/s,22:00-06:00=unlimited,20MiB/s");
        assert_eq!(schedule(&schedule_text(&found), 0).unwrap(), found);
        assert_eq!(schedule("unlimited", UP_MIN).unwrap(), RateSchedule::default());
        assert_eq!(schedule("8:00-24:00=1MiB/s", 0).unwrap().windows[0].until, 0);
        for bad in [
            "",
            "fast",
            "2MiB/h",
            "15KiB/s",
            "0",
            "2MiB/s,3MiB/s",
            "8-18=2MiB/s",
            "08:00-25:00=2MiB/s",
            "08:61-09:00=2MiB/s",
            "+8:00-9:00=2MiB/s",
            "08:00-18:00=",
            "99999999999999999999MiB/s",
        ] {
            assert!(schedule(bad, UP_MIN).is_err(), "{bad}");
        }
        assert!(schedule("63KiB/s", DOWN_MIN).unwrap_err().contains("64KiB/s"));
    }

    #[test]
    fn the_rest_is_understood_and_what_cannot_work_is_refused() {
        let said = |text: &str| Some(text.to_owned());
        let limits = applied(&LimitWords {
            max_requests: said("32"),
            storage_class: said("STANDARD_IA"),
            tags: vec!["owner=me".to_owned(), "what=a b=c".to_owned()],
            read_ahead: said("8MiB"),
            ..LimitWords::default()
        });
        let limits = limits.unwrap();
        assert_eq!((limits.max_requests, limits.read_ahead), (Some(32), Some(8 * MIB)));
        assert_eq!(limits.tags["what"], "a b=c");
        let shown = described(&limits).map(|(_, value)| value);
        assert_eq!(
            shown,
            ["unlimited", "unlimited", "32", "STANDARD_IA", "owner=me, what=a b=c", "8MiB"]
        );
        let mut back = limits.clone();
        let none = LimitWords {
            max_requests: said("unlimited"),
            storage_class: said("default"),
            tags: vec!["none".to_owned()],
            read_ahead: said("auto"),
            ..LimitWords::default()
        };
        none.apply(&mut back).unwrap();
        assert_eq!(back, StoreLimits::default());
        LimitWords::default().apply(&mut back).unwrap();
        assert_eq!(back, StoreLimits::default());
        for archive in ARCHIVES {
            assert!(class(archive).unwrap_err().contains("takes hours"));
        }
        for bad in ["1", "0", "-3", "many", "10001"] {
            assert!(requests(bad).is_err(), "{bad}");
        }
        for bad in ["x", "=x", "aws:x=y", "a=b\n", "a=b&c"] {
            assert!(tag(bad).is_err(), "{bad}");
        }
        assert!(class("a b").is_err() && read_ahead("much").is_err());
        let many = (0..11).map(|n| format!("{n}=x")).collect();
        assert!(applied(&LimitWords { tags: many, ..LimitWords::default() }).is_err());
    }

    #[test]
    fn the_configuration_says_them_in_the_same_words() {
        let text =
            "bandwidth-up = \"2MiB/s\"\nmax-requests = 8\ntags = [\"a=b\"]\nread-ahead = 0\n";
        let words: LimitWords = toml::from_str(text).unwrap();
        let limits = applied(&words).unwrap();
        assert_eq!((limits.max_requests, limits.read_ahead), (Some(8), Some(0)));
        assert_eq!(toml::from_str::<LimitWords>(&toml::to_string(&words).unwrap()).unwrap(), words);
        assert!(toml::from_str::<LimitWords>("bandwidth-top = \"1MiB/s\"").is_err());
    }
}
