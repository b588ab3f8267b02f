//! What the service knows about a file: an extended attribute of the file, so that it moves with the file and every
//! machine sees it. It holds only for the file version that it was made for.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::s3_key::S3Key;
use crate::types::{Hash, Timestamp};
use crate::vfs::Inspected;

/// The attribute's name.
pub(super) const ATTRIBUTE: &[u8] = b"user.s3vault.upload";
/// 0000-01-01T00:00:00Z in seconds since 1970: the earliest time that RFC 3339 can express.
const YEAR_0: i64 = -62_167_219_200;
/// The longest content type that is kept, in bytes.
const CONTENT_TYPE_MAX: usize = 255;
/// The content type if nothing better is known.
pub(super) const OCTETS: &str = "application/octet-stream";

/// The attribute's value: CBOR with integer keys, as in the rest of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct UploadNote {
    /// The version of the file that this note describes.
    #[n(0)]
    pub(super) version: Hash,
    /// Random; chosen at the upload.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) id: [u8; 16],
    /// From the client, or guessed from the name.
    #[n(2)]
    pub(super) content_type: String,
    /// SHA-256 of the plaintext.
    #[n(3)]
    pub(super) sha256: Hash,
    /// When the upload was complete, by this machine's clock.
    #[n(4)]
    pub(super) uploaded_at: Timestamp,
}

impl UploadNote {
    /// The file's upload note, if the file still has the version that was uploaded.
    pub(super) fn of(inspected: &Inspected) -> Option<Self> {
        let known: Self = minicbor::decode(inspected.note.as_deref()?).ok()?;
        // Whoever may write the file may write the attribute, so its content is checked before it is sent.
        let is_good = is_content_type(&known.content_type);
        (is_good && Some(known.version) == inspected.version).then_some(known)
    }

    /// The attribute's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Encoding into a vector cannot fail.
        _ = minicbor::encode(self, &mut bytes);
        bytes
    }
}

/// Whether a content type is safe to send in a header.
fn is_content_type(text: &str) -> bool {
    let is_visible = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let parts = text.split(';').next().and_then(|kind| kind.trim().split_once('/'));
    let is_token = |part: &str| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(is_word)
    };
    text.len() <= CONTENT_TYPE_MAX
        && is_visible
        && parts.is_some_and(|(a, b)| is_token(a) && is_token(b))
}

/// The content type: what the client said, if that is valid, or else a guess from the name.
pub(super) fn content_type(said: Option<&str>, name: &[u8]) -> String {
    match said.filter(|said| is_content_type(said)) {
        Some(said) => said.to_owned(),
        None => guess(name),
    }
}

fn guess(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let guessed = mime_guess::from_path(name.as_ref()).first_raw();
    match guessed {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        Some(other) => other.to_owned(),
        None => OCTETS.to_owned(),
    }
}

/// What kind of thing a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileKind {
    File,
    Directory,
    Symlink,
    /// A device, a fifo or a socket.
    Other,
}

impl FileKind {
    /// From the file type bits of a mode.
    pub(super) fn of(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// Whether the bucket has the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileState {
    /// Not yet: the current content is on this machine only.
    Uploading,
    /// The bucket has the current content.
    Durable,
}

/// What the API tells about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FileInfo {
    pub(super) id: Option<String>,
    pub(super) file_name: String,
    pub(super) s3_key: String,
    pub(super) kind: FileKind,
    /// Bytes.
    pub(super) size: u64,
    pub(super) content_type: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) uploaded_at: Option<String>,
    pub(super) modified: String,
    pub(super) state: FileState,
    /// The URL path of the file; it works even if the name is not UTF-8 (then `s3_key` cannot express it).
    pub(super) href: String,
}

impl FileInfo {
    /// Describes what was found under a key.
    pub(super) fn new(key: &S3Key, inspected: &Inspected) -> Self {
        let known = UploadNote::of(inspected);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let attributes = &inspected.attributes;
        Self {
            file_name: text(key.name()),
            s3_key: text(&key.bytes()),
            kind: FileKind::of(attributes.mode),
            size: attributes.size,
            modified: rfc3339(attributes.mtime),
            state: if inspected.is_durable { FileState::Durable } else { FileState::Uploading },
            href: key.url(),
            id: known.as_ref().map(|known| hex(&known.id)),
            sha256: known.as_ref().map(|known| known.sha256.to_string()),
            uploaded_at: known.as_ref().map(|known| rfc3339(known.uploaded_at)),
            content_type: known.map(|known| known.content_type),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// `2026-11-23T09:00:00.123Z`; a time that RFC 3339 cannot express becomes the epoch.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let nanos = i32::try_from(time.nanos / 1_000_000 * 1_000_000).unwrap_or(0);
    let time = jiff::Timestamp::new(time.seconds, nanos).ok();
    // Years before 0 would have a sign and more digits.
    let time = time.filter(|time| time.as_second() >= YEAR_0);
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_kept_if_it_can_be_sent_again() {
        assert_eq!(
            content_type(Some("text/html; charset=latin1"), b"x"),
            "text/html; charset=latin1"
        );
        assert_eq!(content_type(None, b"a.txt"), "text/plain; charset=utf-8");
        assert_eq!(content_type(None, b"a.PNG"), "image/png");
        assert_eq!(content_type(None, b"\xff"), OCTETS);
        let long = format!("text/{}", "x".repeat(300));
        for bad in ["", "text", "text/", "/html", "a b/c", "text/plain\r\nX: y", "text/ü", &long] {
            assert_eq!(content_type(Some(bad), b"a.png"), "image/png", "{bad}");
        }
    }

    #[test]
    fn times_are_told_in_milliseconds() {
        let at = |seconds, nanos| rfc3339(Timestamp { seconds, nanos });
        assert_eq!(at(0, 999_999_999), "1970-01-01T00:00:00.999Z");
        assert_eq!(at(1_795_424_400, 1_000_000), "2026-11-23T09:00:00.001Z");
        assert_eq!(at(-1, 500_000_000), "1969-12-31T23:59:59.500Z");
        assert_eq!(at(YEAR_0, 0), "0000-01-01T00:00:00.000Z");
        for beyond in [i64::MAX, i64::MIN, YEAR_0 - 1, 253_402_300_800] {
            assert_eq!(at(beyond, 0), "1970-01-01T00:00:00.000Z");
        }
    }

    #[test]
    fn a_record_counts_for_its_version_only_and_must_make_sense() {
        let known = UploadNote {
            version: Hash([1; 32]),
            id: [2; 16],
            content_type: "a/b".into(),
            sha256: Hash([3; 32]),
            uploaded_at: Timestamp { seconds: 5, nanos: 0 },
        };
        assert_eq!(minicbor::decode::<UploadNote>(&known.encode()).unwrap(), known);
        let bad = UploadNote { content_type: "a/b\r\nEvil: yes".into(), ..known.clone() };
        for (version, note, is_known) in [
            (Some(Hash([1; 32])), Some(known.encode()), true),
            (Some(Hash([9; 32])), Some(known.encode()), false),
            (None, Some(known.encode()), false),
            (Some(Hash([1; 32])), Some(bad.encode()), false),
            (Some(Hash([1; 32])), Some(b"junk".to_vec()), false),
            (Some(Hash([1; 32])), None, false),
        ] {
            let inspected = Inspected { attributes: attributes(), version, is_durable: true, note };
            assert_eq!(UploadNote::of(&inspected).is_some(), is_known);
            let info = FileInfo::new(&S3Key::parse(b"d/f").unwrap(), &inspected);
            assert_eq!((info.id.is_some(), info.sha256.is_some()), (is_known, is_known));
        }
    }

    fn attributes() -> crate::vfs::Attributes {
        let time = Timestamp::default();
        crate::vfs::Attributes {
            ino: crate::types::InodeNo(7),
            mode: libc::S_IFREG | 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 3,
            blocks: 8,
            atime: time,
            mtime: time,
            ctime: time,
            created: time,
        }
    }
}
