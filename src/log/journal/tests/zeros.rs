//! Zeros that are written ahead of the journal's end (J2, J3).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use super::super::*;
use super::{append, create, keys, only_segment, options, real};

fn sync(journal: &Journal) {
    journal.sync_data(journal.mark().unwrap()).unwrap();
}

#[test]
fn j2_an_fsync_of_what_is_written_over_zeros_finds_the_length_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let length = || fs::metadata(only_segment(dir.path())).unwrap().len();
    let journal = create(dir.path());
    append(&journal, 3);
    let written = length();
    sync(&journal);
    let ahead = length();
    assert!(ahead > written + 10_000, "{written} bytes, {ahead} with zeros");
    for _ in 0..20 {
        append(&journal, 1);
        sync(&journal);
        assert_eq!(length(), ahead);
    }
    // More bytes than the zeros: new ones are written.
    append(&journal, 4000);
    sync(&journal);
    assert!(length() > ahead);
    // Like kill -9. The zeros are still there, and are not a torn tail.
    let ahead = length();
    std::mem::forget(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable, found.torn), (Seq(4023), Seq(4023), None));
    let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
    append(&journal, 2);
    sync(&journal);
    assert_eq!(length(), ahead);
    assert_eq!(journal.read_after(Seq(4020), usize::MAX).unwrap().len(), 5);
    drop(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable, found.torn), (Seq(4025), Seq(4025), None));
}

#[test]
fn j3_what_is_behind_a_gap_of_zeros_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 3);
    sync(&journal);
    drop(journal);
    let path = only_segment(dir.path());
    let length = fs::metadata(&path).unwrap().len();
    // A power loss kept a later part of what was written, and not the part before it.
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[7], length - 1).unwrap();
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable), (Seq(3), Seq(3)));
    assert!(found.torn.is_some());
    // It is cut, so that none of it is mistaken for what is written there later.
    let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 10_000);
    append(&journal, 1);
    drop(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.torn), (Seq(4), None));
}
