//! `s3vault tune`

use super::ask::{change, report_of, silent};
use super::credentials::who;
use crate::cli::args::Global;
use crate::cli::control::ControlRequest;
use crate::cli::daemon_report::State;
use crate::cli::exit::CliResult;
use crate::cli::limits::described;
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::cli::seeing_args::TuneArgs;

/// Changes the limits of a running daemon, and shows those in effect.
pub(crate) fn tune(global: &Global, paths: &UserPaths, args: &TuneArgs) -> CliResult {
    let named = (args.mountpoint.as_deref(), args.bucket.bucket.as_deref());
    let running = who(global, paths, named, "has limits")?;
    if !args.limits.is_empty() {
        change(&running, &ControlRequest::Tune(args.limits.clone()))?;
    }
    let report = report_of(&running);
    if report.state == State::Silent {
        let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
        return Err(silent(&running, &error));
    }
    let mut lines = vec![running.name()];
    let limits = described(&report.limits).into_iter();
    lines.extend(limits.map(|(name, value)| format!("  {name:<16}{value}")));
    output::show(&lines.join("\n"))
}
