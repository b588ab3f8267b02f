//! What deletion must keep, and how far it has come: pins (named snapshots) and the horizon (K4, K5).

use minicbor::{Decode, Encode};

use super::{Error, Key, Result};
use crate::types::{CommitNo, Timestamp};

/// The longest name of a pin, in bytes. It is a file name's limit, because a mount shows a pin as one.
pub const PIN_NAME_MAX: usize = 255;

/// A named snapshot: the state as of a commit that has a manifest of its own. Stored under `Key::Pin` with its name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pin {
    /// The snapshot is the state of the manifest `checkpoint/<commit>`.
    #[n(0)]
    pub commit: CommitNo,
    /// When the snapshot was made, by the writer's clock.
    #[n(1)]
    pub created: Timestamp,
    /// When it expires, by the store's clock; `None`: only when it is deleted.
    #[n(2)]
    pub ends: Option<Timestamp>,
}

impl Pin {
    /// Whether it has not expired.
    pub fn is_kept(&self, now: Timestamp) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }

    /// The key of a pin. Its name must be a valid file name that does not begin with a dot.
    ///
    /// # Errors
    /// If the name is invalid.
    pub fn key(name: &[u8]) -> Result<Key> {
        let bad = |why| Err(Error::malformed("the name of a snapshot", why));
        match name {
            [] => bad("it is empty"),
            [b'.', ..] => bad("it begins with a dot"),
            _ if name.len() > PIN_NAME_MAX => bad("it is longer than 255 bytes"),
            _ if name.iter().any(|byte| matches!(byte, b'/' | 0)) => bad("it has a slash in it"),
            _ => Ok(Key::Pin(name.to_vec())),
        }
    }
}

/// How far deletion has come. Stored as the pin with the empty name. It is put before anything is deleted, so that readers
/// know that states before its commit are no longer guaranteed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Horizon {
    /// States before this commit may have lost what only they need, unless they are pinned.
    #[n(0)]
    pub commit: CommitNo,
    /// All packs that died at or before this commit and that no pin held are gone; the next checkpoint needs no rows for
    /// them.
    #[n(1)]
    pub emptied: CommitNo,
    /// When the horizon was put, by the writer's clock.
    #[n(2)]
    pub time: Timestamp,
}

impl Horizon {
    /// Its key.
    pub fn key() -> Key {
        Key::Pin(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_as_a_file_can_be() {
        assert_eq!(Pin::key(b"before the move").unwrap(), Key::Pin(b"before the move".to_vec()));
        for bad in [&b""[..], b".hidden", b"..", b"a/b", b"a\0b", &[b'a'; 256]] {
            assert!(Pin::key(bad).is_err(), "{bad:?}");
        }
    }
}
