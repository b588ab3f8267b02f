//! Requests about a vault's keys, and the text of the answers. Nothing here is secret: a new slot is sealed by the
//! client, and goes to the daemon in the form that the bucket stores.

use serde::{Deserialize, Serialize};

use bytesize::ByteSize;

use super::messages;
use crate::types::RenewalStatus;
use crate::vault::{
    ChangedKeys, EpochInfo, EpochNeed, Error, KeyChange, KeySlot, Rotation, SlotInfo, Vault,
};

/// A request about the keys. Slots are in text form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeysAsked {
    /// List the slots.
    List {
        /// Print JSON.
        json: bool,
    },
    /// Add a slot.
    Add {
        /// The slot, sealed under the new secret.
        slot: String,
    },
    /// Replace a slot.
    Replace {
        /// The id of the slot to replace.
        old: String,
        /// The slot, sealed under the new secret.
        slot: String,
    },
    /// Set the only recovery key.
    Recovery {
        /// The slot, sealed under it.
        slot: String,
    },
    /// Begin a new key epoch.
    Rotate {
        /// The rotation, in text form.
        rotation: String,
        /// Whether to wait until everything is resealed.
        #[serde(default)]
        wait: bool,
    },
    /// Remove a slot.
    Remove {
        /// The slot's id.
        id: String,
    },
}

/// Carries out a request; returns the answer's lines.
pub(super) async fn carry_out(vault: &Vault, what: &KeysAsked) -> Result<Vec<String>, Error> {
    let read = |text: &String| KeySlot::from_text(text).map_err(Error::Crypto);
    let (change, headline) = match what {
        KeysAsked::List { json } => {
            let (slots, epochs) = vault.key_slots().await?;
            return Ok(list(&slots, &epochs, *json));
        }
        KeysAsked::Rotate { rotation, wait } => {
            let bad = || Error::Keys("what was sent is no rotation".to_owned());
            let rotation = Rotation::from_text(rotation).ok_or_else(bad)?;
            let changed = vault.rotate_key(&rotation).await?;
            let headline =
                "The key is rotated: what is written from now on opens with the new one alone.";
            let mut lines = told(headline.to_owned(), &changed);
            if *wait {
                lines.extend(renewed(vault.renew().await));
            }
            return Ok(lines);
        }
        KeysAsked::Add { slot } => {
            let slot = read(slot)?;
            let headline = format!("Key slot {} is added.", slot.id());
            (KeyChange::Add(slot), headline)
        }
        KeysAsked::Replace { old, slot } => {
            let slot = read(slot)?;
            let headline = format!(
                "The passphrase is changed (key slot {}, in the place of {old}); the one before opens nothing any more.",
                slot.id()
            );
            (KeyChange::Replace { old: old.clone(), new: slot }, headline)
        }
        KeysAsked::Recovery { slot } => {
            let headline = "The new recovery key counts; the one before opens nothing any more.";
            (KeyChange::Recovery(read(slot)?), headline.to_owned())
        }
        KeysAsked::Remove { id } => {
            let headline = format!("Key slot {id} is removed; its secret opens nothing any more.");
            (KeyChange::Remove(id.clone()), headline)
        }
    };
    let changed = vault.change_keys(&change).await?;
    Ok(told(headline, &changed))
}

/// The lines about resealing. Whatever its outcome, the rotation itself holds.
fn renewed(done: Result<RenewalStatus, Error>) -> Vec<String> {
    match done {
        Ok(done) => {
            let bytes = ByteSize::b(done.done_bytes);
            let mut lines = vec![format!(
                "All that the vault needs now is sealed with the new key ({bytes} were sealed anew)."
            )];
            if let Some(objects) = done.old_objects.filter(|objects| *objects > 0) {
                lines.push(format!(
                    "{objects} objects that the old key opens stay in the bucket for old states and snapshots; they go as these do \
                     (`s3vault gc`, `s3vault retention`), the log's after three days."
                ));
            }
            lines
        }
        Err(error) => vec![format!(
            "Note: not all is sealed with the new key yet ({error}); the next mount goes on with that, and `s3vault status` \
             says how far it is."
        )],
    }
}

fn told(headline: String, changed: &ChangedKeys) -> Vec<String> {
    let mut lines = vec![headline, "What opens the vault now:".to_owned()];
    lines.extend(list(&changed.slots, &[], false));
    lines.extend(changed.trouble.iter().map(|trouble| format!("Note: {trouble}.")));
    lines
}

/// A slot in the output of `--json`.
#[derive(Serialize)]
struct SlotReport<'a> {
    id: &'a str,
    kind: &'static str,
    label: &'a str,
    made: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u32>,
}

/// The slots as a table of less than 80 columns (unless labels are long), or as one JSON object.
pub(super) fn list(slots: &[SlotInfo], epochs: &[EpochInfo], json: bool) -> Vec<String> {
    let kind = |slot: &SlotInfo| if slot.recovery { "recovery key" } else { "passphrase" };
    if json {
        let report = |slot: &SlotInfo| {
            serde_json::json!(SlotReport {
                id: &slot.id,
                kind: kind(slot),
                label: &slot.label,
                made: messages::when(slot.made),
                memory_kib: slot.argon.map(|argon| argon.memory_kib),
                passes: slot.argon.map(|argon| argon.passes),
                lanes: slot.argon.map(|argon| argon.lanes),
            })
        };
        let slots: Vec<_> = slots.iter().map(report).collect();
        let epoch = |info: &EpochInfo| serde_json::json!({ "epoch": info.epoch, "needed_by": need(info.need).0 });
        let epochs: Vec<_> = epochs.iter().map(epoch).collect();
        return vec![serde_json::json!({ "slots": slots, "epochs": epochs }).to_string()];
    }
    let row = |id: &str, kind: &str, made: &str, work: &str, label: &str| {
        format!("{id:<8}  {kind:<12}  {made:<20}  {work:<15}  {label}").trim_end().to_owned()
    };
    let mut lines = vec![row("SLOT", "OPENED BY", "MADE", "A GUESS TAKES", "LABEL")];
    lines.extend(slots.iter().map(|slot| {
        let work =
            slot.argon.map(|argon| format!("{} MiB x {}", argon.memory_kib >> 10, argon.passes));
        let made = messages::when(slot.made);
        row(&slot.id, kind(slot), &made, work.as_deref().unwrap_or("-"), &clean(&slot.label))
    }));
    if epochs.len() > 1 {
        lines.push(format!("{:<8}  {}", "EPOCH", "ITS KEY IS NEEDED BY"));
        let row = |info: &EpochInfo| format!("{:<8}  {}", info.epoch, need(info.need).1);
        lines.extend(epochs.iter().map(row));
    }
    lines
}

/// What still needs the key of an epoch: for programs, and for people.
fn need(need: EpochNeed) -> (&'static str, &'static str) {
    match need {
        EpochNeed::Newest => ("new", "what is written now"),
        EpochNeed::Now => ("now", "the vault as it is now: what was sealed with it stays"),
        EpochNeed::BeingRenewed => {
            ("renewal", "the vault as it is now, which is being sealed anew")
        }
        EpochNeed::OldStates => ("old", "old states and snapshots alone, until these go"),
        EpochNeed::Nothing => ("nothing", "nothing in the bucket (but for the order of names)"),
    }
}

/// A label may come from another machine, so control characters are removed before a terminal sees it.
pub(super) fn clean(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;
    use crate::vault::Argon2Params;

    #[test]
    fn a_table_fits_a_terminal_and_shows_no_escapes() {
        let made = Timestamp { seconds: 1_764_460_800, nanos: 0 };
        let argon = Some(Argon2Params { memory_kib: 1 << 20, passes: 3, lanes: 1 });
        let (id, label) = ("0a1b2c3d".to_owned(), "\x1b[2Jlaptop".to_owned());
        let slots = [
            SlotInfo { id: id.clone(), recovery: false, label, made, argon },
            SlotInfo { id, recovery: true, label: String::new(), made, argon: None },
        ];
        let lines = list(&slots, &[], false);
        assert!(lines.iter().all(|line| line.len() < 80 && !line.contains('\x1b')), "{lines:?}");
        assert!(lines[1].ends_with("1024 MiB x 3     [2Jlaptop"), "{lines:?}");
        let json: serde_json::Value = serde_json::from_str(&list(&slots, &[], true)[0]).unwrap();
        assert_eq!(json["slots"][0]["memory_kib"], 1 << 20);
        assert_eq!(json["slots"][1]["kind"], "recovery key");
        assert!(json["slots"][1]["passes"].is_null());
    }
}
