//! Numbers, random ids and hashes, each a type of its own so that none passes for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minicbor::{Decode, Encode};

/// An id or number in an object's name does not have the form that it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {digits} lower-case hex digits")]
pub struct ParseIdError {
    /// How many digits were expected.
    pub digits: usize,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                parse_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $int);

        impl $name {
            /// The number after this one.
            #[must_use]
            #[allow(dead_code, reason = "not every number is counted up")]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        /// As in object names: 16 lower-case hex digits.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; 8];
                parse_hex(text, &mut bytes)?;
                let number = u64::from_be_bytes(bytes);
                Ok(Self(number.try_into().map_err(|_| ParseIdError { digits: 16 })?))
            }
        }
    };
}

/// Writes the bytes of an id, at most 32, in one piece: each request names its object.
fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    f.write_str(str::from_utf8(&text[..2 * bytes.len()]).map_err(|_| fmt::Error)?)
}

fn parse_hex(text: &str, into: &mut [u8]) -> Result<(), ParseIdError> {
    let error = ParseIdError { digits: into.len() * 2 };
    let digits = text.as_bytes();
    if digits.len() != into.len() * 2 {
        return Err(error);
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(error.clone()),
    };
    for (byte, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(())
}

bytes_type!(
    /// A vault's random id; part of every seal's context.
    VaultId, 16
);
bytes_type!(
    /// A pack's random id. The object's name is `pack/<2 hex>/<id>`.
    PackId, 16
);
bytes_type!(
    /// A page's random id.
    PageId, 16
);
bytes_type!(
    /// An extent's own random id, independent of the pack that holds it.
    ExtentId, 16
);
bytes_type!(
    /// A journal's random id.
    JournalId, 16
);
bytes_type!(
    /// `H`: the keyed hash of (parent, name), which orders a directory's entries.
    NameHash, 16
);
bytes_type!(
    /// A SHA-256 hash.
    Hash, 32
);

number_type!(
    /// An inode number, given once and never again.
    InodeNo, u64
);
number_type!(
    /// The number of a commit in the log, from 1; 0 is "before the first".
    CommitNo, u64
);
number_type!(
    /// The generation of a superblock, from 1.
    Generation, u64
);
number_type!(
    /// The generation of the master key that sealed a message.
    KeyEpoch, u32
);
number_type!(
    /// The count of a transaction in its journal, from 1; 0 is "before the first".
    Seq, u64
);

/// The generation of the superblock in force, as this process knows it. It grows when this process changes the keys
/// (K6). A clone shares it.
#[derive(Clone, Debug)]
pub struct CurrentGeneration(Arc<AtomicU64>);

impl CurrentGeneration {
    /// The generation now.
    pub fn get(&self) -> Generation {
        Generation(self.0.load(Ordering::SeqCst))
    }

    /// Notes that this generation is in the bucket and was read back from there.
    pub fn raise(&self, to: Generation) {
        self.0.fetch_max(to.0, Ordering::SeqCst);
    }
}

impl From<Generation> for CurrentGeneration {
    fn from(generation: Generation) -> Self {
        Self(Arc::new(AtomicU64::new(generation.0)))
    }
}

impl InodeNo {
    /// The root directory: FUSE's own number for it.
    pub const ROOT: Self = Self(1);
}

impl Hash {
    /// The hash that the first commit gives for its predecessor.
    pub const ZERO: Self = Self([0; 32]);
}

impl NameHash {
    /// The readdir cookie: the first 63 bits, so that it fits a positive `off_t`.
    pub fn cookie(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_read_back_from_names() {
        assert_eq!(CommitNo(0x1f).to_string(), "000000000000001f");
        assert_eq!("000000000000001f".parse(), Ok(CommitNo(0x1f)));
        let id = PackId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1f", "000000000000001F", "00000000000000 1", "+000000000000001"] {
            assert!(bad.parse::<CommitNo>().is_err(), "{bad:?}");
        }
        assert!("0000000100000000".parse::<KeyEpoch>().is_err());
    }
}
