//! How a command ends: an exit code for scripts, and one line for people that says what happened, what it means for the
//! data, and what to do.

use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::types::causes;

/// The exit codes. Scripts rely on the numbers: a new case gets a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A failure that no other code covers.
    Other = 1,
    /// The command line or the configuration is not valid (2 is clap's number, too).
    Usage = 2,
    /// No passphrase was given, and there is no terminal to ask on.
    NoPassphrase = 3,
    /// The passphrase or recovery key opens no key slot.
    WrongPassphrase = 4,
    /// The store does not answer.
    Unreachable = 5,
    /// The store answers, and refuses (credentials, permissions).
    Denied = 6,
    /// There is no such bucket.
    NoBucket = 7,
    /// The bucket holds no vault.
    NoVault = 8,
    /// The bucket holds a vault already.
    VaultExists = 9,
    /// The mountpoint is in use, not empty, or no directory.
    Mountpoint = 10,
    /// This machine has the vault mounted already.
    MountedAlready = 11,
    /// Another machine is the vault's writer.
    OtherMachine = 12,
    /// Nothing of ours is mounted there.
    NotMounted = 13,
    /// Not everything is in the bucket yet.
    Unsent = 14,
    /// Files are open in the mount.
    Busy = 15,
    /// Data in the bucket or on this disk is damaged or missing.
    Damaged = 16,
    /// The bucket is older than what this machine saw, or has another history.
    Rollback = 17,
    /// Another writer took the vault over while it was mounted here.
    Fenced = 18,
    /// This machine's disk failed, or is full.
    LocalDisk = 19,
    /// The kernel's part (FUSE) is missing or refused.
    Fuse = 20,
    /// The store ignores or refuses conditional puts, and `--single-machine` was not given.
    UnsafeStore = 21,
    /// Ended at once, as asked (`--force`, a second signal), with data left to send.
    Forced = 22,
    /// The service cannot listen: its address is taken, or it runs already elsewhere.
    Listen = 23,
    /// The store's certificate is not trusted.
    Certificate = 24,
    /// The past state that was asked for does not exist, or no longer does.
    NoState = 25,
}

impl Exit {
    /// The number that the process exits with.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The case for a number; an unknown number is `Other`.
    pub fn from_code(code: i32) -> Self {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Self::Other)
    }

    /// Every case, in order.
    pub const ALL: [Self; 26] = [
        Self::Done,
        Self::Other,
        Self::Usage,
        Self::NoPassphrase,
        Self::WrongPassphrase,
        Self::Unreachable,
        Self::Denied,
        Self::NoBucket,
        Self::NoVault,
        Self::VaultExists,
        Self::Mountpoint,
        Self::MountedAlready,
        Self::OtherMachine,
        Self::NotMounted,
        Self::Unsent,
        Self::Busy,
        Self::Damaged,
        Self::Rollback,
        Self::Fenced,
        Self::LocalDisk,
        Self::Fuse,
        Self::UnsafeStore,
        Self::Forced,
        Self::Listen,
        Self::Certificate,
        Self::NoState,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command did not do what it was asked. It is sent from the daemon over a pipe or socket to whoever asked, and
/// shown on the terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened; what it means; what to do. One line, without a final full stop.
    pub message: String,
    /// The chain of causes; shown with `-v`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure with its message.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        // A foreign error text may span lines; scripts and logs want one.
        let message: String = message.into();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { exit, message, causes: Vec::new() }
    }

    /// This failure, with an error and the error's own causes as its causes.
    #[must_use]
    pub(super) fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.causes.extend(causes(error).map(ToString::to_string));
        // An error that wraps another often shows the other's text.
        self.causes.dedup();
        self
    }

    /// A failure of this machine's disk or system: `what` failed because of `error`.
    pub(super) fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Exit::LocalDisk, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The result of every command.
pub(super) type CliResult<T = ()> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_number_of_its_own_and_the_manual_lists_it() {
        let manual = include_str!("../MANUAL.md");
        for (number, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), number);
            assert_eq!(Exit::from_code(i32::try_from(number).unwrap()), exit);
            assert!(
                manual.contains(&format!("\n| {number} | ")),
                "MANUAL.md lacks exit code {number}"
            );
        }
        assert_eq!(Exit::from_code(99), Exit::Other);
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(Failure::new(Exit::Other, "a\n  b\r\nc").message, "a b c");
    }
}
