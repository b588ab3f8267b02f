//! Requests, replies and frames of the files protocol.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cli::exit::Failure;
use crate::types::path_text;

/// The most bytes of content in one frame.
pub(crate) const PIECE: usize = 256 << 10;
/// The most bytes of a frame: a page of a listing, whose names need not be text.
pub(crate) const FRAME_MAX: usize = 1 << 20;
/// The bytes before the payload.
pub(crate) const HEAD: usize = 5;

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// JSON.
    Message,
    /// Content: the offset (8 bytes, little endian), then bytes.
    Data,
    /// An extended attribute: the length of its name (2 bytes, little endian), the name, the value.
    Attribute,
    /// Nothing: a sign that the sender is alive.
    Still,
}

impl FrameKind {
    /// The byte that stands for the type.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Message => b'm',
            Self::Data => b'd',
            Self::Attribute => b'x',
            Self::Still => b's',
        }
    }

    fn of(byte: u8) -> io::Result<Self> {
        match byte {
            b'm' => Ok(Self::Message),
            b'd' => Ok(Self::Data),
            b'x' => Ok(Self::Attribute),
            b's' => Ok(Self::Still),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no such frame")),
        }
    }
}

/// One frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub kind: FrameKind,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A JSON message.
    pub(crate) fn message(what: &impl Serialize) -> io::Result<Self> {
        Ok(Self { kind: FrameKind::Message, payload: serde_json::to_vec(what)? })
    }

    /// A piece of content.
    pub(crate) fn data(offset: u64, data: &[u8]) -> Self {
        Self { kind: FrameKind::Data, payload: [&offset.to_le_bytes()[..], data].concat() }
    }

    /// An extended attribute.
    pub(crate) fn attribute(name: &[u8], value: &[u8]) -> Self {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
        Self { kind: FrameKind::Attribute, payload: [&length[..], name, value].concat() }
    }

    /// The bytes before the payload.
    pub(crate) fn head(&self) -> [u8; HEAD] {
        let [a, b, c, d] = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        [self.kind.byte(), a, b, c, d]
    }

    /// Parses those bytes into type and payload length.
    pub(crate) fn parse(head: [u8; HEAD]) -> io::Result<(FrameKind, usize)> {
        let [kind, a, b, c, d] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > FRAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
        }
        Ok((FrameKind::of(kind)?, length))
    }

    /// The offset and the bytes of a content frame.
    pub(crate) fn as_data(&self) -> io::Result<(u64, &[u8])> {
        let (offset, data) = self.payload.split_first_chunk::<8>().ok_or_else(short)?;
        Ok((u64::from_le_bytes(*offset), data))
    }

    /// The name and value of an extended attribute frame.
    pub(crate) fn as_attribute(&self) -> io::Result<(&[u8], &[u8])> {
        let (length, rest) = self.payload.split_first_chunk::<2>().ok_or_else(short)?;
        let length = usize::from(u16::from_le_bytes(*length));
        rest.split_at_checked(length).ok_or_else(short)
    }

    /// Receives the next frame; `None` if the other side closed the connection between two frames.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        match from.read(&mut head[..1]).await? {
            0 => return Ok(None),
            _ => _ = from.read_exact(&mut head[1..]).await?,
        }
        let (kind, length) = Self::parse(head)?;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        Ok(Some(Self { kind, payload }))
    }

    /// Sends the frame.
    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.head()).await?;
        to.write_all(&self.payload).await
    }
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is too short")
}

/// A request. Paths are relative to the vault's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum FilesRequest {
    /// The entry of a path.
    Stat {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Whether a symlink as the last component is followed.
        follows: bool,
    },
    /// The entries of a directory.
    List {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// The extended attributes of a path.
    Attributes {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// A regular file: returns its entry, its extended attributes and its content.
    Get {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// Puts a regular file: extended attributes and content follow, then [`Finish`].
    Put {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Whether missing parent directories are made.
        parents: bool,
    },
    /// Makes an entry without content: its extended attributes follow, then [`Finish`].
    Make {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// The target of a symlink.
        #[serde(with = "path_text::option")]
        target: Option<PathBuf>,
        /// The device number of a device.
        rdev: u32,
    },
    /// Sets attributes of an existing entry: extended ones follow, then [`Finish`].
    Dress {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// Makes a directory.
    Mkdir {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Also makes missing parents, and accepts an existing directory.
        parents: bool,
    },
    /// Gives a file another name, in place of what has it, unless that is a directory.
    Link {
        #[serde(with = "path_text")]
        from: PathBuf,
        #[serde(with = "path_text")]
        to: PathBuf,
    },
    /// Removes an entry.
    Remove {
        #[serde(with = "path_text")]
        path: PathBuf,
        recursive: bool,
    },
    /// Moves to a path, or into a directory.
    Move {
        #[serde(with = "path_text")]
        from: PathBuf,
        #[serde(with = "path_text")]
        to: PathBuf,
    },
    /// Copies to a path, or into a directory.
    Copy {
        #[serde(with = "path_text")]
        from: PathBuf,
        #[serde(with = "path_text")]
        to: PathBuf,
        recursive: bool,
    },
}

impl FilesRequest {
    /// Whether repeating the request might do something else than the first time.
    pub(crate) fn has_effect(&self) -> bool {
        match self {
            Self::Stat { .. } | Self::List { .. } | Self::Attributes { .. } | Self::Get { .. } => {
                false
            }
            Self::Mkdir { parents, .. } => !parents,
            Self::Put { .. }
            | Self::Make { .. }
            | Self::Dress { .. }
            | Self::Link { .. }
            | Self::Remove { .. }
            | Self::Move { .. }
            | Self::Copy { .. } => true,
        }
    }
}

/// Ends what follows a request, and sets the entry's attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finish {
    /// The length of a file; what no frame filled is a hole.
    pub size: u64,
    /// Type and permissions.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// The mtime: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
}

/// An entry of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Its name in its directory; empty for the root.
    #[serde(with = "path_text")]
    pub name: PathBuf,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub ino: u64,
    /// The mtime: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The target of a symlink.
    #[serde(default, with = "path_text::option")]
    pub target: Option<PathBuf>,
}

impl FileEntry {
    /// The type bits.
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
}

/// The daemon's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum FilesReply {
    /// A part of a listing, or the entry that was asked for.
    Entries { entries: Vec<FileEntry> },
    /// The progress so far: how many entries, how many bytes.
    SoFar { things: u64, bytes: u64 },
    /// This entry failed; the rest goes on.
    Problem {
        #[serde(with = "path_text")]
        path: PathBuf,
        failure: Failure,
    },
    /// The file was changed while it was read: the content sent mixes two versions. The last reply.
    Changed,
    /// The request is done, and covered this many entries; the last reply.
    Done { things: u64 },
    /// The request failed; the last reply.
    Failed { failure: Failure },
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[tokio::test]
    async fn frames_read_back_and_cut_or_foreign_ones_do_not() {
        let name: PathBuf = OsString::from_vec(b"a\xff\n".to_vec()).into();
        let request = FilesRequest::Stat { path: name, follows: true };
        let frames = [
            Frame::message(&request).unwrap(),
            Frame::data(1 << 40, b"content"),
            Frame::attribute(b"user.a", b""),
            Frame { kind: FrameKind::Still, payload: Vec::new() },
        ];
        let mut sent = Vec::new();
        for frame in &frames {
            frame.write(&mut sent).await.unwrap();
        }
        let mut from = &sent[..];
        for frame in &frames {
            let read = Frame::read(&mut from).await.unwrap().unwrap();
            assert_eq!((read.kind, &read.payload), (frame.kind, &frame.payload));
        }
        assert!(Frame::read(&mut from).await.unwrap().is_none());
        assert_eq!(serde_json::from_slice::<FilesRequest>(&frames[0].payload).unwrap(), request);
        assert_eq!(frames[1].as_data().unwrap(), (1 << 40, &b"content"[..]));
        assert_eq!(frames[2].as_attribute().unwrap(), (&b"user.a"[..], &b""[..]));
        assert!(frames[3].as_data().is_err() && frames[3].as_attribute().is_err());
        assert!(Frame::read(&mut &sent[..sent.len() - 1]).await.is_ok());
        assert!(Frame::read(&mut &sent[..=HEAD]).await.is_err());
        assert!(Frame::read(&mut &b"z\0\0\0\0"[..]).await.is_err());
        assert!(Frame::read(&mut &b"d\xff\xff\xff\xff"[..]).await.is_err());
    }
}
