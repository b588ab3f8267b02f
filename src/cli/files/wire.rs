//! Requests, replies and frames.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cli::exit::Failure;
use crate::types::path_text;

/// Bytes of content in one frame at most.
pub(crate) const PIECE: usize = 256 << 10;
/// Bytes of a frame at most: a page of a listing, whose names may be no text.
pub(crate) const FRAME_MAX: usize = 1 << 20;
/// What stands before the payload.
pub(crate) const HEAD: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// JSON.
    Message,
    /// Content: the offset (8 bytes, little endian), then bytes.
    Data,
    /// An extended attribute: the length of its name (2 bytes, little endian), the name, the value.
    Attribute,
    /// Nothing: whoever sends it is alive.
    Still,
}

impl FrameKind {
    /// What stands for it.
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
    /// A message.
    pub(crate) fn message(what: &impl Serialize) -> io::Result<Self> {
        Ok(Self { kind: FrameKind::Message, payload: serde_json::to_vec(what)? })
    }

    /// Content.
    pub(crate) fn data(offset: u64, data: &[u8]) -> Self {
        Self { kind: FrameKind::Data, payload: [&offset.to_le_bytes()[..], data].concat() }
    }

    /// An extended attribute.
    pub(crate) fn attribute(name: &[u8], value: &[u8]) -> Self {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
        Self { kind: FrameKind::Attribute, payload: [&length[..], name, value].concat() }
    }

    /// Its head.
    pub(crate) fn head(&self) -> [u8; HEAD] {
        let [a, b, c, d] = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        [self.kind.byte(), a, b, c, d]
    }

    /// From a head: the kind, and how long the payload is.
    pub(crate) fn parse(head: [u8; HEAD]) -> io::Result<(FrameKind, usize)> {
        let [kind, a, b, c, d] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > FRAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
        }
        Ok((FrameKind::of(kind)?, length))
    }

    /// Of content: where it belongs, and the bytes.
    pub(crate) fn as_data(&self) -> io::Result<(u64, &[u8])> {
        let (offset, data) = self.payload.split_first_chunk::<8>().ok_or_else(short)?;
        Ok((u64::from_le_bytes(*offset), data))
    }

    /// Of an extended attribute: name and value.
    pub(crate) fn as_attribute(&self) -> io::Result<(&[u8], &[u8])> {
        let (length, rest) = self.payload.split_first_chunk::<2>().ok_or_else(short)?;
        let length = usize::from(u16::from_le_bytes(*length));
        rest.split_at_checked(length).ok_or_else(short)
    }

    /// The next one; `None` when the other side has ended between two.
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

    /// Sends it.
    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.head()).await?;
        to.write_all(&self.payload).await
    }
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is too short")
}

/// What is asked. Paths lead from the root of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum FilesRequest {
    /// What a path names.
    Stat {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Whether a symlink at its end is not meant itself.
        follows: bool,
    },
    /// What is in a directory.
    List {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// The extended attributes of a path.
    Attributes {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// A regular file: its entry, its extended attributes, its content.
    Get {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// A regular file comes: extended attributes and content, then [`Finish`].
    Put {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Whether missing directories above it are made.
        parents: bool,
    },
    /// Something that has no content, with its extended attributes, then [`Finish`].
    Make {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Of a symlink.
        #[serde(with = "path_text::option")]
        target: Option<PathBuf>,
        /// Of a device.
        rdev: u32,
    },
    /// Attributes for what is there; extended ones come, then [`Finish`].
    Dress {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// A directory.
    Mkdir {
        #[serde(with = "path_text")]
        path: PathBuf,
        /// With those above it, and without an error if it is there.
        parents: bool,
    },
    /// Another name for a file.
    Link {
        #[serde(with = "path_text")]
        from: PathBuf,
        #[serde(with = "path_text")]
        to: PathBuf,
    },
    /// Remove.
    Remove {
        #[serde(with = "path_text")]
        path: PathBuf,
        recursive: bool,
    },
    /// Move to a path, or into a directory.
    Move {
        #[serde(with = "path_text")]
        from: PathBuf,
        #[serde(with = "path_text")]
        to: PathBuf,
    },
    /// Copy to a path, or into a directory.
    Copy {
        #[serde(with = "path_text")]
        from: PathBuf,
        #[serde(with = "path_text")]
        to: PathBuf,
        recursive: bool,
    },
}

impl FilesRequest {
    /// Whether it may leave something behind that is another thing when it is asked for again.
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

/// The end of what comes, and what it is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finish {
    /// Of a file: its length; what no frame filled is a hole.
    pub size: u64,
    /// Type and permissions.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Last change: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
}

/// One thing in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Its name in its directory; empty for the root.
    #[serde(with = "path_text")]
    pub name: PathBuf,
    /// As in `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub ino: u64,
    /// Last change: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Of a symlink.
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

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum FilesReply {
    /// A part of a listing, or the one that was asked for.
    Entries { entries: Vec<FileEntry> },
    /// So many things, so many bytes by now.
    SoFar { things: u64, bytes: u64 },
    /// This one could not be done; the rest goes on.
    Problem {
        #[serde(with = "path_text")]
        path: PathBuf,
        failure: Failure,
    },
    /// The file was changed while it was read: what came of it is a mix. The last reply.
    Changed,
    /// It is done, with so many things; the last reply.
    Done { things: u64 },
    /// It could not be done; the last reply.
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
