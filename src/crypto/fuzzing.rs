//! This module's parsers, for hostile bytes (`tests/fuzz`).

use std::sync::OnceLock;

use super::{
    FIRST_EPOCH, KeySlot, Keys, MasterKey, Passphrase, Place, RecoveryKey, SlotNote, unlock,
};
use crate::types::VaultId;

/// Keys for fuzzing what lies behind a seal: bytes are sealed with them, and then opened.
pub fn fuzz_keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    let derive = || Keys::derive(&MasterKey::from_bytes([5; 32]), VaultId([3; 16]), FIRST_EPOCH);
    KEYS.get_or_init(derive)
}

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    let keys = fuzz_keys();
    Some(match kind {
        "slot" => minicbor::decode::<KeySlot>(bytes).is_ok_and(|slot| opens(keys, &slot)),
        "slot-note" => {
            let sealed = keys.seal(Place::SlotNote([1; 32]), bytes);
            SlotNote::open(keys, [1; 32], &sealed).is_ok()
        }
        "message" => keys.open(Place::Local("fuzz", 0), bytes).is_ok(),
        "chunks" => chunks(keys, bytes).is_some(),
        "recovery-key" => RecoveryKey::parse(bytes).is_ok(),
        _ => return None,
    })
}

/// Reads all fields of a slot. No Argon2id work is done: it is bounded elsewhere, and takes a second.
fn opens(keys: &Keys, slot: &KeySlot) -> bool {
    let _ = (slot.id(), slot.to_text(), slot.work(), slot.note(keys));
    let is_costly = slot.work().is_some() && slot.kind().is_ok();
    let secret = Passphrase::from_bytes(b"none".to_vec());
    !is_costly && unlock(std::slice::from_ref(slot), keys.vault(), FIRST_EPOCH, &secret).is_ok()
}

/// Opens chunks of a message with a valid header. The first bytes give the first chunk and the message's
/// length.
fn chunks(keys: &Keys, bytes: &[u8]) -> Option<()> {
    let place = Place::Local("fuzz", 1);
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    let (length, sealed) = rest.split_first_chunk::<8>()?;
    let mut header = Vec::new();
    let (salt, commitment) = keys.seal_into(place, b"", &mut header);
    let opener = keys.opener(place, &salt, &commitment).ok()?;
    let mut plain = Vec::new();
    let (first, length) = (u64::from_le_bytes(*first), u64::from_le_bytes(*length));
    opener.open_chunks(first, length, sealed, &mut plain).ok()
}
