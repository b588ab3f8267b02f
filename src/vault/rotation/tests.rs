//! Rotations over a store that fails at each step. Recovery keys stand in for passphrases: they take no work.

use std::sync::Arc;

use super::*;
use crate::checkpoint::newest;
use crate::crypto::{Passphrase, RecoveryKey};
use crate::store::{Error as StoreError, Fault, On, Verb};
use crate::vault::tests::{LONG, World, kill, machine, read, write};
use crate::vault::{KeyChange, open_by, seal_recovery, unlock};

/// A vault, and the two secrets of a rotation: one that opened it before, and one that is to open it.
pub(in crate::vault) struct Rotated {
    pub world: World,
    pub before: String,
    pub after: String,
}

fn superblocks(world: &World) -> Vec<String> {
    let mut names = world.store.names();
    names.retain(|name| name.starts_with("superblock/"));
    names
}

impl Rotated {
    /// Makes a vault with a file, a checkpoint and a slot; returns it open on machine a.
    pub(in crate::vault) async fn new() -> (Self, Arc<Vault>) {
        let world = World::new().await;
        let vault = world.open("a").await;
        write(&vault.vfs(), "before", b"by the old key").await;
        vault.sync(LONG).await.unwrap();
        vault.checkpoint().await.unwrap();
        let master = MasterKey::from_bytes(world.master);
        let unlocked = unlock(&world.bucket, None, &master).await.unwrap();
        let keys = [RecoveryKey::generate(), RecoveryKey::generate()];
        let slot = seal_recovery(&unlocked, &keys[0]).unwrap();
        vault.change_keys(&KeyChange::Add(slot)).await.unwrap();
        let [before, after] = keys.map(|key| key.to_string());
        (Self { world, before, after }, vault)
    }

    pub(in crate::vault) async fn opened(&self, secret: &str) -> Result<OpenedBySecret> {
        let secret = Passphrase::exact(secret.as_bytes().to_vec());
        open_by(&self.world.bucket, None, &secret).await
    }

    pub(in crate::vault) async fn opens(&self, secret: &str) -> bool {
        match self.opened(secret).await {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error, Error::WrongSecret), "{error}");
                false
            }
        }
    }

    pub(in crate::vault) async fn rotation(&self, from: &str, to: &str) -> Rotation {
        let new = NewKey::make(&self.opened(from).await.unwrap());
        let recovery = RecoveryKey::parse(to.as_bytes()).unwrap();
        let slot = seal_recovery(&new.unlocked, &recovery).unwrap();
        Rotation::from_text(&new.rotation(vec![slot]).to_text()).unwrap()
    }

    pub(in crate::vault) async fn open(&self, name: &str, secret: &str) -> Arc<Vault> {
        let unlocked = self.opened(secret).await.unwrap().unlocked;
        self.world.open_unlocked(unlocked, machine(name)).await.unwrap()
    }

    /// On this machine all that was written is there, and more can be written.
    pub(in crate::vault) async fn goes_on(&self, name: &str, secret: &str, files: &[&str]) {
        let vault = self.open(name, secret).await;
        assert!(!vault.options.unlocked.keys.is_rotating(), "{name}");
        for file in files {
            assert_eq!(read(&vault.vfs(), file.as_bytes()).await[..3], *b"by ", "{file}");
        }
        write(&vault.vfs(), name, b"by a machine").await;
        vault.close(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_what_is_written_after_a_rotation_opens_with_the_new_key_alone() {
    let (rotated, vault) = Rotated::new().await;
    let world = &rotated.world;
    let old_superblock = (superblocks(world).remove(0), world.store.peek(&superblocks(world)[0]));
    let rotation = rotated.rotation(&rotated.before, &rotated.after).await;
    let done = vault.rotate_key(&rotation).await.unwrap();
    assert_eq!((done.slots.len(), done.trouble.len()), (1, 0), "{:?}", done.trouble);
    assert!(!rotated.opens(&rotated.before).await && rotated.opens(&rotated.after).await);
    let again = vault.rotate_key(&rotation).await.unwrap_err();
    assert!(again.to_string().contains("nothing was changed"), "{again}");
    // The mount goes on, and its keys can be changed as before.
    assert_eq!(read(&vault.vfs(), b"before").await, b"by the old key");
    write(&vault.vfs(), "after", b"by the new key").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    let opened = rotated.opened(&rotated.after).await.unwrap();
    let third = RecoveryKey::generate();
    let slot = seal_recovery(&opened.unlocked, &third).unwrap();
    vault.change_keys(&KeyChange::Add(slot)).await.unwrap();
    assert!(rotated.opens(&third.to_string()).await && superblocks(world).len() == 1);
    // The old key opens nothing that came after.
    let [older] = &opened.superblock.older.clone().unwrap()[..] else { panic!() };
    let last = older.last.unwrap();
    let head = vault.status().head;
    let object = |number: CommitNo| world.store.peek(&format!("log/{number}")).unwrap();
    let old_opens = |number| world.keys.open(Place::Commit(number), &object(number)).is_ok();
    assert!(old_opens(last) && last < head);
    assert!((last.0 + 1..=head.0).all(|number| !old_opens(CommitNo(number))));
    assert!(newest(&world.bucket, &world.keys).await.unwrap().manifest.unwrap().commit <= last);
    assert!(
        newest(&world.bucket, &opened.unlocked.keys).await.unwrap().manifest.unwrap().commit > last
    );
    for pack in world.store.names().iter().filter(|name| name.starts_with("pack/")) {
        let bytes = world.store.peek(pack).unwrap();
        assert!(!bytes.windows(14).any(|part| part == b"by the new key"));
    }
    kill(vault).await;
    rotated.goes_on("a", &rotated.after, &["before", "after"]).await;
    rotated.goes_on("b", &rotated.after, &["before", "after", "a"]).await;
    // A second rotation.
    let vault = rotated.open("b", &rotated.after).await;
    let rotation = rotated.rotation(&rotated.after, &rotated.before).await;
    assert!(vault.rotate_key(&rotation).await.unwrap().trouble.is_empty());
    write(&vault.vfs(), "last", b"by the newest key").await;
    vault.close(LONG).await.unwrap();
    drop(vault);
    let files = ["before", "after", "a", "b", "last"];
    rotated.goes_on("c", &rotated.before, &files).await;
    assert_eq!(rotated.opened(&rotated.before).await.unwrap().superblock.epoch, KeyEpoch(3));
    // The old superblock is put back: nobody is told that what the new key sealed is damaged.
    for name in superblocks(world) {
        world.store.steal(&name).unwrap();
    }
    world.store.plant(&old_superblock.0, old_superblock.1.unwrap());
    for name in ["a", "d"] {
        let refused = world.try_open(machine(name)).await.err().unwrap();
        assert!(matches!(refused, Error::OldSuperblock), "{name}: {refused}");
    }
}

/// The attacker has the old key, and may write to the bucket.
#[tokio::test(flavor = "multi_thread")]
async fn k7_what_the_old_key_seals_after_its_last_commit_is_not_believed() {
    let (rotated, vault) = Rotated::new().await;
    let world = &rotated.world;
    let rotation = rotated.rotation(&rotated.before, &rotated.after).await;
    vault.rotate_key(&rotation).await.unwrap();
    vault.close(LONG).await.unwrap();
    drop(vault);
    // The old map as the newest checkpoint: it is sealed anew with the old key under a forged number.
    let manifest = newest(&world.bucket, &world.keys).await.unwrap().manifest.unwrap();
    let of = |number: CommitNo| format!("checkpoint/{number}");
    let sealed = world.store.peek(&of(manifest.commit)).unwrap();
    let plain = world.keys.open(Place::Manifest(manifest.commit), &sealed).unwrap();
    let forged = CommitNo(u64::MAX);
    let sealed = world.keys.seal(Place::Manifest(forged), &plain).into_bytes();
    assert!(world.keys.sealed(Place::Manifest(forged), &sealed));
    world.store.plant(&of(forged), sealed);
    let keys = rotated.opened(&rotated.after).await.unwrap().unlocked.keys;
    let found = newest(&world.bucket, &keys).await.unwrap();
    assert!(found.manifest.unwrap().commit == manifest.commit);
    assert_eq!(found.refused.len(), 1, "{:?}", found.refused);
    assert!(found.refused[0].0 == forged);
    rotated.goes_on("b", &rotated.after, &["before"]).await;
    // A made-up manifest of the past, while newer ones are deleted: the vault does not begin there.
    let last = rotated.opened(&rotated.after).await.unwrap().superblock.older.unwrap()[0].last;
    assert!(manifest.commit <= last.unwrap());
    let twice = world.keys.seal(Place::Manifest(manifest.commit), &plain).into_bytes();
    world.store.steal(&of(manifest.commit)).unwrap();
    world.store.plant(&of(manifest.commit), twice);
    let found = newest(&world.bucket, &keys).await.unwrap();
    assert!(found.manifest.is_none() && found.refused.len() == 2, "{:?}", found.refused);
}

/// With a lost reply, a failing store, or a process that ends in the middle, one of the two secrets opens all of the vault,
/// and the next mount finishes what was begun.
#[tokio::test(flavor = "multi_thread")]
async fn k7_whatever_fails_one_of_the_two_secrets_opens_all_of_the_vault() {
    let denied = || {
        let cause = Arc::new(std::io::Error::other("no"));
        Fault::Fails(StoreError::Denied { object: "an object".into(), cause })
    };
    let faults: Vec<(Verb, &str, Fault)> = vec![
        (Verb::Put, "superblock/", Fault::LosesReply),
        (Verb::Put, "superblock/", denied()),
        (Verb::Put, "superblock/", Fault::KeepsNothing),
        (Verb::Put, "superblock/", Fault::KeepsHalf),
        (Verb::Put, "superblock/", Fault::LiesAboutHalf),
        (Verb::List, "superblock/", denied()),
        (Verb::Get, "superblock/", denied()),
        (Verb::Delete, "superblock/", denied()),
        (Verb::Put, "log/", Fault::LosesReply),
    ];
    let mut went = [0, 0];
    for (verb, prefix, fault) in faults {
        for skip in 0..4 {
            let what = format!("{verb:?} {prefix} {fault:?} {skip}");
            let (rotated, vault) = Rotated::new().await;
            let rotation = rotated.rotation(&rotated.before, &rotated.after).await;
            let faulty = &rotated.world.faulty;
            faulty.inject(On::next(verb, prefix).after(skip), fault.clone());
            let done = vault.rotate_key(&rotation).await;
            faulty.heal();
            write(&vault.vfs(), "after", b"by either key").await;
            vault.sync(LONG).await.unwrap();
            let opens = (rotated.opens(&rotated.before).await, rotated.opens(&rotated.after).await);
            assert!(opens.0 || opens.1, "{what}");
            assert!(done.is_err() || opens == (false, true), "{what}: {done:?}");
            went[usize::from(done.is_ok())] += 1;
            kill(vault).await;
            let secret = if opens.1 { &rotated.after } else { &rotated.before };
            rotated.goes_on("a", secret, &["before", "after"]).await;
            rotated.goes_on("b", secret, &["before", "after", "a"]).await;
            let superblock = rotated.opened(secret).await.unwrap().superblock;
            let all_ended = superblock.older.iter().flatten().all(|older| older.last.is_some());
            assert!(all_ended, "{what}");
        }
    }
    assert!(went[0] > 3 && went[1] > 3, "{went:?}");
}
