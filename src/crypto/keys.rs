//! The master key, and the subkeys of one vault and key epoch. All are wiped when dropped.

use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::labels::Label;
use super::{Error, IndexKeys, Opener, Place, Plain, Sealed, Sealer, cobblestone, random};
use crate::types::{InodeNo, KeyEpoch, NameHash, VaultId};

/// The key epoch that a new vault begins with.
pub const FIRST_EPOCH: KeyEpoch = KeyEpoch(1);

/// 32 bytes in one place in memory, wiped when dropped.
pub(super) type Key = Box<Zeroizing<[u8; 32]>>;

/// The 32 random bytes that everything in a vault hangs on. Never stored but in a key slot.
#[derive(Clone)]
pub struct MasterKey(Key);

impl MasterKey {
    /// A new random one.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// One that came out of a key slot, or over a pipe.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Key::new(Zeroizing::new(bytes)))
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
    content: Key,
    commits: Key,
    pages: Key,
    superblock: Key,
    journal: Key,
    local: Key,
    names: Key,
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

/// One 32-byte key from an HKDF that was extracted.
pub(super) fn expand(hkdf: &Hkdf<Sha512>, label: Label, epoch: KeyEpoch) -> Key {
    let mut key = Key::new(Zeroizing::new([0; 32]));
    // HKDF refuses only what is longer than 255 hashes.
    #[allow(clippy::expect_used)]
    hkdf.expand(&label.info(epoch), &mut key[..]).expect("32 bytes can be expanded");
    key
}

/// HMAC-SHA-256 of the parts in a row.
pub(super) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is valid for HMAC.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
