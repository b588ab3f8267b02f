//! The command line of the commands that open a vault, `mount` and `serve`.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::limits::LimitWords;

/// The groups of options in `--help`.
const OPENING: &str = "How the vault is opened";
const ROOM: &str = "Durability, memory and disk";
const PROCESS: &str = "The process";

/// The least memory and the least disk, in bytes. Memory is divided among buffers that each hold one pack for writing,
/// reading and sending. Disk holds staging, with two packs and its reserve. These parts do not work with less.
const FLOOR: u64 = 64_000_000;

fn at_least_the_floor(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.as_u64() < FLOOR {
        return Err(format!("it does not work with less than {FLOOR_SHOWN}"));
    }
    Ok(size)
}

/// Parses a time as `timeout(1)` does: whole seconds, or with a unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        _ => None,
    });
    let number = if unit.is_some() { &text[..text.len() - 1] } else { text };
    let seconds =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit.unwrap_or(1)));
    seconds.map(Duration::from_secs).ok_or_else(|| "a time is 90, 90s, 5m or 2h".to_owned())
}

/// How often a reader refreshes, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderRefresh(pub Option<Duration>);

/// A time of at least a second, or `off`.
fn refresh(text: &str) -> Result<ReaderRefresh, String> {
    match text {
        "off" => Ok(ReaderRefresh(None)),
        text => match time(text)? {
            Duration::ZERO => Err("at least 1s, or off".to_owned()),
            every => Ok(ReaderRefresh(Some(every))),
        },
    }
}

/// The floor in a form that can be given as a value.
const FLOOR_SHOWN: &str = "64MB";

/// Which bucket, for the commands that open one.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct BucketArg {
    /// Where the vault is: s3://bucket[/prefix] or file:///dir
    #[arg(long, value_name = "URL", env = "S3VAULT_BUCKET")]
    pub bucket: Option<String>,
}

/// How a daemon that is started opens its vault; what runs already stays as it is.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own on the command line
pub(super) struct OpeningArgs {
    /// Open the vault for reading only; nothing in the bucket is changed
    #[arg(help_heading = OPENING, long, conflicts_with = "take_over")]
    pub read_only: bool,
    /// With --read-only: how often it looks for what other machines wrote, while it is used; off: it stays as it was at its mount
    #[arg(help_heading = OPENING, long, value_name = "TIME", default_value = "10s", value_parser = refresh)]
    pub refresh: ReaderRefresh,
    /// Become the writer although another machine is; what that one has not uploaded stays on it
    #[arg(help_heading = OPENING, long)]
    pub take_over: bool,
    /// Open the vault although the bucket is older than what this machine saw last
    #[arg(help_heading = OPENING, long)]
    pub accept_rollback: bool,
    /// Go on without changes that are damaged on this disk and not in the bucket; a copy of them is kept
    #[arg(help_heading = OPENING, long)]
    pub accept_damage: bool,
    /// Use a store that ignores conditional puts; nothing then stops a second machine from overwriting changes
    #[arg(help_heading = OPENING, long)]
    pub single_machine: bool,
    /// What fsync waits for
    #[arg(help_heading = ROOM, long, value_enum, default_value_t = Fsync::Local, value_name = "WHERE")]
    pub fsync: Fsync,
    /// Memory for all caches and buffers, for example 256MiB; at least 64MB
    #[arg(help_heading = ROOM, long, value_name = "SIZE", default_value = "256MiB", value_parser = at_least_the_floor)]
    pub memory: ByteSize,
    /// Disk space for the cache and for unsent data, at least 64MB [default: 20GiB, or a fifth of what is free]
    #[arg(help_heading = ROOM, long, value_name = "SIZE", value_parser = at_least_the_floor)]
    pub cache_size: Option<ByteSize>,
    /// Stay in the foreground until the mount or service ends; SIGINT (Ctrl-C) and SIGTERM end it
    #[arg(help_heading = PROCESS, long)]
    pub foreground: bool,
    /// What daemon.log is written as: lines for people, or one JSON object a line
    #[arg(help_heading = PROCESS, long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// How long sending what is left may take after SIGTERM; less than the service manager's own limit
    #[arg(help_heading = PROCESS, long, value_name = "TIME", default_value = "75s", value_parser = time)]
    pub stop_timeout: Duration,
    #[command(flatten)]
    pub limits: LimitWords,
}

impl OpeningArgs {
    /// As when none of them is given; but what only reads shows one state, from its beginning to its end.
    pub(super) fn usual() -> Self {
        Self {
            foreground: false,
            read_only: false,
            refresh: ReaderRefresh(None),
            take_over: false,
            accept_rollback: false,
            accept_damage: false,
            single_machine: false,
            fsync: Fsync::Local,
            memory: ByteSize::mib(256),
            cache_size: None,
            log_format: LogFormat::Text,
            stop_timeout: Duration::from_secs(75),
            limits: LimitWords::default(),
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// What fsync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fsync {
    /// This machine's disk
    Local,
    /// The bucket
    Bucket,
}
