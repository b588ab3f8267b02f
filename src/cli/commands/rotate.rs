//! `s3vault key rotate`: a new master key with its key slots. Both are made in this process. The daemon that has the
//! vault open puts the slots into the bucket and gets the new key sealed with the old one.

use std::path::Path;

use super::keyed_vault::KeyedVault;
use crate::cli::exit::{CliResult, Failure};
use crate::cli::keys::{KeysAsked, clean};
use crate::cli::messages;
use crate::cli::output;
use crate::cli::recovery_output::RecoveryOutput;
use crate::cli::secrets::{GivenPassphrase, PassphraseSource};
use crate::cli::unlock::passphrase;
use crate::vault::{
    self, Argon2Params, Error, KeySlot, NewKey, OpenedBySecret, RecoveryKey, SlotInfo,
};

/// Begins a new key epoch.
pub(super) async fn rotate(
    place: &KeyedVault<'_>,
    recovery_file: Option<&Path>,
    rewrite: bool,
) -> CliResult {
    let (opened, given) = place.open().await?;
    let slots = opened.slots();
    // Chosen before anything is made: a user who would lose a recovery key is told so first.
    let makes_recovery =
        slots.iter().enumerate().any(|(at, slot)| slot.recovery && at != opened.slot);
    let to = makes_recovery.then(|| RecoveryOutput::choose(recovery_file)).transpose()?;
    let failed = |error: Error| messages::of_vault(&error, &place.target.describe());
    let new = NewKey::make(&opened);
    let mut kept = vec![resealed(&new, &opened, &given).map_err(failed)?];
    if let Some(to) = &to {
        let recovery = RecoveryKey::generate();
        kept.push(vault::seal_recovery(&new.unlocked, &recovery).map_err(failed)?);
        // As in `init`: a slot for a key that nobody has would be useless.
        to.give("", &recovery).map_err(|error| output::failure(&error))?;
    }
    let lost = lost(&slots, opened.slot);
    let rotation = new.rotation(kept);
    let rotation = if rewrite { rotation.of_everything() } else { rotation };
    // A mount rewrites for as long as it runs; a daemon that is started for this command would end with it, so it is
    // waited for.
    let is_mounted = place.running.as_ref().is_some_and(|running| !running.read_only);
    let asked = KeysAsked::Rotate { rotation: rotation.to_text(), wait: rewrite && !is_mounted };
    place.ask(opened, asked).await.map_err(|failure| {
        let text = match makes_recovery {
            true => "; while the key is not rotated, the recovery key above opens nothing, and the one before still counts",
            false => "",
        };
        Failure { message: format!("{}{text}", failure.message), ..failure }
    })?;
    if makes_recovery {
        say!("The recovery key before opens nothing any more; the new one is above.");
    }
    if !lost.is_empty() {
        say!(
            "These open nothing any more, as sealing the new key for them takes their secrets; add them again with \
             `s3vault key add`: {}",
            lost.join(", ")
        );
    }
    if rewrite && is_mounted {
        say!(
            "What is there is sealed anew with it in the background; `s3vault status` says how far that is, and the next mount \
             goes on with it."
        );
    }
    say!("Backups of the superblock are of the old key: make a new one (`s3vault key backup`).");
    Ok(())
}

/// The slot for the secret that was given, sealed for the new key.
fn resealed(
    new: &NewKey,
    opened: &OpenedBySecret,
    given: &GivenPassphrase,
) -> Result<KeySlot, Error> {
    let secret = passphrase(given);
    let slots = opened.slots();
    let old = slots.get(opened.slot).ok_or(Error::WrongSecret)?;
    if old.recovery {
        let recovery = RecoveryKey::parse(secret.expose()).map_err(|_| Error::WrongSecret)?;
        return vault::seal_recovery(&new.unlocked, &recovery);
    }
    let argon = match given.source {
        PassphraseSource::KeyFile(_) => old.argon.unwrap_or_default(),
        _ => vault::measured_argon()?,
    };
    // The cost never becomes lower than before.
    let least = old.argon.unwrap_or_default();
    let argon = Argon2Params { passes: argon.passes.max(least.passes), ..argon };
    vault::seal_passphrase(&new.unlocked, &secret, argon, &old.label)
}

/// The other slots, which are lost since their secrets are not known here.
fn lost(slots: &[SlotInfo], opened: usize) -> Vec<String> {
    let others = slots.iter().enumerate().filter(|(at, slot)| *at != opened && !slot.recovery);
    let name = |(_, slot): (usize, &SlotInfo)| match slot.label.as_str() {
        "" => slot.id.clone(),
        label => format!("{} ({})", slot.id, clean(label)),
    };
    others.map(name).collect()
}
