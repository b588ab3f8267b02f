//! The tables of the map, named by the first byte of their keys.

/// The tag of a table: the first byte of its keys. The map holds the tables in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tag {
    /// Singular records.
    Meta = 1,
    /// Attributes.
    Inode = 2,
    /// Entries of directories.
    Entry = 3,
    /// What the bytes of files refer to.
    Extent = 4,
    /// Extended attributes.
    Xattr = 5,
    /// Inodes with work left to do.
    Orphan = 6,
    /// Named snapshots.
    Pin = 7,
    /// The table of packs.
    Pack = 8,
    /// Hashes of commits.
    History = 9,
}

impl Tag {
    /// All tables, in the order of the map.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Inode,
        Self::Entry,
        Self::Extent,
        Self::Xattr,
        Self::Orphan,
        Self::Pin,
        Self::Pack,
        Self::History,
    ];

    /// Bytes that a tag takes.
    pub const WIDTH: usize = 1;

    /// The byte itself.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The table with this tag, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| tag.byte() == byte)
    }

    /// The table of an encoded key, by its first byte.
    pub fn of(key: &[u8]) -> Option<Self> {
        Self::from_byte(*key.first()?)
    }

    /// No key of the table is below this one.
    pub const fn begin(self) -> [u8; Self::WIDTH] {
        [self.byte()]
    }

    /// All keys of the table are below this one.
    pub const fn end(self) -> [u8; Self::WIDTH] {
        [self.byte() + 1]
    }

    /// Whether an inode number follows the tag in its keys.
    pub fn has_inode(self) -> bool {
        match self {
            Self::Inode | Self::Entry | Self::Extent | Self::Xattr | Self::Orphan => true,
            Self::Meta | Self::Pin | Self::Pack | Self::History => false,
        }
    }
}
