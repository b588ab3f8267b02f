//! The messages between front process and daemon: one JSON object per line.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::Failure;
use crate::cli::mount_look::MountLook;
use crate::gateway::{ListenAt, ServeOptions};
use crate::types::{Progress, StateAt, StoreLimits, path_text};
use crate::vault::{MasterKey, S3Credentials};

/// The longest line: a pipe takes this much without a reader.
const LINE_MAX: u64 = 64 << 10;

/// Everything that the daemon needs to know. Paths are absolute.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // as on the command line
pub(crate) struct Spec {
    /// Where to mount, if at all.
    #[serde(with = "path_text::option")]
    pub mountpoint: Option<PathBuf>,
    /// How to serve by HTTP, if at all.
    pub serve: Option<ServeOptions>,
    /// The address for metrics, if any.
    #[serde(default)]
    pub metrics: Option<ListenAt>,
    pub url: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// The vault's id, 32 hex digits.
    pub vault: String,
    /// The master key, as hex.
    pub master: Hidden,
    /// A copy that stands in for the superblock if that is lost.
    #[serde(with = "path_text::option")]
    pub superblock: Option<PathBuf>,
    /// AWS credentials that were in the environment.
    pub credentials: Option<Credentials>,
    /// The vault's own directory below the state directory.
    #[serde(with = "path_text")]
    pub dir: PathBuf,
    /// The user's data directory.
    #[serde(with = "path_text")]
    pub data: PathBuf,
    /// The past state to mount, if not the current one.
    pub at: Option<StateAt>,
    pub foreground: bool,
    pub read_only: bool,
    /// How often a reader checks for what others wrote.
    #[serde(default)]
    pub refresh: Option<Duration>,
    pub take_over: bool,
    pub accept_rollback: bool,
    pub accept_damage: bool,
    pub single_machine: bool,
    /// The options of `-o`, and `--allow-other`.
    pub look: MountLook,
    /// Whether the root has `.snapshots`.
    pub snapshots_dir: bool,
    /// Whether `fsync` waits for the bucket.
    pub fsync_bucket: bool,
    /// Bytes.
    pub memory: u64,
    /// Bytes; `None`: chosen by the free space.
    pub cache_size: Option<u64>,
    /// How long the end may take after SIGTERM.
    pub stop_timeout: Duration,
    pub verbose: u8,
    /// Whether the log is JSON.
    pub log_json: bool,
    /// The limits on its use of the store.
    #[serde(default)]
    pub limits: StoreLimits,
}

/// The credentials that an environment held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub access_key: String,
    pub secret: Hidden,
    pub session_token: Option<Hidden>,
    /// When they expire, in seconds since 1970, if that is known.
    #[serde(default)]
    pub expires: Option<u64>,
}

impl Credentials {
    /// As the store client takes them.
    pub(crate) fn to_store(&self) -> S3Credentials {
        S3Credentials {
            access_key: self.access_key.clone(),
            secret_key: self.secret.0.clone(),
            session_token: self.session_token.as_ref().map(|token| token.0.clone()),
            expires: self.expires.map(|end| SystemTime::UNIX_EPOCH + Duration::from_secs(end)),
        }
    }

    /// For the message to the daemon.
    pub(crate) fn from_store(found: &S3Credentials) -> Self {
        let seconds = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).ok();
        Self {
            access_key: found.access_key.clone(),
            secret: Hidden(found.secret_key.clone()),
            session_token: found.session_token.clone().map(Hidden),
            expires: found.expires.and_then(seconds).map(|end| end.as_secs()),
        }
    }
}

/// Text that is never shown and is wiped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(pub Zeroizing<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

impl Hidden {
    /// 32 bytes as hex.
    pub(crate) fn from_key(key: &[u8; 32]) -> Self {
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in key {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        Self(text)
    }

    /// The key of 64 hex digits; `None` if the text is anything else.
    pub(crate) fn to_key(&self) -> Option<MasterKey> {
        let digits = self.0.as_bytes();
        let half =
            |digit: u8| char::from(digit).to_digit(16).and_then(|half| u8::try_from(half).ok());
        MasterKey::written(|key| {
            if digits.len() != 64 {
                return None;
            }
            for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = half(pair[0])? << 4 | half(pair[1])?;
            }
            Some(())
        })
    }
}

impl Spec {
    /// Takes the master key out of the spec; `None` if there is none.
    pub(crate) fn take_key(&mut self) -> Option<MasterKey> {
        let text = std::mem::replace(&mut self.master, Hidden(Zeroizing::default()));
        text.to_key()
    }

    /// The path that the list of processes shows.
    pub(crate) fn shown(&self) -> &Path {
        self.mountpoint.as_ref().unwrap_or(&self.dir)
    }

    /// Sends it to the daemon.
    pub(crate) fn send(&self, to: &mut impl Write) -> io::Result<()> {
        // The buffer has its final size from the start, so that growing leaves no copy of the key behind.
        let mut line = Zeroizing::new(Vec::with_capacity(usize::try_from(LINE_MAX).unwrap_or(0)));
        serde_json::to_writer(&mut *line, self)?;
        line.push(b'\n');
        if line.len() as u64 > LINE_MAX {
            return Err(io::Error::other("paths and options are too long"));
        }
        to.write_all(&line)
    }

    /// Receives it from the front process.
    pub(crate) fn receive(from: &mut impl Read) -> io::Result<Self> {
        // Read without a `BufReader`, whose buffer would keep the key for as long as it lives. Nothing follows the
        // line.
        let mut line = Zeroizing::new(vec![0; usize::try_from(LINE_MAX).unwrap_or(0)]);
        let mut length = 0;
        while !line[..length].ends_with(b"\n") {
            match from.read(&mut line[length..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
        }
        line.truncate(length);
        let spec = serde_json::from_slice(&line);
        line.zeroize();
        Ok(spec?)
    }
}

/// What the daemon tells the front process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DaemonMessage {
    /// The mount, or the service, is usable.
    Ready(Box<DaemonReport>),
    /// A line for the user.
    Said(String),
    /// What is still unsent, during the end.
    Progress(Progress),
    /// The daemon ends; with the failure, if any.
    Ended(Option<Failure>),
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::gateway::TlsFiles;

    fn bytes(path: &[u8]) -> PathBuf {
        OsString::from_vec(path.to_vec()).into()
    }

    #[test]
    fn a_key_goes_over_the_pipe_and_is_never_shown() {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7 + 13).unwrap());
        let hidden = Hidden::from_key(&key);
        assert_eq!(*hidden.to_key().unwrap().expose(), key);
        assert_eq!(format!("{hidden:?}"), "(hidden)");
        assert!(Hidden(Zeroizing::new("xy".repeat(32))).to_key().is_none());
        assert!(Hidden(Zeroizing::new("ab".repeat(31))).to_key().is_none());
    }

    #[test]
    fn a_spec_reads_back_and_a_cut_one_does_not() {
        let spec = Spec {
            mountpoint: Some(bytes(b"/m\xff\n")),
            serve: Some(ServeOptions {
                listen: "unix:/s".parse().unwrap(),
                socket_mode: 0o660,
                only_metrics: false,
                open: false,
                hosts: Vec::new(),
                tls: Some(TlsFiles { certificate: bytes(b"/c\xff"), key: bytes(b"/k\xff") }),
                max_upload: 1,
                client_timeout: 1,
                tokens: bytes(b"/t\xff"),
            }),
            metrics: Some("127.0.0.1:9000".parse().unwrap()),
            url: "s3://b".into(),
            endpoint: None,
            region: None,
            vault: "00".repeat(16),
            master: Hidden::from_key(&[7; 32]),
            superblock: None,
            credentials: None,
            dir: "/s/v".into(),
            data: "/d".into(),
            at: None,
            foreground: false,
            read_only: true,
            refresh: Some(Duration::from_secs(10)),
            take_over: false,
            accept_rollback: false,
            accept_damage: false,
            single_machine: false,
            look: MountLook::default(),
            snapshots_dir: true,
            fsync_bucket: false,
            memory: 1,
            cache_size: None,
            stop_timeout: Duration::from_secs(1),
            verbose: 0,
            log_json: false,
            limits: StoreLimits::default(),
        };
        let mut sent = Vec::new();
        spec.send(&mut sent).unwrap();
        let back = Spec::receive(&mut &sent[..]).unwrap();
        assert_eq!(*back.master.to_key().unwrap().expose(), [7; 32]);
        assert!(back.read_only && back.mountpoint == spec.mountpoint);
        assert!(Spec::receive(&mut &sent[..sent.len() - 1]).is_err());
        assert!(!format!("{spec:?}").contains("0707"));
    }
}
