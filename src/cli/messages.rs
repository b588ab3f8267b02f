//! Turns errors of the lower rooms into an exit code and one line: what happened, what it means for the data, what to
//! do.

use super::exit::{Exit, Failure};
use crate::fuse;
use crate::gateway::ServeError;
use crate::types::{Timestamp, with_causes};
use crate::vault::{self, NoState, StoreError};

/// A request to the store failed. `place` names the bucket.
pub(super) fn of_store(error: &StoreError, place: &str) -> Failure {
    let causes = with_causes(error);
    let (exit, text) = match error {
        StoreError::Unreachable { .. } | StoreError::Deadline { .. } | StoreError::Busy { .. } => (
            Exit::Unreachable,
            format!(
                "{place} does not answer ({causes}); nothing is lost; check the network and --endpoint-url, and try \
                 again"
            ),
        ),
        StoreError::Clock { .. } => (
            Exit::Unreachable,
            format!(
                "{place} refuses requests because this machine's clock differs from its own ({causes}); nothing is \
                 lost; set the clock, and try again"
            ),
        ),
        StoreError::Certificate { cause, .. } => (
            Exit::Certificate,
            format!(
                "the certificate that {place} shows is not trusted ({cause}); nothing was sent there, and nothing is \
                 lost; if it is your own server's, or of a proxy that looks into what is encrypted, name a file with \
                 its issuer's certificate (PEM): AWS_CA_BUNDLE, or ca_bundle in the AWS profile"
            ),
        ),
        StoreError::Settings { what } => (Exit::Usage, format!("{what}; nothing was changed")),
        StoreError::NoConditions { .. } => (Exit::UnsafeStore, unsafe_store(place)),
        StoreError::NoCredentials { cause } => (
            Exit::Denied,
            format!(
                "no credentials for {place} ({cause}); nothing was changed; set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ),
        ),
        StoreError::Denied { .. } => (
            Exit::Denied,
            format!(
                "{place} refuses access ({causes}); nothing was changed; check the credentials (AWS_*) and what they \
                 may do: read, write, list and delete"
            ),
        ),
        StoreError::NoBucket { .. } => (
            Exit::NoBucket,
            format!(
                "there is no bucket {place}; check its name, --endpoint-url and --region, or create it first"
            ),
        ),
        StoreError::Full { .. } => (
            Exit::Unsent,
            format!(
                "{place} is full; what is unsent stays on this disk; make room there, and it goes on"
            ),
        ),
        StoreError::Corrupt { .. } => (
            Exit::Damaged,
            format!(
                "{place} holds or sends other bytes than were stored there ({causes}); none of them were used; `s3vault \
                 check` shows what else is damaged"
            ),
        ),
        StoreError::NotFound { object } => (
            Exit::Damaged,
            format!("{object} is missing in {place}; run `s3vault check` to see what else is"),
        ),
        StoreError::Exists { .. } | StoreError::Unsupported { .. } | StoreError::Other { .. } => {
            (Exit::Other, format!("{place} failed: {causes}"))
        }
    };
    Failure::new(exit, text).because(error)
}

/// The outcome of handing credentials to a mount of `place`.
pub(super) fn of_hand_over(error: &StoreError, place: &str) -> Failure {
    let (exit, text) = match error {
        StoreError::Denied { .. } => (
            Exit::Denied,
            format!(
                "{place} refuses these credentials ({}); they were not handed over, and the ones before stay in use; \
                 check what this shell has (`aws sts get-caller-identity`)",
                with_causes(error)
            ),
        ),
        StoreError::Unsupported { .. } => {
            (Exit::Usage, format!("{place} asks for no credentials; nothing was changed"))
        }
        error => (
            Exit::Unreachable,
            format!(
                "the credentials were handed over, but whether {place} accepts them is not known yet ({}); \
                 `s3vault status` shows it",
                with_causes(error)
            ),
        ),
    };
    Failure::new(exit, text).because(error)
}

/// Printed when a vault is made where nobody would see its recovery key, or where it would be logged.
pub(super) const NO_RECOVERY_KEY: &str = "No recovery key was made: there is no terminal to show it at, and a log would keep \
                                          it.\n  Without the passphrase nobody can open this vault. A recovery key is made by: \
                                          s3vault key recovery --recovery-file FILE";

/// Printed at every mount of a store that ignores conditional puts (W6).
pub(super) const UNSAFE_STORE: &str = "This store does not honour conditional puts: nothing stops a second machine from \
                                overwriting changes. Mount this vault on one machine only.";

fn unsafe_store(place: &str) -> String {
    format!(
        "{place} does not honour conditional puts, so two machines could overwrite each other's changes; if only \
         one machine will ever write there, use --single-machine"
    )
}

fn refuses_class(refused: &StoreError, place: &str) -> String {
    format!(
        "{place} does not take objects of this storage class, or with these tags ({}); nothing was changed; leave out \
         --storage-class or --tag (or correct [vault.limits] in the configuration)",
        with_causes(refused)
    )
}

/// A vault could not be made, unlocked, opened, or kept running. `place` names the bucket.
pub(super) fn of_vault(error: &vault::Error, place: &str) -> Failure {
    use vault::{Error, ErrorClass};
    if let ErrorClass::Store(error) = error.class() {
        return of_store(error, place);
    }
    let (exit, text) = match error {
        Error::NoVault => (
            Exit::NoVault,
            format!(
                "there is no vault in {place}; check bucket and prefix, or make one: s3vault init --bucket URL"
            ),
        ),
        Error::PutAs(refused) => (Exit::Usage, refuses_class(refused, place)),
        Error::Exists => (
            Exit::VaultExists,
            format!(
                "a vault is in {place} already; nothing was changed; mount it, or name another bucket or prefix"
            ),
        ),
        Error::WrongSecret => (
            Exit::WrongPassphrase,
            format!(
                "wrong passphrase or recovery key for {place}; nothing was changed; check \
                 --passphrase-file or S3VAULT_PASSPHRASE, or use the recovery key; if it is right, the superblock there was \
                 changed, and a copy of it opens the vault (--superblock FILE)"
            ),
        ),
        Error::NotShown(error) => (
            Exit::Other,
            format!(
                "the recovery key, which is shown only once, cannot be written ({error}); nothing was made; give \
                 standard output a terminal, a pipe, or a file with room"
            ),
        ),
        Error::Crypto(vault::CryptoError::RecoveryKey(why)) => (
            Exit::WrongPassphrase,
            format!(
                "what was given looks like a recovery key of {place}, but has a typing error ({why}); \
                 nothing was changed; compare it with what `init` printed"
            ),
        ),
        Error::NoConditionalPuts => (Exit::UnsafeStore, unsafe_store(place)),
        Error::OtherWriter { host, claimed } => {
            (Exit::OtherMachine, other_writer(host, *claimed, place))
        }
        Error::MountedHere { mountpoint } => (
            Exit::MountedAlready,
            format!(
                "{place} is in use already on this machine, at {mountpoint}; use it there, or end that first"
            ),
        ),
        Error::Rollback { number } => (
            Exit::Rollback,
            format!(
                "{place} went back: commit {}, which this machine saw there, is missing or is a different one now; \
                 nothing was changed; if you restored the bucket yourself, mount with --accept-rollback",
                number.0
            ),
        ),
        Error::NotRestored(why) => (Exit::Other, why.clone()),
        Error::NoState(why) => (Exit::NoState, no_state(why, place)),
        Error::Io { what, source } => (
            Exit::LocalDisk,
            format!("{what}: {source}; no file that was closed is lost; check this machine's disk"),
        ),
        Error::SmallDisk { .. } => (Exit::LocalDisk, format!("{error}; nothing was made")),
        error => by_kind(error, place),
    };
    Failure::new(exit, text).because(error)
}

/// Nothing is left at `place` of the vault `id`, which this machine knows there. What is in an empty directory below an unmounted
/// disk would hide the vault once that is mounted.
pub(super) fn vanished(place: &str, id: &str) -> Failure {
    let text = format!(
        "{place} holds nothing of the vault that this machine knows there ({id}); nothing was changed; is its disk \
         mounted, and is it the right bucket? If that vault is gone for good, `s3vault init --forget` makes a new one there"
    );
    Failure::new(Exit::Rollback, text)
}

/// A past state that does not exist.
fn no_state(why: &NoState, place: &str) -> String {
    match why {
        NoState::NoSnapshot { name, .. } => format!(
            "{name} is neither a time (RFC 3339, '2026-11-28 14:00', '3h ago') nor a snapshot of {place}: {why}"
        ),
        NoState::NoCommit { .. } => format!("{place}: {why}"),
        NoState::NoOther => {
            format!("{why}; nothing was changed; `s3vault history` shows what there is")
        }
        NoState::TooOld { oldest, time, deleted } => {
            let time = time.map_or_else(String::new, |time| format!(" ({})", when(time)));
            let rest = match deleted {
                true => {
                    "what only older ones needed was deleted, as the retention says; a longer one, set by `s3vault \
                         retention`, keeps what comes, and a snapshot stays until it is deleted"
                }
                false => "the vault was empty before",
            };
            format!("the oldest state of {place} is that of commit {}{time}; {rest}", oldest.0)
        }
    }
}

/// Another machine is the writer, or was when last heard of.
fn other_writer(host: &str, claimed: Timestamp, place: &str) -> String {
    format!(
        "{host} has {place} mounted for writing (since {}); unmount it there, or mount it here with --read-only; if \
         that machine is gone for good, --take-over makes this one the writer, and what the other has not uploaded \
         stays on it{}",
        when(claimed),
        made_anew()
    )
}

/// A hint for users of containers: a new container looks like another machine.
fn made_anew() -> &'static str {
    match std::env::var_os("S3VAULT_MACHINE_ID") {
        Some(id) if !id.is_empty() => "",
        _ => {
            " (a container that is made anew counts as another machine, unless S3VAULT_MACHINE_ID has the \
             same value in each)"
        }
    }
}

/// The text for an error without a text of its own.
fn by_kind(error: &vault::Error, place: &str) -> (Exit, String) {
    use vault::ErrorClass;
    match error.class() {
        ErrorClass::Fenced => (
            Exit::Fenced,
            format!(
                "another machine has taken {place} over; nothing more is written from here, and what was not in the \
                 bucket yet stays encrypted on this disk; unmount, then mount again to \
                 see what the bucket holds now"
            ),
        ),
        ErrorClass::Unfinished => (
            Exit::Unsent,
            format!(
                "not everything is in {place}: {error}; what is missing stays encrypted on this disk; try again"
            ),
        ),
        ErrorClass::ReadOnly => (
            Exit::LocalDisk,
            format!(
                "{place}: {error}; files that were closed stay encrypted on this disk; unmount, and mount again"
            ),
        ),
        ErrorClass::Damaged => (Exit::Damaged, format!("{place}: {error}; nothing was changed")),
        ErrorClass::LocalDisk => (
            Exit::LocalDisk,
            format!(
                "{error}; files that were closed are not lost; repair or free this machine's disk, then mount again"
            ),
        ),
        ErrorClass::Store(_) | ErrorClass::Other => (Exit::Other, format!("{place}: {error}")),
    }
}

/// FUSE failed.
pub(super) fn of_fuse(error: &fuse::Error) -> Failure {
    let exit = match error {
        fuse::Error::Busy(_) => Exit::Busy,
        fuse::Error::Mount { .. } | fuse::Error::Unmount { .. } => Exit::Fuse,
        _ => Exit::Mountpoint,
    };
    Failure::new(exit, error.to_string()).because(error)
}

/// The HTTP service cannot start.
pub(super) fn of_service(error: &ServeError) -> Failure {
    let exit = match error {
        ServeError::OpenToAll(_) | ServeError::MetricsToAll(_) | ServeError::Tls { .. } => {
            Exit::Usage
        }
        ServeError::Listen { .. } => Exit::Listen,
    };
    Failure::new(exit, error.to_string()).because(error)
}

/// A time for people: UTC, in whole seconds.
pub(super) fn when(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.seconds)
        .map_or_else(|_| format!("{} s after 1970", time.seconds), |time| time.to_string())
}
