//! `s3vault recover`

use super::ask::{PathInMount, change};
use crate::cli::args::RecoverArgs;
use crate::cli::control::{AsideRecovery, ControlRequest};
use crate::cli::exit::CliResult;
use crate::cli::paths::UserPaths;

/// Brings back what was set aside on this machine.
pub(crate) fn recover(paths: &UserPaths, args: &RecoverArgs) -> CliResult {
    let PathInMount { running, path } = PathInMount::find(paths, &args.directory)?;
    let what = AsideRecovery { into: path, lists: args.list, removes: args.remove };
    change(&running, &ControlRequest::Recover(what))
}
