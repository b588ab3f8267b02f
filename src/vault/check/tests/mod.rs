mod world;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::world::World;
use super::*;
use crate::records::encode_value;
use crate::store::{
    self, Begin, Body, Deadlines, Fault, Fetched, Listing, MemoryStore, On, Put, PutReply, Verb,
};
use crate::types::{Extent, Reference};

/// The text of all findings.
fn text(report: &CheckReport) -> String {
    report.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_whole_vault_has_no_problems() {
    let mut world = World::filled().await;
    for checkpoint in [false, true] {
        if checkpoint {
            world.checkpoint().await;
            world.directory("later").await;
        }
        for read_data in [false, true] {
            let report = world.check(read_data).await;
            assert!(report.findings.is_empty(), "{}", text(&report));
            let directories = if checkpoint { 3 } else { 2 };
            assert_eq!(report.packs, directories);
            assert_eq!(report.inodes, 1 + 4 * directories);
            assert_eq!(report.extents, 4 * directories);
            assert_eq!(report.bytes, 60_000 * directories);
            assert_eq!(report.commits, if checkpoint { 1 } else { 3 });
            assert_eq!(report.unused, (0, 0));
        }
    }
    assert!(!world.names("page/").is_empty());
}

#[tokio::test]
async fn a_missing_or_short_pack_is_named_with_its_files() {
    for short in [false, true] {
        let world = World::filled().await;
        let pack = &world.names("pack/")[0];
        if short {
            world.replace(pack, |bytes| bytes.truncate(60_000));
        } else {
            world.store.steal(pack);
        }
        for read_data in [false, true] {
            let report = world.check(read_data).await;
            let [finding] = &report.findings[..] else { panic!("{}", text(&report)) };
            assert_eq!(format!("v/{}", finding.object), *pack);
            assert_eq!(finding.inodes, 3);
            let dir = finding.files[0].split('/').next().unwrap();
            let expected: Vec<_> = (0..3).map(|n| format!("{dir}/file-{n}")).collect();
            assert_eq!(finding.files, expected);
            assert!(text(&report).contains("3 files cannot be read whole: "));
        }
    }
}

#[tokio::test]
async fn a_changed_extent_is_found_when_data_is_read() {
    let world = World::filled().await;
    let pack = &world.names("pack/")[1];
    // A file's record has all that is needed to read it: the header of a message may be anything.
    for (at, is_needed) in [(0, false), (30, false), (57, true), (16_400, true), (20_000, true)] {
        world.replace(pack, |bytes| bytes[at] ^= 1);
        assert!(world.check(false).await.findings.is_empty());
        let report = world.check(true).await;
        let [finding] = &report.findings[..] else { panic!("{}", text(&report)) };
        assert_eq!(finding.inodes, u64::from(is_needed), "{finding}");
        assert_eq!(finding.what.contains("not where a file needs it"), !is_needed, "{finding}");
        assert!(!is_needed || finding.files[0].ends_with("/file-0"), "{finding}");
        world.replace(pack, |bytes| bytes[at] ^= 1);
    }
    // Another pack in its place, of the same length.
    let packs = world.names("pack/");
    let other = world.store.peek(&packs[0]).unwrap();
    world.replace(pack, |bytes| *bytes = other.to_vec());
    assert_eq!(world.check(true).await.findings[0].inodes, 3);
}

#[tokio::test]
async fn a_bad_footer_is_found_and_costs_no_file() {
    let world = World::filled().await;
    world.replace(&world.names("pack/")[0], |bytes| {
        let at = bytes.len() - 30;
        bytes[at] ^= 1;
    });
    for read_data in [false, true] {
        let report = world.check(read_data).await;
        let [finding] = &report.findings[..] else { panic!("{}", text(&report)) };
        assert!(finding.what.contains("footer") && finding.inodes == 0, "{finding}");
    }
}

#[tokio::test]
async fn a_missing_or_changed_commit_is_named() {
    let world = World::filled().await;
    let good = world.store.snapshot();
    let flip = |bytes: &mut Vec<u8>| bytes[70] ^= 1;
    for change in 0..3 {
        world.store.restore(good.clone());
        match change {
            0 => drop(world.store.steal("v/log/0000000000000002")),
            1 => world.replace("v/log/0000000000000002", flip),
            _ => {
                let last = world.store.steal("v/log/0000000000000003").unwrap();
                world.replace("v/log/0000000000000002", |bytes| *bytes = last.to_vec());
            }
        }
        let report = world.check(false).await;
        let [finding] = &report.findings[..] else { panic!("{}", text(&report)) };
        assert!(finding.to_string().contains("commit 2"), "{finding}");
        assert_eq!(report.unused.0, 2, "packs of commits that are not read");
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_named() {
    let world = World::filled().await;
    world.checkpoint().await;
    let pages = world.names("page/");
    assert!(pages.len() > 3);
    let good = world.store.snapshot();
    let middle = &pages[pages.len() / 2];
    for change in 0..3 {
        world.store.restore(good.clone());
        match change {
            0 => drop(world.store.steal(middle)),
            1 => world.replace(middle, |bytes| bytes[99] ^= 1),
            _ => {
                let other = world.store.peek(&pages[0]).unwrap();
                world.replace(middle, |bytes| *bytes = other.to_vec());
            }
        }
        let report = world.check(false).await;
        assert!(text(&report).contains(middle.strip_prefix("v/").unwrap()), "{}", text(&report));
        assert!(text(&report).contains("records (names, files) are lost"));
    }
    world.store.restore(good);
    world.replace("v/checkpoint/0000000000000003", |bytes| bytes[99] ^= 1);
    let report = world.check(true).await;
    let [finding] = &report.findings[..] else { panic!("{}", text(&report)) };
    assert_eq!(finding.object, "checkpoint/0000000000000003");
    assert_eq!((report.packs, report.commits), (2, 3), "the log makes up for it");
}

#[tokio::test]
async fn what_nothing_refers_to_is_counted() {
    let world = World::filled().await;
    let id = PackId([9; 16]);
    world.bucket.put_new(&pack_object(id), vec![1; 77].into()).await.unwrap();
    world.store.plant("v/pack/stranger", vec![1; 9]);
    let report = world.check(true).await;
    assert!(report.findings.is_empty());
    assert_eq!(report.unused, (1, 77));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_no_finding() {
    let world = World::filled().await;
    world.checkpoint().await;
    for prefix in ["v/checkpoint/", "v/page/", "v/pack/"] {
        let cause = Arc::new(std::io::Error::other("a test says so"));
        let denied = store::Error::Denied { object: "any".into(), cause };
        world.faulty.inject(On::next(Verb::Get, prefix).always(), Fault::Fails(denied));
        assert!(world.checker(1).run(true).await.is_err(), "{prefix}");
        world.faulty.heal();
    }
}

#[tokio::test]
async fn o1_an_old_superblock_is_named() {
    let world = World::filled().await;
    let report = world.checker(0).run(false).await.unwrap();
    assert!(text(&report).contains("superblock/0000000000000001"), "{}", text(&report));
    world.checkpoint().await;
    assert_eq!(world.checker(0).run(false).await.unwrap().findings.len(), 1);
}

#[test]
fn k3_a_row_that_counts_wrongly_is_found() {
    let reference = |pack: u8| Reference::made_up(pack, 28);
    let wrong = |rows: &[(u8, u64, u64)]| {
        let mut survey = PackTally::default();
        let mut see = |key: Key, value: Bytes| {
            let key = key.encode();
            survey.count_base(&MergedRecord { key: &key, base: Some(&value), now: None }).unwrap();
        };
        for (ino, pack) in [(1, 1), (2, 1), (3, 2)] {
            let extent = Extent { skip: 0, length: 5, reference: reference(pack) };
            see(Key::Extent(InodeNo(ino), 0), encode_value(&extent));
        }
        for &(pack, references, live) in rows {
            let row = PackInfo { references, live, ..PackInfo::default() };
            see(Key::Pack(PackId([pack; 16])), encode_value(&row));
        }
        survey.mismatches()
    };
    let id = |pack: u8| PackId([pack; 16]);
    assert_eq!(wrong(&[(1, 2, 10), (2, 1, 5), (3, 0, 0)]), []);
    assert_eq!(wrong(&[(1, 1, 10), (2, 1, 5)]), [id(1)]);
    assert_eq!(wrong(&[(1, 2, 9), (2, 1, 5)]), [id(1)]);
    assert_eq!(wrong(&[(1, 2, 10)]), [id(2)], "a row is missing");
    assert_eq!(wrong(&[(1, 2, 10), (2, 1, 5), (3, 1, 0)]), [id(3)]);
}

#[test]
fn names_are_printed_without_control_characters() {
    let printed = findings::printable(b"a\x1b[2Jb\nc\xff d");
    assert_eq!(printed, "a\\u{1b}[2Jb\\nc\u{fffd} d");
    let files = (0..12).map(|n| n.to_string()).collect();
    let finding = Finding { inodes: 30, files, ..Finding::of("pack/x", "it is missing") };
    let text = finding.to_string();
    assert!(text.starts_with("pack/x: it is missing; 30 files cannot be read whole: 0, 1, "));
    assert!(text.ends_with(", 9 and 20 more"), "{text}");
    assert_eq!(Finding::of("a", "b").to_string(), "a: b");
}

/// A store whose listings and HEADs give lengths that no object has.
#[derive(Debug)]
struct Liar(Arc<MemoryStore>);

#[async_trait::async_trait]
impl store::Store for Liar {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> store::Result<PutReply> {
        self.0.put(name, body, condition).await
    }
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> store::Result<Fetched> {
        self.0.get(name, range).await
    }
    async fn head(&self, name: &str) -> store::Result<store::HeadReply> {
        Ok(store::HeadReply { length: u64::MAX, ..self.0.head(name).await? })
    }
    async fn list(&self, prefix: &str, begin: &Begin) -> store::Result<Listing> {
        let mut listing = self.0.list(prefix, begin).await?;
        listing.objects.iter_mut().for_each(|object| object.length = u64::MAX);
        Ok(listing)
    }
    async fn delete(&self, names: &[String]) -> store::Result<()> {
        self.0.delete(names).await
    }
}

#[tokio::test]
async fn lengths_that_no_object_has_end_no_check() {
    let mut world = World::filled().await;
    world.checkpoint().await;
    for n in 1..3 {
        world.bucket.put_new(&pack_object(PackId([n; 16])), vec![1; 77].into()).await.unwrap();
    }
    let liar = Arc::new(Liar(world.store.clone()));
    world.ground.bucket = Bucket::over(liar, "v/", Deadlines::of(Duration::from_millis(300)));
    for read_data in [false, true] {
        let report = world.check(read_data).await;
        assert_eq!(report.unused, (2, u64::MAX));
        assert!(text(&report).contains("longer than a manifest can be"), "{}", text(&report));
    }
}
