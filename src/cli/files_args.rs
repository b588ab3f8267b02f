//! The command line of the commands that work on files without a mount.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::looking_back::moment;
use super::old_states_args::OfBucket;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Files and directories of the vault [default: its root]
    pub paths: Vec<OsString>,
    /// Permissions, links, owner, group, size and time as well
    #[arg(short)]
    pub long: bool,
    /// What is in directories below, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// What begins with a dot as well
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// Files of the vault
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    /// A directory of the vault [default: its root]
    pub path: Option<OsString>,
    /// What begins with a dot as well
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct DuArgs {
    /// A file or directory of the vault [default: its root]
    pub path: Option<OsString>,
    /// The sum alone
    #[arg(short, long)]
    pub summarize: bool,
    /// In bytes
    #[arg(short, long)]
    pub bytes: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct FindArgs {
    /// A file or directory of the vault [default: its root]
    pub path: Option<OsString>,
    /// Whose name is like this; quote the wildcards
    #[arg(long, value_name = "GLOB")]
    pub name: Option<OsString>,
    /// Changed after this time: RFC 3339, '2026-11-28 14:00', '3h ago', 3h
    #[arg(long, value_name = "T", value_parser = moment)]
    pub newer_than: Option<SystemTime>,
    /// Files, directories or symlinks alone
    #[arg(long = "type", value_name = "f|d|l", value_parser = ["f", "d", "l"])]
    pub kind: Option<String>,
    /// End each path with a NUL, for xargs -0
    #[arg(long)]
    pub print0: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// Files and directories of the vault, and then where they go on this machine; - is standard output
    #[arg(required = true, num_args = 2.., value_names = ["PATH", "LOCAL"])]
    pub paths: Vec<OsString>,
    /// A symlink that is named is brought as one, and not what it leads to
    #[arg(short)]
    pub recursive: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// Files and directories of this machine (- is standard input), and then where they go in the vault
    #[arg(required = true, num_args = 2.., value_names = ["LOCAL", "PATH"])]
    pub paths: Vec<OsString>,
    /// A symlink that is named is kept as one, and not what it leads to
    #[arg(short)]
    pub recursive: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct CpArgs {
    /// A file or directory of the vault
    pub from: OsString,
    /// Where the copy goes: a new name, a file that is replaced, or a directory that it goes into
    pub to: OsString,
    /// Directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct MvArgs {
    /// A file or directory of the vault
    pub from: OsString,
    /// Where it goes: a new name, a file that is replaced, or a directory that it goes into
    pub to: OsString,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct MkdirArgs {
    /// Directories to be made in the vault
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    /// With those above them; one that is there is no error
    #[arg(short, long)]
    pub parents: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Files and directories of the vault
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    /// Directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// What is not there is no error
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub bucket: OfBucket,
}

/// The last path, which is the target, and the others.
pub(super) fn last_apart(paths: &[OsString]) -> (&[OsString], PathBuf) {
    match paths.split_last() {
        Some((last, rest)) => (rest, last.into()),
        None => (&[], PathBuf::new()),
    }
}
