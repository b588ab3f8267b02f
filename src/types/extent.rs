//! What a range of a file refers to.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::{ExtentId, KeyEpoch, PackId};

/// How the plaintext of a message becomes a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// 0: the plaintext is the bytes.
    Plain,
    /// Another number, from a later version. The record is carried along unchanged; opening the extent is refused.
    Unknown(u8),
}

impl<C> Encode<C> for Codec {
    fn encode<W: encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let number = match self {
            Self::Plain => 0,
            Self::Unknown(number) => *number,
        };
        encoder.u8(number)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Codec {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Ok(match decoder.u8()? {
            0 => Self::Plain,
            number => Self::Unknown(number),
        })
    }
}

/// Names exactly one sealed message in one pack. Salt and commitment are part of it, so that nothing else under the
/// same id opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Reference {
    /// The pack that holds the message.
    #[n(0)]
    pub pack: PackId,
    /// Where in the pack the sealed message begins, in bytes.
    #[n(1)]
    pub offset: u64,
    /// Length of the sealed message (header, chunks and tags), in bytes.
    #[n(2)]
    pub sealed_length: u64,
    /// The extent's own id, bound into its seal.
    #[n(3)]
    pub extent: ExtentId,
    /// Length of the plaintext, in bytes; 1 to `EXTENT_MAX`.
    #[n(4)]
    pub plain_length: u64,
    /// How the plaintext is encoded.
    #[n(5)]
    pub codec: Codec,
    /// The message's salt.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub salt: [u8; 24],
    /// The message's commitment.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub commitment: [u8; 32],
    /// The key epoch that sealed it.
    #[n(8)]
    pub epoch: KeyEpoch,
}

/// A range of a file: `length` bytes from byte `skip` of an extent's plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Extent {
    /// Bytes of the plaintext to skip.
    #[n(0)]
    pub skip: u64,
    /// Bytes to use; `skip + length` is at most the reference's `plain_length`.
    #[n(1)]
    pub length: u64,
    /// The sealed message.
    #[n(2)]
    pub reference: Reference,
}

impl Extent {
    /// The part of this extent that lies `from..to` bytes into it.
    ///
    /// # Panics
    /// If the part is not inside: the caller clips first.
    #[must_use]
    pub fn part(&self, from: u64, to: u64) -> Self {
        assert!(from <= to && to <= self.length, "{from}..{to} of {}", self.length);
        Self { skip: self.skip + from, length: to - from, reference: self.reference.clone() }
    }
}

#[cfg(test)]
impl Reference {
    /// A reference to `length` bytes that nobody sealed, in the pack numbered `id`: for tests that only pass
    /// references around.
    pub fn made_up(id: u8, length: u64) -> Self {
        Self {
            pack: PackId([id; 16]),
            offset: 0,
            sealed_length: length + 72,
            extent: ExtentId([id; 16]),
            plain_length: length,
            codec: Codec::Plain,
            salt: [id; 24],
            commitment: [id; 32],
            epoch: KeyEpoch(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_its_number_and_one_that_is_not_known_is_carried_along() {
        for (number, codec) in
            (0..=255_u8).zip([Codec::Plain].into_iter().chain((1..=255).map(Codec::Unknown)))
        {
            let bytes = minicbor::to_vec(codec).unwrap();
            assert_eq!(bytes, minicbor::to_vec(number).unwrap());
            assert_eq!(minicbor::decode::<Codec>(&bytes).unwrap(), codec);
        }
        assert!(minicbor::decode::<Codec>(&minicbor::to_vec(256_u16).unwrap()).is_err());
    }
}
