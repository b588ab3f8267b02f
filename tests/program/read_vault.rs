//! `scripts/read_vault.py`, which was written from `src/FORMAT.md` alone, reads what this code writes and refuses what
//! was tampered with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use std::sync::Arc;

use async_trait::async_trait;
use s3vault::testing::cache::{Budgets, Cache};
use s3vault::testing::checkpoint::{
    self, Base, BuildContext, CommitSource, Manifest, Sizes, SourcedCommit, build,
};
use s3vault::testing::content::{Footer, FooterEntry, seal_extent, seal_footer};
use s3vault::testing::crypto::{
    Argon2Params, FIRST_EPOCH, KeySlot, Keys, MasterKey, Passphrase, RecoveryKey, random, sha256,
};
use s3vault::testing::log::{CommitContent, CommitHeader, open_commit, seal_commit};
use s3vault::testing::records::{
    Change, Entry, Inode, Key, Orphan, Transaction, Xattr, encode_value,
};
use s3vault::testing::store::{Bucket, Deadlines, DirectoryStore};
use s3vault::testing::types::{
    CommitNo, Extent, Generation, Hash, InodeNo, NameHash, PackId, Reference, Timestamp, VaultId,
};

const PASSPHRASE: &str = "correct horse";
const MTIME: Timestamp = Timestamp { seconds: 1_600_000_000, nanos: 123_456_789 };
const BEFORE_1970: Timestamp = Timestamp { seconds: -5, nanos: 1 };

/// A vault in a directory, made object by object.
struct Fixture {
    dir: tempfile::TempDir,
    keys: Keys,
    recovery: RecoveryKey,
    head: (CommitNo, Hash),
    changes: Vec<Change>,
}

impl Fixture {
    fn new() -> Self {
        let (master, vault) = (MasterKey::generate(), VaultId(random()));
        let keys = Keys::derive(&master, vault, FIRST_EPOCH);
        let recovery = RecoveryKey::generate();
        let secret = Passphrase::from_bytes(PASSPHRASE.into());
        let slots = vec![
            KeySlot::seal_with_passphrase(
                &master,
                vault,
                FIRST_EPOCH,
                &secret,
                Argon2Params::FLOOR,
            )
            .unwrap(),
            KeySlot::seal_with_recovery_key(&master, vault, FIRST_EPOCH, &recovery),
        ];
        let fixture = Self {
            dir: tempfile::tempdir().unwrap(),
            keys,
            recovery,
            head: (CommitNo(0), Hash::ZERO),
            changes: Vec::new(),
        };
        fixture.put("superblock/0000000000000001", &fixture.superblock(&slots));
        fixture.put("README", b"An s3vault.");
        fixture
    }

    fn superblock(&self, slots: &[KeySlot]) -> Vec<u8> {
        let mut body = minicbor::Encoder::new(Vec::new());
        body.map(8).unwrap().u8(0).unwrap().u8(1).unwrap();
        body.u8(1).unwrap().array(0).unwrap().u8(2).unwrap().array(0).unwrap();
        body.u8(3).unwrap().bytes(&self.keys.vault().0).unwrap().u8(4).unwrap().u8(1).unwrap();
        body.u8(5).unwrap().u8(1).unwrap().u8(6).unwrap().encode(slots).unwrap();
        body.u8(7).unwrap().encode(MTIME).unwrap();
        let body = body.into_writer();
        let mut wire = minicbor::Encoder::new(Vec::new());
        wire.map(2).unwrap().u8(0).unwrap().bytes(&body).unwrap();
        wire.u8(1).unwrap().bytes(&self.keys.superblock_mac(&body)).unwrap();
        wire.into_writer()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn record(&mut self, key: &Key, value: impl minicbor::Encode<()>) {
        self.changes.push(Change { key: key.encode(), value: Some(encode_value(&value)) });
    }

    fn delete(&mut self, key: &Key) {
        self.changes.push(Change { key: key.encode(), value: None });
    }

    /// Makes a commit of the changes so far, with one transaction per change.
    fn commit(&mut self) {
        let number = self.head.0.next();
        let transactions = std::mem::take(&mut self.changes)
            .into_iter()
            .map(|change| Transaction::new(vec![change]).encode().unwrap())
            .collect();
        let header = CommitHeader {
            vault: self.keys.vault(),
            number,
            previous: self.head.1,
            claim: CommitNo(1),
            generation: Generation(1),
            time: MTIME,
            records: vec![Change {
                key: Key::History(7).encode(),
                value: Some(encode_value(&minicbor::bytes::ByteVec::from(vec![1; 16]))),
            }],
        };
        let sealed = seal_commit(&self.keys, &CommitContent { header, transactions });
        self.put(&format!("log/{number}"), &sealed);
        self.head = (number, sha256(&sealed));
    }

    /// Makes a pack of these extents.
    fn pack(&self, contents: &[&[u8]]) -> Vec<Reference> {
        let (pack, mut bytes, mut references) = (PackId(random()), Vec::new(), Vec::new());
        for content in contents {
            let offset = bytes.len() as u64;
            references.push(seal_extent(&self.keys, &[content], &mut bytes).at(pack, offset));
        }
        let entries = references.iter().enumerate().map(|(n, reference)| FooterEntry {
            reference: reference.clone(),
            inode: InodeNo(3 + 2 * n as u64),
            offset: 7 * n as u64,
            name: b"a/name".to_vec(),
        });
        let (footer, end) = (Footer { entries: entries.collect() }, bytes.len() as u64);
        bytes.extend(seal_footer(&self.keys, pack, &footer, end, 0));
        let id = pack.to_string();
        self.put(&format!("pack/{}/{id}", &id[..2]), &bytes);
        references
    }

    fn entry(&mut self, parent: InodeNo, name: &[u8], ino: InodeNo, kind: u32) {
        let hash = self.keys.name_hash(parent, name);
        let entry = Entry { name: name.to_vec(), ino, kind };
        self.record(&Key::Entry(parent, hash), entry);
    }

    fn inode(&mut self, ino: u64, inode: Inode) -> InodeNo {
        self.record(&Key::Inode(InodeNo(ino)), inode);
        InodeNo(ino)
    }

    fn secret_file(&self, secret: &str) -> PathBuf {
        let path = self.dir.path().join(".secret");
        fs::write(&path, secret).unwrap();
        path
    }

    fn read_with(&self, secret: &str, arguments: &[&str]) -> Output {
        let python = Command::new(root().join("scripts/reader-python")).output().unwrap();
        assert!(python.status.success(), "scripts/reader-python: {python:?}");
        Command::new(String::from_utf8(python.stdout).unwrap().trim())
            .arg(root().join("scripts/read_vault.py"))
            .arg(self.dir.path())
            .arg("--passphrase-file")
            .arg(self.secret_file(secret))
            .args(arguments)
            .output()
            .unwrap()
    }

    fn read(&self, arguments: &[&str]) -> Output {
        self.read_with(&self.recovery.to_string(), arguments)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn file(size: u64) -> Inode {
    Inode {
        mode: libc::S_IFREG | 0o640,
        uid: 1234,
        gid: 4321,
        nlink: 1,
        size,
        atime: BEFORE_1970,
        mtime: MTIME,
        ..Inode::default()
    }
}

fn directory(parent: u64, nlink: u32) -> Inode {
    Inode {
        mode: libc::S_IFDIR | 0o751,
        nlink,
        mtime: MTIME,
        parent: InodeNo(parent),
        ..Inode::default()
    }
}

fn part(reference: &Reference, skip: u64, length: u64) -> Extent {
    Extent { skip, length, reference: reference.clone() }
}

fn bytes(length: usize) -> Vec<u8> {
    crate::support::noise(1, length)
}

const LONG: usize = 40_000;
const BIG: u64 = 1 << 33;

/// A tree with everything that a vault can hold, in two commits, of which the second changes the first.
fn tree() -> Fixture {
    let mut vault = Fixture::new();
    let long = bytes(LONG);
    let messages = vault.pack(&[b"small", &long]);
    vault.inode(1, directory(1, 3));
    let dir = vault.inode(2, directory(1, 2));
    let small = Inode { extent: Some(part(&messages[0], 0, 5)), ..file(5) };
    let small = vault.inode(3, Inode { nlink: 2, ..small });
    let empty = vault.inode(4, file(0));
    let sparse = vault.inode(5, file(BIG));
    let target = b"../some\xfftarget".to_vec();
    let link = Inode { target: Some(target), size: 14, ..file(14) };
    let link = vault.inode(6, Inode { mode: libc::S_IFLNK | 0o777, ..link });
    let fifo = vault.inode(7, Inode { mode: libc::S_IFIFO | 0o600, ..file(0) });
    let (root, regular) = (InodeNo::ROOT, libc::S_IFREG);
    vault.entry(root, b"dir", dir, libc::S_IFDIR);
    vault.entry(root, b"small", small, regular);
    vault.entry(dir, b"hard link", small, regular);
    vault.entry(root, b"not utf-8 \xff\xfe\n", empty, regular);
    vault.entry(dir, &[b'x'; 255], sparse, regular);
    vault.entry(root, b"link", link, libc::S_IFLNK);
    vault.entry(dir, b"fifo", fifo, libc::S_IFIFO);
    vault.entry(dir, b"gone", empty, regular);
    vault.record(&Key::Extent(sparse, 0), part(&messages[1], 0, 10));
    vault.record(&Key::Extent(sparse, 5), part(&messages[1], 0, 3));
    vault.commit();

    let hash = |parent, name: &[u8]| -> NameHash { vault.keys.name_hash(parent, name) };
    let (gone, attribute) = (hash(dir, b"gone"), hash(small, b"user.note"));
    vault.delete(&Key::Entry(dir, gone));
    vault.delete(&Key::Extent(sparse, 5));
    vault.record(&Key::Extent(sparse, 20_000), part(&messages[1], 16_380, 10));
    vault.record(&Key::Extent(sparse, BIG - 7), part(&messages[1], 1, 30));
    let value = Xattr { name: b"user.note".to_vec(), value: b"\0\xff".to_vec() };
    vault.record(&Key::Xattr(small, attribute), value);
    vault.inode(99, file(3));
    vault.record(&Key::Orphan(InodeNo(99)), Orphan::UNNAMED);
    vault.commit();
    vault
}

fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn everything_a_tree_can_have_is_extracted() {
    let vault = tree();
    let out = vault.dir.path().join(".out");
    let output = vault.read(&["extract", out.to_str().unwrap()]);
    assert_ok(&output);
    compare(&out);
    // The passphrase works too, and the listing is the same.
    let listed = vault.read_with(&format!("{PASSPHRASE}\n"), &["list"]);
    assert_ok(&listed);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.matches("1600000000.123456789").count(), 7, "{listed}");
    let checked = vault.read(&["check"]);
    assert_ok(&checked);
    let head = vault.head.1.to_string();
    assert!(
        String::from_utf8_lossy(&checked.stdout).contains(&format!("commit 2 ({}", &head[..16]))
    );
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
}

fn compare(out: &Path) {
    let name = |name: &[u8]| out.join(std::ffi::OsStr::from_bytes(name));
    assert_eq!(fs::read(out.join("small")).unwrap(), b"small");
    let small = fs::metadata(out.join("small")).unwrap();
    assert_eq!(small.ino(), fs::metadata(out.join("dir/hard link")).unwrap().ino());
    assert_eq!(small.permissions().mode() & 0o7777, 0o640);
    assert_eq!((small.mtime(), small.mtime_nsec()), (MTIME.seconds, MTIME.nanos.into()));
    assert_eq!(fs::metadata(name(b"not utf-8 \xff\xfe\n")).unwrap().len(), 0);
    assert_eq!(
        fs::read_link(out.join("link")).unwrap().as_os_str().as_bytes(),
        b"../some\xfftarget"
    );
    let link = fs::symlink_metadata(out.join("link")).unwrap();
    assert_eq!((link.mtime(), link.mtime_nsec()), (MTIME.seconds, MTIME.nanos.into()));
    let fifo = fs::symlink_metadata(out.join("dir/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        assert_eq!((small.uid(), small.gid()), (1234, 4321));
    }
    assert_eq!((fifo.atime(), fifo.atime_nsec()), (-5, 1));
    let dir = fs::metadata(out.join("dir")).unwrap();
    assert_eq!((dir.mtime(), dir.mtime_nsec()), (MTIME.seconds, MTIME.nanos.into()));
    assert_eq!(dir.permissions().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_dir(out.join("dir")).unwrap().count(), 3, "what was deleted is gone");
    compare_sparse(&out.join("dir").join(std::ffi::OsStr::from_bytes(&[b'x'; 255])));
    // If the tool is missing, or the file system has no attributes, the rest is still tested.
    let mut getfattr = Command::new("getfattr");
    let note = getfattr.args(["-n", "user.note", "-e", "hex"]).arg(out.join("small")).output();
    if let Ok(note) = note
        && note.status.success()
    {
        assert!(String::from_utf8_lossy(&note.stdout).contains("0x00ff"));
    }
}

fn compare_sparse(path: &Path) {
    use std::os::unix::fs::FileExt;
    let (content, found) = (bytes(LONG), fs::File::open(path).unwrap());
    let metadata = found.metadata().unwrap();
    assert_eq!(metadata.len(), BIG);
    assert!(metadata.blocks() < 1000, "it stays sparse");
    let read = |offset, length| {
        let mut buffer = vec![0; length];
        found.read_exact_at(&mut buffer, offset).unwrap();
        buffer
    };
    assert_eq!(read(0, 10), content[..10]);
    assert_eq!(read(10, 19_990), vec![0; 19_990]);
    assert_eq!(read(20_000, 10), content[16_380..16_390]);
    assert_eq!(read(BIG - 7, 7), content[1..8]);
}

#[test]
fn packs_alone_are_enough_to_salvage_files() {
    let vault = tree();
    fs::remove_dir_all(vault.dir.path().join("log")).unwrap();
    let out = vault.dir.path().join(".out");
    assert_ok(&vault.read(&["salvage", out.to_str().unwrap()]));
    assert_eq!(fs::read(out.join("3 a_name")).unwrap(), b"small");
    assert_eq!(fs::read(out.join("5 a_name")).unwrap()[7..], bytes(LONG));
}

#[test]
fn a_wrong_secret_is_told() {
    let vault = tree();
    for secret in ["wrong", &RecoveryKey::generate().to_string()] {
        let output = vault.read_with(secret, &["list"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("wrong passphrase"));
    }
}

/// The commits of the fixture.
struct Commits<'a>(&'a Fixture);

#[async_trait]
impl CommitSource for Commits<'_> {
    async fn get(&self, number: CommitNo) -> checkpoint::Result<SourcedCommit> {
        let sealed = fs::read(self.0.dir.path().join(format!("log/{number}"))).unwrap();
        let content = open_commit(&self.0.keys, number, &sealed)?;
        Ok(SourcedCommit { hash: sha256(&sealed), content })
    }
}

impl Fixture {
    /// Makes a checkpoint of the last commit, in pages of a few blocks.
    fn checkpoint(&self, previous: Option<Manifest>) -> Manifest {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cached = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let store = DirectoryStore::open(self.dir.path()).await.unwrap();
            let bucket = Bucket::over(Arc::new(store), "", Deadlines::default());
            let budgets = Budgets { memory: 16 << 20, disk: 64 << 20 };
            let cache = Cache::open(cached.path(), bucket.clone(), budgets).unwrap();
            let base = previous.map_or_else(Base::empty, |manifest| {
                Base::new(manifest, self.keys.clone(), cache.clone())
            });
            let context = BuildContext {
                keys: &self.keys,
                bucket: &bucket,
                cache: &cache,
                generation: Generation(1),
                time: MTIME,
                oldest: s3vault::testing::crypto::FIRST_EPOCH,
                sizes: Sizes { block: 600, page: 2000, pass: 4000 },
            };
            build(&base, &Commits(self), self.head.0, &context).await.unwrap()
        })
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.dir.path().join(name)).unwrap();
        change(&mut bytes);
        self.put(name, &bytes);
    }
}

#[test]
fn a_vault_is_read_from_its_checkpoint_and_the_commits_after_it() {
    let mut vault = tree();
    // Enough records for a second page, which the third commit does not touch.
    for ino in 1000..1100 {
        vault.inode(ino, file(0));
        vault.entry(InodeNo(2), format!("more {ino}").as_bytes(), InodeNo(ino), libc::S_IFREG);
    }
    vault.commit();
    let first = vault.checkpoint(None);
    assert!(first.pages.len() > 5);
    let hash = vault.keys.name_hash(InodeNo::ROOT, b"link");
    vault.delete(&Key::Entry(InodeNo::ROOT, hash));
    vault.commit();
    let second = vault.checkpoint(Some(first.clone()));
    assert!(second.pages.iter().any(|page| first.pages.contains(page)), "some are shared");
    vault.entry(InodeNo::ROOT, b"last", InodeNo(1000), libc::S_IFREG);
    vault.commit();
    // Objects that K4 allows to delete: earlier commits and manifests.
    for number in 1..=4 {
        fs::remove_file(vault.dir.path().join(format!("log/{}", CommitNo(number)))).unwrap();
    }
    fs::remove_file(vault.dir.path().join(first.name())).unwrap();
    let listed = vault.read(&["list"]);
    assert_ok(&listed);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().count(), 7 + 100 - 1 + 1);
    assert!(!listed.contains("link ->") && listed.contains(" last\n"), "{listed}");

    let refused = |what: &str| {
        let output = vault.read(&["check"]);
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
    };
    for page in &second.pages {
        vault.change(&page.name(), |bytes| bytes[60] ^= 1);
        refused("a changed page");
        vault.change(&page.name(), |bytes| bytes[60] ^= 1);
    }
    let swapped = fs::read(vault.dir.path().join(second.pages[0].name())).unwrap();
    vault.change(&second.pages[1].name(), |bytes| *bytes = swapped);
    refused("one page as another");
}

/// A bad manifest is skipped for an older one, as long as the log covers the difference.
#[test]
fn an_older_checkpoint_and_the_log_make_up_for_a_bad_one() {
    let vault = tree();
    let manifest = vault.checkpoint(None);
    vault.change(&manifest.name(), |bytes| bytes[99] ^= 1);
    let checked = vault.read(&["check"]);
    assert_ok(&checked);
    assert!(String::from_utf8_lossy(&checked.stderr).contains("an older checkpoint is tried"));
    fs::remove_file(vault.dir.path().join("log/0000000000000001")).unwrap();
    assert_eq!(vault.read(&["check"]).status.code(), Some(1));
}

/// Any changed object, any two objects exchanged, and any object missing.
#[test]
fn what_anyone_changed_is_refused() {
    let vault = tree();
    let objects: Vec<PathBuf> = walkdir::WalkDir::new(vault.dir.path())
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && path.file_name().unwrap() != "README")
        .filter(|path| !path.file_name().unwrap().as_bytes().starts_with(b"."))
        .collect();
    let contents: BTreeMap<_, _> =
        objects.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert_eq!(contents.len(), 4, "superblock, two commits, a pack");
    let refused = |what: &str| {
        let output = vault.read(&["check"]);
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{output:?}");
    };
    for (path, content) in &contents {
        let name = path.strip_prefix(vault.dir.path()).unwrap().display().to_string();
        for at in [30, content.len() / 2, content.len() - 1] {
            let mut changed = content.clone();
            changed[at] ^= 0x10;
            fs::write(path, changed).unwrap();
            refused(&format!("{name}, byte {at}"));
        }
        for cut in [0, content.len() - 1] {
            fs::write(path, &content[..cut]).unwrap();
            refused(&format!("{name} cut to {cut}"));
        }
        fs::write(path, content).unwrap();
    }
    let name = |number: u64| vault.dir.path().join(format!("log/{}", CommitNo(number)));
    for (at, instead) in [(1, 2), (2, 1), (3, 2), (3, 1)] {
        fs::write(name(at), &contents[&name(instead)]).unwrap();
        refused(&format!("commit {instead} as {at}"));
        fs::remove_file(name(at)).unwrap();
        if let Some(content) = contents.get(&name(at)) {
            fs::write(name(at), content).unwrap();
        }
    }
    for (path, content) in &contents {
        // Without its last commit, a vault is an earlier state of itself: only a machine that remembers more can tell.
        if *path != name(2) {
            fs::remove_file(path).unwrap();
            refused(&path.display().to_string());
            fs::write(path, content).unwrap();
        }
    }
    assert_ok(&vault.read(&["check"]));
}
