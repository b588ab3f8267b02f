//! The vault's metrics, in the Prometheus text format 0.0.4. They contain no file names and no counts per file.

use std::fmt::Write;

use crate::os::{self, ProcessTally, TIMES};
use crate::types::VaultStatus;

/// The text being built: families with their help texts and lines.
#[derive(Default)]
pub(super) struct MetricsText(pub(super) String);

impl MetricsText {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str, lines: &[(String, f64)]) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP s3vault_{name} {help}\n# TYPE s3vault_{name} {kind}\n");
        for (labels, value) in lines {
            let _ = writeln!(self.0, "s3vault_{name}{labels} {value}");
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help, &[(String::new(), value as f64)]);
    }

    /// The kernel's requests by kind: how many, how long they took, how many failed.
    fn operations(&mut self) {
        let all = os::operations();
        let name = "fs_operation_duration_seconds";
        let _ = write!(
            self.0,
            "# HELP s3vault_{name} Requests of the kernel, from their arrival to the answer.\n# TYPE s3vault_{name} histogram\n"
        );
        for figures in &all {
            let kind = figures.kind;
            let ends = TIMES.iter().map(|micros| (*micros as f64 / 1e6).to_string());
            let ends = ends.chain(["+Inf".to_owned()]);
            for (end, count) in ends.zip(&figures.within) {
                let _ =
                    writeln!(self.0, "s3vault_{name}_bucket{{op=\"{kind}\",le=\"{end}\"}} {count}");
            }
            let count = figures.within.last().copied().unwrap_or_default();
            let _ = writeln!(self.0, "s3vault_{name}_sum{{op=\"{kind}\"}} {}", figures.seconds);
            let _ = writeln!(self.0, "s3vault_{name}_count{{op=\"{kind}\"}} {count}");
        }
        let failed = all.iter().map(|figures| {
            let labels = format!("{{op=\"{}\"}}", figures.kind);
            (labels, figures.failed as f64)
        });
        let help = "Requests of the kernel that were answered with an errno (for an attribute that is not there, too).";
        self.family("fs_operation_errors_total", "counter", help, &failed.collect::<Vec<_>>());
    }
}

/// Writes all metrics of the vault.
pub(super) fn write(text: &mut MetricsText, vault: &VaultStatus) {
    text.operations();
    let traffic = &vault.traffic;
    let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
    let hits = [("memory", traffic.memory_hits), ("disk", ProcessTally::DiskHits.read())];
    let hits = hits.map(|(tier, count)| (label("tier", tier), count as f64));
    text.family("cache_hits_total", "counter", "What was read and was in the cache.", &hits);
    let requests: Vec<_> = traffic
        .requests
        .iter()
        .map(|(method, outcome, count)| {
            let labels = format!("{{method=\"{method}\",outcome=\"{outcome}\"}}");
            (labels, *count as f64)
        })
        .collect();
    let help = "Requests to the store that ended, each attempt, by what came of them.";
    text.family("store_requests_total", "counter", help, &requests);
    for (name, help, value) in counters(vault) {
        text.one(name, "counter", help, value);
    }
    for (name, help, value) in gauges(vault) {
        text.one(name, "gauge", help, value);
    }
}

/// Counters: name, help, value.
fn counters(vault: &VaultStatus) -> [(&'static str, &'static str, u64); 15] {
    let (traffic, old) = (&vault.traffic, &vault.old_states);
    [
        ("read_bytes_total", "Bytes of files that were read.", ProcessTally::ReadBytes.read()),
        (
            "written_bytes_total",
            "Bytes of files that were written.",
            ProcessTally::WrittenBytes.read(),
        ),
        ("cache_memory_misses_total", "Blocks that were not in memory.", traffic.memory_misses),
        (
            "cache_fetches_total",
            "Ranges fetched from the bucket, read ahead or missed.",
            traffic.fetches,
        ),
        ("store_sent_bytes_total", "Bytes of objects put, repetitions too.", traffic.put_bytes),
        ("store_received_bytes_total", "Bytes of objects fetched.", traffic.got_bytes),
        (
            "store_retries_total",
            "Requests that were made again.",
            ProcessTally::StoreRepeats.read(),
        ),
        ("uploaded_bytes_total", "Bytes that the store has taken.", vault.progress.moved_bytes),
        ("uploaded_packs_total", "Packs that got to the bucket.", ProcessTally::PacksSent.read()),
        ("uploaded_commits_total", "Commits that got there.", ProcessTally::CommitsSent.read()),
        ("checkpoints_total", "Checkpoints that were made.", ProcessTally::Checkpoints.read()),
        ("failed_checkpoints_total", "Those that failed.", ProcessTally::FailedCheckpoints.read()),
        ("gc_runs_total", "Deletions in the bucket that came to their end.", old.runs),
        ("deleted_objects_total", "Objects deleted in the bucket.", old.deleted_objects),
        (
            "deleted_bytes_total",
            "Bytes of objects that were deleted in the bucket, as nothing needed them.",
            old.deleted_bytes,
        ),
    ]
}

/// Gauges: name, help, value.
fn gauges(vault: &VaultStatus) -> [(&'static str, &'static str, u64); 21] {
    let (progress, old) = (&vault.progress, &vault.old_states);
    let head = u64::try_from(vault.head_time.seconds).unwrap_or(0);
    [
        ("unsent_bytes", "Sealed bytes that are not in the bucket yet.", progress.unsent_bytes),
        ("unsent_packs", "Packs that are not in the bucket yet.", progress.unsent_packs),
        ("unsent_changes", "Changes that are not in the bucket yet.", progress.unsent_changes),
        ("unpublished_files", "Files that are being written.", progress.unpublished_files),
        ("head_timestamp_seconds", "When the newest commit got to the bucket.", head),
        ("head_commit", "The number of the newest commit.", vault.head.0),
        ("staging_bytes", "Bytes of staging in use.", vault.staging.0),
        ("staging_limit_bytes", "Bytes that staging may take.", vault.staging.1),
        ("cache_disk_bytes", "Bytes of the cache on this disk.", vault.cache_disk),
        ("index_disk_bytes", "Bytes of the local index.", vault.index_disk),
        ("resident_memory_bytes", "Memory of the process.", os::resident_memory()),
        ("upload_trouble", "1 while uploads fail.", u64::from(progress.trouble.is_some())),
        ("panicked_tasks", "Kinds of tasks that panicked: bugs.", os::panics().len() as u64),
        ("read_only", "1 while nothing can be changed.", u64::from(vault.read_only.is_some())),
        ("files", "Files, directories and the like.", vault.inodes),
        ("content_bytes", "Bytes of content.", vault.bytes),
        ("retained_bytes", "Bytes that stay for old states alone.", old.retained_bytes),
        ("pinned_bytes", "Bytes that stay for snapshots alone.", old.pinned_bytes),
        ("sparse_bytes", "Dead bytes in packs that live.", old.sparse_bytes),
        ("refused_deletions", "Deletions that the store refused.", old.refused_runs),
        ("deletion_trouble", "1 while deleting fails.", u64::from(old.trouble.is_some())),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::VaultTraffic;

    #[test]
    fn every_family_has_its_help_and_its_lines_and_comes_once() {
        os::operation_done("statfs", std::time::Duration::from_micros(700), true);
        let traffic = VaultTraffic {
            requests: vec![("GET", "ok", 7), ("PUT", "busy", 2)],
            memory_hits: 5,
            ..VaultTraffic::default()
        };
        let mut text = MetricsText::default();
        write(&mut text, &VaultStatus { traffic, ..VaultStatus::default() });
        let mut families = BTreeSet::new();
        for line in text.0.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(families.insert(name.to_owned()), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let parts = ["_bucket", "_sum", "_count"];
                let own = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
                assert!(families.contains(own) || families.contains(name), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        for line in [
            "s3vault_fs_operation_duration_seconds_bucket{op=\"statfs\",le=\"0.0001\"} 0",
            "s3vault_fs_operation_duration_seconds_bucket{op=\"statfs\",le=\"0.001\"} 1",
            "s3vault_fs_operation_duration_seconds_bucket{op=\"statfs\",le=\"+Inf\"} 1",
            "s3vault_fs_operation_duration_seconds_count{op=\"statfs\"} 1",
            "s3vault_fs_operation_errors_total{op=\"statfs\"} 1",
            "s3vault_store_requests_total{method=\"PUT\",outcome=\"busy\"} 2",
            "s3vault_cache_hits_total{tier=\"memory\"} 5",
        ] {
            assert!(text.0.lines().any(|found| found == line), "no {line} in\n{}", text.0);
        }
    }
}
