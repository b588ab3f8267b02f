//! What this machine last saw of a vault (O2). It is kept beside the machine id, so it outlives a deleted state
//! directory.

use std::io;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

use super::{Error, Result};
use crate::crypto::{Keys, Place};
use crate::os;
use crate::records::{decode_value, encode_value};
use crate::types::{CommitNo, Generation, Hash};

/// The last commit that was read in the chain or confirmed by C2, and the superblock's generation.
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

/// The file takes about a hundred bytes.
const LENGTH_MAX: u64 = 4096;

const WHAT: &str = "what this machine remembers of the vault";

impl Seen {
    /// The file that holds it.
    pub fn path(dir: &Path, keys: &Keys) -> PathBuf {
        dir.join(format!("{}.seen", keys.vault()))
    }

    /// What this machine remembers; `None` if it never saw the vault.
    ///
    /// # Errors
    /// [`Error::Seal`] or [`Error::Records`] when the file was changed, cut or emptied. It is not ignored,
    /// because that could hide a rollback.
    pub fn load(dir: &Path, keys: &Keys) -> Result<Option<Self>> {
        let sealed = match os::read_small(&Self::path(dir, keys), LENGTH_MAX) {
            Ok(Some(sealed)) => sealed,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::malformed(WHAT, error));
            }
            Err(error) => return Err(Error::io(WHAT)(error)),
        };
        let plain = keys.open(PLACE, &sealed).map_err(Error::seal(WHAT))?;
        Ok(Some(decode_value(WHAT, &plain)?))
    }

    /// Writes it, whole and durable.
    pub fn store(&self, dir: &Path, keys: &Keys) -> Result<()> {
        let sealed = keys.seal(PLACE, &encode_value(self));
        os::replace(&Self::path(dir, keys), &sealed)
            .map_err(Error::io("what this machine saw of the vault cannot be remembered"))
    }
}
