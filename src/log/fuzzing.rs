//! This module's parsers, for hostile bytes (`tests/fuzz`).

use super::{CommitContent, Result, Seen, journal, open_commit};
use crate::crypto::{Place, fuzz_keys};
use crate::records::decode_value;
use crate::types::CommitNo;

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    let keys = fuzz_keys();
    let all = |commit: Result<CommitContent>| commit.is_ok_and(|commit| commit.changes().is_ok());
    Some(match kind {
        "commit" => all(open_commit(keys, CommitNo(1), bytes)),
        "commit-plain" => {
            let opens = |number: u64| {
                let number = CommitNo(number);
                all(open_commit(keys, number, &keys.seal(Place::Commit(number), bytes)))
            };
            (1..=6).any(opens)
        }
        "seen-plain" => decode_value::<Seen>("seen", bytes).is_ok(),
        _ => return journal::fuzzed(kind, bytes),
    })
}
