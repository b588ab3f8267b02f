//! What this machine last saw of a vault (O2), kept beside its machine id so that it outlives
//! a deleted state directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

use super::{Error, Result, decode_value, encode_value};
use crate::crypto::{Keys, Place};
use crate::types::{CommitNo, Generation, Hash};

/// The last commit that was read in the chain or believed by C2, and the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Seen {
    /// The commit's number.
    #[n(0)]
    pub number: CommitNo,
    /// SHA-256 of its sealed bytes.
    #[n(1)]
    pub hash: Hash,
    /// The highest superblock generation.
    #[n(2)]
    pub generation: Generation,
}

const PLACE: Place = Place::Local("seen", 0);

impl Seen {
    fn path(dir: &Path, keys: &Keys) -> PathBuf {
        dir.join(format!("{}.seen", keys.vault()))
    }

    /// What was remembered; `None` on a machine that never saw the vault.
    ///
    /// # Errors
    /// [`Error::Seal`] when the file was changed: it is not ignored, or a rollback could be hidden.
    pub fn load(dir: &Path, keys: &Keys) -> Result<Option<Self>> {
        let sealed = match fs::read(Self::path(dir, keys)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("what this machine remembers of the vault"))?,
        };
        let what = "what this machine remembers of the vault";
        let plain = keys.open(PLACE, &sealed).map_err(Error::seal(what))?;
        decode_value(what, &plain).map(Some)
    }

    /// Remembers; atomic, and durable unless the power fails within moments.
    pub fn store(&self, dir: &Path, keys: &Keys) -> Result<()> {
        let path = Self::path(dir, keys);
        let temporary = path.with_extension("new");
        let sealed = keys.seal(PLACE, &encode_value(self));
        let write = || {
            fs::create_dir_all(dir)?;
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&sealed)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(Error::io("what this machine saw of the vault cannot be remembered"))
    }
}
