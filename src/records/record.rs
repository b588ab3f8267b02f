//! The records of the map: keys, whose byte order is the map's order, and values in CBOR.
//!
//! A key is its table's tag and big-endian fields. Values are CBOR maps with integer keys (RFC 8949); this version skips
//! fields that a later version adds.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{Error, Result, Tag};
use crate::types::{Extent, InodeNo, NameHash, PackId, Timestamp};

/// The records of which a vault has only one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MetaKey {
    /// The current claim and its release.
    Writer = 1,
    /// How long old states are kept, in seconds.
    Retention = 2,
    /// No inode number from here on was ever given. This is a bound: some below it were not given either.
    NextInode = 3,
}

/// The key of a record. The derived order equals the byte order of [`Key::encode`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A singular record.
    Meta(MetaKey),
    /// A file's attributes.
    Inode(InodeNo),
    /// An entry of the directory `.0`.
    Entry(InodeNo, NameHash),
    /// What the file `.0` refers to from offset `.1` on.
    Extent(InodeNo, u64),
    /// An extended attribute.
    Xattr(InodeNo, NameHash),
    /// An inode that was unlinked while open, or whose removal or truncation is unfinished.
    Orphan(InodeNo),
    /// A named snapshot; with an empty name, the horizon.
    Pin(Vec<u8>),
    /// A row of the table of packs; only in checkpoints (rule K3).
    Pack(PackId),
    /// Hashes of the commits `256k` to `256k + 255`.
    History(u64),
}

impl Key {
    /// Bytes of an inode's number in a key.
    pub const INO_WIDTH: usize = 8;
    /// Bytes of a key up to the end of the inode's number, in the tables that have one ([`Tag::has_inode`]).
    pub const INODE_PREFIX: usize = Tag::WIDTH + Self::INO_WIDTH;
    /// The longest key, except for a pin's.
    const USUAL_MAX: usize = Self::INODE_PREFIX + size_of::<NameHash>();

    /// The key's table: the first byte of the encoded key.
    pub fn tag(&self) -> Tag {
        match self {
            Self::Meta(_) => Tag::Meta,
            Self::Inode(_) => Tag::Inode,
            Self::Entry(..) => Tag::Entry,
            Self::Extent(..) => Tag::Extent,
            Self::Xattr(..) => Tag::Xattr,
            Self::Orphan(_) => Tag::Orphan,
            Self::Pin(_) => Tag::Pin,
            Self::Pack(_) => Tag::Pack,
            Self::History(_) => Tag::History,
        }
    }

    /// The encoded key, whose byte order is the map's order.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::USUAL_MAX);
        bytes.push(self.tag().byte());
        match self {
            Self::Meta(which) => bytes.push(*which as u8),
            Self::Inode(ino) | Self::Orphan(ino) => bytes.extend(ino.0.to_be_bytes()),
            Self::Entry(ino, hash) | Self::Xattr(ino, hash) => {
                bytes.extend(ino.0.to_be_bytes());
                bytes.extend(hash.0);
            }
            Self::Extent(ino, offset) => {
                bytes.extend(ino.0.to_be_bytes());
                bytes.extend(offset.to_be_bytes());
            }
            Self::Pin(name) => bytes.extend(name),
            Self::Pack(id) => bytes.extend(id.0),
            Self::History(k) => bytes.extend(k.to_be_bytes()),
        }
        bytes
    }

    /// Reads what [`Key::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::malformed("a key", "no table has such keys");
        let tag = Tag::of(bytes).ok_or_else(bad)?;
        let rest = &bytes[Tag::WIDTH..];
        let number = |part: &[u8]| part.try_into().map(u64::from_be_bytes).map_err(|_| bad());
        let pair = |rest: &[u8]| -> Result<(InodeNo, NameHash)> {
            let (ino, hash) = rest.split_at_checked(Self::INO_WIDTH).ok_or_else(bad)?;
            let hash = NameHash(hash.try_into().map_err(|_| bad())?);
            Ok((InodeNo(number(ino)?), hash))
        };
        Ok(match tag {
            Tag::Meta => Self::Meta(match rest {
                [1] => MetaKey::Writer,
                [2] => MetaKey::Retention,
                [3] => MetaKey::NextInode,
                _ => return Err(bad()),
            }),
            Tag::Inode => Self::Inode(InodeNo(number(rest)?)),
            Tag::Entry => pair(rest).map(|(ino, hash)| Self::Entry(ino, hash))?,
            Tag::Extent => {
                let (ino, offset) = rest.split_at_checked(Self::INO_WIDTH).ok_or_else(bad)?;
                Self::Extent(InodeNo(number(ino)?), number(offset)?)
            }
            Tag::Xattr => pair(rest).map(|(ino, hash)| Self::Xattr(ino, hash))?,
            Tag::Orphan => Self::Orphan(InodeNo(number(rest)?)),
            Tag::Pin => Self::Pin(rest.to_vec()),
            Tag::Pack => Self::Pack(PackId(rest.try_into().map_err(|_| bad())?)),
            Tag::History => Self::History(number(rest)?),
        })
    }
}

/// A file's attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Inode {
    /// Type and permission bits, as in `st_mode` (inode(7)).
    #[n(0)]
    pub mode: u32,
    /// Owner.
    #[n(1)]
    pub uid: u32,
    /// Group.
    #[n(2)]
    pub gid: u32,
    /// The number of entries that name it; for a directory, 2 plus one for each directory in it.
    #[n(3)]
    pub nlink: u32,
    /// For a device file, its number, as in `st_rdev`.
    #[n(4)]
    pub rdev: u32,
    /// Length in bytes; for a symlink, the length of its target.
    #[n(5)]
    pub size: u64,
    /// Last read (relatime).
    #[n(6)]
    pub atime: Timestamp,
    /// Last change of the content.
    #[n(7)]
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    #[n(8)]
    pub ctime: Timestamp,
    /// When it was made.
    #[n(9)]
    pub created: Timestamp,
    /// For a directory, the one that it is in (the root's is itself); otherwise 0.
    #[n(10)]
    pub parent: InodeNo,
    /// For a file whose content is one extent at offset 0: that extent. Then it has no extent records.
    #[n(11)]
    pub extent: Option<Extent>,
    /// For a symlink, its target.
    #[cbor(n(12), with = "minicbor::bytes")]
    pub target: Option<Vec<u8>>,
    /// For a file, the bytes that its extents hold: `size` less the holes (`st_blocks`).
    #[n(13)]
    pub allocated: u64,
}

impl Inode {
    /// The type bits, `S_IFMT` of the mode.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// The name: 1 to 255 bytes, any but `/` and NUL.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// The inode that it names.
    #[n(1)]
    pub ino: InodeNo,
    /// The type bits of that inode, `S_IFMT`.
    #[n(2)]
    pub kind: u32,
}

/// An extended attribute (xattr(7)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Xattr {
    /// The name with its namespace, such as `user.comment`.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// The value, up to 64 KiB.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Work that is left to do on an inode (rule V3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Orphan {
    /// `Some`: extents at and beyond this offset are to be removed, and the inode stays. `None`: the inode is to be
    /// removed with all that it has, once nobody has it open.
    #[n(0)]
    pub from: Option<u64>,
    /// Set together with `name`, for a directory: as long as it has this name in that directory, it is to be removed with
    /// the name and everything below it. `from` is then set too, so that versions which do not know this field only
    /// delete the record.
    #[n(1)]
    pub directory: Option<InodeNo>,
    /// See `directory`.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub name: Option<Vec<u8>>,
}

impl Orphan {
    /// For an inode that has no name any more.
    pub const UNNAMED: Self = Self { from: None, directory: None, name: None };

    /// For a file whose extents at and beyond `from` are to be removed.
    pub fn beyond(from: u64) -> Self {
        Self { from: Some(from), ..Self::UNNAMED }
    }

    /// For a directory that is to be removed with its name and everything below it.
    pub fn tree(directory: InodeNo, name: &[u8]) -> Self {
        // No extent begins at this offset.
        let from = Some(u64::MAX);
        Self { from, directory: Some(directory), name: Some(name.to_vec()) }
    }

    /// The directory and name of the tree that is to be removed.
    pub fn tree_name(&self) -> Option<(InodeNo, &[u8])> {
        Some((self.directory?, self.name.as_deref()?))
    }
}

/// A buffer of this many bytes holds most values, and the transactions of most operations, without growing.
const USUAL_VALUE_MAX: usize = 768;

/// The CBOR of a value.
pub fn encode_value<T: Encode<()>>(value: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(USUAL_VALUE_MAX);
    match minicbor::encode(value, &mut bytes) {
        // A copy: the value is kept, and should take no more room than it needs.
        Ok(()) => Bytes::copy_from_slice(&bytes),
        // Writing into a Vec cannot fail, and no record's encoder can.
        Err(error) => unreachable!("a record does not encode: {error}"),
    }
}

/// The length of [`encode_value`]'s result, without making it.
pub fn encoded_length<T: Encode<()>>(value: &T) -> usize {
    struct EncodedLength(usize);
    impl minicbor::encode::Write for EncodedLength {
        type Error = std::convert::Infallible;

        fn write_all(&mut self, bytes: &[u8]) -> std::result::Result<(), Self::Error> {
            self.0 += bytes.len();
            Ok(())
        }
    }
    let mut encoder = minicbor::Encoder::new(EncodedLength(0));
    if let Err(error) = encoder.encode(value) {
        unreachable!("a record does not encode: {error}");
    }
    encoder.into_writer().0
}

/// Decodes the value of a record of `table` (which is only for the message).
pub fn decode_value<'a, T: Decode<'a, ()>>(table: &str, bytes: &'a [u8]) -> Result<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder
        .decode()
        .map_err(|error| Error::malformed(format!("a record of {table}"), error))?;
    if decoder.position() != bytes.len() {
        return Err(Error::malformed(format!("a record of {table}"), "bytes follow it"));
    }
    Ok(value)
}

/// Whether a record's table can refer to extents.
pub(super) fn may_refer(key: &[u8]) -> bool {
    matches!(Tag::of(key), Some(Tag::Inode | Tag::Extent))
}

/// The extent that a record refers to, if its table does.
pub fn extent_of(key: &[u8], value: &[u8]) -> Result<Option<Extent>> {
    match Tag::of(key) {
        Some(Tag::Inode) => Ok(decode_value::<Inode>("inode", value)?.extent),
        Some(Tag::Extent) => decode_value::<Extent>("extent", value).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let ino = || any::<u64>().prop_map(InodeNo);
        let hash = || any::<[u8; 16]>().prop_map(NameHash);
        prop_oneof![
            Just(Key::Meta(MetaKey::Writer)),
            Just(Key::Meta(MetaKey::NextInode)),
            ino().prop_map(Key::Inode),
            (ino(), hash()).prop_map(|(i, h)| Key::Entry(i, h)),
            (ino(), any::<u64>()).prop_map(|(i, o)| Key::Extent(i, o)),
            (ino(), hash()).prop_map(|(i, h)| Key::Xattr(i, h)),
            ino().prop_map(Key::Orphan),
            any::<Vec<u8>>().prop_map(Key::Pin),
            any::<[u8; 16]>().prop_map(|id| Key::Pack(PackId(id))),
            any::<u64>().prop_map(Key::History),
        ]
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn keys_read_back_and_keep_their_order(a in any_key(), b in any_key()) {
            prop_assert_eq!(&Key::decode(&a.encode()).unwrap(), &a);
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }

        #[test]
        fn random_bytes_are_refused_or_a_key(bytes in any::<Vec<u8>>()) {
            if let Ok(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }

        #[test]
        fn random_values_do_not_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode_value::<Inode>("inode", &bytes);
            let _ = decode_value::<Entry>("entry", &bytes);
            let _ = decode_value::<Extent>("extent", &bytes);
        }
    }
}
