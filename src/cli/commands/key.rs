//! `s3vault key`: the key slots of a vault. Secrets stay in this process: it seals the new slot, and the daemon that
//! has the vault open puts the slot into the bucket.

use std::io::{self, IsTerminal};
use std::path::Path;

use super::ask::change;
use super::keyed_vault::KeyedVault;
use super::old_states::say_if_copied;
use super::rotate::rotate;
use crate::cli::args::Global;
use crate::cli::control::ControlRequest;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::keys::{KeysAsked, list};
use crate::cli::keys_args::{KeyArgs, KeyCommand, NewPassphraseArg};
use crate::cli::messages;
use crate::cli::new_secret::NewSecret;
use crate::cli::old_states::WhichOne;
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::cli::recovery_output::RecoveryOutput;
use crate::cli::secrets::{Bytes, PassphraseSource, Terminal};
use crate::vault::{
    self, Argon2Params, KeySlot, OpenedBySecret, Passphrase, RecoveryKey, SlotInfo,
};

/// Shows or changes the key slots of a vault.
pub(crate) async fn key(global: &Global, paths: &UserPaths, args: &KeyArgs) -> CliResult {
    let path = match &args.command {
        KeyCommand::List { mountpoint, .. }
        | KeyCommand::Add { mountpoint, .. }
        | KeyCommand::Passphrase { mountpoint, .. }
        | KeyCommand::Recovery { mountpoint, .. }
        | KeyCommand::Backup { mountpoint, .. }
        | KeyCommand::Rotate { mountpoint, .. }
        | KeyCommand::Remove { mountpoint, .. } => mountpoint.clone(),
    };
    let which = WhichOne { path, bucket: args.bucket.bucket.clone() };
    let place = KeyedVault::find(global, paths, &which)?;
    match &args.command {
        KeyCommand::List { json, .. } => place.list(*json).await,
        KeyCommand::Add { label, new, new_key_file, .. } => {
            let secret = match new_key_file {
                Some(path) => NewSecret::KeyFile(path),
                None => of(new),
            };
            let label =
                label.as_deref().unwrap_or(if new_key_file.is_some() { "key file" } else { "" });
            let (opened, _) = place.open().await?;
            let slot = place.seal(&opened, &secret, label)?.to_text();
            place.ask(opened, KeysAsked::Add { slot }).await
        }
        KeyCommand::Passphrase { new, .. } => place.passphrase(&of(new)).await,
        KeyCommand::Recovery { recovery, .. } => {
            let to = RecoveryOutput::choose(recovery.recovery_file.as_deref())?;
            place.recovery(&to).await
        }
        KeyCommand::Rotate { recovery, rewrite, .. } => {
            rotate(&place, recovery.recovery_file.as_deref(), *rewrite).await
        }
        KeyCommand::Backup { file, .. } => place.backup(file).await,
        KeyCommand::Remove { slot, .. } => place.remove(slot).await,
    }
}

fn of(new: &NewPassphraseArg) -> NewSecret<'_> {
    new.new_passphrase_file.as_deref().map_or(NewSecret::Typed, NewSecret::File)
}

impl KeyedVault<'_> {
    async fn list(&self, json: bool) -> CliResult {
        if let Some(running) = &self.running {
            return change(running, &ControlRequest::Keys(KeysAsked::List { json }));
        }
        let (opened, _) = self.open().await?;
        say_if_copied(opened.unlocked.copied.as_deref());
        output::show(&list(&opened.slots(), &opened.epochs(), json).join("\n"))
    }

    fn seal(
        &self,
        opened: &OpenedBySecret,
        new: &NewSecret<'_>,
        label: &str,
    ) -> CliResult<KeySlot> {
        let place = self.target.describe();
        let secret: Bytes = new.get(&place, &Terminal)?;
        let secret = Passphrase::exact(secret.to_vec());
        let failed = |error| messages::of_vault(&error, &place);
        // A random key cannot be guessed, however cheap a guess is.
        let argon = match new {
            NewSecret::KeyFile(_) => Argon2Params::default(),
            _ => vault::measured_argon().map_err(failed)?,
        };
        vault::seal_passphrase(&opened.unlocked, &secret, argon, label).map_err(failed)
    }

    async fn passphrase(&self, new: &NewSecret<'_>) -> CliResult {
        let (opened, given) = self.open().await?;
        let slots = opened.slots();
        let old = replaced(&slots, opened.slot)?.clone();
        let slot = self.seal(&opened, new, &old.label)?.to_text();
        let by_slot = slots.get(opened.slot).is_some_and(|slot| slot.id == old.id);
        self.ask(opened, KeysAsked::Replace { old: old.id, slot }).await?;
        if let (PassphraseSource::KeyFile(path), true) = (&given.source, by_slot) {
            say!("The key file {} opens nothing any more; remove it.", path.display());
        }
        Ok(())
    }

    async fn recovery(&self, to: &RecoveryOutput) -> CliResult {
        let (opened, _) = self.open().await?;
        let recovery = RecoveryKey::generate();
        let slot = vault::seal_recovery(&opened.unlocked, &recovery)
            .map_err(|error| messages::of_vault(&error, &self.target.describe()))?;
        // The key is shown before anything is changed, as in `init`: a slot for a key that nobody has would be useless.
        to.give("", &recovery).map_err(|error| output::failure(&error))?;
        drop(recovery);
        let asked = KeysAsked::Recovery { slot: slot.to_text() };
        self.ask(opened, asked).await.map_err(|failure| {
            let text = format!(
                "{}; while it is not made, the recovery key above opens nothing, and the one before still counts",
                failure.message
            );
            Failure { message: text, ..failure }
        })
    }

    async fn backup(&self, file: &Path) -> CliResult {
        let file = (file != Path::new("-")).then_some(file);
        if file.is_none() && io::stdout().is_terminal() {
            let text =
                "a superblock is no text for a terminal; name a file, or give standard output one";
            return Err(Failure::new(Exit::Usage, text));
        }
        let (opened, _) = self.open().await?;
        let unlocked = &opened.unlocked;
        let failed = |error| messages::of_vault(&error, &self.target.describe());
        let bytes = vault::back_up(unlocked, &self.paths.data, file).map_err(failed)?;
        say_if_copied(unlocked.copied.as_deref());
        let Some(file) = file else { return output::raw(&bytes) };
        say!(
            "The superblock of vault {} (generation {}) is in {}.\n  If the bucket's is lost: --superblock FILE, with a secret \
             that opened the vault when this was made.\n  Make a new one after each change of the keys, and delete this one.",
            unlocked.vault,
            unlocked.generation.0,
            file.display()
        );
        Ok(())
    }

    async fn remove(&self, id: &str) -> CliResult {
        let (opened, _) = self.open().await?;
        let slots = opened.slots();
        let refused =
            |text: String| Err(Failure::new(Exit::Usage, format!("{text}; nothing was changed")));
        if !slots.iter().any(|slot| slot.id == id) {
            return refused(format!("there is no key slot {id}; `s3vault key list` shows them"));
        }
        if slots.len() == 1 {
            return refused(format!("key slot {id} is the last one that opens the vault"));
        }
        // This keeps a user from being left with a vault that only opens with secrets they do not have.
        if slots.get(opened.slot).is_some_and(|slot| slot.id == id) {
            return refused(format!(
                "what was given opens key slot {id} itself; give a passphrase, or the recovery key, of a slot that stays \
                 (--passphrase-file FILE)"
            ));
        }
        self.ask(opened, KeysAsked::Remove { id: id.to_owned() }).await
    }
}

/// The slot that a new passphrase replaces: the one that opened the vault, or, if that was the recovery key's, the only
/// passphrase slot.
fn replaced(slots: &[SlotInfo], opened: usize) -> CliResult<&SlotInfo> {
    let passphrases: Vec<_> = slots.iter().filter(|slot| !slot.recovery).collect();
    match (slots.get(opened).filter(|slot| !slot.recovery), &passphrases[..]) {
        (Some(slot), _) => Ok(slot),
        (None, [only]) => Ok(only),
        (None, []) => Err(Failure::new(
            Exit::Usage,
            "no passphrase opens the vault yet, so there is none to change; nothing was changed; add one: s3vault key add",
        )),
        (None, _) => Err(Failure::new(
            Exit::Usage,
            "the recovery key was given, and several passphrases open the vault, so it is not clear which one to change; \
             nothing was changed; use `s3vault key add`, then `s3vault key remove`",
        )),
    }
}
