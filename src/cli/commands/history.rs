//! `s3vault history`

use super::ask::{PathInMount, change};
use crate::cli::args::HistoryArgs;
use crate::cli::control::ControlRequest;
use crate::cli::exit::CliResult;
use crate::cli::paths::UserPaths;

/// Shows the versions of a path, oldest first.
pub(crate) fn history(paths: &UserPaths, args: &HistoryArgs) -> CliResult {
    let PathInMount { running, path } = PathInMount::find(paths, &args.path)?;
    change(&running, &ControlRequest::History { path })
}
