//! What older keys sealed is sealed anew: beside writes, over kills and failing stores, until nothing of it is left (K8).

use std::collections::BTreeMap;

use super::*;
use crate::content::open_footer;
use crate::crypto::{Keys, Place};
use crate::store::{Error as StoreError, Fault, On, Verb};
use crate::types::{Generation, PackId, PageId};
use crate::vault::check;
use crate::vault::key_slots::EpochNeed;
use crate::vault::rotation::tests::Rotated;
use crate::vault::tests::{LONG, World, bytes, fill, kill, machine, read, tree, write};
use crate::vault::{Bucket, Vault, superblock};

const DAY: Duration = Duration::from_hours(24);

/// A vault with files of all sizes and an old state, whose key was just rotated; and what it holds.
async fn rotated() -> (Rotated, Arc<Vault>, BTreeMap<String, Vec<u8>>) {
    let (rotated, vault) = Rotated::new().await;
    rotated.world.store.set_time(std::time::SystemTime::now());
    let mut model = fill(&vault, "file").await;
    model.insert("before".into(), b"by the old key".to_vec());
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    model.extend(fill(&vault, "later").await);
    vault.set_retention(Duration::from_secs(1)).await.unwrap();
    let rotation = rotated.rotation(&rotated.before, &rotated.after).await.of_everything();
    let done = vault.rotate_key(&rotation).await.unwrap();
    assert!(done.trouble.is_empty(), "{:?}", done.trouble);
    (rotated, vault, model)
}

async fn needs(vault: &Vault) -> Vec<EpochNeed> {
    vault.key_slots().await.unwrap().1.into_iter().map(|epoch| epoch.need).collect()
}

/// Lets days go by and deletes: what the retention held, and after three days the log.
async fn days_go_by(world: &World, vault: &Vault) {
    for _ in 0..3 {
        world.store.advance(2 * DAY);
        vault.reclaim(false, &|_| {}).await.unwrap();
    }
}

/// The objects that have a part which opens with the keys `old`.
async fn opened_by(world: &World, bucket: &Bucket, all: &Keys, old: &Keys) -> Vec<String> {
    let opens = |place: Place, bytes: &[u8]| old.sealed(place, bytes);
    let mut found = Vec::new();
    for name in world.store.names() {
        let bytes = bucket.get(&name, None).await.unwrap();
        let (kind, rest) = name.split_once('/').unwrap_or_default();
        let (head, last) = rest.split_once('/').unwrap_or((rest, rest));
        let is_open = match kind {
            "log" => opens(Place::Commit(last.parse().unwrap()), &bytes),
            "checkpoint" => opens(Place::Manifest(last.parse().unwrap()), &bytes),
            "page" => {
                let id: PageId = last.parse().unwrap();
                opens(Place::Page(head.parse().unwrap(), id), &bytes)
            }
            "superblock" => {
                let generation: Generation = last.parse().unwrap();
                let (_, wire) = superblock::decode(generation, &bytes).unwrap();
                wire.is_by(old)
            }
            "pack" => {
                let id: PackId = last.parse().unwrap();
                let length = bytes.len() as u64;
                let read = |range: Range<u64>| {
                    let range =
                        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                    Ok::<_, String>(bytes.slice(range))
                };
                let by_old = open_footer(old, id, length, read).is_ok();
                let footer = open_footer(all, id, length, read).unwrap();
                by_old
                    || footer.entries.iter().any(|entry| {
                        let at = usize::try_from(entry.reference.offset).unwrap();
                        opens(Place::Extent(entry.reference.extent), &bytes[at..])
                    })
            }
            _ => false,
        };
        found.extend(is_open.then_some(name));
    }
    found
}

async fn is_whole(rotated: &Rotated, vault: Arc<Vault>, model: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(tree(&vault).await, *model);
    vault.close(LONG).await.unwrap();
    drop(vault);
    let vault = rotated.open("elsewhere", &rotated.after).await;
    assert_eq!(tree(&vault).await, *model);
    vault.close(LONG).await.unwrap();
    drop(vault);
    let unlocked = rotated.opened(&rotated.after).await.unwrap().unlocked;
    let report = check(&rotated.world.bucket, &unlocked, true, None, &|_, _| ()).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_after_it_and_the_retention_the_old_key_opens_nothing_in_the_bucket() {
    let (rotated, vault, mut model) = rotated().await;
    let world = &rotated.world;
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::BeingRenewed]);
    // Writes go on meanwhile.
    let writer = tokio::spawn({
        let vault = vault.clone();
        async move {
            let mut made = BTreeMap::new();
            for n in 0..40 {
                let (name, data) = (format!("beside{n}"), bytes(n, 40_000 * (n % 4)));
                write(&vault.vfs(), &name, &data).await;
                made.insert(name, data);
                let (name, data) = (format!("file{}", n % 7), bytes(n + 100, 30_000));
                write(&vault.vfs(), &name, &data).await;
                made.insert(name, data);
            }
            made
        }
    });
    let done = vault.renew().await.unwrap();
    model.extend(writer.await.unwrap());
    assert!(done.done_bytes > 1 << 20 && done.old_objects > Some(0), "{done:?}");
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::OldStates]);
    let keys = rotated.opened(&rotated.after).await.unwrap().unlocked.keys;
    assert!(!opened_by(world, &world.bucket, &keys, &world.keys).await.is_empty());
    assert_eq!(tree(&vault).await, model);
    days_go_by(world, &vault).await;
    vault.renew().await.unwrap();
    let left = opened_by(world, &world.bucket, &keys, &world.keys).await;
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::Nothing]);
    assert!(vault.status().renewal.is_none());
    is_whole(&rotated, vault, &model).await;
}

/// Someone who kept the old bucket and the old key cannot bring it back: not even what was genuine.
#[tokio::test(flavor = "multi_thread")]
async fn k8_what_the_old_key_sealed_is_believed_no_more_once_it_is_gone() {
    let (rotated, vault, _) = rotated().await;
    let world = &rotated.world;
    let copy = |prefix: &'static str| {
        let names = world.store.names().into_iter().filter(move |name| name.starts_with(prefix));
        names.map(|name| (name.clone(), world.store.peek(&name).unwrap())).collect::<Vec<_>>()
    };
    let kept = ["log/", "checkpoint/", "page/", "pack/"].map(copy).concat();
    vault.renew().await.unwrap();
    days_go_by(world, &vault).await;
    vault.renew().await.unwrap();
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::Nothing]);
    vault.close(LONG).await.unwrap();
    drop(vault);
    for name in world.store.names().iter().filter(|name| !name.starts_with("superblock/")) {
        world.store.steal(name).unwrap();
    }
    for (name, bytes) in kept {
        world.store.plant(&name, bytes);
    }
    // A machine that saw nothing before.
    let unlocked = rotated.opened(&rotated.after).await.unwrap().unlocked;
    let refused = world.open_unlocked(unlocked, machine("new")).await;
    assert!(refused.is_err(), "it shows the vault as it was before the rotation");
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_a_snapshot_keeps_what_it_shows_and_is_said() {
    let (rotated, vault) = Rotated::new().await;
    let world = &rotated.world;
    world.store.set_time(std::time::SystemTime::now());
    write(&vault.vfs(), "old", &bytes(1, 2 << 20)).await;
    vault.make_snapshot(b"kept", None).await.unwrap();
    write(&vault.vfs(), "old", b"new").await;
    vault.set_retention(Duration::from_secs(1)).await.unwrap();
    let rotation = rotated.rotation(&rotated.before, &rotated.after).await.of_everything();
    vault.rotate_key(&rotation).await.unwrap();
    vault.renew().await.unwrap();
    days_go_by(world, &vault).await;
    let told = vault.renew().await.unwrap();
    assert!(told.old_objects > Some(2), "{told:?}");
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::OldStates]);
    let unlocked = rotated.opened(&rotated.after).await.unwrap().unlocked;
    let at = crate::types::StateAt::Named("kept".into(), None);
    let past = crate::vault::tests::Machines { at: Some(&at), ..machine("past") };
    let shown = world.open_unlocked(unlocked, past).await.unwrap();
    assert_eq!(read(&shown.vfs(), b"old").await, bytes(1, 2 << 20));
    shown.close(LONG).await.unwrap();
    drop(shown);
    vault.delete_snapshot(b"kept").await.unwrap();
    days_go_by(world, &vault).await;
    vault.renew().await.unwrap();
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::Nothing]);
    assert_eq!(read(&vault.vfs(), b"old").await, b"new");
    vault.close(LONG).await.unwrap();
}

/// It is cut off by a kill after some progress, on this machine and on others; by a failing store; by a disk with little room.
#[tokio::test(flavor = "multi_thread")]
async fn k8_whoever_opens_the_vault_next_goes_on_with_it() {
    let (rotated, mut vault, mut model) = rotated().await;
    for (n, name) in ["a", "b", "a", "c"].into_iter().enumerate() {
        // It goes on by itself; how far it gets is chance.
        tokio::time::sleep(Duration::from_millis(300 * n as u64)).await;
        let (file, data) = (format!("round{n}"), bytes(n, 50_000));
        write(&vault.vfs(), &file, &data).await;
        model.insert(file, data);
        vault.sync(LONG).await.unwrap();
        kill(vault).await;
        let unlocked = rotated.opened(&rotated.after).await.unwrap().unlocked;
        let take_over = crate::vault::tests::Machines { take_over: true, ..machine(name) };
        vault = rotated.world.open_unlocked(unlocked, take_over).await.unwrap();
        assert_eq!(tree(&vault).await, model);
    }
    let denied = || {
        let cause = Arc::new(std::io::Error::other("no"));
        Fault::Fails(StoreError::Denied { object: "an object".into(), cause })
    };
    for prefix in ["page/", "superblock/"] {
        rotated.world.faulty.inject(On::next(Verb::Put, prefix).times(u32::MAX), denied());
        let failed = tokio::time::timeout(Duration::from_secs(5), vault.renew()).await;
        assert!(!matches!(failed, Ok(Ok(_))), "{prefix}");
        rotated.world.faulty.heal();
    }
    vault.renew().await.unwrap();
    assert_eq!(needs(&vault).await[1], EpochNeed::OldStates);
    days_go_by(&rotated.world, &vault).await;
    vault.renew().await.unwrap();
    assert_eq!(needs(&vault).await[1], EpochNeed::Nothing);
    is_whole(&rotated, vault, &model).await;
}

/// An object that came broken twice is believed to be damaged (O1), though it was only broken on its way. That round leaves
/// it, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn k8_what_one_round_leaves_another_seals() {
    let (rotated, vault, model) = rotated().await;
    vault.sync(LONG).await.unwrap();
    kill(vault).await;
    let unlocked = rotated.opened(&rotated.after).await.unwrap().unlocked;
    let (before, take_over) = (unlocked.keys.epoch(), machine("b"));
    let take_over = crate::vault::tests::Machines { take_over: true, ..take_over };
    let vault = rotated.world.open_unlocked(unlocked, take_over).await.unwrap();
    rotated.world.faulty.take_requests();
    // Four times: of two broken answers each may be the first to another of the requests that are made at once.
    let four = On::next(Verb::Get, "pack/").times(4);
    rotated.world.faulty.inject(four, Fault::FlipsBit);
    vault.renew().await.unwrap();
    assert_eq!(needs(&vault).await, [EpochNeed::Newest, EpochNeed::OldStates]);
    // From that checkpoint on nothing refers to what the old key sealed.
    let base = vault.writer.as_ref().unwrap().keys.index.base();
    for page in 0.. {
        let Some(parts) = older_parts(&base, page, before).await.unwrap() else { break };
        assert_eq!(parts, []);
    }
    let asked = rotated.world.faulty.take_requests();
    let manifests = asked
        .iter()
        .filter(|request| request.verb == Verb::Put && request.name.starts_with("checkpoint/"));
    // One for each round (one that left something, the next, and one that found nothing), and the last one.
    assert!(manifests.count() >= 4, "nothing was left");
    is_whole(&rotated, vault, &model).await;
}

/// What is to be sealed anew cannot be read for a while, and there is little room to write.
#[tokio::test(flavor = "multi_thread")]
async fn k8_a_store_that_is_away_and_a_small_disk_are_waited_for() {
    let (rotated, vault, mut model) = rotated().await;
    for n in 0..12 {
        let (name, data) = (format!("large{n}"), bytes(n, 6 << 20));
        write(&vault.vfs(), &name, &data).await;
        model.insert(name, data);
        vault.sync(LONG).await.unwrap();
    }
    vault.renew().await.unwrap();
    vault.close(LONG).await.unwrap();
    // The same again for everything, on a machine that has nothing of it locally.
    let unlocked = rotated.opened(&rotated.after).await.unwrap().unlocked;
    let vault = rotated.world.open_unlocked(unlocked, machine("other")).await.unwrap();
    let rotation = rotated.rotation(&rotated.after, &rotated.before).await.of_everything();
    let cause = Arc::new(std::io::Error::other("no"));
    let denied = Fault::Fails(StoreError::Denied { object: "an object".into(), cause });
    // The fault is there before the renewal begins, which it does by itself.
    rotated.world.faulty.inject(On::next(Verb::Get, "pack/").times(u32::MAX), denied);
    vault.rotate_key(&rotation).await.unwrap();
    kill(vault).await;
    let unlocked = rotated.opened(&rotated.before).await.unwrap().unlocked;
    let small = crate::vault::tests::Machines {
        take_over: true,
        cache_size: Some(64 << 20),
        ..machine("small")
    };
    let vault = rotated.world.open_unlocked(unlocked, small).await.unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(3), vault.renew()).await;
    assert!(!matches!(failed, Ok(Ok(_))), "{failed:?}");
    rotated.world.faulty.heal();
    let done = vault.renew().await.unwrap();
    assert!(done.done_bytes >= 50 << 20, "{done:?}");
    assert_eq!(needs(&vault).await[1..], [EpochNeed::OldStates, EpochNeed::OldStates]);
    assert_eq!(tree(&vault).await, model);
    vault.close(LONG).await.unwrap();
}

/// A rotation that the store cuts off is reported, and finished as soon as the store allows it.
#[tokio::test(flavor = "multi_thread")]
async fn k7_a_rotation_that_is_cut_off_is_said_and_goes_on_by_itself() {
    let (rotated, vault) = Rotated::new().await;
    let rotation = rotated.rotation(&rotated.before, &rotated.after).await;
    let cause = Arc::new(std::io::Error::other("no"));
    let denied = Fault::Fails(StoreError::Denied { object: "an object".into(), cause });
    // The first superblock is put, the one that would finish the rotation is not.
    let second = On::next(Verb::Put, "superblock/").after(1).times(u32::MAX);
    rotated.world.faulty.inject(second, denied);
    let done = vault.rotate_key(&rotation).await.unwrap();
    assert!(done.trouble[0].contains("tried again"), "{:?}", done.trouble);
    let said = || vault.status().warnings.iter().any(|said| said.contains("is not finished"));
    assert!(said(), "{:?}", vault.status().warnings);
    rotated.world.faulty.heal();
    vault.renew().await.unwrap();
    assert!(!said() && !vault.options().unlocked.keys.is_rotating());
    vault.close(LONG).await.unwrap();
}
