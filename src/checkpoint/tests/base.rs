//! Look-ups over the base (rule J9).

use std::ops::Bound;

use super::*;
use crate::store::Verb;

fn entry(parent: u64, number: u64) -> Change {
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let name = format!("file-{number:08}.data").into_bytes();
    let key = Key::Entry(InodeNo(parent), NameHash(hash));
    put(&key, encode_value(&Entry { name, ino: InodeNo(number), kind: libc::S_IFREG }))
}

/// `dirs` directories in the root, each with `files` files of one extent.
fn tree(world: &mut World, dirs: u64, files: u64) {
    let directory = encode_value(&Inode { mode: libc::S_IFDIR | 0o755, ..Inode::default() });
    world.commit(vec![], vec![vec![put(&Key::Inode(InodeNo(1)), directory.clone())]]);
    for dir in 0..dirs {
        let ino = 2 + dir * (files + 1);
        let mut changes = vec![put(&Key::Inode(InodeNo(ino)), directory.clone()), entry(1, ino)];
        for number in ino + 1..=ino + files {
            changes.push(put(&Key::Inode(InodeNo(number)), file(Some(extent(7, 4096)))));
            changes.push(entry(ino, number));
        }
        let number = world.head().next();
        // Not through `commit`, whose model scans the whole map after each transaction.
        for change in &changes {
            world.model.insert(change.key.clone(), change.value.clone().unwrap());
        }
        let header = CommitHeader {
            number,
            previous: world.log.commits.last().unwrap().hash,
            ..world.log.commits[0].content.header.clone()
        };
        let content = CommitContent {
            header,
            transactions: changes
                .chunks(5000)
                .map(|part| Transaction::new(part.to_vec()).encode().unwrap())
                .collect(),
        };
        let hash = crypto::sha256(&seal_commit(&world.keys, &content));
        world.log.commits.push(SourcedCommit { hash, content });
    }
}

fn gets(world: &World) -> usize {
    world.faulty.take_requests().iter().filter(|request| request.verb == Verb::Get).count()
}

#[tokio::test]
async fn j9_the_first_ls_and_stat_of_100_000_files_are_cheap() {
    let mut world = World::new(Sizes::default());
    tree(&mut world, 100, 1000);
    world.build(&Base::empty()).await;
    gets(&world);
    let before = world.bucket.requests();

    let base = world.newest().await;
    assert!(get(&base, &Key::Inode(InodeNo(1)).encode()).await.unwrap().is_some());
    let root = |parent: u64| [&Tag::Entry.begin()[..], &parent.to_be_bytes()].concat();
    let scan = base.range(Bound::Included(&root(1)), Bound::Excluded(&root(2)));
    let names = collect(&base, scan).await.unwrap();
    assert_eq!(names.len(), 100);
    let some = Key::Inode(InodeNo(2 + 57 * 1001));
    assert!(get(&base, &some.encode()).await.unwrap().is_some());
    // Orphans and xattrs that do not exist cost nothing.
    let absent = Key::Xattr(InodeNo(1), NameHash([1; 16])).encode();
    assert_eq!(get(&base, &absent).await.unwrap(), None);
    assert_eq!(base.records(Tag::Orphan), 0);

    let count = gets(&world);
    let bytes = world.bucket.requests().bytes_got - before.bytes_got;
    assert!(count <= 8, "{count} GETs");
    assert!(bytes < MIB, "{bytes} bytes");
}

#[tokio::test]
async fn j9_a_lookup_is_one_get_more_once_the_index_is_here() {
    let mut world = World::new(Sizes::default());
    tree(&mut world, 1, 4000);
    world.build(&Base::empty()).await;
    let base = world.newest().await;
    gets(&world);
    let key = |ino| Key::Inode(InodeNo(ino)).encode();
    assert!(get(&base, &key(1000)).await.unwrap().is_some());
    assert_eq!(gets(&world), 1, "the block: its index is in the manifest");
    assert!(get(&base, &key(1001)).await.unwrap().is_some());
    assert_eq!(gets(&world), 0, "the same block");
    assert!(get(&base, &key(3000)).await.unwrap().is_some());
    assert_eq!(gets(&world), 1, "another block");
    // What is beyond the table is known without reading a page.
    assert_eq!(get(&base, &key(4003)).await.unwrap(), None);
    let new = [&Tag::Entry.begin()[..], &5000u64.to_be_bytes()].concat();
    let scan = base.range(Bound::Included(&new), Bound::Excluded(&[4]));
    assert!(collect(&base, scan).await.unwrap().is_empty());
    assert_eq!(gets(&world), 0);
}

#[tokio::test]
async fn j9_a_long_scan_takes_few_gets() {
    let mut world = World::new(Sizes::default());
    tree(&mut world, 1, 30_000);
    world.build(&Base::empty()).await;
    let base = world.newest().await;
    gets(&world);
    let parent = |ino: u64| [&Tag::Entry.begin()[..], &ino.to_be_bytes()].concat();
    let scan = base.range(Bound::Excluded(&parent(2)), Bound::Excluded(&parent(3)));
    assert_eq!(collect(&base, scan).await.unwrap().len(), 30_000);
    let count = gets(&world);
    assert!(count <= 12, "{count} GETs for 2 MiB of entries");
}

#[tokio::test]
async fn j9_lookups_and_ranges_equal_the_map() {
    let mut world = World::new(SMALL);
    let mut rng = rng(11);
    (0..40).for_each(|_| random_commit(&mut world, &mut rng));
    let base = world.build(&Base::empty()).await;
    let expected = world.expected();
    for _ in 0..400 {
        let key = random_change(&mut rng).key;
        assert_eq!(get(&base, &key).await.unwrap().as_ref(), expected.get(&key));
    }
    for _ in 0..200 {
        let (a, b) = (random_change(&mut rng).key, random_change(&mut rng).key);
        let (from, to) = if a <= b { (a, b) } else { (b, a) };
        let (lower, upper) = match rng.random_range(0..4) {
            0 => (Bound::Included(&from[..]), Bound::Included(&to[..])),
            1 => (Bound::Included(&from[..]), Bound::Excluded(&to[..])),
            2 => (Bound::Excluded(&from[..]), Bound::Included(&to[..])),
            _ => (Bound::Unbounded, Bound::Included(&to[..])),
        };
        let found = collect(&base, base.range(lower, upper)).await.unwrap();
        let model = expected.range::<[u8], _>((lower, upper));
        assert!(found.iter().map(|(k, v)| (&k[..], v)).eq(model.map(|(k, v)| (&k[..], v))));
    }
    let mut pins = Pins::new();
    loop {
        match base.next(Bound::Unbounded, Bound::Unbounded, &pins) {
            Ok(first) => {
                let (key, value) = first.unwrap();
                assert_eq!((&key.to_vec(), &value), expected.first_key_value().unwrap());
                break;
            }
            Err(miss) => base.fetch(&miss, &mut pins).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn j9_a_miss_is_fetched_though_the_base_was_switched() {
    let mut world = World::new(SMALL);
    tree(&mut world, 2, 50);
    let first = world.build(&Base::empty()).await;
    let cold = Base::new(first.manifest().unwrap().clone(), world.keys.clone(), world.cold());
    let mut pins = Pins::new();
    let key = Key::Inode(InodeNo(20)).encode();
    let miss = cold.get(&key, &pins).unwrap_err();
    Base::empty().fetch(&miss, &mut pins).await.unwrap();
    assert!(matches!(cold.get(&key, &pins), Ok(Found::Value(_))));
}

#[tokio::test]
async fn j9_a_changed_page_is_an_error_and_never_wrong_data() {
    let mut world = World::new(SMALL);
    let mut rng = rng(21);
    (0..30).for_each(|_| random_commit(&mut world, &mut rng));
    let built = world.build(&Base::empty()).await;
    let manifest = built.manifest().unwrap();
    let expected = world.expected();
    let page = &manifest.pages[manifest.pages.len() / 2];
    let name = format!("vault/{}", page.name());
    let good = world.store.peek(&name).unwrap();
    let other = world.store.peek(&format!("vault/{}", manifest.pages[0].name())).unwrap();
    let mut bad: Vec<Bytes> = vec![other, good.slice(..good.len() / 2), Bytes::new()];
    for _ in 0..30 {
        let mut bytes = good.to_vec();
        let at = rng.random_range(56..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        bad.push(bytes.into());
    }
    for bytes in bad {
        world.store.steal(&name);
        world.store.plant(&name, bytes);
        let base = Base::new(manifest.clone(), world.keys.clone(), world.cold());
        let mut errors = 0;
        for (key, value) in &expected {
            match get(&base, key).await {
                Ok(found) => assert_eq!(found.as_ref(), Some(value)),
                Err(_) => errors += 1,
            }
        }
        assert!(errors > 0 && errors <= page.records);
        world.commit(vec![], vec![vec![delete(&Key::decode(&page.first_key).unwrap())]]);
        assert!(world.try_build(&base, &world.cold()).await.is_err(), "nor is it merged");
    }
}

#[tokio::test]
async fn j9_a_bad_local_copy_is_fetched_again() {
    let mut world = World::new(SMALL);
    tree(&mut world, 1, 300);
    let built = world.build(&Base::empty()).await;
    let cache = world.cold();
    for page in &built.manifest().unwrap().pages {
        cache.insert_whole(&page.name(), vec![9; page.sealed_length as usize].into());
    }
    let base = Base::new(built.manifest().unwrap().clone(), world.keys.clone(), cache);
    assert!(get(&base, &Key::Inode(InodeNo(77)).encode()).await.unwrap().is_some());
}

#[tokio::test]
async fn j9_an_empty_base_has_nothing() {
    let base = Base::empty();
    assert_eq!(get(&base, &[2, 0]).await.unwrap(), None);
    assert!(all(&base).await.is_empty());
    assert!(base.manifest().is_none());
}

#[tokio::test]
async fn a_fresh_checkpoint_is_on_this_machine() {
    let mut world = World::new(Sizes::default());
    tree(&mut world, 3, 100);
    let cache = world.cold();
    let base = world.try_build(&Base::empty(), &cache).await.unwrap();
    gets(&world);
    assert!(get(&base, &Key::Inode(InodeNo(77)).encode()).await.unwrap().is_some());
    assert_eq!(gets(&world), 0);
}

/// As a listing needs them: its names are in random order.
#[tokio::test]
async fn j9_what_many_lookups_missed_comes_with_few_gets() {
    let mut world = World::new(Sizes::default());
    tree(&mut world, 1, 30_000);
    world.build(&Base::empty()).await;
    let base = world.newest_in(world.cold_of(128 * MIB)).await;
    gets(&world);
    let mut rng = rng(5);
    let key = |ino: u64| Key::Inode(InodeNo(ino)).encode();
    let some: Vec<_> = (0..300).map(|_| key(rng.random_range(3..30_003))).collect();
    let missed = || some.iter().filter_map(|key| base.get(key, &Pins::new()).err());
    assert_eq!(missed().count(), some.len());
    let pages = missed().map(|miss| miss.page()).collect::<std::collections::BTreeSet<_>>().len();
    Base::fetch_all(missed().collect(), 64 * MIB).await.unwrap();
    assert_eq!(missed().count(), 0);
    let count = gets(&world);
    assert!(count <= 2 * pages, "{count} GETs of {pages} pages");
    // Two keys far from each other in one page: what lies between is not fetched.
    let base = world.newest().await;
    gets(&world);
    let before = world.bucket.requests();
    let far = [key(10), key(9_000)];
    let missed = far.iter().filter_map(|key| base.get(key, &Pins::new()).err()).collect();
    Base::fetch_all(missed, 64 * MIB).await.unwrap();
    let bytes = world.bucket.requests().bytes_got - before.bytes_got;
    assert!(far.iter().all(|key| base.get(key, &Pins::new()).is_ok()));
    assert!(gets(&world) <= 2 && bytes < 80 << 10, "{bytes} bytes");
    // No more bytes than allowed: the first misses.
    let base = world.newest().await;
    let before = world.bucket.requests();
    let missed: Vec<_> = some.iter().filter_map(|key| base.get(key, &Pins::new()).err()).collect();
    Base::fetch_all(missed, 100 << 10).await.unwrap();
    assert!(world.bucket.requests().bytes_got - before.bytes_got < 200 << 10);
    assert!(some[..3].iter().all(|key| base.get(key, &Pins::new()).is_ok()));
    // Nor more than a small cache keeps.
    let base = world.newest().await;
    let missed: Vec<_> = some.iter().filter_map(|key| base.get(key, &Pins::new()).err()).collect();
    Base::fetch_all(missed, 64 * MIB).await.unwrap();
    assert!(some[..25].iter().all(|key| base.get(key, &Pins::new()).is_ok()));
    assert!(some[60..].iter().any(|key| base.get(key, &Pins::new()).is_err()));
}
