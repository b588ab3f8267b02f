//! No salt is used for two messages: not after a crash, not with a state directory that was put back, not on a cloned
//! machine. (A salt that comes twice with the same bytes is the same message, read again.)

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::content::open_footer;
use crate::types::PackId;

/// The start of a journal record; its length and the message follow.
const MARKER: &[u8] = b"\xf5S3J";

/// Each salt seen, and what follows it.
#[derive(Default)]
struct Salts(HashMap<[u8; 24], Vec<u8>>);

impl Salts {
    fn message(&mut self, bytes: &[u8]) {
        let (salt, rest) = bytes.split_first_chunk::<24>().unwrap();
        let follows = rest[..rest.len().min(48)].to_vec();
        let before = self.0.entry(*salt).or_insert_with(|| follows.clone());
        assert_eq!(*before, follows, "a salt of two messages");
    }

    /// Takes in everything sealed in the bucket and in these machines' state directories.
    fn take(&mut self, world: &World, machines: &[&str]) {
        for name in world.store.names() {
            let bytes = world.store.peek(&name).unwrap();
            if let Some(id) = name.strip_prefix("pack/") {
                self.pack(world, id[3..].parse().unwrap(), &bytes);
            } else if !name.starts_with("superblock/") {
                self.message(&bytes);
            }
        }
        for machine in machines {
            self.journal(&world.state_dir(machine).join("journal"));
        }
    }

    fn pack(&mut self, world: &World, id: PackId, bytes: &bytes::Bytes) {
        let length = bytes.len() as u64;
        let read = |range: std::ops::Range<u64>| {
            Ok::<_, Error>(bytes.slice(range.start as usize..range.end as usize))
        };
        for entry in open_footer(&world.keys, id, length, read).unwrap().entries {
            let reference = entry.reference;
            let at = reference.offset as usize;
            assert_eq!(bytes[at..at + 24], reference.salt);
            self.message(&bytes[at..at + reference.sealed_length as usize]);
        }
        self.message(&bytes[bytes.len() - 80..]);
    }

    fn journal(&mut self, dir: &Path) {
        for file in std::fs::read_dir(dir).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let found = bytes.windows(4).enumerate().filter(|(_, window)| *window == MARKER);
            for at in found.map(|(at, _)| at + 8).filter(|at| at + 72 <= bytes.len()) {
                self.message(&bytes[at..]);
            }
        }
    }
}

async fn lives(world: &World, vault: &Arc<Vault>, salts: &mut Salts, seed: usize) {
    for (n, length) in [10, 20_000, 300_000, 1_200_000].into_iter().enumerate() {
        write(&vault.vfs(), &format!("{seed}-{n}"), &bytes(seed * 10 + n, length)).await;
    }
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    salts.take(world, &["a"]);
    write(&vault.vfs(), "unsent", &bytes(seed, 50_000)).await;
}

#[tokio::test]
async fn no_salt_is_used_twice_whatever_crashes_is_put_back_or_cloned() {
    let (world, mut salts) = (World::new().await, Salts::default());
    let vault = world.open("a").await;
    lives(&world, &vault, &mut salts, 1).await;
    let saved = tempfile::tempdir().unwrap();
    copy_state(&world.state_dir("a"), saved.path());
    kill(vault).await;

    let vault = world.open("a").await;
    lives(&world, &vault, &mut salts, 2).await;
    vault.close(LONG).await.unwrap();
    drop(vault);

    // The state directory from before the crash is put back.
    std::fs::remove_dir_all(world.state_dir("a")).unwrap();
    copy_state(saved.path(), &world.state_dir("a"));
    let vault = world.open("a").await;
    lives(&world, &vault, &mut salts, 3).await;
    kill(vault).await;

    // A clone of the machine goes on from the same state, while the original is gone.
    copy_state(saved.path(), &world.state_dir("b"));
    let clone = Machines { take_over: true, ..machine("b") };
    let vault = world.try_open(clone).await.unwrap();
    lives(&world, &vault, &mut salts, 3).await;
    vault.close(LONG).await.unwrap();
    salts.take(&world, &["a", "b"]);
    assert!(salts.0.len() > 60, "{}", salts.0.len());
}
