use proptest::prelude::*;
use rand::Rng;

use super::super::changes::Gathered;
use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Checks that no page is much larger than it may be.
fn check_sizes(base: &Base, sizes: Sizes, largest: usize) {
    let manifest = base.manifest().unwrap();
    let pages = manifest.pages.len();
    for page in &manifest.pages {
        // Each block is padded to a chunk, so only its content can be judged: by the blocks.
        let blocks = (page.index_offset / crypto::layout::CHUNK) as usize;
        assert!(blocks <= (2 * sizes.page + largest) / (sizes.block / 2) + pages + 8);
    }
}

proptest! {
    #![proptest_config(crate::types::cases(40))]

    #[test]
    fn k1_checkpoints_in_steps_equal_the_map(
        seed: u64, block in 100usize..3000, page in 300usize..9000, pass in 500usize..60_000,
        steps in prop::collection::vec(1usize..12, 1..5),
    ) {
        runtime().block_on(async {
            let mut world = World::new(Sizes { block, page, pass });
            let mut rng = rng(seed);
            let mut base = Base::empty();
            for commits in steps {
                (0..commits).for_each(|_| random_commit(&mut world, &mut rng));
                base = world.build(&base).await;
                assert_eq!(all(&base).await, world.expected());
                check_sizes(&base, world.sizes, 41 * KIB as usize);
                let manifest = base.manifest().unwrap();
                for tag in Tag::ALL {
                    let expected = world.expected();
                    let keys: Vec<_> = expected.keys().filter(|key| key[0] == tag.byte()).collect();
                    assert_eq!(manifest.records(tag), keys.len() as u64);
                    if let Some(last) = keys.last() {
                        assert!(manifest.table(tag).unwrap().bound >= **last);
                    }
                }
                let live: u64 = world.packs.values().map(|row| row.live).sum();
                assert_eq!(manifest.live_bytes, live);
            }
            // Another machine finds the same.
            assert_eq!(all(&world.newest().await).await, world.expected());
        });
    }
}

/// Many inodes in order, so that their places in the pages are known.
fn many_files(world: &mut World, inodes: std::ops::Range<u64>) {
    let changes = inodes.map(|ino| put(&Key::Inode(InodeNo(ino)), file(None))).collect();
    world.commit(Vec::new(), vec![changes]);
}

#[tokio::test]
async fn k1_pages_without_a_change_are_shared() {
    let mut world = World::new(SMALL);
    many_files(&mut world, 1..1000);
    let first = world.build(&Base::empty()).await;
    world.commit(Vec::new(), vec![vec![put(&Key::Inode(InodeNo(500)), file(Some(extent(1, 5))))]]);
    let second = world.build(&first).await;
    let (first, pages) = (first.manifest().unwrap(), &second.manifest().unwrap().pages);
    assert!(first.pages.len() > 10);
    let fresh: Vec<_> = pages.iter().filter(|page| !first.pages.contains(page)).collect();
    // The page that holds the inode, and the last, which held the row of the pack.
    assert!(fresh.len() <= 3, "{}", fresh.len());
    assert!(fresh.iter().all(|page| page.number == CommitNo(2)));
    let puts = world.store.names().iter().filter(|name| name.contains("page/")).count();
    assert_eq!(puts, first.pages.len() + fresh.len());
    assert_eq!(all(&second).await, world.expected());
}

#[tokio::test]
async fn k1_small_neighbours_are_merged() {
    let mut world = World::new(SMALL);
    many_files(&mut world, 1..2000);
    let mut base = world.build(&Base::empty()).await;
    let full = base.manifest().unwrap().pages.len();
    // All records have one size, so their number tells a page's size.
    let usual = 1999 / full as u64;
    let mut rng = rng(5);
    for _ in 0..10 {
        let gone: BTreeMap<_, _> = (0..300)
            .map(|_| delete(&Key::Inode(InodeNo(rng.random_range(1..2000)))))
            .map(|change| (change.key.clone(), change))
            .collect();
        world.commit(Vec::new(), vec![gone.into_values().collect()]);
        base = world.build(&base).await;
        let pages = &base.manifest().unwrap().pages;
        let (last, others) = pages.split_last().unwrap();
        assert!(last.records > 0);
        for page in others {
            assert!(page.records >= usual * 2 / 5, "{} of {usual}", page.records);
            assert!(page.records <= usual * 8 / 5, "{} of {usual}", page.records);
        }
    }
    assert!(base.manifest().unwrap().pages.len() < full / 2);
    assert_eq!(all(&base).await, world.expected());
}

#[tokio::test]
async fn k1_memory_is_bounded_by_more_passes() {
    let mut world = World::new(Sizes { pass: 30_000, ..SMALL });
    let mut rng = rng(3);
    for _ in 0..40 {
        let changes = (0..50).map(|_| InodeNo(rng.random_range(1..5000)));
        let changes: BTreeMap<_, _> = changes.map(|ino| (ino, file(Some(extent(1, 9))))).collect();
        let changes =
            changes.into_iter().map(|(ino, value)| put(&Key::Inode(ino), value)).collect();
        world.commit(Vec::new(), vec![changes]);
    }
    let base = world.build(&Base::empty()).await;
    let passes = world.log.reads.load(Ordering::Relaxed) / 40;
    assert!((10..60).contains(&passes), "{passes} passes");
    assert_eq!(all(&base).await, world.expected());

    let (mut history, mut from, mut found) = (BTreeMap::new(), Vec::new(), 0);
    loop {
        let mut gathered = Gathered::new(from, 30_000);
        for commit in &world.log.commits {
            gathered.take(&commit.content, &mut history, &mut BTreeMap::new()).unwrap();
        }
        assert!(gathered.peak() < 31_000, "{}", gathered.peak());
        let (records, until) = gathered.into_parts();
        found += records.len();
        let Some(until) = until else { break };
        assert!(records.keys().all(|key| *key < until));
        from = until;
    }
    assert_eq!(found, world.model.len());
}

#[tokio::test]
async fn k1_only_commits_that_continue_each_other_are_merged() {
    for wrong in 0..3 {
        let mut world = World::new(SMALL);
        let mut rng = rng(9);
        (0..3).for_each(|_| random_commit(&mut world, &mut rng));
        let base = world.build(&Base::empty()).await;
        (0..3).for_each(|_| random_commit(&mut world, &mut rng));
        match wrong {
            0 => world.log.commits[3].hash = Hash([1; 32]),
            1 => world.log.commits[3].content.header.previous = Hash([1; 32]),
            _ => world.log.commits[4].content.header.number = CommitNo(6),
        }
        let refused = world.try_build(&base, &world.cold()).await;
        assert!(matches!(refused, Err(Error::Log(crate::log::Error::Fork { .. }))), "{refused:?}");
        assert_eq!(world.newest().await.manifest(), base.manifest());
    }
}

#[tokio::test]
async fn k1_without_new_commits_nothing_is_made() {
    let mut world = World::new(SMALL);
    many_files(&mut world, 1..100);
    let base = world.build(&Base::empty()).await;
    let names = world.store.names();
    assert_eq!(world.build(&base).await.manifest(), base.manifest());
    assert_eq!(world.store.names(), names);
}

#[test]
fn k1_a_checkpoint_is_due() {
    let is_due = |since: SinceCheckpoint| since.is_due(64 * MIB);
    let day = Duration::from_hours(24);
    let since = SinceCheckpoint::default();
    assert!(!is_due(since));
    assert!(!is_due(SinceCheckpoint {
        commits: 1023,
        log_bytes: 8 * MIB,
        transactions: 9,
        ..since
    }));
    assert!(is_due(SinceCheckpoint { commits: 1024, ..since }));
    assert!(is_due(SinceCheckpoint { log_bytes: 8 * MIB + 1, ..since }));
    let large = SinceCheckpoint { checkpoint_bytes: 100 * MIB, ..since };
    assert!(!is_due(SinceCheckpoint { log_bytes: 25 * MIB, ..large }));
    assert!(is_due(SinceCheckpoint { log_bytes: 25 * MIB + 1, ..large }));
    // The memory of the index is bounded, however large the vault.
    let huge = SinceCheckpoint { checkpoint_bytes: 1000 * MIB, ..since };
    assert!(!is_due(SinceCheckpoint { log_bytes: 64 * MIB, ..huge }));
    assert!(is_due(SinceCheckpoint { log_bytes: 64 * MIB + 1, ..huge }));
    assert!(!SinceCheckpoint { log_bytes: 8 * MIB, ..huge }.is_due(MIB), "never more often");
    assert!(!is_due(SinceCheckpoint { age: 9 * day, commits: 2, ..since }), "nothing changed");
    assert!(is_due(SinceCheckpoint { age: day, commits: 2, transactions: 1, ..since }));
}
