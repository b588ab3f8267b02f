//! Where a recovery key is shown, once: on a terminal, or in a file if asked for. Never by accident in a pipe, a
//! journal or the log of a CI, where it would stay.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use super::output;
use crate::vault::RecoveryKey;

/// Where the key goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecoveryOutput {
    /// Standard output, which is a terminal or was asked for.
    Shown,
    /// A new file that only this user can read.
    File(PathBuf),
}

impl RecoveryOutput {
    /// The destination that was asked for. Chosen before anything is made or asked, so that a user who would lose the
    /// key is told so first.
    pub(super) fn choose(asked: Option<&Path>) -> CliResult<Self> {
        match asked {
            Some(path) if path == Path::new("-") => Ok(Self::Shown),
            Some(path) if path.symlink_metadata().is_ok() => Err(Failure::new(
                Exit::Usage,
                format!("{} exists already; nothing was changed; name a new file", path.display()),
            )),
            Some(path) => Ok(Self::File(path.to_path_buf())),
            None if io::stdout().is_terminal() => Ok(Self::Shown),
            None => Err(Failure::new(
                Exit::Usage,
                "the recovery key is shown only once, and standard output is no terminal but may be a log that keeps \
                 it; nothing was changed; give --recovery-file FILE, or --recovery-file - to have it there all the same",
            )),
        }
    }

    /// Like [`RecoveryOutput::choose`], for a new vault. `None`: nobody would see the key, so none is made; one can be
    /// made later.
    pub(super) fn of_init(asked: Option<&Path>) -> CliResult<Option<Self>> {
        if asked.is_none() && !io::stdout().is_terminal() {
            return Ok(None);
        }
        Self::choose(asked).map(Some)
    }

    /// The destination for the store that needs no account: the terminal, or otherwise a file beside its key file.
    pub(super) fn beside(key_file: &Path) -> Self {
        if io::stdout().is_terminal() {
            return Self::Shown;
        }
        let name = |n: u32| match n {
            1 => key_file.with_extension("recovery"),
            n => key_file.with_extension(format!("recovery-{n}")),
        };
        let free = (1..100).map(name).find(|path| path.symlink_metadata().is_err());
        Self::File(free.unwrap_or_else(|| name(100)))
    }

    /// Shows the key to its owner with a note on its use. `before`: text to print first.
    pub(super) fn give(&self, before: &str, recovery: &RecoveryKey) -> io::Result<()> {
        // The buffer has its final size from the start, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(8192));
        text.push_str(before);
        let shown = match self {
            Self::Shown => fill(
                &mut text,
                format_args!(
                    "Recovery key, shown only this once:\n  {recovery}\n  It opens the vault when the passphrase is lost. Write it \
                     down and keep it\n  apart from this machine."
                ),
            ),
            Self::File(path) => {
                write_new(path, recovery)?;
                fill(
                    &mut text,
                    format_args!(
                        "Recovery key: in {}, which only this user can read.\n  It opens the vault when the passphrase is lost. \
                     Move it to a place apart\n  from this machine.",
                        path.display()
                    ),
                )
            }
        };
        shown.map_err(io::Error::other)?;
        output::write(&text)
    }
}

fn fill(text: &mut String, words: std::fmt::Arguments<'_>) -> std::fmt::Result {
    std::fmt::Write::write_fmt(text, words)
}

/// Completely and durably written; if that fails, the vault is not made.
fn write_new(path: &Path, recovery: &RecoveryKey) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        crate::os::make_private(dir).map_err(named)?;
    }
    let mut text = Zeroizing::new(String::with_capacity(128));
    fill(&mut text, format_args!("{recovery}\n")).map_err(io::Error::other)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(named)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(named)?;
    // Its name, too, is to survive a loss of power.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    crate::os::sync_dir(dir).map_err(named)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_new_private_and_holds_what_opens_the_vault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery");
        let to = RecoveryOutput::choose(Some(&path)).unwrap();
        let key = RecoveryKey::generate();
        to.give("", &key).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{key}\n"));
        assert_eq!(RecoveryOutput::choose(Some(&path)).unwrap_err().exit, Exit::Usage);
        assert!(to.give("", &key).is_err(), "what is there stays");
        assert_eq!(RecoveryOutput::choose(Some(Path::new("-"))).unwrap(), RecoveryOutput::Shown);
    }
}
