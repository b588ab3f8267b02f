//! `s3vault restore`

use super::ask::{PathInMount, change};
use crate::cli::args::RestoreArgs;
use crate::cli::control::ControlRequest;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::paths::UserPaths;

/// Restores a path as it was.
pub(crate) fn restore(paths: &UserPaths, args: &RestoreArgs) -> CliResult {
    let PathInMount { running, path } = PathInMount::find(paths, &args.path)?;
    let to = match &args.to {
        None => None,
        Some(to) => match PathInMount::find(paths, to) {
            Ok(place) if place.running.pid == running.pid => Some(place.path),
            _ => {
                let text = format!(
                    "{} is not in the mount that {} is in; nothing was changed; to bring it elsewhere, mount the vault as \
                     it was (`s3vault mount DIRECTORY --at TIME`), and copy it from there",
                    to.display(),
                    args.path.display()
                );
                return Err(Failure::new(Exit::Usage, text));
            }
        },
    };
    change(&running, &ControlRequest::Restore { path, at: args.at.clone(), to })
}
