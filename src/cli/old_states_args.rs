//! The command line of `gc`, `retention` and `snapshot`.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::examples;
use super::old_states::span;

/// Which vault, where no path says it.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct OfBucket {
    /// The vault in this bucket, mounted or not: s3://bucket[/prefix] or file:///dir
    #[arg(long, value_name = "URL", env = "S3VAULT_BUCKET", global = true)]
    pub bucket: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// A mount [default: the one that there is, else the vault of --bucket]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: OfBucket,
    /// Delete nothing; say what would be deleted, and what would stay, and why
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct RetentionArgs {
    /// For how long old states are to be kept: 30s, 12h, 7d, 4w [default: only say it]
    #[arg(value_name = "DURATION")]
    pub span: Option<String>,
    /// A mount [default: the one that there is, else the vault of --bucket]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    pub command: SnapshotCommand,
    #[command(flatten)]
    pub bucket: OfBucket,
}

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Keep the state of now under a name; everything written before is in it, and in the bucket
    #[command(after_help = examples::SNAPSHOT_CREATE)]
    Create {
        /// Its name: as a file's, and without a dot at its beginning
        name: String,
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
        /// It ends by itself after so long: 12h, 7d, 4w [default: when it is deleted]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        keep: Option<Duration>,
    },
    /// Show the snapshots, and what each alone holds
    #[command(after_help = examples::SNAPSHOT_LIST)]
    List {
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
    },
    /// End a snapshot
    #[command(after_help = examples::SNAPSHOT_DELETE)]
    Delete {
        /// Its name
        name: String,
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
    },
}
