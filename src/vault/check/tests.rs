use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::cache::{Budgets, Cache};
use crate::checkpoint::{Base, BuildContext, CommitSource, Sizes, SourcedCommit, build};
use crate::content::{Footer, FooterEntry, seal_footer};
use crate::crypto::{self, FIRST_EPOCH, MasterKey, Place, layout};
use crate::log::{CommitContent, CommitHeader, commit_name, open_commit, seal_commit};
use crate::records::{Change, Entry, Inode, Transaction, encode_value};
use crate::store::{
    Begin, Body, Deadlines, Fault, Faulty, Fetched, Listing, MemoryStore, On, Put, PutReply, Verb,
};
use crate::types::{
    CommitNo, Extent, ExtentId, Generation, Hash, MIB, Reference, Timestamp, VaultId,
};
use crate::upload::pack_object;

/// A vault of a few files, made by hand.
struct World {
    store: Arc<MemoryStore>,
    faulty: Arc<Faulty>,
    bucket: Bucket,
    keys: Keys,
    head: (CommitNo, Hash),
    next: u64,
}

fn put(key: &Key, value: Bytes) -> Change {
    Change { key: key.encode(), value: Some(value) }
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let faulty = Faulty::over(store.clone());
        let bucket = Bucket::over(faulty.clone(), "v/", Deadlines::of(Duration::from_millis(300)));
        let keys = Keys::derive(&MasterKey::from_bytes([3; 32]), VaultId([1; 16]), FIRST_EPOCH);
        Self { store, faulty, bucket, keys, head: (CommitNo(0), Hash::ZERO), next: 2 }
    }

    /// Two directories with three files each; each directory's files share a pack.
    async fn filled() -> Self {
        let mut world = Self::new();
        let root = Inode { mode: libc::S_IFDIR | 0o755, ..Inode::default() };
        world.commit(vec![put(&Key::Inode(InodeNo::ROOT), encode_value(&root))]).await;
        for name in ["docs", "photos"] {
            world.directory(name).await;
        }
        world
    }

    fn ino(&mut self) -> InodeNo {
        self.next += 1;
        InodeNo(self.next - 1)
    }

    fn entry(&self, parent: InodeNo, name: &[u8], ino: InodeNo, kind: u32) -> Change {
        let key = Key::Entry(parent, self.keys.name_hash(parent, name));
        put(&key, encode_value(&Entry { name: name.to_vec(), ino, kind }))
    }

    async fn directory(&mut self, name: &str) {
        let dir = self.ino();
        let inode =
            Inode { mode: libc::S_IFDIR | 0o755, parent: InodeNo::ROOT, ..Inode::default() };
        let mut changes = vec![
            put(&Key::Inode(dir), encode_value(&inode)),
            self.entry(InodeNo::ROOT, name.as_bytes(), dir, libc::S_IFDIR),
        ];
        let pack = PackId(crypto::random());
        let (mut bytes, mut footer) = (Vec::new(), Footer::default());
        for number in 0..3u8 {
            let ino = self.ino();
            let extent = ExtentId(crypto::random());
            let plain = vec![number; 20_000];
            let offset = bytes.len() as u64;
            let (salt, commitment) = self.keys.seal_into(Place::Extent(extent), &plain, &mut bytes);
            let reference = Reference {
                pack,
                offset,
                sealed_length: layout::sealed_length(20_000),
                extent,
                plain_length: 20_000,
                codec: 0,
                salt,
                commitment,
                epoch: FIRST_EPOCH,
            };
            let name = format!("file-{number}").into_bytes();
            changes.push(self.entry(dir, &name, ino, libc::S_IFREG));
            let entry = FooterEntry { reference: reference.clone(), inode: ino, offset: 0, name };
            footer.entries.push(entry);
            let whole = Extent { skip: 0, length: 20_000, reference };
            // The last one as records of its own, in two parts.
            if number == 2 {
                let inode = Inode { mode: libc::S_IFREG, size: 20_000, ..Inode::default() };
                changes.push(put(&Key::Inode(ino), encode_value(&inode)));
                for (from, to) in [(0, 500), (500, 20_000)] {
                    let part = encode_value(&whole.part(from, to));
                    changes.push(put(&Key::Extent(ino, from), part));
                }
            } else {
                let inode = Inode {
                    mode: libc::S_IFREG,
                    size: 20_000,
                    extent: Some(whole),
                    ..Inode::default()
                };
                changes.push(put(&Key::Inode(ino), encode_value(&inode)));
            }
        }
        let end = bytes.len() as u64;
        bytes.extend(seal_footer(&self.keys, pack, &footer, end));
        self.bucket.put_new(&pack_object(pack), bytes.into()).await.unwrap();
        self.commit(changes).await;
    }

    async fn commit(&mut self, changes: Vec<Change>) {
        let number = self.head.0.next();
        let header = CommitHeader {
            vault: self.keys.vault(),
            number,
            previous: self.head.1,
            claim: CommitNo(1),
            generation: Generation(1),
            time: Timestamp::default(),
            records: Vec::new(),
        };
        let transactions = vec![Transaction::new(changes).encode().unwrap()];
        let sealed = seal_commit(&self.keys, &CommitContent { header, transactions });
        self.head = (number, crypto::sha256(&sealed));
        self.bucket.put_new(&commit_name(number), sealed).await.unwrap();
    }

    async fn checkpoint(&self) {
        let dir = tempfile::tempdir().unwrap();
        let budgets = Budgets { memory: MIB, disk: MIB };
        let cache = Cache::open(dir.path(), self.bucket.clone(), budgets).unwrap();
        let context = BuildContext {
            keys: &self.keys,
            bucket: &self.bucket,
            cache: &cache,
            generation: Generation(1),
            time: Timestamp::default(),
            sizes: Sizes { block: 200, page: 300, pass: 1 << 20 },
        };
        build(&Base::empty(), self, self.head.0, &context).await.unwrap();
    }

    async fn check(&self, read_data: bool) -> Report {
        self.checker(1).run(read_data).await.unwrap()
    }

    fn checker(&self, generation: u64) -> Check<'_> {
        Check {
            bucket: &self.bucket,
            keys: &self.keys,
            generation: Generation(generation),
            seen: None,
            progress: &|_, _| (),
            references: 2,
        }
    }

    /// The names in the bucket that begin so.
    fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.store.names().into_iter();
        names
            .filter(|name| name.strip_prefix("v/").is_some_and(|n| n.starts_with(prefix)))
            .collect()
    }

    fn replace(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.store.steal(name).unwrap().to_vec();
        change(&mut bytes);
        self.store.plant(name, bytes);
    }
}

#[async_trait::async_trait]
impl CommitSource for World {
    async fn get(&self, number: CommitNo) -> crate::checkpoint::Result<SourcedCommit> {
        let sealed = self.bucket.get(&commit_name(number), None).await?;
        let content = open_commit(&self.keys, number, &sealed)?;
        Ok(SourcedCommit { hash: crypto::sha256(&sealed), content })
    }
}

/// What all findings say, in one text.
fn text(report: &Report) -> String {
    report.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
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
            assert!(report.problems.is_empty(), "{}", text(&report));
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
            let [problem] = &report.problems[..] else { panic!("{}", text(&report)) };
            assert_eq!(format!("v/{}", problem.object), *pack);
            assert_eq!(problem.inodes, 3);
            let dir = problem.files[0].split('/').next().unwrap();
            let expected: Vec<_> = (0..3).map(|n| format!("{dir}/file-{n}")).collect();
            assert_eq!(problem.files, expected);
            assert!(text(&report).contains("3 files cannot be read whole: "));
        }
    }
}

#[tokio::test]
async fn a_changed_extent_is_found_when_data_is_read() {
    let world = World::filled().await;
    let pack = &world.names("pack/")[1];
    for at in [0, 30, 57, 16_400, 20_000] {
        world.replace(pack, |bytes| bytes[at] ^= 1);
        assert!(world.check(false).await.problems.is_empty());
        let report = world.check(true).await;
        let [problem] = &report.problems[..] else { panic!("{}", text(&report)) };
        assert_eq!(problem.inodes, 1, "{problem}");
        assert!(problem.files[0].ends_with("/file-0"), "{problem}");
        world.replace(pack, |bytes| bytes[at] ^= 1);
    }
    // Another pack in its place, as large as it.
    let packs = world.names("pack/");
    let other = world.store.peek(&packs[0]).unwrap();
    world.replace(pack, |bytes| *bytes = other.to_vec());
    assert_eq!(world.check(true).await.problems[0].inodes, 3);
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
        let [problem] = &report.problems[..] else { panic!("{}", text(&report)) };
        assert!(problem.what.contains("footer") && problem.inodes == 0, "{problem}");
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
        let [problem] = &report.problems[..] else { panic!("{}", text(&report)) };
        assert!(problem.to_string().contains("commit 2"), "{problem}");
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
    let [problem] = &report.problems[..] else { panic!("{}", text(&report)) };
    assert_eq!(problem.object, "checkpoint/0000000000000003");
    assert_eq!((report.packs, report.commits), (2, 3), "the log makes up for it");
}

#[tokio::test]
async fn what_nothing_refers_to_is_counted() {
    let world = World::filled().await;
    let id = PackId([9; 16]);
    world.bucket.put_new(&pack_object(id), vec![1; 77].into()).await.unwrap();
    world.store.plant("v/pack/stranger", vec![1; 9]);
    let report = world.check(true).await;
    assert!(report.problems.is_empty());
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
    assert_eq!(world.checker(0).run(false).await.unwrap().problems.len(), 1);
}

#[test]
fn k3_a_row_that_counts_wrongly_is_found() {
    let reference = |pack: u8| Reference {
        pack: PackId([pack; 16]),
        offset: 0,
        sealed_length: 100,
        extent: ExtentId([1; 16]),
        plain_length: 28,
        codec: 0,
        salt: [0; 24],
        commitment: [0; 32],
        epoch: FIRST_EPOCH,
    };
    let wrong = |rows: &[(u8, u64, u64)]| {
        let mut survey = Survey::default();
        let mut see = |key: Key, value: Bytes| {
            let key = key.encode();
            survey.count_base(&Record { key: &key, base: Some(&value), now: None }).unwrap();
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
    let printed = report::printable(b"a\x1b[2Jb\nc\xff d");
    assert_eq!(printed, "a\\u{1b}[2Jb\\nc\u{fffd} d");
    let files = (0..12).map(|n| n.to_string()).collect();
    let problem = Problem { inodes: 30, files, ..Problem::of("pack/x", "it is missing") };
    let text = problem.to_string();
    assert!(text.starts_with("pack/x: it is missing; 30 files cannot be read whole: 0, 1, "));
    assert!(text.ends_with(", 9 and 20 more"), "{text}");
    assert_eq!(Problem::of("a", "b").to_string(), "a: b");
}

/// A store that lists and tells lengths that no object has.
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
    world.bucket = Bucket::over(liar, "v/", Deadlines::of(Duration::from_millis(300)));
    for read_data in [false, true] {
        let report = world.check(read_data).await;
        assert_eq!(report.unused, (2, u64::MAX));
        assert!(text(&report).contains("longer than a manifest can be"), "{}", text(&report));
    }
}
