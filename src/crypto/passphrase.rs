//! What a person types to open a vault.

use std::fmt;

use zeroize::Zeroizing;

/// A passphrase: its exact bytes, less one final newline. Wiped when dropped. A recovery key may be given
/// wherever a passphrase may.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the bytes as typed or as read from a file, and strips ONE final newline.
    #[cfg(any(test, feature = "testing"))]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let mut bytes = Zeroizing::new(bytes);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Self(bytes)
    }

    /// Takes bytes from which nothing more is to be stripped.
    pub fn exact(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Whether nothing was typed.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret itself; only for passing it on (through a pipe), never for showing it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Compares the bytes in constant time.
impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], &other.0[..]).into()
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_final_newline_is_stripped_and_no_more() {
        for (typed, kept) in [
            (&b"word\n"[..], &b"word"[..]),
            (b"word\n\n", b"word\n"),
            (b"word\r\n", b"word\r"),
            (b" wo\nrd ", b" wo\nrd "),
            (b"\n", b""),
            (b"", b""),
            (b"\xff\xfe\n", b"\xff\xfe"),
        ] {
            assert_eq!(Passphrase::from_bytes(typed.to_vec()).expose(), kept);
        }
    }

    #[test]
    fn what_was_stripped_is_not_stripped_again() {
        assert_eq!(Passphrase::exact(b"word\n".to_vec()).expose(), b"word\n");
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Passphrase::from_bytes(b"word".to_vec())), "Passphrase(..)");
    }
}
