//! `s3vault sync`

use super::{finish, not_mounted};
use crate::cli::args::Sync;
use crate::cli::control::Request;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::paths::{Places, absolute};
use crate::cli::running::Running;

/// Waits until everything written before is in the bucket: of one mount, or of all. With
/// several, all are waited for, and the first failure is returned, the others printed.
pub(crate) fn sync(places: &Places, args: &Sync) -> Outcome {
    let chosen = match &args.path {
        Some(path) => {
            let path = absolute(path)?;
            let found = Running::around(&places.running(), &path);
            vec![found.ok_or_else(|| {
                not_mounted(&path.display().to_string(), &Running::all(&places.running()))
            })?]
        }
        None => Running::all(&places.running()),
    };
    if chosen.is_empty() {
        let text = "no mount or service of this user runs, so nothing was sent; what an earlier one left unsent goes \
                    on with the next";
        return Err(Failure::new(Exit::NotMounted, text));
    }
    let mut first = Ok(());
    for running in &chosen {
        match sync_one(running) {
            Ok(()) => say!("{}: everything is in the bucket.", running.name()),
            Err(failure) if first.is_ok() => first = Err(failure),
            Err(failure) => complain!("s3vault: {failure}"),
        }
    }
    first
}

fn sync_one(running: &Running) -> Outcome {
    finish(running, &Request::Sync)
}
