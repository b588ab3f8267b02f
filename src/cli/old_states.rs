//! Requests about old states (garbage collection, retention, snapshots), and the text of the answers.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::messages;
use crate::types::Timestamp;
use crate::vault::{Error, ObjectTally, Reclaimed, SnapshotInfo, Vault};

/// A request about old states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OldStates {
    /// Delete what nothing needs any more.
    Gc {
        /// Only report what would be deleted.
        dry_run: bool,
    },
    /// Show how long old states are kept, or change that.
    Retention {
        /// The new retention.
        keep: Option<Duration>,
    },
    /// Make a snapshot of the current state.
    Make {
        /// The name.
        name: String,
        /// When it expires, counted from now.
        keep: Option<Duration>,
    },
    /// List the snapshots, and what they hold.
    List,
    /// Delete a snapshot.
    Delete {
        /// Its name.
        name: String,
    },
}

/// Which vault to ask: the one whose mount contains this path, or the one of this bucket, or the default one.
#[derive(Debug, Clone, Default)]
pub(super) struct WhichOne {
    pub path: Option<PathBuf>,
    pub bucket: Option<String>,
}

/// Parses a span: 90 s is "90s" or "90"; the other units are m, h, d and w.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "a span is 30s, 15m, 12h, 7d or 4w; at least a second".to_owned();
    let (number, unit) = match text.chars().last() {
        Some(unit) if !unit.is_ascii_digit() => (&text[..text.len() - unit.len_utf8()], unit),
        _ => (text, 's'),
    };
    let unit: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

/// A span in the largest unit that it is a whole number of.
pub(super) fn show_span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("m", 60)];
    let whole = units.into_iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

/// Carries out a request; returns the answer's lines.
pub(super) async fn carry_out(vault: &Vault, what: &OldStates) -> Result<Vec<String>, Error> {
    match what {
        OldStates::Gc { dry_run } => {
            let report = vault.reclaim(*dry_run, &|_| {}).await?;
            Ok(describe(&report, vault.retention().await?))
        }
        OldStates::Retention { keep: None } => {
            Ok(vec![format!("Old states are kept for {}.", show_span(vault.retention().await?))])
        }
        OldStates::Retention { keep: Some(keep) } => {
            vault.set_retention(*keep).await?;
            let kept =
                "What is deleted already does not come back; what is older goes with the next gc.";
            Ok(vec![format!("Old states are kept for {} from now on. {kept}", show_span(*keep))])
        }
        OldStates::Make { name, keep } => {
            let pin = vault.make_snapshot(name.as_bytes(), *keep).await?;
            let until = until(pin.ends);
            Ok(vec![format!(
                "The state of now (commit {}) is kept as {name}{until}.",
                pin.commit.0
            )])
        }
        OldStates::List => list(vault).await,
        OldStates::Delete { name } => {
            vault.delete_snapshot(name.as_bytes()).await?;
            Ok(vec![format!("{name} is deleted; what it alone held goes with the next gc.")])
        }
    }
}

fn until(ends: Option<Timestamp>) -> String {
    ends.map_or_else(String::new, |ends| format!(" until {}", messages::when(ends)))
}

/// The snapshots, and what each alone holds. That takes a dry run of garbage collection, which examines all packs.
async fn list(vault: &Vault) -> Result<Vec<String>, Error> {
    let snapshots = vault.snapshots().await?;
    if snapshots.is_empty() {
        return Ok(vec!["There are no snapshots.".to_owned()]);
    }
    let held = match vault.is_writer() {
        true => Some(vault.reclaim(true, &|_| {}).await?.alone),
        false => None,
    };
    let line = |SnapshotInfo { name, pin }: &SnapshotInfo| {
        let name = String::from_utf8_lossy(name).into_owned();
        let alone = held.as_ref().map(|held| held.get(&name).copied().unwrap_or(0));
        let alone = alone.map_or_else(String::new, |bytes| {
            format!(", holds {} that nothing else needs", ByteSize::b(bytes))
        });
        let (made, until) = (messages::when(pin.created), until(pin.ends));
        format!("{name}  {made}, commit {}{until}{alone}", pin.commit.0)
    };
    Ok(snapshots.iter().map(line).collect())
}

/// The result of a garbage collection: what was deleted, what stays and why.
fn describe(report: &Reclaimed, retention: Duration) -> Vec<String> {
    let verb = if report.dry_run { "Would delete" } else { "Deleted" };
    let counted = |tally: ObjectTally, what: &str| {
        let s = if tally.objects == 1 { "" } else { "s" };
        format!("{} {what}{s} ({})", tally.objects, ByteSize::b(tally.bytes))
    };
    let mut lines = vec![
        format!(
            "{verb} {}, {}, {}, {}.",
            counted(report.packs, "pack"),
            counted(report.checkpoints, "checkpoint part"),
            counted(report.commits, "commit"),
            counted(report.others, "other object")
        ),
        format!("Stays: {} in use", counted(report.live, "pack")),
    ];
    let kept = [
        (report.retained, format!("for states of the last {} (retention)", show_span(retention))),
        (report.pinned, "for snapshots alone".to_owned()),
        (report.young, "that nothing refers to yet, and that are younger than that".to_owned()),
    ];
    for (tally, why) in kept.into_iter().filter(|(tally, _)| tally.objects > 0) {
        lines.push(format!("       {} {why}", counted(tally, "pack")));
    }
    if report.sparse.objects > 0 {
        let done = match report.rewritten {
            0 => String::new(),
            bytes => format!("; {} of them written anew, the rest goes later", ByteSize::b(bytes)),
        };
        lines.push(format!(
            "       {} in {} of these packs nobody needs any more{done}",
            ByteSize::b(report.sparse.bytes),
            report.sparse.objects
        ));
    }
    if report.oldest > 0 {
        lines.push(format!("The oldest state that is kept is that of commit {}.", report.oldest));
    }
    lines.extend(report.trouble.iter().map(|trouble| format!("Note: {trouble}")));
    if let Some(refused) = &report.refused {
        lines.push(format!(
            "Not all was deleted: {refused}. Nothing that is needed is touched by that; the rest goes when the store \
             lets these credentials delete"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_shown() {
        for (text, seconds) in
            [("1s", 1), ("90", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)]
        {
            let read = span(text).unwrap();
            assert_eq!(read, Duration::from_secs(seconds), "{text}");
            assert_eq!(span(&show_span(read)).unwrap(), read);
        }
        assert_eq!(span("2w").unwrap(), span("14d").unwrap());
        for wrong in ["", "s", "0", "0d", "-1s", "1.5h", "7days", "7é", "99999999999999999999d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
