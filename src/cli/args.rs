//! The command line: spellings that other people's scripts rely on. New ones may be added;
//! none of these is changed or removed.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Bytes of memory, and of disk, below which the parts that they are divided into do not work: buffers that hold one
/// pack each of what is written, read and sent; staging with two packs and its reserve.
const FLOOR: u64 = 64_000_000;

fn at_least_the_floor(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.as_u64() < FLOOR {
        return Err(format!("it does not work with less than {FLOOR_SHOWN}"));
    }
    Ok(size)
}

/// The floor, as it can be given.
const FLOOR_SHOWN: &str = "64MB";

/// An S3 bucket as an ordinary directory, encrypted on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "s3vault",
    version,
    max_term_width = 100,
    after_help = "Exit codes: src/MANUAL.md. What each call promises: src/SEMANTICS.md"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Global {
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
    /// Log more (-vv: every request of the kernel); say the causes of an error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a vault in a bucket, and remember it
    Init(InitArgs),
    /// Mount a vault at a directory; with no vault known yet, make one on this disk
    Mount(MountArgs),
    /// Unmount, and wait until everything is in the bucket
    Umount(UmountArgs),
    /// Serve a vault by HTTP: upload, download, a page; alone, or beside its mount on this machine
    Serve(ServeArgs),
    /// Wait until everything written so far is in the bucket
    Sync(SyncArgs),
    /// Show what is mounted, what is still on its way, and what went wrong
    Status(StatusArgs),
    /// Check that what the vault refers to is in the bucket, whole
    Check(CheckArgs),
    /// Hand the AWS credentials of this shell to a mount or service that runs
    Credentials(CredentialsArgs),
    /// The background process; started by mount or serve, which send it what to do
    #[command(hide = true)]
    Daemon(DaemonArgs),
}

/// Which bucket, for the commands that open one.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct BucketArg {
    /// s3://bucket[/prefix] or file:///dir
    #[arg(long, value_name = "URL", env = "S3VAULT_BUCKET")]
    pub bucket: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Accept a store that ignores conditional puts; only one machine may then use the vault
    #[arg(long)]
    pub single_machine: bool,
}

#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// An empty directory (made when missing) [default: the one used before]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: BucketArg,
    #[command(flatten)]
    pub opening: OpeningArgs,
    /// Let other users of this machine in (permissions are checked)
    #[arg(long)]
    pub allow_other: bool,
}

/// How a daemon that is started opens its vault; what runs already stays as it is.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own on the command line
pub(super) struct OpeningArgs {
    /// Stay until it is over; SIGINT and SIGTERM end it
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
    /// What fsync waits for
    #[arg(long, value_enum, default_value_t = Fsync::Local, value_name = "WHERE")]
    pub fsync: Fsync,
    /// Memory for all caches and buffers, for example 256MiB; at least 64MB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = at_least_the_floor)]
    pub memory: ByteSize,
    /// Disk for cache and what is not yet sent, at least 64MB [default: 20GiB, or a fifth of what is free]
    #[arg(long, value_name = "SIZE", value_parser = at_least_the_floor)]
    pub cache_size: Option<ByteSize>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ServeArgs {
    #[command(subcommand)]
    pub command: Option<ServeCommand>,
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// Ask for no tokens: anyone on this machine may do everything (loopback addresses only)
    #[arg(long)]
    pub open: bool,
    /// Speak TLS with this certificate (PEM, and what leads to its root)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A name besides the address by which the service may be asked for; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// The longest body of one request
    #[arg(long, value_name = "SIZE", default_value = "1TiB")]
    pub max_upload: ByteSize,
    /// How long a client may stall before it is cut off
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub client_timeout: u64,
    /// Stop the service; a daemon without a mount then ends, as with umount
    #[arg(long)]
    pub stop: bool,
    #[command(flatten)]
    pub opening: OpeningArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServeCommand {
    /// Who may use the service: tokens for `Authorization: Bearer`, on this machine, for this vault
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it this once
    #[command(group = clap::ArgGroup::new("access").required(true))]
    Add {
        /// What you call it: letters, digits, . _ -
        name: String,
        /// It may look and download
        #[arg(long, group = "access")]
        read_only: bool,
        /// It may do everything
        #[arg(long, group = "access")]
        write: bool,
        #[command(flatten)]
        bucket: BucketArg,
    },
    /// Show the tokens' names
    List {
        #[command(flatten)]
        bucket: BucketArg,
    },
    /// Take a token back; it is refused at once, also by a service that runs
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        bucket: BucketArg,
    },
}

/// What fsync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fsync {
    /// This machine's disk
    Local,
    /// The bucket
    Bucket,
}

#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    pub mountpoint: PathBuf,
    /// End it now, whatever is open or unsent; what is unsent stays on this disk
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// A path in the mount [default: every daemon of this user]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// [default: every daemon of this user]
    pub mountpoint: Option<PathBuf>,
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Fetch and open everything, too
    #[arg(long)]
    pub read_data: bool,
}

#[derive(Debug, Args)]
pub(super) struct CredentialsArgs {
    /// [default: the mount or service of --bucket, else the only one of this user]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub bucket: BucketArg,
}

#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
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
            "s3vault serve",
            "s3vault serve --listen 127.0.0.1:8000 --open",
            "s3vault serve --listen [::]:443 --tls-cert /c --tls-key /k --host a --host b --bucket s3://b",
            "s3vault serve --max-upload 5GiB --client-timeout 5 --foreground --memory 64MiB",
            "s3vault serve --stop",
            "s3vault serve token add laptop --write",
            "s3vault serve token add laptop --read-only --bucket s3://b",
            "s3vault serve token list",
            "s3vault serve token remove laptop",
            "s3vault sync",
            "s3vault sync /m/file",
            "s3vault status --json",
            "s3vault status /m",
            "s3vault credentials",
            "s3vault credentials /m",
            "s3vault credentials --bucket s3://b",
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
            "s3vault mount /m --memory 1MiB",
            "s3vault serve --memory 63MB",
            "s3vault mount /m --cache-size 63MB",
            "s3vault mount /m --cache-size 0",
            "s3vault mount /m --read-only --take-over",
            "s3vault umount",
            "s3vault serve --listen somewhere",
            "s3vault serve --tls-cert /c",
            "s3vault serve token add laptop",
            "s3vault serve token add laptop --write --read-only",
            "s3vault serve --open token list",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn sizes_are_in_bytes_and_binary_units_are_binary() {
        let Command::Mount(mount) = parse("s3vault mount --memory 64MiB").unwrap().command else {
            panic!("mount")
        };
        assert_eq!(mount.opening.memory.as_u64(), 64 << 20);
    }
}
