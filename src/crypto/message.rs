//! Plaintext and sealed bytes as separate types, so that neither passes for the other.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Default)]
        pub struct $name(Bytes);

        impl $name {
            /// The bytes.
            pub fn into_bytes(self) -> Bytes {
                self.0
            }

            /// The bytes, shared.
            #[cfg(test)]
            pub fn bytes(&self) -> &Bytes {
                &self.0
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes.into())
            }
        }

        impl From<Bytes> for $name {
            fn from(bytes: Bytes) -> Self {
                Self(bytes)
            }
        }

        impl Deref for $name {
            type Target = [u8];
            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        /// Shows only the length: content never reaches a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} bytes)", stringify!($name), self.0.len())
            }
        }
    };
}

newtype!(
    /// Plaintext: leaves this process only for whoever asked for it.
    Plain
);
newtype!(
    /// A sealed message: may be on a disk and in the bucket.
    Sealed
);
