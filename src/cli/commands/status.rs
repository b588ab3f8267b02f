//! `s3vault status`

use serde_json::json;

use super::{not_mounted, report_of};
use crate::cli::args::Status;
use crate::cli::config::Config;
use crate::cli::exit::Outcome;
use crate::cli::output;
use crate::cli::paths::{Places, absolute};
use crate::cli::report::Report;
use crate::cli::running::Running;

/// Shows every mount and service of this user, or one.
pub(crate) fn status(places: &Places, args: &Status) -> Outcome {
    let all = Running::all(&places.running());
    let chosen: Vec<_> = match &args.mountpoint {
        None => all,
        Some(path) => {
            let path = absolute(path)?;
            let here: Vec<_> = all
                .iter()
                .filter(|running| running.mountpoint.as_ref() == Some(&path))
                .cloned()
                .collect();
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
    let mut text: Vec<_> = reports.iter().map(Report::describe).collect();
    if reports.is_empty() {
        text.push("No mount or service of this user runs.".to_owned());
        for known in Config::read(&places.config)?.vaults {
            text.push(format!("known: {}  (vault {})", known.describe(), known.id));
        }
    }
    output::show(&text.join("\n"))
}
