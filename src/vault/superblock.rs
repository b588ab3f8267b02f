//! The superblock: what a vault is, in the clear, under a MAC (K6, O1).

use std::path::PathBuf;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{Error, Result};
use crate::crypto::{
    EpochEnd, Error as CryptoError, FIRST_EPOCH, KeySlot, Keys, MasterKey, Passphrase, Place,
    unlock as unlock_slots,
};
use crate::os::{self, PipelineStep};
use crate::store::{Bucket, Error as StoreError, Listed, Lister};
use crate::types::{CommitNo, Generation, Hash, KeyEpoch, Timestamp, VaultId};

/// The format that this code writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The required feature of a vault with more than one key epoch.
pub(super) const KEY_EPOCHS: u32 = 1;

/// A superblock is a few KiB; what is longer is refused.
pub(super) const LENGTH_MAX: usize = 64 << 10;
/// How often it is asked for before it is believed to be damaged.
const ASKS: u32 = 3;

/// How many slots are tried for a hint, all forms of a passphrase together.
const HINTS: usize = 6;

/// What a vault says of itself before it is unlocked.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Superblock {
    /// `FORMAT` of the vault.
    #[n(0)]
    pub format: u32,
    /// Features without which the vault cannot be read: `KEY_EPOCHS` alone is defined.
    #[n(1)]
    pub required: Vec<u32>,
    /// Features that a reader may ignore. None is defined yet.
    #[n(2)]
    pub optional: Vec<u32>,
    /// The vault's id.
    #[n(3)]
    pub vault: VaultId,
    /// The superblock's own generation.
    #[n(4)]
    pub generation: Generation,
    /// The current key epoch.
    #[n(5)]
    pub epoch: KeyEpoch,
    /// The master key, sealed under each secret that opens the vault.
    #[n(6)]
    pub slots: Vec<KeySlot>,
    /// When the vault was made.
    #[n(7)]
    pub created: Timestamp,
    /// The key epochs before, ascending from the first; none in a vault whose key was never rotated (K7).
    #[n(8)]
    pub older: Option<Vec<OlderEpoch>>,
    /// What older epochs sealed is to be sealed anew, or was (K8).
    #[n(9)]
    pub renewal: Option<Renewal>,
}

/// That all of the vault is to be sealed by newer keys (K8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewal {
    /// What epochs before this one sealed.
    #[n(0)]
    pub before: KeyEpoch,
    /// From this checkpoint on the map needs none of them; not known while something is left to do.
    #[n(1)]
    pub since: Option<CommitNo>,
}

/// A key epoch that sealed what is there, and seals no more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OlderEpoch {
    /// Which.
    #[n(0)]
    pub epoch: KeyEpoch,
    /// Of commits, manifests and pages of higher numbers none is believed that it sealed. Not known while the rotation is
    /// under way.
    #[n(1)]
    pub last: Option<CommitNo>,
    /// Its master key, sealed with the newest.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// SHA-256 of the one manifest that it sealed from which the vault of now may be opened; said with `last`.
    #[n(3)]
    pub base: Option<Hash>,
}

impl OlderEpoch {
    /// For the superblock of the epoch that `newest` are the keys of.
    pub(super) fn seal(
        newest: &Keys,
        epoch: KeyEpoch,
        master: &MasterKey,
        end: Option<EpochEnd>,
    ) -> Self {
        let sealed = newest.seal(Place::OlderKey(epoch), master.expose()).to_vec();
        let (last, base) = (end.map(|end| end.last), end.and_then(|end| end.base));
        Self { epoch, last, sealed, base }
    }

    /// How it ended, if it did.
    pub(super) fn end(&self) -> Option<EpochEnd> {
        self.last.map(|last| EpochEnd { last, base: self.base })
    }

    fn open(&self, newest: &Keys) -> Option<MasterKey> {
        newest.open_key(Place::OlderKey(self.epoch), &self.sealed).ok()
    }
}

impl Superblock {
    /// That of a vault that is being made.
    pub(super) fn first(vault: VaultId, slots: Vec<KeySlot>) -> Self {
        Self {
            format: FORMAT,
            required: Vec::new(),
            optional: Vec::new(),
            vault,
            generation: Generation(1),
            epoch: FIRST_EPOCH,
            slots,
            created: Timestamp::now(),
            older: None,
            renewal: None,
        }
    }
}

/// The object: the superblock's bytes, and HMAC-SHA-256 of them under a key of the master key.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Envelope {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    mac: Vec<u8>,
}

#[cfg(test)]
impl Envelope {
    /// Whether its MAC is by these keys.
    pub(super) fn is_by(&self, keys: &Keys) -> bool {
        keys.verify_superblock_mac(&self.body, &self.mac)
    }
}

/// A vault whose master key is known.
#[derive(Clone)]
pub struct Unlocked {
    /// The vault's id.
    pub vault: VaultId,
    /// The key of everything.
    pub master: MasterKey,
    /// Those of the key epochs before.
    pub(super) older: Vec<(KeyEpoch, MasterKey)>,
    /// Its subkeys.
    pub keys: Keys,
    /// The superblock that it was unlocked with.
    pub generation: Generation,
    /// The bytes of that one, as they lie in the bucket.
    pub(super) sealed: Bytes,
    /// The file that it is from, where the bucket's is lost.
    pub copied: Option<PathBuf>,
}

pub(super) fn name(generation: Generation) -> String {
    format!("superblock/{generation}")
}

/// The highest superblock in the bucket, as `open` has it. What does not open is asked for again, until it opens, the
/// same bytes come twice (then that is what the bucket holds), or it was asked for three times. A changed bit can look
/// like a wrong passphrase, too.
pub(super) async fn read<T>(
    bucket: &Bucket,
    open: impl Fn(Generation, &Bytes) -> Result<T> + Send,
) -> Result<T> {
    let mut before: Option<(Bytes, Error)> = None;
    for asked in 1.. {
        let (generation, bytes) = fetch(bucket).await?;
        // Not opened twice: for a passphrase that takes a second.
        if let Some((_, error)) = before.take().filter(|(same, _)| *same == bytes) {
            return Err(error);
        }
        match open(generation, &bytes) {
            Err(error) if asked < ASKS => {
                tracing::debug!(object = name(generation), %error, "asking for it again");
                before = Some((bytes, error));
            }
            opened => return opened,
        }
    }
    unreachable!("it returns at the last of its tries")
}

async fn fetch(bucket: &Bucket) -> Result<(Generation, Bytes)> {
    for asked in 1.. {
        let all = generations(bucket).await?;
        let Some((highest, length)) = all.into_iter().max() else {
            let lost = has_the_rest(bucket).await?;
            return Err(if lost { Error::SuperblockLost } else { Error::NoVault });
        };
        if length > LENGTH_MAX as u64 {
            let why = "it is longer than a superblock can be".to_owned();
            return Err(Error::Superblock { object: name(highest), why });
        }
        match bucket.get(&name(highest), None).await {
            // One that goes between listing and asking has a successor (K6).
            Err(error) if error.is_not_found() && asked < ASKS => {}
            got => return Ok((highest, got?)),
        }
    }
    unreachable!("it returns at the last of its tries")
}

/// Those in the bucket, in no order, and how long each is.
async fn generations(bucket: &Bucket) -> Result<Vec<(Generation, u64)>> {
    let (listed, _) = bucket.list_all("superblock/").await?;
    let generation = |object: &str| object.strip_prefix("superblock/")?.parse::<Generation>().ok();
    let of = |object: &Listed| Some((generation(&object.name)?, object.length));
    Ok(listed.iter().filter_map(of).collect())
}

/// Whether a bucket without a superblock holds other parts of a vault.
pub(super) async fn has_the_rest(bucket: &Bucket) -> Result<bool> {
    for (prefix, digits) in [("log/", 16), ("checkpoint/", 16), ("pack/", 32)] {
        let is_ours = |name: &str| {
            let last = name.rsplit('/').next().unwrap_or_default();
            last.len() == digits && last.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let page = Lister::of(bucket, prefix).next().await?;
        if page.is_some_and(|(listed, _)| listed.iter().any(|object| is_ours(&object.name))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Decodes a superblock, of this generation if one is given; it is not verified: that takes the key.
pub(super) fn decode(
    highest: impl Into<Option<Generation>>,
    bytes: &Bytes,
) -> Result<(Superblock, Envelope)> {
    let highest = highest.into();
    let object = highest.map_or_else(String::new, name);
    let bad = |why: &str| Error::Superblock { object: object.clone(), why: why.to_owned() };
    if bytes.len() > LENGTH_MAX {
        return Err(bad("it is longer than a superblock can be"));
    }
    let wire: Envelope = minicbor::decode(bytes).map_err(|error| bad(&error.to_string()))?;
    let superblock: Superblock =
        minicbor::decode(&wire.body).map_err(|error| bad(&error.to_string()))?;
    if highest.is_some_and(|highest| superblock.generation != highest) {
        return Err(bad("it says that it is another generation"));
    }
    if superblock.format > FORMAT || superblock.required.iter().any(|f| *f != KEY_EPOCHS) {
        return Err(Error::Format { format: superblock.format });
    }
    Ok((superblock, wire))
}

pub(super) fn verified(
    superblock: &Superblock,
    wire: &Envelope,
    sealed: &Bytes,
    master: MasterKey,
) -> Result<Unlocked> {
    let &Superblock { vault, generation, epoch, .. } = superblock;
    let newest = Keys::derive(&master, vault, epoch);
    let bad = |why: &str| Error::Superblock { object: name(generation), why: why.to_owned() };
    if !newest.verify_superblock_mac(&wire.body, &wire.mac) {
        return Err(bad("its MAC is wrong: it was changed by someone without the key"));
    }
    let older = older_keys(superblock, &newest).ok_or_else(|| bad("its older keys do not open"))?;
    let masters = older.iter().map(|(epoch, master, _)| (*epoch, master.clone())).collect();
    let keys = newest.with_older(older);
    let (sealed, copied) = (sealed.clone(), None);
    Ok(Unlocked { vault, master, older: masters, keys, generation, sealed, copied })
}

/// The master keys of the epochs before; `None` if one does not open, or they are not all the epochs from the first on.
fn older_keys(superblock: &Superblock, newest: &Keys) -> Option<Vec<OlderKey>> {
    let all = superblock.older.as_deref().unwrap_or_default();
    let mut next = FIRST_EPOCH;
    let mut found = Vec::with_capacity(all.len());
    for older in all {
        if older.epoch != next {
            return None;
        }
        next = next.next();
        found.push((older.epoch, older.open(newest)?, older.end()));
    }
    (next == superblock.epoch).then_some(found)
}

type OlderKey = (KeyEpoch, MasterKey, Option<EpochEnd>);

/// Tries a secret at its slots. What they ask for beyond all bounds is the superblock's fault, which is named.
pub(super) fn open_slot(
    superblock: &Superblock,
    secret: &Passphrase,
) -> Result<(MasterKey, usize)> {
    let opened = unlock_slots(&superblock.slots, superblock.vault, superblock.epoch, secret);
    opened.map_err(|error| match error {
        CryptoError::SlotParameters(_)
        | CryptoError::SlotWork { .. }
        | CryptoError::TooManySlots(_)
        | CryptoError::Malformed(_) => {
            let object = name(superblock.generation);
            Error::Superblock { object, why: format!("{error}; none of it was done") }
        }
        other => other.into(),
    })
}

/// A vault that a passphrase or a recovery key opened.
pub struct OpenedBySecret {
    /// Its keys.
    pub unlocked: Unlocked,
    /// What the superblock says.
    pub superblock: Superblock,
    /// Which of its slots the secret opened.
    pub slot: usize,
}

/// The first of these secrets that opens a slot of the vault, for a hint. Each takes about a second.
pub async fn which_opens(bucket: &Bucket, secrets: Vec<Passphrase>) -> Result<Option<usize>> {
    let (superblock, _) = read(bucket, decode).await?;
    // A hint is worth a few seconds, however many slots there are.
    let slots = superblock.slots.iter().filter(|slot| !slot.is_recovery()).count();
    let tried = secrets.iter().take((HINTS / slots.max(1)).max(1));
    Ok(tried.into_iter().position(|secret| open_slot(&superblock, secret).is_ok()))
}

/// The superblock that counts, verified.
///
/// # Errors
/// [`Error::Superblock`] for one that is not sealed by the vault's keys.
pub(super) async fn newest(bucket: &Bucket, unlocked: &Unlocked) -> Result<Superblock> {
    let open = |generation: Generation, bytes: &Bytes| {
        let (superblock, wire) = decode(generation, bytes)?;
        match unlocked.keys.verify_superblock_mac(&wire.body, &wire.mac) {
            true => Ok(superblock),
            false if superblock.epoch > unlocked.keys.epoch() => Err(Error::Keys(
                "another machine has rotated the vault's key since this one opened it; unmount, and mount again".to_owned(),
            )),
            false => {
                let why = "its MAC is wrong: it was changed by someone without the key".to_owned();
                Err(Error::Superblock { object: name(generation), why })
            }
        }
    };
    read(bucket, open).await
}

/// The id of the vault in a bucket, without its key; not verified.
pub async fn vault_id(bucket: &Bucket) -> Result<VaultId> {
    read(bucket, |generation, bytes| Ok(decode(generation, bytes)?.0.vault)).await
}

/// Writes a superblock of a generation that is not there yet, and reads it back.
pub(super) async fn write(bucket: &Bucket, keys: &Keys, superblock: &Superblock) -> Result<()> {
    let (object, bytes) = sealed(keys, superblock);
    bucket.put_new(&object, bytes.clone()).await?;
    read_back(bucket, &object, &bytes).await
}

/// Writes the successor of a superblock (K6). Whether it is the one that counts now: if it is not, somebody else wrote
/// one, and whoever wants a change begins again with that.
pub(super) async fn succeed(bucket: &Bucket, keys: &Keys, next: &Superblock) -> Result<bool> {
    let (object, bytes) = sealed(keys, next);
    let put = bucket.put_new(&object, bytes.clone()).await;
    os::reached(PipelineStep::SuperblockPut);
    if let Err(error) = put {
        // The reply may have been lost. What is random in it makes it ours, and nobody else's.
        match bucket.get(&object, None).await {
            Ok(there) if there == bytes => {}
            Ok(_) if matches!(error, StoreError::Exists { .. }) => return Ok(false),
            _ => return Err(error.into()),
        }
    }
    // A number that was given long ago is free again: whoever slept over that finds a higher one.
    if generations(bucket).await?.into_iter().any(|(other, _)| other > next.generation) {
        return Ok(false);
    }
    read_back(bucket, &object, &bytes).await?;
    Ok(true)
}

/// Deletes the superblocks before one that was read back: they would open with secrets that count no more.
pub(super) async fn delete_before(bucket: &Bucket, generation: Generation) -> Result<()> {
    let old = generations(bucket).await?.into_iter().map(|(old, _)| old);
    let old: Vec<String> = old.filter(|old| *old < generation).map(name).collect();
    if !old.is_empty() {
        bucket.delete(&old).await?;
    }
    os::reached(PipelineStep::OldSuperblocksGone);
    Ok(())
}

pub(super) fn sealed(keys: &Keys, superblock: &Superblock) -> (String, Bytes) {
    let body = crate::records::encode_value(superblock).to_vec();
    let mac = keys.superblock_mac(&body).to_vec();
    (name(superblock.generation), crate::records::encode_value(&Envelope { body, mac }))
}

async fn read_back(bucket: &Bucket, object: &str, bytes: &Bytes) -> Result<()> {
    for _ in 0..ASKS {
        if bucket.get(object, None).await? == *bytes {
            return Ok(());
        }
    }
    let why = "the store does not return what was just written to it".into();
    Err(Error::Superblock { object: object.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::crypto::random;
    use crate::store::{Deadlines, Fault, Faulty, MemoryStore, On, Verb};

    #[tokio::test]
    async fn k6_a_generation_is_written_once_and_read_back() {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Faulty::over(memory.clone());
        let bucket = Bucket::over(faulty.clone(), "", Deadlines::default());
        let vault = VaultId(random());
        let keys = Keys::derive(&MasterKey::from_bytes([1; 32]), vault, FIRST_EPOCH);
        let mut superblock = Superblock::first(vault, Vec::new());
        write(&bucket, &keys, &superblock).await.unwrap();
        let first = memory.peek(&name(Generation(1))).unwrap();
        // Another one of that generation: what is there stays.
        superblock.required.push(1);
        let taken = write(&bucket, &keys, &superblock).await.unwrap_err();
        assert!(matches!(taken, Error::Store(StoreError::Exists { .. })), "{taken}");
        assert_eq!(memory.peek(&name(Generation(1))).unwrap(), first);
        // One that does not come back as it was written does not count; a bit on the way is asked for again.
        for (flips, counts) in [(u32::MAX, false), (1, true)] {
            superblock.generation = superblock.generation.next();
            faulty.inject(On::next(Verb::Get, "superblock/").times(flips), Fault::FlipsBit);
            let written = write(&bucket, &keys, &superblock).await;
            assert_eq!(written.is_ok(), counts, "{flips}");
            faulty.heal();
        }
    }
}
