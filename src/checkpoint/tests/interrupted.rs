//! A build that fails anywhere leaves the previous checkpoint as the newest, and whole (rule K2).

use super::*;
use crate::store::{Fault, On, Verb};

async fn two_steps() -> (World, Base, BTreeMap<Vec<u8>, Bytes>) {
    let mut world = World::new(SMALL);
    let mut rng = rng(77);
    (0..20).for_each(|_| random_commit(&mut world, &mut rng));
    let base = world.build(&Base::empty()).await;
    let before = world.expected();
    (0..10).for_each(|_| random_commit(&mut world, &mut rng));
    (world, base, before)
}

fn denied() -> Fault {
    let cause = Arc::new(std::io::Error::other("a test says so"));
    Fault::Fails(crate::store::Error::Denied { object: "any".into(), cause })
}

#[tokio::test]
async fn k2_a_build_that_fails_at_any_request_leaves_the_one_before() {
    let (world, base, before) = two_steps().await;
    for verb in [Verb::Put, Verb::Get] {
        for step in 0.. {
            world.faulty.heal();
            world.faulty.inject(On::next(verb, "vault/").after(step).always(), denied());
            let result = world.try_build(&base, &world.cold()).await;
            world.faulty.heal();
            match result {
                Ok(_) => {
                    assert!(step > 3, "few requests: {step}");
                    break;
                }
                Err(_) if world.store.peek("vault/checkpoint/000000000000001e").is_some() => {
                    // Only the read-back failed: the manifest is there, and good.
                    assert!(verb == Verb::Get);
                    assert_eq!(all(&world.newest().await).await, world.expected());
                    world.store.steal("vault/checkpoint/000000000000001e");
                }
                Err(_) => assert_eq!(all(&world.newest().await).await, before),
            }
        }
        assert_eq!(all(&world.newest().await).await, world.expected());
        world.store.steal("vault/checkpoint/000000000000001e");
    }
}

#[tokio::test]
async fn k2_pages_come_first_and_the_manifest_last() {
    let (world, base, _) = two_steps().await;
    world.faulty.take_requests();
    world.build(&base).await;
    let requests = world.faulty.take_requests();
    let puts: Vec<_> = requests.iter().filter(|r| r.verb == Verb::Put).collect();
    let (manifest, pages) = puts.split_last().unwrap();
    assert!(pages.len() > 2 && pages.iter().all(|r| r.name.starts_with("vault/page/")));
    assert_eq!(manifest.name, "vault/checkpoint/000000000000001e");
    let last = requests.last().unwrap();
    assert_eq!((last.verb, &last.name), (Verb::Get, &manifest.name), "it is read back");
}

#[tokio::test]
async fn k2_a_lost_reply_costs_nothing() {
    for (skip, prefix) in [(0, "vault/page/"), (2, "vault/page/"), (0, "vault/checkpoint/")] {
        let (world, base, _) = two_steps().await;
        world.faulty.inject(On::next(Verb::Put, prefix).after(skip), Fault::LosesReply);
        let next = world.try_build(&base, &world.cold()).await.unwrap();
        assert_eq!(all(&next).await, world.expected());
        assert_eq!(world.newest().await.manifest(), next.manifest());
    }
}

#[tokio::test]
async fn k2_a_store_that_keeps_something_else_is_not_believed() {
    for prefix in ["vault/page/", "vault/checkpoint/"] {
        for fault in [Fault::KeepsHalf, Fault::KeepsNothing, Fault::KeepsOther] {
            let (world, base, before) = two_steps().await;
            world.faulty.inject(On::next(Verb::Put, prefix).always(), fault.clone());
            let result = world.try_build(&base, &world.cold()).await;
            assert!(result.is_err(), "{prefix} {fault:?}");
            world.faulty.heal();
            let newest = newest(&world.bucket, &world.keys).await.unwrap();
            let newest = Base::new(newest.manifest.unwrap(), world.keys.clone(), world.cold());
            assert_eq!(all(&newest).await, before, "{prefix} {fault:?}");
        }
    }
}

#[tokio::test]
async fn k2_a_manifest_that_an_ended_build_left_is_used() {
    let (world, base, _) = two_steps().await;
    let first = world.build(&base).await;
    // The process ended before it knew; the next one builds the same again.
    let second = world.build(&base).await;
    assert_eq!(first.manifest(), second.manifest());
    assert_eq!(all(&second).await, world.expected());
}

#[tokio::test]
async fn o1_a_manifest_that_does_not_verify_is_passed_over() {
    let (world, base, before) = two_steps().await;
    let next = world.build(&base).await;
    let (old, new) = ("vault/checkpoint/0000000000000014", "vault/checkpoint/000000000000001e");
    let good = world.store.steal(new).unwrap();
    let flip = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let older = world.store.peek(old).unwrap();
    for bad in [flip(3), flip(70), good.slice(..good.len() - 1), Bytes::new(), older] {
        world.store.plant(new, bad);
        let found = newest(&world.bucket, &world.keys).await.unwrap();
        assert_eq!(found.manifest.as_ref(), base.manifest());
        assert_eq!(found.refused.len(), 1);
        assert_eq!(all(&world.newest().await).await, before);
    }
    world.store.plant(new, good);
    world.store.plant("vault/checkpoint/no-number", Bytes::new());
    assert_eq!(world.newest().await.manifest(), next.manifest());
    // A store that does not answer is no reason to use an older one.
    world.faulty.inject(On::next(Verb::Get, "vault/checkpoint/").always(), denied());
    assert!(newest(&world.bucket, &world.keys).await.is_err());
}

/// Anybody with write access to the bucket can put a thousand objects beside the manifests. Each costs 56 bytes, and only
/// the highest is fetched whole.
#[tokio::test]
async fn o1_a_thousand_strangers_cost_their_first_bytes() {
    let (world, base, before) = two_steps().await;
    for n in 0..1000 {
        world
            .store
            .plant(&format!("vault/{}", manifest_name(CommitNo(u64::MAX - n))), vec![7; 100_000]);
    }
    let received = || world.bucket.requests().bytes_got;
    let at_first = received();
    let found = newest(&world.bucket, &world.keys).await.unwrap();
    assert_eq!(found.manifest.as_ref(), base.manifest());
    assert_eq!(found.refused.len(), 1000);
    let fetched = received() - at_first;
    assert!(fetched < 500_000, "{fetched}");
    assert_eq!(all(&world.newest().await).await, before);
}

/// The manifest of a writer that had been asleep: it was put after one of a higher number, so its pages may be gone.
#[tokio::test]
async fn k4_a_manifest_that_was_put_after_one_of_a_higher_number_is_passed_over() {
    let (mut world, base, _) = two_steps().await;
    let asleep = world.head();
    let late = world.build(&base).await;
    let sealed = world.store.steal(&format!("vault/{}", late.manifest().unwrap().name())).unwrap();
    (0..3).for_each(|_| random_commit(&mut world, &mut rng(78)));
    world.store.advance(Duration::from_secs(10));
    let next = world.build(&base).await;
    world.store.advance(Duration::from_secs(10));
    world.store.plant(&format!("vault/{}", manifest_name(asleep)), sealed);

    let (listed, time) = manifests(&world.bucket).await.unwrap();
    let overtaken: Vec<_> = listed.iter().map(|m| (m.number, m.overtaken)).collect();
    let first = base.manifest().unwrap().commit;
    assert_eq!(overtaken, [(first, false), (asleep, true), (world.head(), false)]);
    assert!(listed.iter().all(|manifest| manifest.modified <= time));
    assert_eq!(world.newest().await.manifest(), next.manifest());
    let found = newest_of(&listed, asleep, &world.bucket, &world.keys).await.unwrap();
    assert!(found.refused.is_empty() && found.manifest.as_ref() == base.manifest());
    // Only a manifest that verifies overtakes another. Otherwise anybody with write access to the bucket could hide every
    // checkpoint.
    let stranger = CommitNo(u64::MAX);
    world.store.plant(&format!("vault/{}", manifest_name(stranger)), vec![0; 2000]);
    world.store.advance(Duration::from_secs(10));
    random_commit(&mut world, &mut rng(79));
    let last = world.build(&next).await;
    let (listed, _) = manifests(&world.bucket).await.unwrap();
    let found = newest_of(&listed, stranger, &world.bucket, &world.keys).await.unwrap();
    assert_eq!(found.refused.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [stranger]);
    assert_eq!(found.manifest.as_ref(), last.manifest());
    // Nothing above is fetched.
    let found = newest_of(&listed, first, &world.bucket, &world.keys).await.unwrap();
    assert!(found.refused.is_empty() && found.manifest.as_ref() == base.manifest());
}
