//! A transaction: puts and deletes of whole records that take hold together or not at all.

use bytes::Bytes;
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

use super::record::may_refer;
use super::{Error, Result, extent_of};
use crate::crypto;
use crate::types::{Hash, MIB, PackId, Reference};

/// The longest encoded transaction, in bytes.
pub const TRANSACTION_MAX: usize = (4 * MIB) as usize;

/// One record, put or deleted. CBOR: `[key, value or null]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// An encoded [`super::Key`].
    pub key: Vec<u8>,
    /// The record's value; `None` deletes it.
    pub value: Option<Bytes>,
}

impl<C> Encode<C> for Change {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> std::result::Result<(), encode::Error<W::Error>> {
        e.array(2)?.bytes(&self.key)?;
        match &self.value {
            Some(value) => e.bytes(value)?.ok(),
            None => e.null()?.ok(),
        }
    }
}

fn read_change<'b>(
    d: &mut Decoder<'b>,
) -> std::result::Result<(&'b [u8], Option<&'b [u8]>), decode::Error> {
    if d.array()? != Some(2) {
        return Err(decode::Error::message("a change is a pair"));
    }
    let key = d.bytes()?;
    let value = match d.datatype()? {
        minicbor::data::Type::Null => d.null().map(|()| None)?,
        _ => Some(d.bytes()?),
    };
    Ok((key, value))
}

impl<'b, C> Decode<'b, C> for Change {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, decode::Error> {
        let (key, value) = read_change(d)?;
        Ok(Self { key: key.to_vec(), value: value.map(Bytes::copy_from_slice) })
    }
}

/// Changes that take hold entirely or not at all. Applying them twice has the same effect as once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Transaction {
    /// Random, so that equal changes are still two transactions.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// At most one for each key.
    #[n(1)]
    pub changes: Vec<Change>,
}

impl Transaction {
    /// A transaction of these changes, with a fresh id.
    pub fn new(changes: Vec<Change>) -> Self {
        Self { id: crypto::random(), changes }
    }

    /// The bytes that are journaled and committed.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`TRANSACTION_MAX`].
    pub fn encode(&self) -> Result<Bytes> {
        let bytes = super::encode_value(self);
        if bytes.len() > TRANSACTION_MAX {
            return Err(Error::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads what [`Transaction::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > TRANSACTION_MAX {
            return Err(Error::TooLarge(bytes.len()));
        }
        super::decode_value("transactions", bytes)
    }

    /// Calls `change` for each change of an encoded transaction, without copying: with the key, and
    /// with the value or `None` for a delete.
    pub fn visit<E: From<Error>>(
        bytes: &[u8],
        mut change: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bad = |error: decode::Error| Error::malformed("a record of transactions", error);
        let mut d = Decoder::new(bytes);
        for _ in 0..d.map().map_err(bad)?.unwrap_or(0) {
            if d.u64().map_err(bad)? != 1 {
                d.skip().map_err(bad)?;
                continue;
            }
            for _ in 0..d.array().map_err(bad)?.unwrap_or(0) {
                let (key, value) = read_change(&mut d).map_err(bad)?;
                change(key, value)?;
            }
        }
        Ok(())
    }

    /// The hash by which a transaction is known: SHA-256 of its encoded bytes.
    pub fn hash_of(bytes: &[u8]) -> Hash {
        crypto::sha256(bytes)
    }

    /// The put or deleted records that can refer to packs, each with the pack that it refers to now.
    pub fn packs(&self) -> Result<Vec<(&[u8], Option<PackId>)>> {
        let mut found = Vec::new();
        for change in self.changes.iter().filter(|change| may_refer(&change.key)) {
            let extent = change.value.as_ref().map(|value| extent_of(&change.key, value));
            let extent = extent.transpose()?.flatten();
            found.push((&change.key[..], extent.map(|extent| extent.reference.pack)));
        }
        Ok(found)
    }

    /// The sealed messages that the put records refer to.
    pub fn references(&self) -> Result<Vec<Reference>> {
        let mut found = Vec::new();
        for change in &self.changes {
            let Some(value) = &change.value else { continue };
            found.extend(extent_of(&change.key, value)?.map(|extent| extent.reference));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn transactions_read_back(changes in prop::collection::vec((any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..9)) {
            let changes = changes.into_iter().map(|(key, value)| Change { key, value: value.map(Bytes::from) });
            let transaction = Transaction::new(changes.collect());
            let bytes = transaction.encode().unwrap();
            prop_assert_eq!(&Transaction::decode(&bytes).unwrap(), &transaction);
            let mut visited = Vec::new();
            Transaction::visit(&bytes, |key, value| {
                visited.push(Change { key: key.to_vec(), value: value.map(Bytes::copy_from_slice) });
                Ok::<_, Error>(())
            }).unwrap();
            prop_assert_eq!(visited, transaction.changes);
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in any::<Vec<u8>>()) {
            let _ = Transaction::decode(&bytes);
            let _ = Transaction::visit(&bytes, |_, _| Ok::<_, Error>(()));
        }
    }
}
