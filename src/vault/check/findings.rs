//! The findings of a check, for people.

use std::fmt;

use crate::types::CommitNo;
use crate::{checkpoint, log, store};

/// How many files a finding names at most; the rest is counted.
const NAMED: usize = 10;

/// What `check` found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Commits after the newest checkpoint, all of which were verified.
    pub commits: u64,
    /// Pages of that checkpoint.
    pub pages: u64,
    /// Packs that the map refers to.
    pub packs: u64,
    /// Records that refer to packs.
    pub extents: u64,
    /// Files, directories and the like.
    pub inodes: u64,
    /// Bytes of content that these records cover.
    pub bytes: u64,
    /// Packs in the bucket that the map does not refer to (any more, or yet), and their bytes.
    pub unused: (u64, u64),
    /// The commit that this machine saw and that the bucket no longer has, or has differently (O2).
    pub went_back: Option<CommitNo>,
    /// What is wrong in the bucket.
    pub findings: Vec<Finding>,
}

/// Something wrong in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What is wrong with it, and what that means.
    pub what: String,
    /// How many files cannot be read whole because of it, as far as known.
    pub inodes: u64,
    /// Paths of some of them; for the terminal, never for a log.
    pub files: Vec<String>,
}

impl Finding {
    /// A finding for which no single file can be named.
    pub(super) fn of(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self { object: object.into(), what: what.into(), inodes: 0, files: Vec::new() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)?;
        match self.inodes {
            0 => return Ok(()),
            1 => write!(f, "; one file cannot be read whole")?,
            n => write!(f, "; {n} files cannot be read whole")?,
        }
        let named = self.files.len().min(NAMED);
        for (at, file) in self.files[..named].iter().enumerate() {
            write!(f, "{}{file}", if at == 0 { ": " } else { ", " })?;
        }
        match self.inodes.saturating_sub(named as u64) {
            0 => Ok(()),
            more if named > 0 => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// A path for people, on one line.
pub(super) fn printable(path: &[u8]) -> String {
    let line = String::from_utf8_lossy(path).replace('\n', "\\n").replace('\t', "\\t");
    crate::types::printable(&line).into_owned()
}

/// Whether the error is about the object, and not the connection to the store: then it is a finding.
pub(super) fn about_the_object(error: &log::Error) -> bool {
    match error {
        log::Error::Store(error) => is_finding(error),
        log::Error::Records(_)
        | log::Error::Seal { .. }
        | log::Error::Gap { .. }
        | log::Error::Stranger { .. }
        | log::Error::Fork { .. } => true,
        _ => false,
    }
}

/// The same for the error of a page.
pub(super) fn about_the_page(error: &checkpoint::Error) -> bool {
    matches!(error, checkpoint::Error::Log(error) if about_the_object(error))
}

/// The same for the store's own error.
pub(super) fn is_finding(error: &store::Error) -> bool {
    matches!(error, store::Error::NotFound { .. } | store::Error::Corrupt { .. })
}
