//! The recovery key: 32 random bytes, printed in groups that can be typed.

use std::fmt;

use data_encoding::{Encoding, Specification};
use zeroize::{Zeroize, Zeroizing};

use super::symmetric_key::SymmetricKey;
use super::{RecoveryKeyError, random, sha256};

/// Symbols of a printed key: 32 bytes and 3 bytes of checksum in base 32.
const SYMBOLS: usize = 56;
/// Symbols of a group.
const GROUP: usize = 7;
/// Bytes of checksum: one typing error in 16 million goes unnoticed.
const CHECK: usize = 3;
/// Put before the key when the checksum is computed.
const CHECK_PREFIX: &[u8] = b"s3vault recovery key";

/// A key that opens a vault when the passphrase is lost. Wiped when dropped. `Display` prints it, in
/// 8 groups of 7 (Crockford's base 32: no I, L, O, U).
pub struct RecoveryKey(SymmetricKey);

impl RecoveryKey {
    /// A new random key.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SymmetricKey::new(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses a typed key: in either case, with any spaces and hyphens, O for 0, and I or L for 1.
    pub fn parse(text: &[u8]) -> Result<Self, RecoveryKeyError> {
        // Bounded before anything is copied; this allows generous blanks between all symbols.
        if text.len() > 4 * SYMBOLS {
            return Err(RecoveryKeyError::Shape);
        }
        let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'-';
        let mut symbols = Zeroizing::new(Vec::with_capacity(4 * SYMBOLS));
        symbols.extend(text.iter().filter(|byte| !blank(byte)));
        if symbols.len() != SYMBOLS {
            return Err(RecoveryKeyError::Shape);
        }
        let bytes = base32().decode(&symbols).map_err(|_| RecoveryKeyError::Shape)?;
        let bytes = Zeroizing::new(bytes);
        let (key, check) = bytes.split_first_chunk::<32>().ok_or(RecoveryKeyError::Shape)?;
        if checksum(key) == *check {
            Ok(Self::from_bytes(*key))
        } else {
            Err(RecoveryKeyError::Checksum)
        }
    }
}

fn checksum(key: &[u8; 32]) -> [u8; CHECK] {
    let mut bytes = Zeroizing::new(Vec::with_capacity(CHECK_PREFIX.len() + 32));
    bytes.extend_from_slice(CHECK_PREFIX);
    bytes.extend_from_slice(key);
    let hash = sha256(&bytes).0;
    [hash[0], hash[1], hash[2]]
}

/// Crockford's base 32, most significant bit first; 35 bytes make 56 symbols without padding.
fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.translate.from.push_str("abcdefghjkmnpqrstvwxyzoOiIlL");
    specification.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    // A constant that the tests check: 32 symbols, each once.
    #[allow(clippy::expect_used)]
    specification.encoding().expect("a valid specification")
}

impl fmt::Display for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new([0; 32 + CHECK]);
        bytes[..32].copy_from_slice(self.expose());
        bytes[32..].copy_from_slice(&checksum(self.expose()));
        let mut text = base32().encode(&bytes[..]);
        let groups = text.as_bytes().chunks(GROUP).enumerate();
        for (number, group) in groups {
            let hyphen = if number == 0 { "" } else { "-" };
            write!(f, "{hyphen}{}", std::str::from_utf8(group).map_err(|_| fmt::Error)?)?;
        }
        text.zeroize();
        Ok(())
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_printed_key_reads_back_however_it_is_typed() {
        let key = RecoveryKey::generate();
        let printed = key.to_string();
        assert_eq!(printed.len(), 56 + 7);
        let sloppy = printed.replace('0', "o").replace('1', "l").to_lowercase().replace('-', " ");
        for typed in [&printed, &sloppy, &format!("  {}\n", printed.replace('-', ""))] {
            let read = RecoveryKey::parse(typed.as_bytes()).unwrap();
            assert_eq!(read.expose(), key.expose());
        }
        assert_eq!(format!("{key:?}"), "RecoveryKey(..)");
    }

    #[test]
    fn every_typo_is_told() {
        let printed = RecoveryKey::generate().to_string();
        for at in 0..printed.len() {
            let mut typo = printed.clone().into_bytes();
            if typo[at] == b'-' {
                continue;
            }
            typo[at] = if typo[at] == b'Z' { b'Y' } else { b'Z' };
            let told = RecoveryKey::parse(&typo).err();
            assert_eq!(told, Some(RecoveryKeyError::Checksum));
            typo.remove(at);
            assert_eq!(RecoveryKey::parse(&typo).err(), Some(RecoveryKeyError::Shape));
        }
        let mut groups: Vec<_> = printed.split('-').collect();
        groups.swap(1, 2);
        let told = RecoveryKey::parse(groups.join("-").as_bytes()).err();
        assert_eq!(told, Some(RecoveryKeyError::Checksum));
        assert_eq!(RecoveryKey::parse(&[b'U'; 56]).err(), Some(RecoveryKeyError::Shape));
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn parsing_never_panics(text: Vec<u8>) {
            prop_assert!(RecoveryKey::parse(&text).is_err());
        }
    }
}
