use proptest::prelude::*;

use super::*;
use crate::crypto::FIRST_EPOCH;

const VAULT: VaultId = VaultId([3; 16]);
const LEAST: Argon2Params = Argon2Params::FLOOR;

fn passphrase(text: &str) -> Passphrase {
    Passphrase::from_bytes(text.as_bytes().to_vec())
}

fn master() -> MasterKey {
    MasterKey::from_bytes([9; 32])
}

fn by_passphrase(text: &str) -> KeySlot {
    let secret = passphrase(text);
    KeySlot::seal_with_passphrase(&master(), VAULT, FIRST_EPOCH, &secret, LEAST).unwrap()
}

fn try_unlock(slots: &[KeySlot], secret: &str) -> Result<[u8; 32], Error> {
    unlock(slots, VAULT, FIRST_EPOCH, &passphrase(secret)).map(|(master, _)| *master.expose())
}

fn reread(slot: &KeySlot) -> KeySlot {
    minicbor::decode(&minicbor::to_vec(slot).unwrap()).unwrap()
}

#[test]
fn a_passphrase_and_the_recovery_key_open_the_same_vault() {
    let recovery = RecoveryKey::generate();
    let slots = [
        reread(&by_passphrase("correct horse")),
        reread(&KeySlot::seal_with_recovery_key(&master(), VAULT, FIRST_EPOCH, &recovery)),
    ];
    let printed = recovery.to_string();
    assert_eq!(try_unlock(&slots, "correct horse\n"), Ok([9; 32]));
    assert_eq!(try_unlock(&slots, &format!("{printed}\n")), Ok([9; 32]));
    assert_eq!(try_unlock(&slots, "wrong horse"), Err(Error::WrongSecret));
    let typo = if printed.ends_with('0') { 'Z' } else { '0' };
    let typo = format!("{}{typo}", &printed[..printed.len() - 1]);
    assert_eq!(try_unlock(&slots, &typo), Err(RecoveryKeyError::Checksum.into()));
    let other = RecoveryKey::generate().to_string();
    assert_eq!(try_unlock(&slots[1..], &other), Err(Error::WrongSecret));
    assert!(unlock(&slots, VaultId([4; 16]), FIRST_EPOCH, &passphrase("correct horse")).is_err());
    assert!(unlock(&slots, VAULT, KeyEpoch(2), &passphrase("correct horse")).is_err());
}

/// A passphrase that looks like a recovery key is still a passphrase.
#[test]
fn a_recovery_key_may_be_somebodys_passphrase() {
    let text = RecoveryKey::generate().to_string();
    assert_eq!(try_unlock(&[by_passphrase(&text)], &text), Ok([9; 32]));
}

#[test]
fn nothing_in_a_slot_can_be_changed() {
    let slot = by_passphrase("word");
    let changes: [fn(&mut KeySlot); 6] = [
        |slot| slot.memory_kib += 1,
        |slot| slot.passes += 1,
        |slot| slot.salt[0] ^= 1,
        |slot| slot.sealed[80] ^= 1,
        |slot| slot.sealed.truncate(60),
        |slot| slot.kind = RECOVERY,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut forged = slot.clone();
        change(&mut forged);
        assert_eq!(try_unlock(&[forged], "word"), Err(Error::WrongSecret), "{number}");
    }
}

/// The parameters are bound into the seal even if the key is the same.
#[test]
fn parameters_are_part_of_the_context() {
    let slot = by_passphrase("word");
    let key = passphrase_key(&passphrase("word"), LEAST, &slot.salt).unwrap();
    assert!(slot.open(VAULT, &key).is_ok());
    for forged in [
        KeySlot { memory_kib: 1 << 20, ..slot.clone() },
        KeySlot { passes: 9, ..slot.clone() },
        KeySlot { lanes: 2, ..slot.clone() },
        KeySlot { epoch: KeyEpoch(2), ..slot.clone() },
        KeySlot { kind: RECOVERY, ..slot.clone() },
    ] {
        assert_eq!(forged.open(VAULT, &key).err(), Some(Error::WrongSecret));
    }
    assert!(slot.open(VaultId([4; 16]), &key).is_err(), "a slot of another vault");
}

#[test]
fn weak_and_exhausting_parameters_are_refused_before_any_work() {
    let slot = by_passphrase("word");
    let began = std::time::Instant::now();
    for (memory_kib, passes, lanes) in [
        (LEAST.memory_kib - 1, 3, 1),
        (0, 3, 1),
        (LEAST.memory_kib, 2, 1),
        (LEAST.memory_kib, 3, 0),
        (u32::MAX, 3, 1),
        ((2 << 20) + 1, 3, 1),
        (LEAST.memory_kib, 65, 1),
        (LEAST.memory_kib, u32::MAX, 1),
        (LEAST.memory_kib, 3, 17),
    ] {
        let forged = KeySlot { memory_kib, passes, lanes, ..slot.clone() };
        assert!(matches!(try_unlock(&[forged], "word"), Err(Error::SlotParameters(_))));
        let params = Argon2Params { memory_kib, passes, lanes };
        let sealed = KeySlot::seal_with_passphrase(
            &master(),
            VAULT,
            FIRST_EPOCH,
            &passphrase("word"),
            params,
        );
        assert!(matches!(sealed, Err(Error::SlotParameters(_))));
    }
    // Each slot is within its bounds, but together they exceed the limit: none is tried, not even the one
    // that would open.
    let dear = KeySlot { memory_kib: 2 << 20, passes: 30, ..slot.clone() };
    let all = [slot.clone(), dear.clone(), dear];
    assert_eq!(try_unlock(&all, "word"), Err(Error::SlotWork { gib: 120 }));
    assert!(began.elapsed().as_secs() < 20);
    let many = vec![slot; SLOTS_MAX + 1];
    assert_eq!(try_unlock(&many, "word"), Err(Error::TooManySlots(SLOTS_MAX + 1)));
}

#[test]
fn a_bad_slot_or_one_of_the_future_does_not_keep_a_good_one_shut() {
    let good = by_passphrase("word");
    let bad = KeySlot { memory_kib: u32::MAX, ..good.clone() };
    let future = KeySlot { kind: 77, ..good.clone() };
    assert_eq!(try_unlock(&[bad.clone(), future.clone(), good], "word"), Ok([9; 32]));
    assert_eq!(try_unlock(&[future], "word"), Err(Error::WrongSecret));
    assert!(matches!(try_unlock(&[bad], "word"), Err(Error::SlotParameters(_))));
    assert_eq!(try_unlock(&[], "word"), Err(Error::WrongSecret));
}

/// Argon2id as in RFC 9106: a second implementation finds the same key (Python's `cryptography` 50:
/// `Argon2id(salt=b"\1" * 32, length=32, iterations=3, lanes=1, memory_cost=65536)`).
#[test]
fn argon2id_agrees_with_another_implementation() {
    let key = passphrase_key(&passphrase("word"), LEAST, &[1; 32]).unwrap();
    let hex = data_encoding::HEXLOWER.encode(&key[..]);
    assert_eq!(hex, "e4e84c6a1d90fcd1ddce6af2ecfdf016a81eda017cc1af0f566757177dc41209");
}

#[test]
fn debug_shows_no_secret() {
    assert_eq!(format!("{:?}", master()), "MasterKey(..)");
    let slot = KeySlot { sealed: vec![0xab; 4], salt: [0; 32], ..by_passphrase("word") };
    assert!(!format!("{slot:?}").contains("171"));
}

proptest! {
    #![proptest_config(crate::types::cases(256))]
    #[test]
    fn arbitrary_cbor_is_no_slot(bytes: Vec<u8>) {
        if let Ok(slot) = minicbor::decode::<KeySlot>(&bytes) {
            prop_assert!(slot.sealed.len() <= bytes.len());
        }
    }

    #[test]
    fn a_mutated_slot_never_panics(at in 0usize..200, byte: u8) {
        let recovery = RecoveryKey::generate();
        let slot = KeySlot::seal_with_recovery_key(&master(), VAULT, FIRST_EPOCH, &recovery);
        let mut bytes = minicbor::to_vec(&slot).unwrap();
        let at = at % bytes.len();
        let changed = bytes[at] != byte;
        bytes[at] = byte;
        if let Ok(forged) = minicbor::decode::<KeySlot>(&bytes) {
            let Ok(SlotKind::Recovery { salt }) = forged.kind() else { return Ok(()) };
            let opened = forged.open(VAULT, &recovery_key(&recovery, &salt));
            prop_assert!(opened.is_err() || !changed || forged == slot);
        }
    }
}

#[test]
fn what_is_made_takes_about_a_second_within_bounds() {
    let passes = |millis| Argon2Params::of_a_second(Duration::from_millis(millis)).passes;
    assert_eq!([0, 1, 50, 100, 200, 300, 400, 60_000].map(passes), [12, 12, 12, 10, 5, 3, 3, 3]);
    let most = Argon2Params::of_a_second(Duration::ZERO);
    assert!(most.check().is_ok() && most.memory_kib == Argon2Params::default().memory_kib);
    // A vault whose slots are all made this way still opens.
    assert!(SLOTS_MAX as u64 * most.work() <= WORK_MAX);
}
