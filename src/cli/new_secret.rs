//! A new secret for an existing vault: typed twice, read from a file, or generated into a key file.

use std::path::Path;

use super::exit::{CliResult, Exit, Failure};
use super::passphrase_strength::weakness;
use super::secrets::{Bytes, GivenPassphrase, PassphraseSources, make_new_key_file, read};
use crate::cli::secrets::Ask;

/// Warns about a weak new passphrase, which is accepted all the same.
pub(super) fn warn_of_weak(secret: &[u8]) {
    if let Some(why) = weakness(secret) {
        complain!(
            "Note: this passphrase is weak: {why}. Whoever has a copy of the bucket can try passphrases at leisure; four or \
             more random words hold. `s3vault key passphrase` changes it."
        );
    }
}

/// The source of a new secret.
pub(super) enum NewSecret<'a> {
    /// Typed by the user, twice.
    Typed,
    /// The content of this file.
    File(&'a Path),
    /// A random key, written to this new file.
    KeyFile(&'a Path),
}

impl NewSecret<'_> {
    /// Gets the secret. `terminal`: where to ask.
    pub(super) fn get(&self, vault: &str, terminal: &dyn Ask) -> CliResult<Bytes> {
        let secret = self.unjudged(vault, terminal)?;
        if !matches!(self, Self::KeyFile(_)) {
            warn_of_weak(&secret);
        }
        Ok(secret)
    }

    fn unjudged(&self, vault: &str, terminal: &dyn Ask) -> CliResult<Bytes> {
        match self {
            Self::File(path) => {
                let bytes = read(path)?;
                if bytes.is_empty() {
                    let text = format!(
                        "the new passphrase in {} is empty; nothing was changed",
                        path.display()
                    );
                    return Err(Failure::new(Exit::Usage, text));
                }
                Ok(bytes)
            }
            Self::KeyFile(path) => make_new_key_file(path),
            Self::Typed if !terminal.is_there() => Err(Failure::new(
                Exit::NoPassphrase,
                "a new passphrase is needed, and there is no terminal to ask at; nothing was changed; give \
                 --new-passphrase-file FILE",
            )),
            Self::Typed => {
                let sources =
                    PassphraseSources { file: None, command: None, key_file: None, terminal };
                let GivenPassphrase { bytes, .. } = sources.typed_twice(vault)?;
                Ok(bytes)
            }
        }
    }
}
