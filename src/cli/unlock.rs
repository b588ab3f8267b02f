//! Makes or unlocks a vault: all that needs the passphrase. Argon2 takes 256 MiB for a second here, in the short-lived
//! front process.

use std::fmt::Write;

use super::args::Global;
use super::config::{Config, KnownVault};
use super::exit::{CliResult, Exit, Failure};
use super::init_dialogue::{Console, typed_back};
use super::messages;
use super::new_secret::warn_of_weak;
use super::passphrase_command;
use super::paths::{UserPaths, absolute};
use super::recovery_output::RecoveryOutput;
use super::secrets::{
    Ask, GivenPassphrase, PassphraseSource, PassphraseSources, TRIES, Terminal, other_forms,
};
use super::target::Target;
use crate::os::make_private;
use crate::vault::{
    self, Bucket, Conditional, InitSecrets, OpenedBySecret, Passphrase, RecoveryKey,
    SuperblockCopy, Unlocked,
};

/// Finds, asks for, or makes the secrets of a target.
pub(super) struct Unlocker<'a> {
    pub global: &'a Global,
    pub paths: &'a UserPaths,
    pub target: &'a Target,
}

/// How to make a vault.
#[derive(Clone, Copy)]
pub(super) struct NewVault<'a> {
    /// Whether the store may ignore conditional puts.
    pub single_machine: bool,
    /// Where the recovery key goes; `None`: none is made.
    pub recovery: Option<&'a RecoveryOutput>,
    /// Its local name.
    pub name: Option<&'a str>,
    /// Whether the recovery key must be typed back before anything is made.
    pub is_typed_back: bool,
}

impl Unlocker<'_> {
    fn with_sources<T>(
        &self,
        keyed: bool,
        use_them: impl FnOnce(&PassphraseSources<'_>) -> T,
    ) -> T {
        let key_file = self.paths.key_file();
        use_them(&PassphraseSources {
            file: self.global.passphrase_file.as_deref(),
            command: self.command(),
            key_file: (keyed && self.target.embedded).then_some(&key_file),
            terminal: &Terminal,
        })
    }

    /// The command that prints the passphrase, if there is one.
    fn command(&self) -> Option<Vec<String>> {
        let Global { passphrase_command, passphrase_keyring, .. } = self.global;
        let keyring = || passphrase_command::keyring(&self.target.url.to_string());
        let command = passphrase_command.as_deref().map(passphrase_command::words);
        command.or_else(|| passphrase_keyring.then(keyring))
    }

    /// Makes the vault, tells how it can be opened again, and remembers it.
    pub(super) async fn make(&self, bucket: &Bucket, new: &NewVault<'_>) -> CliResult {
        let NewVault { single_machine, recovery, name, is_typed_back } = *new;
        let place = self.target.describe();
        let given = self.with_sources(true, |sources| sources.for_new(&place))?;
        if !matches!(given.source, PassphraseSource::KeyFile(_)) {
            warn_of_weak(&given.bytes);
        }
        let show = |key: &RecoveryKey| match recovery {
            Some(recovery) => {
                recovery.give(&key_file_text(&given), key)?;
                if is_typed_back { typed_back(&mut Console, key) } else { Ok(()) }
            }
            None => Ok(()),
        };
        let mut secrets =
            InitSecrets { recovery: recovery.is_some(), ..InitSecrets::new(passphrase(&given)) };
        let failed = |error| messages::of_vault(&error, &place);
        // A random key cannot be guessed, however cheap a guess is.
        if !matches!(given.source, PassphraseSource::KeyFile(_)) {
            secrets.argon = vault::measured_argon().map_err(failed)?;
        }
        let made = vault::init(bucket, secrets, single_machine, show).await.map_err(failed)?;
        let id = made.vault.to_string();
        if recovery.is_none() {
            say!("{}{}", key_file_text(&given), messages::NO_RECOVERY_KEY);
        }
        say!("Made a vault in {place} (vault {id}).");
        if !matches!(made.conditional, Conditional::NotDisproved) {
            say!("{}", messages::UNSAFE_STORE);
        }
        let known = KnownVault { name: name.map(ToOwned::to_owned), ..self.target.remembered(id) };
        Config::update(&self.paths.config, |config| config.remember(known, None))
    }

    /// Unlocks the vault. A user at a terminal may try again.
    pub(super) async fn unlock(&self, bucket: &Bucket) -> CliResult<Unlocked> {
        Ok(self.open(bucket).await?.0.unlocked)
    }

    /// Unlocks the vault; also returns what opened it.
    pub(super) async fn open(
        &self,
        bucket: &Bucket,
    ) -> CliResult<(OpenedBySecret, GivenPassphrase)> {
        let place = self.target.describe();
        let copy = self.superblock_copy()?;
        let mut keyed = true;
        for attempt in 1.. {
            let given = self.with_sources(keyed, |sources| sources.existing(&place))?;
            match vault::open_by(bucket, copy.as_ref(), &passphrase(&given)).await {
                Ok(opened) => {
                    self.the_known_one(&opened.unlocked)?;
                    return Ok((opened, given));
                }
                Err(error) => {
                    // The key file does not open the vault, perhaps since the passphrase was changed; ask the user.
                    if let (PassphraseSource::KeyFile(path), vault::Error::WrongSecret, true) =
                        (&given.source, &error, Terminal.is_there())
                    {
                        complain!("The key file {} does not open the vault.", path.display());
                        keyed = false;
                        continue;
                    }
                    if let Some(gone) = self.has_vanished(&error) {
                        return Err(gone);
                    }
                    let failure = messages::of_vault(&error, &place);
                    let again = given.source == PassphraseSource::Terminal && attempt < TRIES;
                    if failure.exit != Exit::WrongPassphrase {
                        return Err(failure);
                    }
                    if !again {
                        return Err(self.with_hint(failure, &error, bucket, &given).await);
                    }
                    complain!("That is neither the passphrase nor the recovery key.");
                }
            }
        }
        unreachable!("the loop ends by itself")
    }

    /// The failure, if nothing is left of a vault that this machine knows: its disk may not be mounted.
    fn has_vanished(&self, error: &vault::Error) -> Option<Failure> {
        let known = self.target.known_vault()?;
        let place = self.target.describe();
        matches!(error, vault::Error::NoVault).then(|| messages::vanished(&place, &known.id))
    }

    /// The copy that may stand in for a lost superblock.
    fn superblock_copy(&self) -> CliResult<Option<SuperblockCopy>> {
        let named = self.global.superblock.as_deref().map(absolute).transpose()?;
        let known = self.target.known.as_ref().map(|known| known.id.as_str());
        SuperblockCopy::find(named.as_deref(), &self.paths.data, known)
            .map_err(|error| messages::of_vault(&error, &self.target.describe()))
    }

    /// Tells if the passphrase is wrong only in its bytes: line endings, byte order marks and accents do not show.
    async fn with_hint(
        &self,
        mut failure: Failure,
        error: &vault::Error,
        bucket: &Bucket,
        given: &GivenPassphrase,
    ) -> Failure {
        if !matches!(error, vault::Error::WrongSecret) {
            return failure;
        }
        let forms = other_forms(&given.bytes);
        let secrets = forms.iter().map(|(form, _)| Passphrase::exact(form.to_vec())).collect();
        // Whatever else fails now, the passphrase was wrong.
        if let Ok(Some(which)) = vault::which_opens(bucket, secrets).await {
            let how = &forms[which].1;
            // Writing to a String cannot fail.
            let _ =
                write!(failure.message, "; the same text {how} opens the vault: enter it that way");
        }
        failure
    }

    /// A remembered vault is a certain vault, not whatever is at its place now.
    fn the_known_one(&self, unlocked: &Unlocked) -> CliResult {
        let id = unlocked.vault.to_string();
        match &self.target.known {
            Some(known) if known.id != id && !known.id.is_empty() => {
                let text = format!(
                    "{} holds another vault ({id}) than the one that is remembered there ({}); nothing was \
                     changed; if that is intended, remove the old one from {}",
                    self.target.describe(),
                    known.id,
                    self.paths.config.display()
                );
                Err(Failure::new(Exit::Rollback, text))
            }
            _ => Ok(()),
        }
    }

    /// Whether the bucket holds a vault.
    pub(super) async fn is_made(&self, bucket: &Bucket) -> CliResult<bool> {
        vault::exists(bucket)
            .await
            .map_err(|error| messages::of_vault(&error, &self.target.describe()))
    }

    /// The directory of a store on this machine: `init` makes it.
    pub(super) fn make_directory(&self) -> CliResult {
        match self.target.directory() {
            Some(path) if !path.exists() => make_private(&path).map_err(|error| {
                Failure::io(format_args!("{} cannot be made", path.display()), &error)
            }),
            _ => Ok(()),
        }
    }
}

/// The text about a key file that was made, or is used, for a new vault.
fn key_file_text(given: &GivenPassphrase) -> String {
    let PassphraseSource::KeyFile(path) = &given.source else { return String::new() };
    format!(
        "No passphrase was given, so a key was generated: {} (only this user can read it).\n  Whoever has that file \
         can open the vault, and without it, or the recovery key, nobody can:\n  it protects the bucket, not this \
         machine. Keep a copy elsewhere.\n",
        path.display()
    )
}

pub(super) fn passphrase(given: &GivenPassphrase) -> Passphrase {
    // The final newline is removed already; a further one is part of the passphrase.
    Passphrase::exact(given.bytes.to_vec())
}
