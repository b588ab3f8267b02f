//! `s3vault status`

use serde_json::json;

use super::ask::{not_mounted, report_of};
use super::path_status::path_status;
use crate::cli::args::StatusArgs;
use crate::cli::config::Config;
use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::CliResult;
use crate::cli::output;
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;

/// Shows every mount and service of this user, or one.
pub(crate) fn status(paths: &UserPaths, args: &StatusArgs) -> CliResult {
    let all = RunningDaemon::all(&paths.running());
    let chosen: Vec<_> = match &args.path {
        None => all,
        Some(path) => {
            let path = absolute(path)?;
            let here: Vec<_> = all
                .iter()
                .filter(|running| running.mountpoint.as_ref() == Some(&path))
                .cloned()
                .collect();
            if here.is_empty()
                && let Some(around) = RunningDaemon::around(&paths.running(), &path)
            {
                return path_status(&around, &path, args.json);
            }
            if here.is_empty() {
                return Err(not_mounted(&path.display().to_string(), &all));
            }
            here
        }
    };
    let reports: Vec<_> = chosen.iter().map(report_of).collect();
    if args.json {
        return output::show(&json!({ "mounts": reports }).to_string());
    }
    let mut text: Vec<_> = reports.iter().map(DaemonReport::describe).collect();
    if reports.is_empty() {
        text.push("No mount or service of this user runs.".to_owned());
        for known in Config::read(&paths.config)?.vaults {
            text.push(format!("known: {}  (vault {})", known.describe(), known.id));
        }
    }
    output::show(&text.join("\n"))
}
