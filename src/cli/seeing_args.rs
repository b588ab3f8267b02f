//! The command line of the commands that look at a running daemon, or change its settings.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::path::PathBuf;

use clap::Args;

use super::limits::LimitWords;
use super::opening_args::BucketArg;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Where the vault is mounted, or a file or directory in a mount: whether that is in the bucket [default: every mount
    /// and service of this user]
    pub path: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
    /// Show it anew each second, until q or Ctrl-C; without a terminal a line whenever it changes
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Where the vault is mounted [default: the mount or service of --bucket, else the only one of this user]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: BucketArg,
    #[command(flatten)]
    pub limits: LimitWords,
}

#[derive(Debug, Args)]
pub(super) struct CredentialsArgs {
    /// Where the vault is mounted [default: the mount or service of --bucket, else the only one of this user]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: BucketArg,
}
