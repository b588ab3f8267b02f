//! Changes of the keys over a store that fails at each step. Recovery keys stand in for passphrases: they take no work.

use crate::crypto::random;
use crate::store::{Error as StoreError, Fault, On, Verb};
use crate::types::Generation;
use crate::vault::tests::{LONG, Machines, World, machine};
use crate::vault::{MasterKey, unlock};

use super::*;

/// A secret, and its slot.
struct Held {
    secret: String,
    slot: KeySlot,
}

impl Held {
    async fn new(world: &World) -> Self {
        let master = MasterKey::from_bytes(world.master);
        let unlocked = unlock(&world.bucket, None, &master).await.unwrap();
        let recovery = RecoveryKey::generate();
        Self { secret: recovery.to_string(), slot: seal_recovery(&unlocked, &recovery).unwrap() }
    }

    async fn opens(&self, world: &World) -> bool {
        let secret = Passphrase::exact(self.secret.clone().into_bytes());
        let opened = crate::vault::open_by(&world.bucket, None, &secret).await;
        let opened = opened.map(|opened| *opened.unlocked.master.expose());
        match opened {
            Ok(master) => master == world.master,
            Err(error) => {
                assert!(matches!(error, Error::WrongSecret), "{error}");
                false
            }
        }
    }

    fn instead_of(&self, old: &Self) -> KeyChange {
        KeyChange::Replace { old: old.slot.id(), new: self.slot.clone() }
    }
}

fn superblocks(world: &World) -> Vec<String> {
    let mut names = world.store.names();
    names.retain(|name| name.starts_with("superblock/"));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_change_is_a_new_generation_and_what_was_before_goes() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let (one, two) = (Held::new(&world).await, Held::new(&world).await);
    let slots = vault.change_keys(&KeyChange::Add(one.slot.clone())).await.unwrap();
    assert_eq!((slots.slots.len(), slots.trouble.len()), (1, 0));
    assert!(one.opens(&world).await && !two.opens(&world).await);
    vault.change_keys(&two.instead_of(&one)).await.unwrap();
    assert!(!one.opens(&world).await && two.opens(&world).await);
    assert_eq!(superblocks(&world), ["superblock/0000000000000003"]);
    assert_eq!(vault.key_slots().await.unwrap().0[0].id, two.slot.id());
    // The last slot cannot be removed, nor one that is not there.
    for id in [two.slot.id(), one.slot.id()] {
        let refused = vault.change_keys(&KeyChange::Remove(id)).await.unwrap_err();
        assert!(refused.to_string().contains("nothing was changed"), "{refused}");
    }
    let three = Held::new(&world).await;
    vault.change_keys(&KeyChange::Recovery(three.slot.clone())).await.unwrap();
    assert!(!two.opens(&world).await && three.opens(&world).await);
    vault.close(LONG).await.unwrap();
    drop(vault);
    // A reader changes nothing.
    let reader =
        world.try_open(crate::vault::tests::Machines { read_only: true, ..machine("b") }).await;
    let refused = reader.unwrap().change_keys(&KeyChange::Add(one.slot.clone())).await;
    assert!(matches!(refused, Err(Error::ReadOnlyMount)));
}

/// With a lost reply, a failing store, or a process that ends in the middle, at least one of the two secrets opens the
/// vault. Once the change is confirmed, only the new one does.
#[tokio::test(flavor = "multi_thread")]
async fn k6_whatever_fails_one_of_the_two_secrets_opens_the_vault() {
    let denied = || {
        let cause = std::sync::Arc::new(std::io::Error::other("no"));
        Fault::Fails(StoreError::Denied { object: "superblock".into(), cause })
    };
    let faults: Vec<(Verb, Fault)> = vec![
        (Verb::Put, Fault::LosesReply),
        (Verb::Put, Fault::Breaks),
        (Verb::Put, denied()),
        (Verb::Put, Fault::KeepsNothing),
        (Verb::Put, Fault::KeepsHalf),
        (Verb::Put, Fault::LiesAboutHalf),
        (Verb::List, denied()),
        (Verb::Get, denied()),
        (Verb::Get, Fault::FlipsBit),
        (Verb::Delete, denied()),
    ];
    for (verb, fault) in faults {
        for skip in 0..3 {
            let world = World::new().await;
            let vault = world.open("a").await;
            let (one, two) = (Held::new(&world).await, Held::new(&world).await);
            vault.change_keys(&KeyChange::Add(one.slot.clone())).await.unwrap();
            world.faulty.inject(On::next(verb, "superblock/").after(skip), fault.clone());
            let done = vault.change_keys(&two.instead_of(&one)).await;
            world.faulty.heal();
            let opens = (one.opens(&world).await, two.opens(&world).await);
            assert!(opens.0 || opens.1, "{verb:?} {fault:?} {skip}");
            if let Ok(done) = &done {
                assert_eq!(opens, (false, true), "{verb:?} {fault:?} {skip}");
                assert_eq!(done.trouble.len(), superblocks(&world).len() - 1, "{:?}", done.trouble);
            }
            // Asked for again, the change is made, or is found made.
            let again = vault.change_keys(&two.instead_of(&one)).await.unwrap();
            assert_eq!(again.trouble, Vec::<String>::new());
            assert_eq!((one.opens(&world).await, two.opens(&world).await), (false, true));
            assert_eq!(superblocks(&world).len(), 1);
        }
    }
}

/// A store that accepts the put but returns other bytes: the new superblock does not count, and what opened the vault
/// before stays.
#[tokio::test(flavor = "multi_thread")]
async fn k6_a_superblock_that_does_not_come_back_as_it_was_written_takes_the_place_of_none() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let (one, two) = (Held::new(&world).await, Held::new(&world).await);
    vault.change_keys(&KeyChange::Add(one.slot.clone())).await.unwrap();
    // The first GET is of the current superblock, the second of the new one.
    let on = On::next(Verb::Get, "superblock/").after(1).times(u32::MAX);
    world.faulty.inject(on, Fault::FlipsBit);
    let refused = vault.change_keys(&two.instead_of(&one)).await.unwrap_err();
    assert!(refused.to_string().contains("does not return what was just written"), "{refused}");
    world.faulty.heal();
    assert_eq!(superblocks(&world).len(), 2, "the one before is still there");
}

/// The store kept half of a put, and its writer ended then: nobody is shut out, and the next change removes the rest.
#[tokio::test(flavor = "multi_thread")]
async fn k6_a_superblock_that_ends_early_takes_the_place_of_none() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let (one, two) = (Held::new(&world).await, Held::new(&world).await);
    vault.change_keys(&KeyChange::Add(one.slot.clone())).await.unwrap();
    let whole = world.store.peek(&superblocks(&world)[0]).unwrap();
    let name = |generation: u64| format!("superblock/{}", Generation(generation));
    for (generation, length) in [(3, whole.len() / 2), (4, 0), (5, whole.len() - 1)] {
        world.store.plant(&name(generation), whole.slice(..length));
    }
    assert!(one.opens(&world).await && !two.opens(&world).await);
    vault.close(LONG).await.unwrap();
    drop(vault);
    let vault = world.open("b").await;
    vault.change_keys(&two.instead_of(&one)).await.unwrap();
    assert!(!one.opens(&world).await && two.opens(&world).await);
    assert_eq!(superblocks(&world), [name(6)]);
    crate::vault::tests::kill(vault).await;
    // Superblocks that no change can have left.
    for generation in [30, u64::MAX] {
        world.store.plant(&name(generation), "");
        let refused = world.try_open(machine("c")).await.err().unwrap();
        assert!(refused.to_string().starts_with(&name(generation)), "{refused}");
        world.store.steal(&name(generation)).unwrap();
    }
    // One that counted and is damaged: the one before is not taken instead, as the log names the damaged one.
    let newest = world.store.steal(&name(6)).unwrap();
    world.store.plant(&name(6), newest.slice(..newest.len() / 2));
    assert!(matches!(world.try_open(machine("c")).await, Err(Error::Superblock { .. })));
    world.store.plant(&name(2), whole);
    for who in ["b", "c"] {
        let refused = world.try_open(machine(who)).await.err().unwrap();
        assert!(matches!(refused, Error::OldSuperblock), "{refused}");
    }
}

/// Two writers at once: one has the claim, the other does not know yet that it lost it. Every change that was confirmed
/// counts.
#[tokio::test(flavor = "multi_thread")]
async fn k6_a_superblock_that_came_between_is_begun_with_again() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let (one, two, three) =
        (Held::new(&world).await, Held::new(&world).await, Held::new(&world).await);
    vault.change_keys(&KeyChange::Add(one.slot.clone())).await.unwrap();
    // The other's superblock comes between our look and our put; and once more at a number that is free again.
    let master = MasterKey::from_bytes(world.master);
    let unlocked = unlock(&world.bucket, None, &master).await.unwrap();
    let before = superblock::newest(&world.bucket, &unlocked).await.unwrap();
    for generation in [before.generation.next(), Generation(before.generation.0 + 5)] {
        let own = Held::new(&world).await;
        let other = Held::new(&world).await;
        let now = superblock::newest(&world.bucket, &unlocked).await.unwrap();
        let mut theirs = Superblock { generation, ..now };
        theirs.slots.push(other.slot.clone());
        world.faulty.inject(On::next(Verb::Put, "superblock/"), Fault::Delays(LONG / 40));
        let (bucket, keys) = (world.bucket.clone(), world.keys.clone());
        let between = async {
            tokio::time::sleep(LONG / 80).await;
            let plain = crate::store::Bucket::over(
                world.store.clone(),
                "",
                crate::store::Deadlines::default(),
            );
            superblock::write(&plain, &keys, &theirs).await.unwrap();
        };
        let change = KeyChange::Add(own.slot.clone());
        let (done, ()) = tokio::join!(vault.change_keys(&change), between);
        done.unwrap();
        drop(bucket);
        assert!(own.opens(&world).await && other.opens(&world).await && one.opens(&world).await);
    }
    assert_eq!(superblocks(&world).len(), 1);
    vault.change_keys(&two.instead_of(&one)).await.unwrap();
    vault.change_keys(&three.instead_of(&two)).await.unwrap();
    assert!(three.opens(&world).await);
}

/// An old superblock is put back: it is refused even on a machine that never saw the vault, as the log names the newer
/// one.
#[tokio::test(flavor = "multi_thread")]
async fn o1_an_old_superblock_that_is_put_back_is_refused() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let (one, two) = (Held::new(&world).await, Held::new(&world).await);
    vault.change_keys(&KeyChange::Add(one.slot.clone())).await.unwrap();
    let old = superblocks(&world).remove(0);
    let bytes = world.store.peek(&old).unwrap();
    vault.change_keys(&two.instead_of(&one)).await.unwrap();
    // As after kill -9: nothing more is committed.
    crate::vault::tests::kill(vault).await;
    world.store.steal(&superblocks(&world)[0]).unwrap();
    world.store.plant(&old, bytes);
    for name in ["a", "b"] {
        let refused = world.try_open(machine(name)).await.err().unwrap();
        assert!(matches!(refused, Error::OldSuperblock), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_shows_to_the_owner_alone_and_a_slot_without_one_is_as_old_as_the_vault() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let master = MasterKey::from_bytes(world.master);
    let unlocked = unlock(&world.bucket, None, &master).await.unwrap();
    let recovery = RecoveryKey::generate();
    let bare = KeySlot::seal_with_recovery_key(
        &unlocked.master,
        unlocked.vault,
        unlocked.keys.epoch(),
        &recovery,
    );
    let named = noted(bare.clone(), &unlocked.keys, "Anna's laptop").unwrap();
    let longest = noted(bare.clone(), &unlocked.keys, &"x".repeat(64)).unwrap();
    assert_eq!(named.to_text().len(), longest.to_text().len());
    assert!(noted(bare.clone(), &unlocked.keys, &"x".repeat(65)).is_err());
    assert_eq!(KeySlot::from_text(&named.to_text()).unwrap(), named);
    assert!(KeySlot::from_text("zz").is_err());
    vault.change_keys(&KeyChange::Add(named)).await.unwrap();
    let bytes = world.store.peek(&superblocks(&world)[0]).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"Anna"));
    let (slots, _) = vault.key_slots().await.unwrap();
    assert_eq!(slots[0].label, "Anna's laptop");
    // With other keys the note does not open, but the slot is still there.
    let keys =
        Keys::derive(&MasterKey::from_bytes(random()), unlocked.vault, unlocked.keys.epoch());
    assert!(longest.note(&keys).is_none() && bare.note(&unlocked.keys).is_none());
}

/// A mount reads the superblock; then another machine changes the keys, and the log names the next one (O1).
#[tokio::test(flavor = "multi_thread")]
async fn o1_who_read_the_superblock_just_before_the_next_was_put_opens_the_vault() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let secret = MasterKey::from_bytes(world.master);
    let before = unlock(&world.bucket, None, &secret).await.unwrap();
    vault.change_keys(&KeyChange::Add(Held::new(&world).await.slot)).await.unwrap();
    vault.sync(LONG).await.unwrap();
    let read = Machines { read_only: true, ..machine("b") };
    let reader = world.open_unlocked(before.clone(), read).await.unwrap();
    assert_eq!(reader.options.unlocked.generation, Generation(2));
    vault.close(LONG).await.unwrap();
    let writer = world.open_unlocked(before.clone(), machine("c")).await.unwrap();
    assert_eq!(writer.options.unlocked.generation, Generation(2));
    // What it seals names the superblock that counts.
    writer.change_keys(&KeyChange::Add(Held::new(&world).await.slot)).await.unwrap();
    assert_eq!(superblocks(&world), ["superblock/0000000000000003"]);
    writer.close(LONG).await.unwrap();
    // A copy that the owner named does not get newer.
    let copied = crate::vault::Unlocked { copied: Some("a file".into()), ..before.clone() };
    let refused = world.open_unlocked(copied, machine("d")).await.err().unwrap();
    assert!(matches!(refused, Error::OldSuperblock), "{refused}");
    // With an old superblock put back, asking again does not help.
    let newest = superblocks(&world).remove(0);
    world.store.steal(&newest).unwrap();
    world.store.plant("superblock/0000000000000001", before.sealed.clone());
    let refused = world.open_unlocked(before, machine("d")).await.err().unwrap();
    assert!(matches!(refused, Error::OldSuperblock), "{refused}");
}
