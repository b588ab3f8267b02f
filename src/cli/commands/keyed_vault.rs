//! A vault whose keys are shown or changed, and the daemon that has it open.

use super::ask::{change, not_mounted};
use super::old_states::by_itself;
use crate::cli::args::Global;
use crate::cli::config::Config;
use crate::cli::control::ControlRequest;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::keys::KeysAsked;
use crate::cli::old_states::WhichOne;
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;
use crate::cli::secrets::GivenPassphrase;
use crate::cli::target::Target;
use crate::cli::unlock::Unlocker;
use crate::vault::OpenedBySecret;

/// A vault, and the daemon that has it open, if any.
pub(super) struct KeyedVault<'a> {
    pub(super) global: &'a Global,
    pub(super) paths: &'a UserPaths,
    pub(super) target: Target,
    pub(super) running: Option<RunningDaemon>,
}

impl<'a> KeyedVault<'a> {
    pub(super) fn find(
        global: &'a Global,
        paths: &'a UserPaths,
        which: &WhichOne,
    ) -> CliResult<Self> {
        let config = Config::read(&paths.config)?;
        let all = RunningDaemon::all(&paths.running());
        let writers: Vec<_> = all.iter().filter(|running| !running.read_only).collect();
        let running = match (&which.path, &which.bucket, &writers[..]) {
            (Some(path), ..) => {
                let path = absolute(path)?;
                let found = RunningDaemon::around(&paths.running(), &path);
                Some(found.ok_or_else(|| not_mounted(&path.display().to_string(), &all))?)
            }
            (None, None, [only]) => Some((*only).clone()),
            _ => None,
        };
        if let Some(running) = running {
            let known = config.vaults.iter().find(|known| known.id == running.vault);
            let url = known.map(|known| known.url.as_str()).or(which.bucket.as_deref());
            let target =
                Target::choose(global, paths, &config, url, running.mountpoint.as_deref())?;
            return Ok(Self { global, paths, target, running: Some(running) });
        }
        let target = Target::choose(global, paths, &config, which.bucket.as_deref(), None)?;
        let running = target.running(paths);
        Ok(Self { global, paths, target, running })
    }

    /// Opens the vault with a secret of its owner: permission to use the mount does not make a user its owner.
    pub(super) async fn open(&self) -> CliResult<(OpenedBySecret, GivenPassphrase)> {
        let bucket = self.target.open().await?;
        let unlocker = Unlocker { global: self.global, paths: self.paths, target: &self.target };
        let opened = unlocker.open(&bucket).await?;
        match &self.running {
            Some(running) if running.vault != opened.0.unlocked.vault.to_string() => {
                let text = format!(
                    "{} is mounted from another bucket than {}; nothing was changed; name it with --bucket",
                    running.name(),
                    self.target.describe()
                );
                Err(Failure::new(Exit::Usage, text))
            }
            _ => Ok(opened),
        }
    }

    /// Sends the request to the daemon that has the vault open for writing, or to one that is started for it.
    pub(super) async fn ask(&self, opened: OpenedBySecret, what: KeysAsked) -> CliResult {
        let request = ControlRequest::Keys(what);
        let done = match self.running.as_ref().filter(|running| !running.read_only) {
            Some(running) => change(running, &request),
            None => {
                by_itself(self.global, self.paths, &self.target, opened.unlocked, &request).await
            }
        };
        done.map_err(|failure| match failure.message.contains("nothing was changed") {
            true => failure,
            false => {
                let text = format!(
                    "{}; whether the change was made, `s3vault key list` tells: what opened the vault before, or what \
                     was to open it, does",
                    failure.message
                );
                Failure { message: text, ..failure }
            }
        })
    }
}
