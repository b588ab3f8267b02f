//! A long log: looking back reads each commit once, many at a time, and no more of them than it needs.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::*;
use crate::store::{Fault, On, Verb};
use crate::vault::{FileVersion, HistoryStep, Restoring};
use crate::vfs::{SetTime, Setter};

/// How many commits are made.
const COMMITS: u64 = 2000;
/// How long each request takes.
const TRIP: Duration = Duration::from_millis(20);

/// Makes `COMMITS` commits: `g` changes in each, and `f` in those of `written`.
async fn lived_long(world: &World, written: &[u64]) {
    let vault = world.open("a").await;
    let vfs = vault.vfs();
    write(&vfs, "g", b"g").await;
    let g = vfs.lookup(InodeNo::ROOT, b"g").await.unwrap().ino;
    for n in 0..COMMITS {
        if written.contains(&n) {
            write(&vfs, "f", &bytes(1, usize::try_from(n).unwrap())).await;
        }
        let mtime = Some(SetTime::To(crate::types::Timestamp::now()));
        let set = SetAttributes { mtime, ..SetAttributes::default() };
        vfs.set_attributes(g, &set).await.unwrap();
        vault.sync(LONG).await.unwrap();
    }
    vault.close(LONG).await.unwrap();
}

async fn sizes(vault: &Vault) -> (Vec<u64>, u64) {
    let (mut found, mut said) = (Vec::<FileVersion>::new(), 0);
    let mut tell = |step| {
        match step {
            HistoryStep::Version(version) => found.push(version),
            HistoryStep::Read { commits, of } => {
                assert!(commits <= of && of >= COMMITS);
                said += 1;
            }
        }
        ControlFlow::Continue(())
    };
    vault.history(&[b"f".to_vec()], &mut tell).await.unwrap();
    (found.iter().map(|version| version.size).collect(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_history_is_read_once_and_a_restoration_reads_its_end() {
    let world = World::new().await;
    let written = [10, 500, COMMITS - 5, COMMITS - 2];
    lived_long(&world, &written).await;
    let slow = || world.faulty.inject(On::next(Verb::Get, "").always(), Fault::Delays(TRIP));

    // Another machine, which has none of the commits.
    let vault = world.open("b").await;
    slow();
    world.faulty.take_requests();
    let began = Instant::now();
    let (found, said) = sizes(&vault).await;
    let (first, requests) = (began.elapsed(), world.faulty.take_requests().len());
    assert_eq!(found, written);
    assert!(said >= 30, "{said}");
    let began = Instant::now();
    let (found, _) = sizes(&vault).await;
    let (second, again) = (began.elapsed(), world.faulty.take_requests());
    assert_eq!(found, written);
    println!("history: {requests} requests, {first:?}; again: {}, {second:?}", again.len());
    assert!((2000..2100).contains(&requests), "{requests}");
    assert!(first < TRIP * 2000 / 4, "{first:?}");
    assert!(again.len() <= 10, "{}: {:?}", again.len(), &again[..11]);
    world.faulty.heal();
    vault.close(LONG).await.unwrap();
    drop(vault);

    // A third one restores what was there before: the commits since the newest checkpoint are enough.
    let vault = world.open("c").await;
    slow();
    world.faulty.take_requests();
    let what = Restoring { path: vec![b"f".to_vec()], at: None, to: None };
    vault.restore(&what, &mut |_| ControlFlow::Continue(())).await.unwrap();
    let requests = world.faulty.take_requests().len();
    println!("restore: {requests} requests");
    assert!(requests < 1200, "{requests}");
    let size = vault.vfs().lookup(InodeNo::ROOT, b"f").await.unwrap().size;
    assert_eq!(size, written[2]);
    let f = vault.vfs().lookup(InodeNo::ROOT, b"f").await.unwrap().ino;
    vault.vfs().set_xattr(f, b"user.x", b"1", 0, &Setter::Superuser).await.unwrap();
    world.faulty.heal();
    vault.close(LONG).await.unwrap();
}

/// A large file comes back in a few requests: nothing is fetched, and only records are sent (V4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v4_a_large_file_comes_back_without_its_bytes() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let (packs, data) = (4, bytes(1, 64 << 20));
    write(&vault.vfs(), "f", &data).await;
    write(&vault.vfs(), "small", &data[..100_000]).await;
    vault.sync(LONG).await.unwrap();
    let at = StateAt::Commit(vault.status().head.0);
    for name in [&b"f"[..], b"small"] {
        vault.vfs().unlink(InodeNo::ROOT, name).await.unwrap();
    }
    vault.close(LONG).await.unwrap();
    drop(vault);

    // A machine that has nothing of it locally.
    let vault = world.open("b").await;
    world.faulty.take_requests();
    let back = async |name: &str| {
        let path = vec![name.as_bytes().to_vec()];
        let what = Restoring { path, at: Some(at.clone()), to: None };
        let done = vault.restore(&what, &mut |_| ControlFlow::Continue(())).await.unwrap();
        vault.sync(LONG).await.unwrap();
        let requests = world.faulty.take_requests();
        let packs = requests.iter().filter(|request| request.name.starts_with("pack/"));
        let of = |verb: Verb| packs.clone().filter(|request| request.verb == verb).count();
        (done, requests.len(), [of(Verb::Head), of(Verb::Get), of(Verb::Put)])
    };
    let (done, requests, of_packs) = back("f").await;
    println!("restore of 64 MiB: {requests} requests, of packs {of_packs:?}");
    assert_eq!((done.bytes, done.shared), (64 << 20, 64 << 20));
    assert!((packs..packs + 3).contains(&of_packs[0]), "{of_packs:?}");
    assert_eq!(of_packs[1..], [0, 0]);
    assert!(requests < 30, "{requests}");
    // A short file is copied.
    let (done, _, of_packs) = back("small").await;
    assert_eq!((done.bytes, done.shared), (100_000, 0));
    assert_eq!(of_packs[2], 1);
    let model =
        BTreeMap::from([("f".into(), data.clone()), ("small".into(), data[..100_000].into())]);
    assert_eq!(tree(&vault).await, model);

    // A pack that is gone from the bucket is noticed before anything is replaced.
    let pack =
        world.store.names().into_iter().find(|name| {
            name.starts_with("pack/") && world.store.peek(name).unwrap().len() > 10 << 20
        });
    let stolen = (pack.clone().unwrap(), world.store.steal(&pack.unwrap()).unwrap());
    write(&vault.vfs(), "f", b"now").await;
    vault.sync(LONG).await.unwrap();
    vault.close(LONG).await.unwrap();
    drop(vault);
    let vault = world.open("c").await;
    let what = Restoring { path: vec![b"f".to_vec()], at: Some(at), to: None };
    vault.restore(&what, &mut |_| ControlFlow::Continue(())).await.unwrap_err();
    assert_eq!(read(&vault.vfs(), b"f").await, b"now");
    world.store.plant(&stolen.0, stolen.1);
    vault.restore(&what, &mut |_| ControlFlow::Continue(())).await.unwrap();
    assert!(read(&vault.vfs(), b"f").await == data);
    vault.close(LONG).await.unwrap();
}
