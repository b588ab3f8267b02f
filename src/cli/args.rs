//! The command line. Scripts rely on its spellings: new ones may be added, but none is changed or removed.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::examples;
use super::files_args::{
    CatArgs, CpArgs, DuArgs, FindArgs, GetArgs, LsArgs, MkdirArgs, MvArgs, PutArgs, RmArgs,
    TreeArgs,
};
use super::keys_args::{KeyArgs, RecoveryFileArg};
use super::looking_back::state_at;
use super::mount_look::LookWord;
use super::old_states::span;
use super::old_states_args::{GcArgs, RetentionArgs, SnapshotArgs};
use super::opening_args::time;
pub(super) use super::opening_args::{BucketArg, Fsync, LogFormat, OpeningArgs};
pub(super) use super::past_args::{HistoryArgs, RecoverArgs, RestoreArgs};
pub(super) use super::seeing_args::{CredentialsArgs, StatusArgs, TuneArgs};
use crate::gateway::ListenAt;
use crate::types::StateAt;

/// The groups of options in `--help`.
const ADDRESS: &str = "Where it listens, and to whom";
const LIMITS: &str = "Limits";
const SHOWN: &str = "What the mount shows";

/// The permissions of a socket, in octal as for chmod.
fn permissions(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permissions are three octal digits, as 600 or 660".to_owned())
}

/// A vault's name, which must be distinguishable from a URL and from a path.
pub(super) fn vault_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let good = text.chars().all(fits) && text.starts_with(char::is_alphanumeric);
    good.then(|| text.to_owned()).ok_or_else(|| "a name has letters, digits and . _ -".to_owned())
}

fn host_name(text: &str) -> Result<String, String> {
    let good = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let why = "a host name alone (files.example.org): no scheme, port, path or wildcard";
    (good && !text.is_empty()).then(|| text.to_owned()).ok_or_else(|| why.to_owned())
}

/// An S3 bucket as an ordinary directory, encrypted on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "s3vault",
    version,
    max_term_width = 100,
    after_help = "Exit codes, files and settings: src/MANUAL.md. What a mount promises: src/SEMANTICS.md"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// URL of the S3 server, if it is not AWS; also: AWS_ENDPOINT_URL
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// The bucket's region; also: AWS_REGION
    #[arg(long, global = true, value_name = "R")]
    pub region: Option<String>,
    /// Directory for unsent data, the cache and the logs [default: $XDG_STATE_HOME/s3vault]
    #[arg(long, global = true, value_name = "DIR", env = "S3VAULT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// File that lists the vaults this user knows [default: $XDG_CONFIG_HOME/s3vault/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File that holds the passphrase or the recovery key; else: S3VAULT_PASSPHRASE, which is one
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Program that prints the passphrase; no shell reads it, its words are split at blanks
    #[arg(long, global = true, value_name = "CMD", conflicts_with = "passphrase_file")]
    pub passphrase_command: Option<String>,
    /// Take the passphrase from the desktop's keyring (secret-tool lookup service s3vault vault URL)
    #[arg(long, global = true, conflicts_with_all = ["passphrase_file", "passphrase_command"])]
    pub passphrase_keyring: bool,
    /// Open the vault with this copy of its superblock, where that of the bucket is lost (key backup makes one)
    #[arg(long, global = true, value_name = "FILE")]
    pub superblock: Option<PathBuf>,
    /// Log more (-vv: also every request of the kernel), and print the causes of an error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a vault in a bucket, and remember it for later commands
    #[command(after_help = examples::INIT)]
    Init(InitArgs),
    /// Mount a vault at a directory; if no vault is known yet, one is made on this disk
    #[command(after_help = examples::MOUNT)]
    Mount(MountArgs),
    /// Unmount, and wait until everything is in the bucket
    #[command(after_help = examples::UMOUNT)]
    Umount(UmountArgs),
    /// Serve a vault over HTTP (upload, download, a web page), with or without a mount on this machine
    #[command(after_help = examples::SERVE)]
    Serve(ServeArgs),
    /// Wait until everything written so far is in the bucket
    #[command(after_help = examples::SYNC)]
    Sync(SyncArgs),
    /// Show what is mounted and served, what is not in the bucket yet, and what went wrong
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Show the versions of a file or directory in a mount, as far back as they are kept
    #[command(after_help = examples::HISTORY)]
    History(HistoryArgs),
    /// Bring a file or directory in a mount back as it was
    #[command(after_help = examples::RESTORE)]
    Restore(RestoreArgs),
    /// Bring back changes that were set aside on this machine because another one had taken the vault over
    #[command(after_help = examples::RECOVER)]
    Recover(RecoverArgs),
    /// Check that everything the vault refers to is in the bucket, and complete
    #[command(after_help = examples::CHECK)]
    Check(CheckArgs),
    /// Delete in the bucket what neither the vault nor any state that is kept needs any more
    #[command(after_help = examples::GC)]
    Gc(GcArgs),
    /// Show or set for how long old states are kept
    #[command(after_help = examples::RETENTION)]
    Retention(RetentionArgs),
    /// Keep states under a name
    #[command(after_help = examples::SNAPSHOT)]
    Snapshot(SnapshotArgs),
    /// Show and change what opens a vault: passphrases, key files, the recovery key
    #[command(after_help = examples::KEY)]
    Key(KeyArgs),
    /// List files of a vault, without a mount (as all of the following)
    ///
    /// A PATH begins at the root of the vault. NAME:PATH is in the vault that the configuration calls so; else which vault is
    /// meant is said by --bucket, or it is the only one that is open or known. Wildcards are quoted: they are matched in
    /// the vault.
    #[command(after_help = examples::LS)]
    Ls(LsArgs),
    /// Print files of a vault
    #[command(after_help = examples::CAT)]
    Cat(CatArgs),
    /// Show a directory of a vault as a tree
    #[command(after_help = examples::TREE)]
    Tree(TreeArgs),
    /// Show how much files and directories of a vault hold
    #[command(after_help = examples::DU)]
    Du(DuArgs),
    /// Look for files in a vault
    #[command(after_help = examples::FIND)]
    Find(FindArgs),
    /// Bring files and directories of a vault to this machine
    ///
    /// Directories come with all that is in them. Files that are there with the same size and time are passed over, so what
    /// was cut off goes on when it is said again.
    #[command(after_help = examples::GET)]
    Get(GetArgs),
    /// Put files and directories of this machine into a vault
    ///
    /// Directories go with all that is in them; it ends when everything is in the bucket. Files that are there with the same
    /// size and time are passed over, so what was cut off goes on when it is said again.
    #[command(after_help = examples::PUT)]
    Put(PutArgs),
    /// Copy inside a vault
    ///
    /// No content moves: the copy refers to the same data. Times, permissions and owners go along.
    #[command(after_help = examples::CP)]
    Cp(CpArgs),
    /// Move or rename inside a vault
    #[command(after_help = examples::MV)]
    Mv(MvArgs),
    /// Make directories in a vault
    #[command(after_help = examples::MKDIR)]
    Mkdir(MkdirArgs),
    /// Remove files and directories of a vault
    ///
    /// What is removed can be brought back as long as old states are kept: s3vault history, s3vault restore.
    #[command(after_help = examples::RM)]
    Rm(RmArgs),
    /// Give the AWS credentials of this shell to a running mount or service
    #[command(after_help = examples::CREDENTIALS)]
    Credentials(CredentialsArgs),
    /// Show the limits of a running mount or service, or change them: bandwidth, requests, storage class, read-ahead
    #[command(after_help = examples::TUNE)]
    Tune(TuneArgs),
    /// Look at this machine and at the buckets, and say what does not work and how to mend it
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Show the settings
    #[command(after_help = examples::CONFIG)]
    Config(ConfigArgs),
    /// Print what completes this command line in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print a manual page
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
    /// What a mount or service in the foreground becomes once its daemon runs: it waits for it
    #[command(hide = true)]
    Attend(AttendArgs),
    /// The background process; started by mount or serve, which send it what to do
    #[command(hide = true)]
    Daemon(DaemonArgs),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    pub bucket: BucketArg,
    #[command(flatten)]
    pub recovery: RecoveryFileArg,
    /// What to call it here: `s3vault mount NAME`
    #[arg(long, value_name = "NAME", value_parser = vault_name)]
    pub name: Option<String>,
    /// Accept a store that ignores conditional puts; only one machine may then use the vault
    #[arg(long)]
    pub single_machine: bool,
    /// Make it although this machine knows a vault in this place, which is empty now, and forget that one
    #[arg(long)]
    pub forget: bool,
}

#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// An empty directory; it is made if it does not exist [default: the one used before]
    pub mountpoint: Option<PathBuf>,
    /// Mount the vault as it was, for reading: at a time (RFC 3339, '2026-11-28 14:00', '3h ago'), or in a snapshot
    #[arg(help_heading = SHOWN, long, value_name = "TIME|NAME", value_parser = state_at,
        conflicts_with_all = ["take_over", "accept_damage", "single_machine", "protect"])]
    pub at: Option<StateAt>,
    #[command(flatten)]
    pub bucket: BucketArg,
    #[command(flatten)]
    pub opening: OpeningArgs,
    /// Let other users of this machine use the mount; the permissions of each file apply
    #[arg(help_heading = SHOWN, long)]
    pub allow_other: bool,
    /// Options of mount(8): fsname=NAME (the first field of /proc/mounts), ro, allow_other, uid=, gid=, umask=, nosuid,
    /// nodev, noexec ...; several with commas
    #[arg(short = 'o', help_heading = SHOWN, value_name = "OPTIONS", value_delimiter = ',')]
    pub look: Vec<LookWord>,
    /// Do without the directory .snapshots in the root, which leads to the snapshots
    #[arg(help_heading = SHOWN, long)]
    pub no_snapshots_dir: bool,
    /// Make the empty directory below the mount immutable, so that nothing can be written there while the vault is not
    /// mounted; stays until `chattr -i DIR`, said as root when it is not mounted; for root only
    #[arg(help_heading = SHOWN, long)]
    pub protect: bool,
    /// Answer /metrics (for Prometheus) and /healthz at this address, without a token: a loopback address, or unix:PATH
    #[arg(help_heading = SHOWN, long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub metrics: Option<ListenAt>,
    /// For mount(8): say nothing but what went wrong, and remember nothing
    #[arg(long, hide = true)]
    pub unremembered: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ServeArgs {
    #[command(subcommand)]
    pub command: Option<ServeCommand>,
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Address and port to listen on, or a Unix socket for a reverse proxy: unix:PATH
    #[arg(help_heading = ADDRESS, long, value_name = "ADDRESS:PORT|unix:PATH", default_value = "127.0.0.1:8000")]
    pub listen: ListenAt,
    /// Permissions of the Unix socket, as in chmod: whoever may write to it may connect
    #[arg(help_heading = ADDRESS, long, value_name = "MODE", default_value = "600", value_parser = permissions)]
    pub socket_mode: u32,
    /// Require no token: anyone on this machine may read and change everything (loopback addresses and Unix sockets only)
    #[arg(help_heading = ADDRESS, long)]
    pub open: bool,
    /// Use TLS with this certificate (PEM, followed by its intermediate certificates)
    #[arg(help_heading = ADDRESS, long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(help_heading = ADDRESS, long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A host name by which clients may reach the service, besides its address; may be repeated
    #[arg(help_heading = ADDRESS, long = "host", value_name = "NAME", value_parser = host_name)]
    pub hosts: Vec<String>,
    /// The largest body that one request may have
    #[arg(help_heading = LIMITS, long, value_name = "SIZE", default_value = "1TiB")]
    pub max_upload: ByteSize,
    /// How long a client may send or take nothing before it is cut off
    #[arg(help_heading = LIMITS, long, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub client_timeout: u64,
    /// Stop the service; without a mount, wait until everything is in the bucket, as umount does
    #[arg(long)]
    pub stop: bool,
    #[command(flatten)]
    pub opening: OpeningArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServeCommand {
    /// Make, list and revoke the access tokens of a vault's service on this machine
    #[command(subcommand, after_help = examples::TOKEN)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it; it is shown only this once
    #[command(group = clap::ArgGroup::new("access").required(true), after_help = examples::TOKEN_ADD)]
    Add {
        /// A name of your choice: letters, digits, . _ -
        name: String,
        /// The token may list and download
        #[arg(long, group = "access")]
        read_only: bool,
        /// The token may do everything
        #[arg(long, group = "access")]
        write: bool,
        /// It is refused after so long: 12h, 30d [default: when it is removed]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<Duration>,
        /// It is good for this directory or file of the vault alone, and for what is below it
        #[arg(long, value_name = "PATH")]
        only: Option<OsString>,
        #[command(flatten)]
        bucket: BucketArg,
    },
    /// List the tokens: access, when each was made, name
    #[command(after_help = examples::TOKEN_LIST)]
    List {
        #[command(flatten)]
        bucket: BucketArg,
    },
    /// Revoke a token; a running service refuses it at once
    #[command(after_help = examples::TOKEN_REMOVE)]
    Remove {
        /// The token's name
        name: String,
        #[command(flatten)]
        bucket: BucketArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// Where the vault is mounted
    pub mountpoint: PathBuf,
    /// End the mount now, even with open files or unsent data; what is unsent stays on this disk
    #[arg(long)]
    pub force: bool,
    /// For umount(8): take it out of the tree now; what is unsent is sent in the background
    #[arg(long, hide = true, conflicts_with_all = ["force", "timeout"])]
    pub lazy: bool,
    /// For umount(8): also a mount of another user, which only the kernel knows here
    #[arg(long, hide = true)]
    pub any: bool,
    /// Wait for this long at most, for example 90s or 5m; then say what is missing, and exit with 14, while the daemon
    /// goes on sending
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "force")]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// A path in a mount [default: every mount and service of this user]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub bucket: BucketArg,
    /// Also fetch all data, and check that it decrypts
    #[arg(long)]
    pub read_data: bool,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub bucket: BucketArg,
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show each setting, its value and where it comes from; secrets are not shown
    #[command(after_help = examples::CONFIG)]
    Show {
        #[command(flatten)]
        bucket: BucketArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The shells that have completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Of which command, in its words: `mount`, `key add` [default: of the program]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct AttendArgs {
    /// The daemon's number: a child of this process.
    pub daemon: u32,
    /// Where its log is.
    pub log: String,
    /// What it has mounted, or serves.
    pub name: String,
    /// The beginning of its next message, which had come already.
    pub begun: String,
}

#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// Only for the list of processes: what the daemon is to do comes over the pipe.
    pub mountpoint: Option<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(words.split_whitespace())
    }

    const SPELLINGS: &[&str] = &[
        "s3vault init",
        "s3vault init --bucket s3://b/p --endpoint-url http://h:1 --region eu",
        "s3vault mount",
        "s3vault mount /m --bucket file:///d --foreground --read-only --accept-rollback",
        "s3vault mount /m --at snapshot --foreground",
        "s3vault mount /m --no-snapshots-dir",
        "s3vault mount /m --metrics 127.0.0.1:9100",
        "s3vault mount /m --metrics unix:/run/m",
        "s3vault mount /m --log-format json",
        "s3vault serve --log-format text",
        "s3vault mount /m -o fsname=backup,ro -o allow_other",
        "s3vault mount /m --take-over --single-machine --allow-other --fsync bucket",
        "s3vault mount /m --fsync local --memory 64MiB --cache-size 5GiB",
        "s3vault umount /m --force",
        "s3vault umount /m --timeout 90",
        "s3vault umount /m --timeout 5m",
        "s3vault mount /m --protect --stop-timeout 2h",
        "s3vault serve",
        "s3vault serve --listen 127.0.0.1:8000 --open",
        "s3vault serve --listen localhost:8000 --open",
        "s3vault serve --listen [::]:443 --tls-cert /c --tls-key /k --host a --host b --bucket s3://b",
        "s3vault serve --listen unix:/run/s --socket-mode 0660 --open --host a",
        "s3vault serve --max-upload 5GiB --client-timeout 5 --foreground --memory 64MiB",
        "s3vault serve --stop",
        "s3vault serve token add laptop --write",
        "s3vault serve token add laptop --read-only --bucket s3://b",
        "s3vault serve token list",
        "s3vault serve token remove laptop",
        "s3vault sync",
        "s3vault sync /m/file",
        "s3vault history /m/file",
        "s3vault restore /m/file --at snapshot --to /m/other",
        "s3vault status --json",
        "s3vault status /m",
        "s3vault status --watch",
        "s3vault status /m/file --json",
        "s3vault ls",
        "s3vault ls -l -R a b",
        "s3vault cat a b",
        "s3vault tree",
        "s3vault tree a",
        "s3vault du a",
        "s3vault find",
        "s3vault find a --name *.x --newer-than 3h",
        "s3vault get a b /l",
        "s3vault get a -",
        "s3vault get -r home:a /l --bucket s3://b",
        "s3vault put /a /b c",
        "s3vault put - c",
        "s3vault put -r /a c",
        "s3vault cp -r a b",
        "s3vault mv a b",
        "s3vault mkdir -p a b",
        "s3vault rm -r a b",
        "s3vault mount /m --bandwidth-up 2MiB/s --bandwidth-down 08:00-18:00=2MiB/s,20MiB/s --max-requests 8",
        "s3vault mount /m --storage-class STANDARD_IA --tag a=b --tag c=d --read-ahead 8MiB",
        "s3vault serve --bandwidth-up 16Mbit/s",
        "s3vault tune",
        "s3vault tune /m --bandwidth-up unlimited --max-requests unlimited --tag none",
        "s3vault tune --bucket s3://b --storage-class default --read-ahead auto",
        "s3vault credentials",
        "s3vault credentials /m",
        "s3vault credentials --bucket s3://b",
        "s3vault check --bucket s3://b --read-data",
        "s3vault doctor",
        "s3vault doctor --bucket s3://b",
        "s3vault config show",
        "s3vault completions bash",
        "s3vault completions zsh",
        "s3vault completions fish",
        "s3vault man",
        "s3vault man mount",
        "s3vault man key add",
        "s3vault --state-dir /s --config /c --passphrase-file /p -v check",
        "s3vault check --state-dir /s --config /c --passphrase-file /p -vv",
    ];

    #[test]
    fn the_spellings_that_scripts_rely_on_parse() {
        for line in SPELLINGS {
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
            "s3vault mount /m -o fsnam=x",
            "s3vault mount /m --memory lots",
            "s3vault mount /m --memory 1MiB",
            "s3vault serve --memory 63MB",
            "s3vault mount /m --cache-size 63MB",
            "s3vault mount /m --cache-size 0",
            "s3vault mount /m --read-only --take-over",
            "s3vault mount /m --bandwidth-up 1KiB/s",
            "s3vault mount /m --max-requests 1",
            "s3vault mount /m --storage-class GLACIER",
            "s3vault tune /m --storage-class DEEP_ARCHIVE",
            "s3vault tune /m --tag x",
            "s3vault mount /m --at now --take-over",
            "s3vault umount",
            "s3vault umount /m --timeout 5m --force",
            "s3vault umount /m --timeout m",
            "s3vault umount /m --timeout -1s",
            "s3vault umount /m --timeout 9999999999999999999h",
            "s3vault serve --listen somewhere",
            "s3vault serve --listen unix:",
            "s3vault serve --host http://files",
            "s3vault serve --host *.example.org",
            "s3vault serve --listen unix:/s --socket-mode 888",
            "s3vault serve --tls-cert /c",
            "s3vault cat",
            "s3vault get a",
            "s3vault put a",
            "s3vault rm",
            "s3vault mkdir",
            "s3vault find --newer-than never",
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
