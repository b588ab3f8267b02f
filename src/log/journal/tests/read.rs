//! Reading back what is unsent, in batches that end anywhere.

use std::sync::Arc;

use super::super::*;
use crate::crypto::{FIRST_EPOCH, MasterKey};
use crate::os::Directory;
use crate::records::Change;
use crate::types::{CommitNo, VaultId};

fn journal(dir: &Path) -> Journal {
    let keys = Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), FIRST_EPOCH);
    let disk = Arc::new(Directory::open(dir).unwrap());
    let options = JournalOptions { keys, boot: "boot".into(), disk, watcher: None, room: None };
    let noted = NotedCommit { upto: Seq(0), number: CommitNo(0), hash: Hash::ZERO };
    Journal::create(options, noted).unwrap()
}

#[test]
fn j1_batches_that_end_within_a_segment_skip_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let mut hashes = Vec::new();
    // Four segments.
    for _ in 0..52 {
        let change = Change { key: vec![1, 1], value: Some(vec![0; 1 << 20].into()) };
        hashes.push(journal.append(&Transaction::new(vec![change])).unwrap().1);
    }
    for max_bytes in [1, 3 << 20, 12 << 20, 20 << 20, usize::MAX] {
        let mut read = Vec::new();
        while let Some(from) = Some(Seq(read.len() as u64)).filter(|from| *from < Seq(52)) {
            let batch = journal.read_after(from, max_bytes).unwrap();
            assert!(!batch.is_empty(), "{max_bytes}: nothing after {from}");
            for transaction in batch {
                assert_eq!(transaction.seq, Seq(read.len() as u64 + 1), "{max_bytes}");
                read.push(transaction.hash);
            }
        }
        assert!(read == hashes, "{max_bytes}");
    }
    // Out of order too.
    for from in [51, 7, 30, 12, 29, 0] {
        let batch = journal.read_after(Seq(from), 1).unwrap();
        assert_eq!((batch[0].seq, batch[0].hash), (Seq(from + 1), hashes[from as usize]));
    }
}
