//! What deletion leaves alone, and what it has taken: pins (named snapshots) and the horizon (K4, K5).

use minicbor::{Decode, Encode};

use super::{Error, Key, Result};
use crate::types::{CommitNo, Timestamp};

/// Bytes of a pin's name at most: as of a file's, since a mount shows it as one.
pub const PIN_NAME_MAX: usize = 255;

/// A named snapshot: the state as of a commit that has a manifest of its own. The value under `Key::Pin` of its name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pin {
    /// The state is that of the manifest `checkpoint/<commit>`.
    #[n(0)]
    pub commit: CommitNo,
    /// When it was made, by the writer's clock.
    #[n(1)]
    pub created: Timestamp,
    /// When it counts no more, by the store's clock; `None`: when it is deleted.
    #[n(2)]
    pub ends: Option<Timestamp>,
}

impl Pin {
    /// Whether it still counts.
    pub fn is_kept(&self, now: Timestamp) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }

    /// Its key. A name is what the name of a file can be, but not one that begins with a dot.
    ///
    /// # Errors
    /// Another name.
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

/// How far deletion has come: the value under the pin of the empty name. Put before anything is deleted, so states before
/// its commit are known to be no longer promised.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Horizon {
    /// States before this commit may have lost what only they need, but for those that are pinned.
    #[n(0)]
    pub commit: CommitNo,
    /// Of packs that died at or before this commit, all that no pin held are gone: the next checkpoint needs no row of them.
    #[n(1)]
    pub emptied: CommitNo,
    /// When that was put, by the writer's clock.
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
