//! Garbage collection, retention and snapshots as users see them: `s3vault gc`, `retention`, `snapshot`, with and
//! without a mount.

use std::fs;
use std::path::PathBuf;

use crate::support::home::Home;
use crate::support::{TestBucket, noise, weed};

/// A vault in a bucket of an S3 server.
struct Kept {
    home: Home,
    bucket: TestBucket,
}

impl Kept {
    fn new() -> Self {
        let bucket = weed().bucket();
        let home = Home::for_bucket(&bucket).with("S3VAULT_PASSPHRASE", "correct horse");
        let init = format!("init --bucket {} --endpoint-url {}", bucket.url(), bucket.endpoint());
        home.type_in(&init).exits(0);
        let kept = Self { home, bucket };
        kept.mount();
        kept
    }

    fn mount(&self) {
        self.home.type_in(&format!("mount vault --bucket {}", self.bucket.url())).exits(0);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path("vault").join(name)
    }

    fn write(&self, name: &str, seed: u64, length: usize) {
        fs::write(self.path(name), noise(seed, length)).unwrap();
        self.home.type_in("sync vault").exits(0);
    }
}

#[test]
fn what_is_removed_comes_back_as_room_and_snapshots_hold_it() {
    let kept = Kept::new();
    let home = &kept.home;
    home.type_in("retention").exits(0).says("kept for 7d");
    home.type_in("retention 1s vault").exits(0).says("kept for 1s from now on");
    home.type_in("retention vault").exits(0).says("kept for 1s");
    kept.write("old", 1, 5_000_000);
    home.type_in("snapshot create before").exits(0).says("is kept as before");
    home.type_in("snapshot create before vault").exits(1).says("there is a snapshot of that name");
    home.type_in("snapshot create .hidden").exits(1).says("begins with a dot");
    fs::remove_file(kept.path("old")).unwrap();
    kept.write("new", 2, 3_000_000);
    // The snapshot keeps all of it.
    home.type_in("gc vault").exits(0).says("Deleted 0 packs").says("for snapshots alone");
    home.type_in("snapshot list").exits(0).says("before  ").says("holds 4.");
    home.type_in("status").exits(0).says("old states").says("snapshots 4.");
    // Also without a mount, with another command right after it.
    home.type_in("umount vault").exits(0);
    let bucket = format!("--bucket {}", kept.bucket.url());
    home.type_in(&format!("snapshot delete before {bucket}")).exits(0).says("before is deleted");
    home.type_in(&format!("gc --dry-run {bucket}")).exits(0).says("Would delete").says(" (4.");
    home.type_in(&format!("gc {bucket}")).exits(0).says("Deleted").says(" (4.");
    home.type_in(&format!("snapshot list {bucket}")).exits(0).says("no snapshots");
    home.type_in(&format!("check --read-data {bucket}")).exits(0);
    kept.mount();
    assert!(fs::read(kept.path("new")).unwrap() == noise(2, 3_000_000));
    home.type_in("umount vault").exits(0);
}

#[test]
fn what_is_not_understood_changes_nothing() {
    let kept = Kept::new();
    let home = &kept.home;
    home.type_in("retention 5x").exits(2).says("a span is");
    home.type_in("retention 0s vault").exits(2).says("a span is");
    home.type_in("gc nowhere").exits(13).says("no s3vault mount");
    home.type_in("snapshot delete nothing").exits(1).says("there is no snapshot of that name");
    home.type_in("snapshot create a/b").exits(1).says("a slash");
    home.type_in("snapshot create soon --keep never").exits(2);
    home.type_in("retention").exits(0).says("kept for 7d");
    home.type_in("umount vault").exits(0);
    // A reader cannot delete anything.
    home.type_in(&format!("mount vault --read-only --bucket {}", kept.bucket.url())).exits(0);
    home.type_in("gc vault").exits(1).says("mounted read-only; nothing was changed");
    home.type_in("umount vault").exits(0);
}
