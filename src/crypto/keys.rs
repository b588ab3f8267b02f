//! The subkeys of one vault, by key epoch (K7). All are wiped when dropped.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::RwLock;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::epoch_keys::{EpochEnd, EpochKeys, as_of, is_local};
use super::{Error, IndexKeys, MasterKey, Opener, Place, Plain, Sealed, Sealer, cobblestone};
use crate::types::{CommitNo, InodeNo, KeyEpoch, NameHash, VaultId};

/// The key epoch of a new vault.
pub const FIRST_EPOCH: KeyEpoch = KeyEpoch(1);

/// The keys of one vault: the subkeys of its key epochs. Clones share them, and see new epochs too (K7).
#[derive(Clone)]
pub struct Keys(Arc<KeyRing>);

struct KeyRing {
    vault: VaultId,
    /// Names, and what is on this machine alone, stay in the first epoch.
    first: Arc<EpochKeys>,
    epochs: RwLock<Epochs>,
}

struct Epochs {
    newest: Arc<EpochKeys>,
    /// Older epochs in ascending order, and how each ended, if that is known.
    older: Vec<(Arc<EpochKeys>, Option<EpochEnd>)>,
    /// Whether the newest epoch seals. If not, the one before does, until the log names the newest epoch's superblock.
    is_begun: bool,
}

impl Keys {
    /// Derives the keys of one epoch.
    pub fn derive(master: &MasterKey, vault: VaultId, epoch: KeyEpoch) -> Self {
        let newest = Arc::new(EpochKeys::derive(master, vault, epoch));
        let first = newest.clone();
        let epochs = RwLock::new(Epochs { newest, older: Vec::new(), is_begun: true });
        Self(Arc::new(KeyRing { vault, first, epochs }))
    }

    /// Adds the earlier epochs, in ascending order from the first: each one's master key, and how it ended. An epoch that
    /// has not ended yet goes on sealing.
    #[must_use]
    pub fn with_older(self, older: Vec<(KeyEpoch, MasterKey, Option<EpochEnd>)>) -> Self {
        let vault = self.0.vault;
        let older: Vec<_> = older
            .into_iter()
            .map(|(epoch, master, last)| (Arc::new(EpochKeys::derive(&master, vault, epoch)), last))
            .collect();
        let Some((first, _)) = older.first() else { return self };
        let (first, newest) = (first.clone(), self.0.epochs.read().newest.clone());
        let is_begun = older.iter().all(|(_, end)| end.is_some());
        let epochs = RwLock::new(Epochs { newest, older, is_begun });
        Self(Arc::new(KeyRing { vault, first, epochs }))
    }

    /// Adds a new epoch, which does not seal yet.
    pub fn add(&self, master: &MasterKey, epoch: KeyEpoch) {
        let newest = Arc::new(EpochKeys::derive(master, self.0.vault, epoch));
        let mut epochs = self.0.epochs.write();
        let before = std::mem::replace(&mut epochs.newest, newest);
        epochs.older.push((before, None));
        epochs.is_begun = false;
    }

    /// Lets the newest epoch seal from now on.
    pub fn begin_newest(&self) {
        self.0.epochs.write().is_begun = true;
    }

    /// Ends the older epochs this way, unless they have ended already.
    pub fn end_older(&self, end: EpochEnd) {
        for (_, ended) in &mut self.0.epochs.write().older {
            ended.get_or_insert(end);
        }
    }

    /// Whether the current vault may be opened from this manifest, which opens with one of the keys. Of the manifests that
    /// an ended epoch sealed, only its base may be used. Otherwise whoever has that epoch's key could forge what was before
    /// its last commit.
    pub fn may_begin_at(&self, number: CommitNo, manifest: &[u8]) -> bool {
        let place = Place::Manifest(number);
        let Some((salt, rest)) = manifest.split_first_chunk::<24>() else { return false };
        let Some(given) = rest.first_chunk::<32>() else { return false };
        let epochs = self.0.epochs.read();
        let older = epochs.older.iter().filter_map(|(keys, end)| Some((keys, end.as_ref()?)));
        let sealed_by = |keys: &EpochKeys| {
            Opener::new(keys.key(place), &keys.context(place), salt, given).is_ok()
        };
        let mut of_ended = older.filter(|(keys, _)| sealed_by(keys));
        of_ended.all(|(_, end)| end.base == Some(super::sha256(manifest)))
    }

    /// Whether an older epoch may still seal commits, as far as the superblock says.
    pub fn is_rotating(&self) -> bool {
        self.0.epochs.read().older.iter().any(|(_, last)| last.is_none())
    }

    /// The vault of these keys.
    pub fn vault(&self) -> VaultId {
        self.0.vault
    }

    /// The newest key epoch: that of the superblock and its key slots.
    pub fn epoch(&self) -> KeyEpoch {
        self.0.epochs.read().newest.epoch
    }

    /// The keys that now seal messages for this place.
    fn sealing(&self, place: Place) -> Arc<EpochKeys> {
        let epochs = self.0.epochs.read();
        match epochs.older.last() {
            _ if is_local(place) => self.0.first.clone(),
            Some((before, _)) if !epochs.is_begun && as_of_bucket(place) => before.clone(),
            _ => epochs.newest.clone(),
        }
    }

    /// The keys that may have sealed a message of this place, newest first.
    fn opening(&self, place: Place) -> Vec<Arc<EpochKeys>> {
        if is_local(place) {
            return vec![self.0.first.clone()];
        }
        let epochs = self.0.epochs.read();
        let counts = |end: &Option<EpochEnd>| match (as_of(place), end) {
            (Some(number), Some(end)) => number <= end.last,
            _ => true,
        };
        let older = epochs.older.iter().rev().filter(|(_, end)| counts(end));
        let older = older.map(|(keys, _)| keys.clone());
        std::iter::once(epochs.newest.clone()).chain(older).collect()
    }

    /// Tries the keys for this place in turn; a message's commitment tells which one fits.
    fn by_any<T>(
        &self,
        place: Place,
        open: impl Fn(&EpochKeys, &[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for keys in self.opening(place) {
            match open(&keys, &keys.context(place)) {
                Err(Error::Commitment) => {}
                other => return other,
            }
        }
        Err(Error::Commitment)
    }

    /// Seals a small message in one call.
    pub fn seal(&self, place: Place, plain: &[u8]) -> Sealed {
        let mut sealed = Vec::new();
        self.seal_into(place, plain, &mut sealed);
        sealed.into()
    }

    /// Seals a whole message, appends it to `out`, and returns its salt and commitment.
    pub fn seal_into(&self, place: Place, plain: &[u8], out: &mut Vec<u8>) -> ([u8; 24], [u8; 32]) {
        let keys = self.sealing(place);
        cobblestone::seal(keys.key(place), &keys.context(place), plain, out)
    }

    /// Opens a whole message. Allocates no more than the length of `sealed`.
    pub fn open(&self, place: Place, sealed: &[u8]) -> Result<Plain, Error> {
        let open = |keys: &EpochKeys, context: &[u8]| {
            cobblestone::open(keys.key(place), context, sealed).map(Plain::from)
        };
        self.by_any(place, open)
    }

    /// Opens a message that holds a master key.
    pub fn open_key(&self, place: Place, sealed: &[u8]) -> Result<MasterKey, Error> {
        let open = |keys: &EpochKeys, context: &[u8]| {
            cobblestone::open(keys.key(place), context, sealed).map(Zeroizing::new)
        };
        let plain = self.by_any(place, open)?;
        let fill =
            |key: &mut [u8; 32]| (plain.len() == key.len()).then(|| key.copy_from_slice(&plain));
        MasterKey::written(fill).ok_or(Error::Malformed("a master key"))
    }

    /// A sealer for a message that comes in pieces, and the epoch in which it seals.
    pub fn sealer(&self, place: Place) -> (Sealer, KeyEpoch) {
        let keys = self.sealing(place);
        (Sealer::new(keys.key(place), &keys.context(place)), keys.epoch)
    }

    /// Whether a message that begins with `header` (salt and commitment) was sealed with these keys for this place.
    pub fn sealed(&self, place: Place, header: &[u8]) -> bool {
        let Some((salt, rest)) = header.split_first_chunk::<24>() else { return false };
        rest.first_chunk::<32>().is_some_and(|given| self.opener(place, salt, given).is_ok())
    }

    /// Opens chunks of the message that a reference names by `salt` and `commitment`. Fails unless they belong to a message
    /// sealed for this place.
    pub fn opener(
        &self,
        place: Place,
        salt: &[u8; 24],
        commitment: &[u8; 32],
    ) -> Result<Opener, Error> {
        let open = |keys: &EpochKeys, context: &[u8]| {
            Opener::new(keys.key(place), context, salt, commitment)
        };
        self.by_any(place, open)
    }

    /// The epoch whose key made this commitment for this place; `None`: no key that is believed there did.
    pub fn epoch_of(
        &self,
        place: Place,
        salt: &[u8; 24],
        commitment: &[u8; 32],
    ) -> Option<KeyEpoch> {
        let sealed_by = |keys: &Arc<EpochKeys>| {
            Opener::new(keys.key(place), &keys.context(place), salt, commitment).is_ok()
        };
        self.opening(place).into_iter().find(sealed_by).map(|keys| keys.epoch)
    }

    /// The epochs before the newest, and how each ended.
    pub fn older(&self) -> Vec<(KeyEpoch, Option<EpochEnd>)> {
        self.0.epochs.read().older.iter().map(|(keys, end)| (keys.epoch, *end)).collect()
    }

    /// Retires the epochs before this one: they seal nothing of the log and of checkpoints any more, so nothing there is
    /// believed from them (K8).
    pub fn retire(&self, before: KeyEpoch) {
        let mut epochs = self.0.epochs.write();
        let older = epochs.older.iter_mut().filter(|(keys, _)| keys.epoch < before);
        older.for_each(|(_, end)| *end = Some(EpochEnd::RETIRED));
    }

    /// Whether the keys of this epoch are known.
    pub fn knows(&self, epoch: KeyEpoch) -> bool {
        let epochs = self.0.epochs.read();
        epochs.newest.epoch == epoch || epochs.older.iter().any(|(keys, _)| keys.epoch == epoch)
    }

    /// `H` of an entry: the first 16 bytes of HMAC-SHA-256(parent as 8 bytes big-endian, name).
    pub fn name_hash(&self, parent: InodeNo, name: &[u8]) -> NameHash {
        let mac = hmac_sha256(&self.0.first.names, &[&parent.0.to_be_bytes(), name]);
        let mut hash = [0; 16];
        hash.copy_from_slice(&mac[..16]);
        NameHash(hash)
    }

    /// The MAC of a superblock of these bytes: HMAC-SHA-256.
    pub fn superblock_mac(&self, bytes: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0.epochs.read().newest.superblock, &[bytes])
    }

    /// Whether `mac` is the MAC of these bytes; in constant time.
    pub fn verify_superblock_mac(&self, bytes: &[u8], mac: &[u8]) -> bool {
        self.superblock_mac(bytes)[..].ct_eq(mac).into()
    }

    /// The keys of the local index.
    pub fn index(&self) -> IndexKeys {
        self.0.first.index.clone()
    }
}

/// Whether messages of this place are content of the vault. Those that belong to the superblock are sealed in its epoch.
fn as_of_bucket(place: Place) -> bool {
    !matches!(place, Place::SlotNote(_) | Place::OlderKey(_))
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(vault {}, epoch {})", self.0.vault, self.epoch().0)
    }
}

/// HMAC-SHA-256 of the concatenated parts.
fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is valid for HMAC.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::sha256;
    use crate::types::{ExtentId, PackId};

    fn keys() -> Keys {
        Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), FIRST_EPOCH)
    }

    /// Python: `HKDF(SHA512, 32, salt=bytes([1])*16, info=b"s3vault/v1/content\0\0\0\0\1")` of `bytes([7])*32`, and so on.
    /// These never change: vaults depend on them.
    #[test]
    fn derivations_are_those_of_the_format() {
        let keys = keys();
        let first = keys.0.first.clone();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(
            hex(&first.all()[0][..]),
            "d08f5b1634122ccf396aac0cfeef91add94711aa328faec213e71d5cf8f9702b"
        );
        assert_eq!(
            hex(&first.names[..]),
            "6c5d546bff363b0a6da1a7fe88759cf695fe4df89f5154c7b10564de36786f50"
        );
        assert_eq!(
            keys.name_hash(InodeNo(1), b"name").to_string(),
            "b1b7290141aab3679cf31d98e5605518"
        );
        assert_eq!(
            hex(&keys.superblock_mac(b"superblock")),
            "87eded24a6604efe75a38823c9c7b721db81aae5033179b8f263b31f4c9b677b"
        );
    }

    #[test]
    fn every_key_is_its_own() {
        let (keys, mut seen) = (keys(), std::collections::HashSet::new());
        let other = Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([2; 16]), FIRST_EPOCH);
        let next = Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), KeyEpoch(2));
        for keys in [keys, other, next] {
            for key in keys.0.first.all() {
                assert!(seen.insert(*key));
            }
        }
    }

    fn master(epoch: u32) -> MasterKey {
        MasterKey::from_bytes([u8::try_from(epoch).unwrap() + 100; 32])
    }

    fn ended(last: u64) -> EpochEnd {
        EpochEnd { last: CommitNo(last), base: None }
    }

    fn ring(older: &[(u32, Option<u64>)], newest: u32) -> Keys {
        let older = older.iter().map(|(e, last)| (KeyEpoch(*e), master(*e), last.map(ended)));
        let keys = Keys::derive(&master(newest), VaultId([1; 16]), KeyEpoch(newest));
        keys.with_older(older.collect())
    }

    #[test]
    fn k7_an_epoch_opens_what_it_sealed_and_is_believed_up_to_its_last_commit() {
        let one = ring(&[], 1);
        let extent = Place::Extent(ExtentId([4; 16]));
        let of_one = |place| one.seal(place, b"old");
        let three = ring(&[(1, Some(9)), (2, Some(20))], 3);
        assert!(three.open(extent, &of_one(extent)).is_ok() && !three.is_rotating());
        for (number, counts) in [(9, true), (10, false), (u64::MAX, false)] {
            for place in [Place::Commit(CommitNo(number)), Place::Manifest(CommitNo(number))] {
                assert_eq!(three.open(place, &of_one(place)).is_ok(), counts, "{place:?}");
                assert_eq!(three.sealed(place, &of_one(place)), counts, "{place:?}");
                assert!(one.open(place, &three.seal(place, b"new")).is_err());
            }
        }
        // The current vault begins only at one of the manifests that it sealed.
        let place = Place::Manifest(CommitNo(9));
        let (base, other) = (of_one(place), of_one(place));
        let older = vec![(
            KeyEpoch(1),
            master(1),
            Some(EpochEnd { base: Some(sha256(&base)), ..ended(9) }),
        )];
        let two = Keys::derive(&master(2), VaultId([1; 16]), KeyEpoch(2)).with_older(older);
        let begins = |sealed: &[u8]| two.may_begin_at(CommitNo(9), sealed);
        assert!(begins(&base) && !begins(&other) && begins(&two.seal(place, b"new")));
        assert!(two.open(place, &other).is_ok() && !three.may_begin_at(CommitNo(9), &base));
        // Names and local messages stay as they are; everything else is of the newest epoch.
        assert_eq!(three.name_hash(InodeNo(1), b"n"), one.name_hash(InodeNo(1), b"n"));
        let local = Place::Local("x", 1);
        assert!(one.open(local, &three.seal(local, b"here")).is_ok());
        assert_eq!((three.epoch(), three.sealer(extent).1), (KeyEpoch(3), KeyEpoch(3)));
        assert!(three.knows(KeyEpoch(2)) && !three.knows(KeyEpoch(4)));
        assert_ne!(three.superblock_mac(b"s"), one.superblock_mac(b"s"));
    }

    #[test]
    fn k7_a_new_epoch_seals_once_it_is_begun_and_the_one_before_ends_when_that_is_said() {
        let (keys, shared) = (ring(&[], 1), ring(&[], 1));
        let clone = keys.clone();
        let place = Place::Commit(CommitNo(5));
        keys.add(&master(2), KeyEpoch(2));
        assert!(keys.is_rotating() && shared.open(place, &clone.seal(place, b"1")).is_ok());
        // A slot belongs to the superblock, which is of the new epoch.
        let note = Place::SlotNote([1; 32]);
        assert!(shared.open(note, &keys.seal(note, b"x")).is_err());
        let reopened = ring(&[(1, None)], 2);
        assert_eq!(reopened.sealer(place).1, KeyEpoch(1));
        assert_eq!(ring(&[(1, Some(4))], 2).sealer(place).1, KeyEpoch(2));
        keys.begin_newest();
        assert_eq!((clone.sealer(place).1, keys.is_rotating()), (KeyEpoch(2), true));
        assert!(clone.open(place, &shared.seal(place, b"1")).is_ok());
        keys.end_older(ended(4));
        assert!(clone.open(place, &shared.seal(place, b"1")).is_err() && !clone.is_rotating());
        assert_eq!(format!("{clone:?}"), format!("Keys(vault {}, epoch 2)", clone.vault()));
    }

    #[test]
    fn a_message_opens_only_in_its_place() {
        let keys = keys();
        let place = Place::Commit(CommitNo(4));
        let sealed = keys.seal(place, b"transactions");
        assert_eq!(&keys.open(place, &sealed).unwrap()[..], b"transactions");
        for elsewhere in [
            Place::Commit(CommitNo(5)),
            Place::Manifest(CommitNo(4)),
            Place::Extent(ExtentId([4; 16])),
        ] {
            assert_eq!(keys.open(elsewhere, &sealed), Err(Error::Commitment));
        }
        assert_ne!(keys.seal(place, b"same"), keys.seal(place, b"same"));
    }

    #[test]
    fn a_reference_opens_exactly_one_message() {
        let keys = keys();
        let place = Place::Extent(ExtentId([4; 16]));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let (salt, commitment) = keys.seal_into(place, b"new", &mut one);
        keys.seal_into(place, b"old", &mut other);
        let opener = keys.opener(place, &salt, &commitment).unwrap();
        let mut plain = Vec::new();
        assert_eq!(opener.open_chunk(0, true, &one[56..], &mut plain), Ok(()));
        assert_eq!(
            opener.open_chunk(0, true, &other[56..], &mut plain),
            Err(Error::Tag { index: 0 })
        );
        assert_eq!(plain, b"new");
        assert!(keys.opener(Place::Footer(PackId([4; 16])), &salt, &commitment).is_err());
    }

    #[test]
    fn a_superblock_s_mac_is_checked_whole() {
        let keys = keys();
        let mac = keys.superblock_mac(b"bytes");
        assert!(keys.verify_superblock_mac(b"bytes", &mac));
        assert!(!keys.verify_superblock_mac(b"byteS", &mac));
        assert!(!keys.verify_superblock_mac(b"bytes", &mac[..31]));
        assert!(!keys.verify_superblock_mac(b"bytes", &[]));
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?} {:?}", keys(), keys().seal(Place::Local("x", 1), b"secret"));
        assert_eq!(text, format!("Keys(vault {}, epoch 1) Sealed(78 bytes)", keys().vault()));
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn names_hash_apart(one: (u64, Vec<u8>), other: (u64, Vec<u8>)) {
            let hash = |(parent, name): &(u64, Vec<u8>)| keys().name_hash(InodeNo(*parent), name);
            prop_assert_eq!(hash(&one) == hash(&other), one == other);
        }
    }
}
