//! Where this user's files are (XDG), and the paths of commands.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use directories::ProjectDirs;

use super::args::Global;
use super::exit::{CliResult, Exit, Failure};
use crate::gateway::ListenAt;

/// The paths of one run: all absolute.
#[derive(Debug, Clone)]
pub(super) struct UserPaths {
    /// The configuration file.
    pub config: PathBuf,
    /// Journal, staging, cache, index and log, in one directory per vault.
    pub state: PathBuf,
    /// What survives the deletion of the state directory: the machine id, what was seen of each vault, the notes of
    /// running mounts, and the embedded store.
    pub data: PathBuf,
}

impl UserPaths {
    /// The paths from options and environment.
    pub(super) fn find(global: &Global) -> CliResult<Self> {
        let homeless = || {
            Failure::new(
                Exit::Usage,
                "this user has no home directory; set HOME, or XDG_CONFIG_HOME, XDG_STATE_HOME \
                 and XDG_DATA_HOME",
            )
        };
        // Fails only if neither HOME nor the password file names a home directory.
        let dirs = ProjectDirs::from("", "", "s3vault").ok_or_else(homeless)?;
        let or = |option: &Option<PathBuf>, default: PathBuf| match option {
            Some(path) => absolute(path),
            None => Ok(default),
        };
        Ok(Self {
            config: or(&global.config, dirs.config_dir().join("config.toml"))?,
            state: or(&global.state_dir, dirs.state_dir().ok_or_else(homeless)?.to_path_buf())?,
            data: dirs.data_dir().to_path_buf(),
        })
    }

    /// The directory of the store that needs no account.
    pub(super) fn embedded_store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// The key file that `init` makes for the embedded store when nobody gives a passphrase.
    pub(super) fn key_file(&self) -> PathBuf {
        self.config.with_file_name("embedded.key")
    }

    /// The token file of a vault's HTTP service.
    pub(super) fn tokens(&self, vault: &str) -> PathBuf {
        self.data.join("tokens").join(vault)
    }

    /// The directory with the notes of running mounts, whatever their state directory.
    pub(super) fn running(&self) -> PathBuf {
        self.data.join("running")
    }
}

/// `path` made absolute, without `.` and `..`, and with symlinks followed as far as it exists. Does not touch the file
/// system that may be mounted there: a dead or hanging mount must not stop us.
pub(super) fn absolute(path: &Path) -> CliResult<PathBuf> {
    let full = std::path::absolute(path).map_err(|error| {
        Failure::io(format_args!("{} cannot be resolved", path.display()), &error)
    })?;
    let (Some(parent), Some(Component::Normal(name))) =
        (full.parent(), full.components().next_back())
    else {
        return Ok(full.canonicalize().unwrap_or(full));
    };
    let path = existing(parent).join(name);
    // The kernel itself answers readlink(2) on a mount's root (EINVAL).
    if path.read_link().is_ok() { Ok(path.canonicalize().unwrap_or(path)) } else { Ok(path) }
}

/// `directory` with symlinks followed, as far as it exists.
fn existing(directory: &Path) -> PathBuf {
    let mut rest: Vec<OsString> = Vec::new();
    let mut here = directory;
    loop {
        if let Ok(found) = here.canonicalize() {
            return rest.iter().rev().fold(found, |path, name| path.join(name));
        }
        match (here.parent(), here.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                here = parent;
            }
            _ => return directory.to_path_buf(),
        }
    }
}

/// The listening address, with the path of a socket made absolute, since the daemon has another working directory.
pub(super) fn listen_at(asked: &ListenAt) -> CliResult<ListenAt> {
    let ListenAt::Unix(path) = asked else { return Ok(asked.clone()) };
    let path = absolute(path)?;
    if path.to_str().is_none() {
        let text = format!("{} is not UTF-8; take another path for the socket", path.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(ListenAt::Unix(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_are_followed_and_what_is_missing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink(base.join("real"), base.join("link")).unwrap();
        assert_eq!(absolute(&base.join("link")).unwrap(), base.join("real"));
        assert_eq!(absolute(&base.join("link/mount")).unwrap(), base.join("real/mount"));
        assert_eq!(absolute(&base.join("link/./a/b")).unwrap(), base.join("real/a/b"));
        assert_eq!(absolute(Path::new("/")).unwrap(), Path::new("/"));
        assert!(absolute(Path::new("vault")).unwrap().is_absolute());
    }
}
