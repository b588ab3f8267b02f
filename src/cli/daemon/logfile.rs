//! The daemon's log: a bounded file next to the journal, which only this user can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::log_json::JsonLine;
use super::log_quota::{Quota, Quotas};
use crate::os;

/// The log's name in the vault's state directory; the previous file has the suffix `.1`.
pub(crate) const NAME: &str = "daemon.log";
/// The size at which a new file is begun. Two files together are enough for weeks of trouble and too little to fill a
/// disk.
const LIMIT: u64 = 8 << 20;

/// A log file that is rotated when it has become long.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    limit: u64,
    open: Mutex<OpenLog>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    length: u64,
    /// Lines that could not be written since the last one that could.
    lost: u64,
}

impl LogFile {
    /// Opens the log for appending.
    pub(crate) fn open(path: &Path) -> io::Result<Arc<Self>> {
        Self::with_limit(path, LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Arc<Self>> {
        let file = append(path)?;
        let length = file.metadata()?.len();
        let open = Mutex::new(OpenLog { file, length, lost: 0 });
        Ok(Arc::new(Self { path: path.to_path_buf(), limit, open }))
    }

    /// Writes a line, if it can: there is nobody to tell that the disk is full, and logging must not end its caller.
    /// The next line that can be written says that some are missing.
    fn add(&self, line: &[u8]) {
        let mut open = self.open.lock();
        if open.length >= self.limit {
            // If that fails, this file goes on.
            drop(self.begin_anew(&mut open));
        }
        if open.lost > 0 {
            let gap = format!("\n({} lines had no room here)\n", open.lost);
            if open.file.write_all(gap.as_bytes()).is_ok() {
                open.lost = 0;
            }
        }
        open.length += line.len() as u64;
        if open.lost > 0 || open.file.write_all(line).is_err() {
            open.lost += 1;
        }
    }

    fn begin_anew(&self, open: &mut OpenLog) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        match std::fs::rename(&self.path, old) {
            // It was renamed before, but there was no room for the next file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            other => other?,
        }
        let fresh = append(&self.path)?;
        // Standard error goes to the same file (a panic's message), so it moves along.
        os::move_stderr(&open.file, &fresh);
        *open = OpenLog { file: fresh, length: 0, lost: open.lost };
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The destination of one event: a whole line in one write, or nowhere if the event is over its quota.
#[derive(Debug)]
pub(crate) struct LogLine<'a>(Option<&'a LogFile>);

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(log) = self.0 {
            log.add(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writer that tracing uses.
#[derive(Debug)]
struct LogWriter {
    log: Arc<LogFile>,
    quotas: Quotas,
    is_json: bool,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(Some(&self.log))
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LogLine<'a> {
        match self.quotas.of(metadata) {
            Quota::Write => {}
            Quota::WriteAfter(count) => self.log.add(&left_out(count, self.is_json)),
            Quota::LeaveOut => return LogLine(None),
        }
        self.make_writer()
    }
}

/// The note about lines that were dropped. The line after it is from the same place in the program.
fn left_out(count: u64, is_json: bool) -> Vec<u8> {
    let text = format!("{count} lines like the next one were left out");
    let line = if is_json {
        serde_json::json!({ "message": text }).to_string()
    } else {
        format!("({text})")
    };
    (line + "\n").into_bytes()
}

/// Sends every event of this process to the log. `S3VAULT_LOG` (a filter of tracing's) overrides the level. Other
/// crates are logged from warnings up, since they do not know our rules about names. fuser is not logged: it reports
/// errors that are none (a reply to an interrupted request), and real failures it returns.
pub(crate) fn start(log: Arc<LogFile>, verbose: u8, is_json: bool) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("S3VAULT_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,fuser=off,s3vault={level}")));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // Logs the end of each request of the kernel, with its duration (-vv).
        .with_span_events(FmtSpan::CLOSE)
        // Those errors would go to standard error, which is this file, and panic if the disk is full.
        .log_internal_errors(false)
        .with_writer(LogWriter { log, quotas: Quotas::default(), is_json });
    // Fails only if there is a subscriber already; then that one stays.
    drop(if is_json { log.event_format(JsonLine).try_init() } else { log.try_init() });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_log_is_private_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let log = LogFile::with_limit(&path, 100).unwrap();
        for number in 0..50 {
            writeln!(LogLine(Some(&log)), "line {number}, ten of them fill the file").unwrap();
        }
        let sizes: Vec<u64> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= 150), "{sizes:?}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("line 49"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn j8_a_log_without_room_ends_nobody_and_says_what_is_missing() {
        let disk = crate::os::SmallDisk::of(1 << 20);
        let path = disk.path().join(NAME);
        let log = LogFile::with_limit(&path, 100).unwrap();
        writeln!(LogLine(Some(&log)), "before").unwrap();
        disk.fill();
        for number in 0..400 {
            LogLine(Some(&log)).write_all(format!("{number:0200}\n").as_bytes()).unwrap();
        }
        disk.empty();
        writeln!(LogLine(Some(&log)), "after").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("lines had no room here)\nafter\n"), "{text}");
    }
}
