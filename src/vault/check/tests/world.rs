//! A vault of a few files, made by hand, to be damaged.

use crate::log::Ground;
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::cache::{Budgets, Cache};
use crate::checkpoint::{Base, BuildContext, CommitSource, Sizes, SourcedCommit, build};
use crate::content::{Footer, FooterEntry, seal_extent, seal_footer};
use crate::crypto::{self};
use crate::log::{CommitContent, CommitHeader, commit_name, open_commit, seal_commit};
use crate::records::{Change, Entry, Inode, Transaction, encode_value};
use crate::types::{CommitNo, Extent, Hash, MIB, Timestamp};

/// A vault of a few files, made by hand.
pub(super) struct World {
    pub(super) ground: Ground,
    head: (CommitNo, Hash),
    next: u64,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

fn put(key: &Key, value: Bytes) -> Change {
    Change { key: key.encode(), value: Some(value) }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ground = Ground::below("v/", Duration::from_millis(300), dir);
        Self { ground, head: (CommitNo(0), Hash::ZERO), next: 2 }
    }

    /// Two directories with three files each; each directory's files share a pack.
    pub(super) async fn filled() -> Self {
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

    pub(super) async fn directory(&mut self, name: &str) {
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
            let plain = vec![number; 20_000];
            let offset = bytes.len() as u64;
            let reference = seal_extent(&self.keys, &[&plain], &mut bytes).at(pack, offset);
            let name = format!("file-{number}").into_bytes();
            changes.push(self.entry(dir, &name, ino, libc::S_IFREG));
            let entry = FooterEntry { reference: reference.clone(), inode: ino, offset: 0, name };
            footer.entries.push(entry);
            let whole = Extent { skip: 0, length: 20_000, reference };
            // The last file has records of its own, in two parts.
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
        bytes.extend(seal_footer(&self.keys, pack, &footer, end, 0));
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

    pub(super) async fn checkpoint(&self) {
        let dir = tempfile::tempdir().unwrap();
        let budgets = Budgets { memory: MIB, disk: MIB };
        let cache = Cache::open(dir.path(), self.bucket.clone(), budgets).unwrap();
        let context = BuildContext {
            keys: &self.keys,
            bucket: &self.bucket,
            cache: &cache,
            generation: Generation(1),
            time: Timestamp::default(),
            oldest: crate::crypto::FIRST_EPOCH,
            sizes: Sizes { block: 200, page: 300, pass: 1 << 20 },
        };
        build(&Base::empty(), self, self.head.0, &context).await.unwrap();
    }

    pub(super) async fn check(&self, read_data: bool) -> CheckReport {
        self.checker(1).run(read_data).await.unwrap()
    }

    pub(super) fn checker(&self, generation: u64) -> Checker<'_> {
        Checker {
            bucket: &self.bucket,
            keys: &self.keys,
            generation: Generation(generation),
            seen: None,
            progress: &|_, _| (),
            references: 2,
        }
    }

    /// The names in the bucket that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.store.names().into_iter();
        names
            .filter(|name| name.strip_prefix("v/").is_some_and(|n| n.starts_with(prefix)))
            .collect()
    }

    pub(super) fn replace(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
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
