//! The master key, and the subkeys of one vault and key epoch. All are wiped when dropped.

use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::labels::Label;
use super::symmetric_key::{SymmetricKey, expand};
use super::{Error, IndexKeys, Opener, Place, Plain, Sealed, Sealer, cobblestone, random};
use crate::types::{InodeNo, KeyEpoch, NameHash, VaultId};

/// The key epoch that a new vault begins with.
pub const FIRST_EPOCH: KeyEpoch = KeyEpoch(1);

/// The 32 random bytes that everything in a vault hangs on. Never stored but in a key slot.
#[derive(Clone)]
pub struct MasterKey(SymmetricKey);

impl MasterKey {
    /// A new random one.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// One that came out of a key slot.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SymmetricKey::new(bytes))
    }

    /// One that `fill` writes where it is to lie, so that no copy is left elsewhere; `None` when it says that there is none.
    pub fn written(fill: impl FnOnce(&mut [u8; 32]) -> Option<()>) -> Option<Self> {
        let mut key = SymmetricKey::new([0; 32]);
        fill(&mut key).map(|()| Self(key))
    }

    /// The bytes; for a pipe to the daemon, never for a file or a log.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// All subkeys of one vault and key epoch. A clone shares them.
#[derive(Clone)]
pub struct Keys(Arc<Subkeys>);

struct Subkeys {
    vault: VaultId,
    epoch: KeyEpoch,
    content: SymmetricKey,
    commits: SymmetricKey,
    pages: SymmetricKey,
    superblock: SymmetricKey,
    slot_notes: SymmetricKey,
    journal: SymmetricKey,
    local: SymmetricKey,
    names: SymmetricKey,
    index: IndexKeys,
}

impl Keys {
    /// Derives them; see `labels.rs` for how.
    pub fn derive(master: &MasterKey, vault: VaultId, epoch: KeyEpoch) -> Self {
        let hkdf = Hkdf::<Sha512>::new(Some(&vault.0), master.expose());
        let key = |label: Label| expand(&hkdf, label, epoch);
        Self(Arc::new(Subkeys {
            vault,
            epoch,
            content: key(Label::Content),
            commits: key(Label::Commits),
            pages: key(Label::Pages),
            superblock: key(Label::Superblock),
            slot_notes: key(Label::SlotNotes),
            journal: key(Label::Journal),
            local: key(Label::Local),
            names: key(Label::Names),
            index: IndexKeys::new(key(Label::IndexValues), &key(Label::IndexNumbers)),
        }))
    }

    /// The vault that these are the keys of.
    pub fn vault(&self) -> VaultId {
        self.0.vault
    }

    /// The key epoch that these are the keys of.
    pub fn epoch(&self) -> KeyEpoch {
        self.0.epoch
    }

    /// Seals a small message in one call.
    pub fn seal(&self, place: Place, plain: &[u8]) -> Sealed {
        let mut sealed = Vec::new();
        self.seal_into(place, plain, &mut sealed);
        sealed.into()
    }

    /// Seals a whole message, appends it to `out`, and returns its salt and commitment.
    pub fn seal_into(&self, place: Place, plain: &[u8], out: &mut Vec<u8>) -> ([u8; 24], [u8; 32]) {
        cobblestone::seal(self.key(place), &self.context(place), plain, out)
    }

    /// Opens a whole message. Allocates no more than `sealed` is long.
    pub fn open(&self, place: Place, sealed: &[u8]) -> Result<Plain, Error> {
        cobblestone::open(self.key(place), &self.context(place), sealed).map(Plain::from)
    }

    /// Seals a message as it comes.
    pub fn sealer(&self, place: Place) -> Sealer {
        Sealer::new(self.key(place), &self.context(place))
    }

    /// Whether a message that begins with `header` (salt and commitment) was sealed with this key for this place.
    pub fn sealed(&self, place: Place, header: &[u8]) -> bool {
        let Some((salt, rest)) = header.split_first_chunk::<24>() else { return false };
        rest.first_chunk::<32>().is_some_and(|given| self.opener(place, salt, given).is_ok())
    }

    /// Opens chunks of the message that a reference names by `salt` and `commitment`; fails if these
    /// are not of a message sealed for this place.
    pub fn opener(
        &self,
        place: Place,
        salt: &[u8; 24],
        commitment: &[u8; 32],
    ) -> Result<Opener, Error> {
        Opener::new(self.key(place), &self.context(place), salt, commitment)
    }

    /// `H` of an entry: the first 16 bytes of HMAC-SHA-256(parent as 8 bytes big-endian, name).
    pub fn name_hash(&self, parent: InodeNo, name: &[u8]) -> NameHash {
        let mac = hmac_sha256(&self.0.names, &[&parent.0.to_be_bytes(), name]);
        let mut hash = [0; 16];
        hash.copy_from_slice(&mac[..16]);
        NameHash(hash)
    }

    /// The MAC that a superblock of these bytes carries: HMAC-SHA-256.
    pub fn superblock_mac(&self, bytes: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0.superblock, &[bytes])
    }

    /// Whether `mac` is the MAC of these bytes; in constant time.
    pub fn verify_superblock_mac(&self, bytes: &[u8], mac: &[u8]) -> bool {
        self.superblock_mac(bytes)[..].ct_eq(mac).into()
    }

    /// The keys of the local index.
    pub fn index(&self) -> IndexKeys {
        self.0.index.clone()
    }

    fn context(&self, place: Place) -> Vec<u8> {
        place.context(self.0.vault, self.0.epoch)
    }

    fn key(&self, place: Place) -> &[u8; 32] {
        match place.label() {
            Label::Content => &self.0.content,
            Label::Commits => &self.0.commits,
            Label::Pages => &self.0.pages,
            Label::SlotNotes => &self.0.slot_notes,
            Label::Journal => &self.0.journal,
            _ => &self.0.local,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(vault {}, epoch {})", self.0.vault, self.0.epoch.0)
    }
}

/// HMAC-SHA-256 of the parts in a row.
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
    use crate::types::{CommitNo, ExtentId, PackId};

    fn keys() -> Keys {
        Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), FIRST_EPOCH)
    }

    /// Python: `HKDF(SHA512, 32, salt=bytes([1])*16, info=b"s3vault/v1/content\0\0\0\0\1")` of `bytes([7])*32`, and so on.
    /// These never change: vaults depend on them.
    #[test]
    fn derivations_are_those_of_the_format() {
        let keys = keys();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(
            hex(&keys.0.content[..]),
            "d08f5b1634122ccf396aac0cfeef91add94711aa328faec213e71d5cf8f9702b"
        );
        assert_eq!(
            hex(&keys.0.names[..]),
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
        for keys in [&keys.0, &other.0, &next.0] {
            for key in [
                &keys.content,
                &keys.commits,
                &keys.pages,
                &keys.superblock,
                &keys.slot_notes,
                &keys.journal,
                &keys.local,
                &keys.names,
            ] {
                assert!(seen.insert(**key));
            }
        }
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
