//! `s3vault status --watch`: the state of mounts and services, updated every second.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use tokio::signal::unix::{SignalKind, signal};

use super::ask::report_of;
use super::check::noted_at;
use crate::cli::config::Config;
use crate::cli::daemon_report::{DaemonReport, plural};
use crate::cli::exit::{CliResult, Failure};
use crate::cli::messages::when;
use crate::cli::output::{self, span};
use crate::cli::paths::UserPaths;
use crate::cli::prices::Prices;
use crate::cli::registry::RunningDaemon;
use crate::os::{self, Screen};
use crate::types::{Progress, Timestamp, printable};

/// The interval between two updates.
const TICK: Duration = Duration::from_secs(1);
/// How quickly a key press is noticed.
const KEYS: Duration = Duration::from_millis(100);
/// The number of updates over which a rate is averaged.
const LOOKS: usize = 8;
/// Columns of a label before its value.
const NAMES: usize = 13;
/// Ctrl-C.
const CTRL_C: u8 = 3;

/// The style of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Head,
    Good,
    Waiting,
    Bad,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Waiting => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// What was observed of one daemon.
#[derive(Debug, Default)]
struct MovedLooks {
    /// When, and how much the store had taken by then.
    looks: VecDeque<(Instant, u64)>,
    /// The amount of unsent data when it last changed, and how much the store had taken by then.
    since: (u64, u64),
}

/// The speed of the uploads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct UploadPace {
    /// Bytes per second, over the last seconds.
    rate: u64,
    /// Bytes left to send. A pack counts as unsent until its last byte is sent, so what was seen to move since is
    /// subtracted.
    left: u64,
}

impl MovedLooks {
    fn pace(&mut self, progress: &Progress, now: Instant) -> UploadPace {
        let (unsent, moved) = (progress.unsent_bytes, progress.moved_bytes);
        if self.looks.is_empty() || self.since.0 != unsent {
            self.since = (unsent, moved);
        }
        let left = unsent.saturating_sub(moved.saturating_sub(self.since.1));
        UploadPace { rate: self.rate(moved, now), left }
    }

    /// Bytes per second to the store, over the last seconds.
    fn rate(&mut self, moved: u64, now: Instant) -> u64 {
        self.looks.push_back((now, moved));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        let Some((then, before)) = self.looks.front().copied() else { return 0 };
        let time = u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX);
        moved.saturating_sub(before).saturating_mul(1000).checked_div(time).unwrap_or(0)
    }
}

/// Shows the daemons that `chosen` finds, until the user has seen enough.
pub(super) async fn watch(
    paths: &UserPaths,
    chosen: impl Fn() -> CliResult<Vec<RunningDaemon>>,
) -> CliResult {
    let prices = Config::read(&paths.config)?.prices;
    let failed = |error| Failure::io("the terminal", &error);
    chosen()?; // report errors in the command line before taking over the screen
    let mut seen: HashMap<u32, MovedLooks> = HashMap::new();
    let Some(screen) = Screen::open().map_err(failed)? else {
        return lines(&chosen, &mut seen).await;
    };
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut ends = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        ends.push(signal(kind).map_err(failed)?);
    }
    let [terminated, interrupted, hung_up] = &mut ends[..] else { return Ok(()) };
    let mut drawn = None::<Instant>;
    loop {
        if drawn.is_none_or(|drawn| drawn.elapsed() >= TICK) {
            drawn = Some(Instant::now());
            let mut text = Vec::new();
            for running in chosen().unwrap_or_default() {
                let (report, now) = (report_of(&running), Instant::now());
                let pace = seen.entry(running.pid).or_default().pace(&report.progress, now);
                text.extend(page(&report, pace, prices.as_ref()));
                let checked = os::read_small(&noted_at(paths, &report.vault), 1000).ok().flatten();
                let checked = checked.and_then(|noted| String::from_utf8(noted).ok());
                let checked = checked.unwrap_or_else(|| "none by this user yet".to_owned());
                text.push((Tone::Plain, format!("  last check {checked}")));
                text.push((Tone::Plain, String::new()));
            }
            if text.is_empty() {
                let none = "No mount or service of this user runs.".to_owned();
                text.push((Tone::Plain, none));
            }
            screen.write(framed(&text, screen.size(), colours).as_bytes()).map_err(failed)?;
        }
        let key = tokio::task::spawn_blocking(|| Screen::key(KEYS));
        let key = tokio::select! {
            key = key => key,
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        };
        match key {
            Ok(Ok(Some(b'q' | b'Q' | CTRL_C)) | Err(_)) | Err(_) => return Ok(()),
            Ok(Ok(_)) => {}
        }
    }
}

/// Without a terminal: prints a line for a daemon whenever its state changes.
async fn lines(
    chosen: &impl Fn() -> CliResult<Vec<RunningDaemon>>,
    seen: &mut HashMap<u32, MovedLooks>,
) -> CliResult {
    let mut said: HashMap<u32, String> = HashMap::new();
    if chosen()?.is_empty() {
        output::show("No mount or service of this user runs; one that starts is shown.")?;
    }
    loop {
        for running in chosen().unwrap_or_default() {
            let (report, now) = (report_of(&running), Instant::now());
            let pace = seen.entry(running.pid).or_default().pace(&report.progress, now);
            let line = format!("{}: {}", running.name(), on_its_way(&report, pace).1);
            if said.get(&running.pid) != Some(&line) {
                match output::write(&line) {
                    // The reader has seen enough.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(|error| output::failure(&error))?,
                }
                said.insert(running.pid, line);
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// What is not in the bucket, and how long sending it takes.
fn on_its_way(report: &DaemonReport, pace: UploadPace) -> (Tone, String) {
    let progress = &report.progress;
    if progress.is_done() {
        return (Tone::Good, "everything is in the bucket".to_owned());
    }
    let mut text = format!(
        "{} in {} pack{}, {} change{}",
        ByteSize::b(progress.unsent_bytes),
        progress.unsent_packs,
        plural(progress.unsent_packs),
        progress.unsent_changes,
        plural(progress.unsent_changes)
    );
    if progress.unpublished_files > 0 {
        // Writing to a String cannot fail; nor below.
        let _ = write!(text, ", {} being written", progress.unpublished_files);
    }
    if pace.rate > 0 {
        let _ = write!(text, "; {}/s", ByteSize::b(pace.rate));
        if progress.unsent_bytes > 0 {
            let _ = write!(text, ", {} left", span(pace.left / pace.rate));
        }
    }
    (Tone::Waiting, text)
}

/// All lines about one daemon.
fn page(report: &DaemonReport, pace: UploadPace, prices: Option<&Prices>) -> Vec<(Tone, String)> {
    let place = if report.mountpoint.is_empty() { "no mount" } else { &report.mountpoint };
    let mut lines = vec![(Tone::Head, format!("{place}  ({})", report.state.describe()))];
    let mut line =
        |tone, name: &str, text: String| lines.push((tone, format!("  {name:<11}{text}")));
    let server = report.endpoint.as_ref().map(|url| format!(" (at {url})")).unwrap_or_default();
    line(Tone::Plain, "bucket", format!("{}{server}", report.bucket));
    if let Some(head) = &report.head {
        line(Tone::Plain, "head", format!("commit {} of {}", head.number, head.time));
    }
    let writer = match (&report.read_only_reason, report.read_only) {
        (Some(reason), _) => (Tone::Bad, format!("none: {reason}")),
        (None, true) => (Tone::Plain, "none here: it is mounted for reading".to_owned()),
        (None, false) => (Tone::Plain, format!("this machine, process {}", report.pid)),
    };
    line(writer.0, "writer", writer.1);
    let (tone, text) = on_its_way(report, pace);
    line(tone, "on its way", text);
    if let Some(seconds) = report.progress.oldest_unsent_seconds {
        line(Tone::Waiting, "oldest", format!("unsent for {} at least", span(seconds)));
    }
    let (files, bytes) = (report.files, ByteSize::b(report.bytes));
    line(Tone::Plain, "holds", format!("{bytes} in {files} files and directories"));
    let traffic = &report.traffic;
    let looked = traffic.memory_hits + traffic.memory_misses;
    let hits = (traffic.memory_hits * 100).checked_div(looked).unwrap_or(0);
    let fetched =
        format!("{hits} % of {looked} blocks were in memory; {} fetched", traffic.fetches);
    line(Tone::Plain, "cache", fetched);
    let others = traffic.heads + traffic.lists + traffic.deletes;
    let (sent, received) = (ByteSize::b(traffic.sent), ByteSize::b(traffic.received));
    let asked = format!(
        "{} PUT, {} GET, {others} other; {sent} up, {received} down",
        traffic.puts, traffic.gets
    );
    line(Tone::Plain, "today", asked);
    if let Some(prices) = prices {
        let old = &report.old_states;
        let cost = prices.of(traffic, report.bytes + old.retained_bytes + old.pinned_bytes);
        let (today, month) = (prices.amount(cost.today), prices.amount(cost.month));
        line(
            Tone::Plain,
            "costs",
            format!("about {today} today, {month} a month for what is stored"),
        );
    }
    let failed = format!("{} requests failed since {}", traffic.failed, traffic.since);
    line(if traffic.failed > 0 { Tone::Waiting } else { Tone::Plain }, "errors", failed);
    if let Some(trouble) = &report.progress.trouble {
        line(Tone::Bad, "trouble", trouble.clone());
    }
    let old = &report.old_states;
    let gc = match (&old.last_run, old.running) {
        (_, true) => "running".to_owned(),
        (Some(time), false) => {
            let time = when(Timestamp { seconds: i64::try_from(*time).unwrap_or(0), nanos: 0 });
            format!("{time}; {} objects deleted so far", old.deleted_objects)
        }
        (None, false) => "not since the mount".to_owned(),
    };
    line(Tone::Plain, "last gc", gc);
    for warning in &report.warnings {
        line(Tone::Waiting, "warning", warning.clone());
    }
    lines
}

/// A line in rows that fit the terminal. Continuation rows are indented past the label.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let indent = if columns > 2 * NAMES { NAMES } else { 0 };
    let mut rest: Vec<char> = printable(line).chars().collect();
    let mut rows = Vec::new();
    loop {
        let before = if rows.is_empty() { 0 } else { indent };
        let after = rest.split_off(rest.len().min(columns.max(1).saturating_sub(before)));
        rows.push(format!("{:before$}{}", "", rest.iter().collect::<String>()));
        if after.is_empty() {
            return rows;
        }
        rest = after;
    }
}

/// The screen's content: each row is cleared to its end, and everything below is cleared.
fn framed(lines: &[(Tone, String)], (columns, rows): (usize, usize), colours: bool) -> String {
    let mut text = "\x1b[H".to_owned();
    let end = "q or Ctrl-C ends this".to_owned();
    let shown = lines
        .iter()
        .flat_map(|(tone, line)| wrapped(line, columns).into_iter().map(move |line| (tone, line)));
    for (tone, line) in shown.take(rows.saturating_sub(1)) {
        let (begin, end) = match colours && *tone != Tone::Plain {
            true => (tone.code(), "\x1b[0m"),
            false => ("", ""),
        };
        let _ = write!(text, "{begin}{line}{end}\x1b[K\r\n");
    }
    let end: String = end.chars().take(columns).collect();
    let _ = write!(text, "{end}\x1b[K\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::daemon_report::TrafficReport;

    fn busy() -> DaemonReport {
        let progress = Progress {
            unsent_bytes: 30 << 20,
            unsent_packs: 2,
            unsent_changes: 1,
            trouble: Some("no route".into()),
            ..Progress::default()
        };
        let traffic =
            TrafficReport { memory_hits: 3, memory_misses: 1, ..TrafficReport::default() };
        DaemonReport { mountpoint: "/m".into(), progress, traffic, ..DaemonReport::default() }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut seen, begin) = (MovedLooks::default(), Instant::now());
        assert_eq!(seen.rate(0, begin), 0);
        assert_eq!(seen.rate(3000, begin + Duration::from_secs(1)), 3000);
        for second in 2..30 {
            seen.rate(3000, begin + Duration::from_secs(second));
        }
        assert_eq!(seen.rate(3000, begin + Duration::from_secs(30)), 0);
    }

    #[test]
    fn what_has_gone_of_a_pack_is_not_left_any_more() {
        let (mut seen, begin) = (MovedLooks::default(), Instant::now());
        let mut look = |second, unsent_bytes, moved_bytes| {
            let progress = Progress { unsent_bytes, moved_bytes, ..Progress::default() };
            seen.pace(&progress, begin + Duration::from_secs(second))
        };
        assert_eq!(look(0, 10_000, 500).left, 10_000);
        assert_eq!(look(1, 10_000, 2500), UploadPace { rate: 2000, left: 8000 });
        assert_eq!(look(4, 10_000, 8500).left, 2000);
        assert_eq!(look(5, 4000, 10_000).left, 4000, "a pack is confirmed");
        assert_eq!(look(6, 4000, 99_000).left, 0);
    }

    #[test]
    fn a_screen_is_as_wide_as_the_terminal_and_has_colours_where_they_are_wanted() {
        let prices = Prices::default();
        let pace = UploadPace { rate: 1 << 20, left: 30 << 20 };
        let lines = page(&busy(), pace, Some(&prices));
        let all = lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
        for part in
            ["30.0 MiB in 2 packs, 1 change; 1.0 MiB/s, 30 s left", "75 % of 4", "no route", "$0"]
        {
            assert!(all.contains(part), "{all}");
        }
        assert!(lines.iter().all(|(_, line)| line.chars().count() <= 80), "{all}");
        let unpriced = page(&busy(), UploadPace::default(), None);
        assert!(!unpriced.iter().any(|(_, line)| line.contains("costs")));
        let plain = framed(&lines, (40, 8), false);
        assert_eq!(plain.matches("\r\n").count(), 7);
        assert!(!plain.contains("\x1b[3"), "{plain:?}");
        for line in plain.trim_start_matches("\x1b[H").split("\x1b[K") {
            assert!(line.trim_start_matches("\r\n").chars().count() <= 40, "{line:?}");
        }
        assert!(framed(&lines, (80, 24), true).contains("\x1b[31m"));
    }

    #[test]
    fn a_long_line_goes_on_below_behind_the_names() {
        let rows = wrapped("  warning    0123456789abcdefghij", 30);
        assert_eq!(rows, ["  warning    0123456789abcdefg", "             hij"]);
        assert_eq!(wrapped("0123456789", 4), ["0123", "4567", "89"]);
        assert_eq!(wrapped("", 0), [""]);
    }
}
