//! `s3vault credentials`

use std::path::Path;

use super::ask::{change, not_mounted};
use crate::cli::args::{CredentialsArgs, Global};
use crate::cli::config::Config;
use crate::cli::control::ControlRequest;
use crate::cli::daemon::spec::Credentials;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::messages;
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;
use crate::cli::target::Target;
use crate::vault::S3Credentials;

/// Hands a daemon the credentials of this shell, or those that `aws` would find here. They go over the control socket,
/// which accepts this user only, and are kept in memory only.
pub(crate) async fn credentials(
    global: &Global,
    paths: &UserPaths,
    args: &CredentialsArgs,
) -> CliResult {
    let named = (args.mountpoint.as_deref(), args.bucket.bucket.as_deref());
    let running = who(global, paths, named, "needs credentials")?;
    let found = S3Credentials::find().await;
    let found = found.map_err(|error| messages::of_store(&error, &running.bucket))?;
    change(&running, &ControlRequest::Credentials(Credentials::from_store(&found)))?;
    say!("{} now uses the access key {}.", running.name(), found.access_key);
    Ok(())
}

/// The daemon that is meant: the one at a mountpoint; or the one of a vault, since a service has no other name; or the
/// only one.
pub(super) fn who(
    global: &Global,
    paths: &UserPaths,
    (mountpoint, bucket): (Option<&Path>, Option<&str>),
    why: &str,
) -> CliResult<RunningDaemon> {
    let mut all = RunningDaemon::all(&paths.running());
    if let Some(path) = mountpoint {
        let path = absolute(path)?;
        let found = RunningDaemon::at(&paths.running(), &path);
        return found.ok_or_else(|| not_mounted(&path.display().to_string(), &all));
    }
    if let Some(bucket) = bucket {
        let config = Config::read(&paths.config)?;
        let target = Target::choose(global, paths, &config, Some(bucket), None)?;
        return target.running(paths).ok_or_else(|| {
            let text = format!(
                "{} is neither mounted nor served by this user, so nobody {why}",
                target.describe()
            );
            Failure::new(Exit::NotMounted, text)
        });
    }
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => {
            let text = format!("no mount or service of this user runs, so nobody {why}");
            Err(Failure::new(Exit::NotMounted, text))
        }
        _ => {
            let names: Vec<_> = all.iter().map(RunningDaemon::name).collect();
            let text = format!(
                "several mounts or services run; name the one that is meant, by its mountpoint or --bucket: {}",
                names.join(", ")
            );
            Err(Failure::new(Exit::Usage, text))
        }
    }
}
