//! The command line: spellings that other people's scripts rely on. New ones may be added;
//! none of these is changed or removed.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// An S3 bucket as an ordinary directory, encrypted on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "s3vault",
    version,
    max_term_width = 100,
    after_help = "Exit codes and what each call promises: README.md"
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// The S3 server, when it is not AWS; also: AWS_ENDPOINT_URL
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// The bucket's region; also: AWS_REGION
    #[arg(long, global = true, value_name = "R")]
    pub region: Option<String>,
    /// Where journal, staging, cache and logs lie [default: $XDG_STATE_HOME/s3vault]
    #[arg(long, global = true, value_name = "DIR", env = "S3VAULT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The file that remembers vaults [default: $XDG_CONFIG_HOME/s3vault/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file with the passphrase or the recovery key; also: S3VAULT_PASSPHRASE
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Log more; say the causes of an error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a vault in a bucket, and remember it
    Init(Init),
    /// Mount a vault at a directory; with no vault known yet, make one on this disk
    Mount(Mount),
    /// Unmount, and wait until everything is in the bucket
    Umount(Umount),
    /// Wait until everything written so far is in the bucket
    Sync(Sync),
    /// Show what is mounted, what is still on its way, and what went wrong
    Status(Status),
    /// Check that what the vault refers to is in the bucket, whole
    Check(Check),
    /// The background process of a mount; started by mount, which sends it what to do
    #[command(hide = true)]
    Daemon(Daemon),
}

/// Which bucket, for the commands that open one.
#[derive(Debug, Clone, Default, Args)]
pub struct BucketArg {
    /// s3://bucket[/prefix] or file:///dir
    #[arg(long, value_name = "URL", env = "S3VAULT_BUCKET")]
    pub bucket: Option<String>,
}

#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Accept a store that ignores conditional puts; only one machine may then use the vault
    #[arg(long)]
    pub single_machine: bool,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own on the command line
pub struct Mount {
    /// An empty directory (made when missing) [default: the one used before]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Stay until unmounted; SIGINT and SIGTERM unmount
    #[arg(long)]
    pub foreground: bool,
    /// Change nothing in the bucket
    #[arg(long, conflicts_with = "take_over")]
    pub read_only: bool,
    /// Become the writer although another machine is
    #[arg(long)]
    pub take_over: bool,
    /// Open although the bucket is older than what this machine saw last
    #[arg(long)]
    pub accept_rollback: bool,
    /// Use a store that ignores conditional puts; nothing then stops a second writer
    #[arg(long)]
    pub single_machine: bool,
    /// Let other users of this machine in (permissions are checked)
    #[arg(long)]
    pub allow_other: bool,
    /// What fsync waits for
    #[arg(long, value_enum, default_value_t = Fsync::Local, value_name = "WHERE")]
    pub fsync: Fsync,
    /// Memory for all caches and buffers, for example 256MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub memory: ByteSize,
    /// Disk for cache and what is not yet sent [default: 20GiB, or a fifth of what is free]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<ByteSize>,
}

/// What fsync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// This machine's disk
    Local,
    /// The bucket
    Bucket,
}

#[derive(Debug, Args)]
pub struct Umount {
    pub mountpoint: PathBuf,
    /// End it now, whatever is open or unsent; what is unsent stays on this disk
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Sync {
    /// A path in the mount [default: every mount of this user]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Status {
    /// [default: every mount of this user]
    pub mountpoint: Option<PathBuf>,
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Fetch and open everything, too
    #[arg(long)]
    pub read_data: bool,
}

#[derive(Debug, Args)]
pub struct Daemon {
    /// For ps only: what counts comes over the pipe.
    pub mountpoint: Option<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(words.split_whitespace())
    }

    #[test]
    fn the_spellings_that_scripts_rely_on_parse() {
        for line in [
            "s3vault init",
            "s3vault init --bucket s3://b/p --endpoint-url http://h:1 --region eu",
            "s3vault mount",
            "s3vault mount /m --bucket file:///d --foreground --read-only --accept-rollback",
            "s3vault mount /m --take-over --single-machine --allow-other --fsync bucket",
            "s3vault mount /m --fsync local --memory 64MiB --cache-size 5GiB",
            "s3vault umount /m --force",
            "s3vault sync",
            "s3vault sync /m/file",
            "s3vault status --json",
            "s3vault status /m",
            "s3vault check --bucket s3://b --read-data",
            "s3vault --state-dir /s --config /c --passphrase-file /p -v check",
            "s3vault check --state-dir /s --config /c --passphrase-file /p -vv",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "s3vault",
            "s3vault mount /m --fsync never",
            "s3vault mount /m --memory lots",
            "s3vault mount /m --read-only --take-over",
            "s3vault umount",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn sizes_are_in_bytes_and_binary_units_are_binary() {
        let Command::Mount(mount) = parse("s3vault mount --memory 64MiB").unwrap().command else {
            panic!("mount")
        };
        assert_eq!(mount.memory.as_u64(), 64 << 20);
    }
}
