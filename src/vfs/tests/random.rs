//! Thousands of random calls, each compared with the model: results, errors, and at times the whole tree; mounts
//! that end cleanly or by death in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{Kind, Model, Open};
use super::*;

/// Where offsets and sizes lie: around chunk borders, and far enough for holes.
const SPAN: u32 = 80_000;

#[derive(Clone, Debug)]
enum Op {
    Create { dir: u8, name: u8, exclusive: bool, truncate: bool },
    Mkdir { dir: u8, name: u8 },
    Symlink { dir: u8, name: u8 },
    Fifo { dir: u8, name: u8 },
    Link { node: u8, dir: u8, name: u8 },
    Unlink { dir: u8, name: u8 },
    Rmdir { dir: u8, name: u8 },
    Rename { from: (u8, u8), to: (u8, u8), mode: u8 },
    Open { node: u8, mode: u8, truncate: bool },
    Write { open: u8, offset: Option<u32>, length: u32, fill: u8 },
    Read { open: u8, offset: u32, length: u32 },
    Resize { node: u8, size: u32 },
    Allocate { open: u8, mode: u8, from: u32, length: u32 },
    Copy { from: u8, to: u8, at: (u32, u32), length: u32 },
    Seek { open: u8, offset: u32, data: bool },
    Chmod { node: u8, mode: u16 },
    Chown { node: u8, uid: u8 },
    Utimes { node: u8, seconds: i32 },
    SetXattr { node: u8, name: u8, length: u8, flags: u8 },
    RemoveXattr { node: u8, name: u8 },
    Flush { open: u8 },
    Fsync { open: u8 },
    Release { open: u8 },
    PublishAll,
    List { dir: u8, limit: u8 },
    Check,
    Reopen { kill: bool },
}

fn op() -> impl Strategy<Value = Op> {
    use Op::*;
    let any_u8 = any::<u8>;
    let at = || 0..SPAN;
    let length = || prop_oneof![0..100_u32, 0..40_000_u32];
    let make = prop_oneof![
        8 => (any_u8(), any_u8(), any::<bool>(), any::<bool>())
            .prop_map(|(dir, name, exclusive, truncate)| Create { dir, name, exclusive, truncate }),
        4 => (any_u8(), any_u8()).prop_map(|(dir, name)| Mkdir { dir, name }),
        1 => (any_u8(), any_u8()).prop_map(|(dir, name)| Symlink { dir, name }),
        1 => (any_u8(), any_u8()).prop_map(|(dir, name)| Fifo { dir, name }),
    ];
    let names = prop_oneof![
        3 => (any_u8(), any_u8(), any_u8()).prop_map(|(node, dir, name)| Link { node, dir, name }),
        4 => (any_u8(), any_u8()).prop_map(|(dir, name)| Unlink { dir, name }),
        2 => (any_u8(), any_u8()).prop_map(|(dir, name)| Rmdir { dir, name }),
        6 => (any::<(u8, u8)>(), any::<(u8, u8)>(), any_u8())
            .prop_map(|(from, to, mode)| Rename { from, to, mode }),
    ];
    let data = prop_oneof![
        6 => (any_u8(), any_u8(), any::<bool>())
            .prop_map(|(node, mode, truncate)| Open { node, mode, truncate: truncate && mode > 200 }),
        16 => (any_u8(), proptest::option::weighted(0.8, at()), length(), any_u8())
            .prop_map(|(open, offset, length, fill)| Write { open, offset, length, fill }),
        8 => (any_u8(), at(), length()).prop_map(|(open, offset, length)| Read { open, offset, length }),
        5 => (any_u8(), at()).prop_map(|(node, size)| Resize { node, size }),
        4 => (any_u8(), any_u8(), at(), length())
            .prop_map(|(open, mode, from, length)| Allocate { open, mode, from, length }),
        3 => (any_u8(), any_u8(), (at(), at()), length())
            .prop_map(|(from, to, at, length)| Copy { from, to, at, length }),
        3 => (any_u8(), at(), any::<bool>()).prop_map(|(open, offset, data)| Seek { open, offset, data }),
        4 => any_u8().prop_map(|open| Flush { open }),
        1 => any_u8().prop_map(|open| Fsync { open }),
        4 => any_u8().prop_map(|open| Release { open }),
    ];
    let attributes = prop_oneof![
        2 => (any_u8(), any::<u16>()).prop_map(|(node, mode)| Chmod { node, mode }),
        1 => (any_u8(), any_u8()).prop_map(|(node, uid)| Chown { node, uid }),
        2 => (any_u8(), any::<i32>()).prop_map(|(node, seconds)| Utimes { node, seconds }),
        3 => (any_u8(), any_u8(), any_u8(), 0..3_u8)
            .prop_map(|(node, name, length, flags)| SetXattr { node, name, length, flags }),
        2 => (any_u8(), any_u8()).prop_map(|(node, name)| RemoveXattr { node, name }),
    ];
    prop_oneof![
        14 => make,
        14 => names,
        40 => data,
        8 => attributes,
        3 => (any_u8(), 1..5_u8).prop_map(|(dir, limit)| List { dir, limit }),
        1 => Just(PublishAll),
        1 => Just(Check),
        1 => any::<bool>().prop_map(|kill| Reopen { kill }),
    ]
}

/// The two side by side.
struct Pair {
    world: World,
    model: Model,
    open: Vec<(HandleId, Open)>,
    /// Every number that there ever was: gone ones are tried too.
    inodes: Vec<u64>,
    dirs: Vec<u64>,
}

fn errno<T>(result: Result<T>) -> std::result::Result<T, i32> {
    result.map_err(|error| error.errno())
}

fn name_of(choice: u8) -> Vec<u8> {
    match choice % 8 {
        7 => vec![b'x'; 255],
        6 => b"\xff\xfe not utf-8".to_vec(),
        short => vec![b'a' + short],
    }
}

fn pattern(fill: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| fill ^ (at % 251) as u8).collect()
}

fn pick<T: Copy>(list: &[T], choice: u8) -> Option<T> {
    (!list.is_empty()).then(|| list[usize::from(choice) % list.len()])
}

impl Pair {
    async fn new() -> Self {
        let world = World::new().await;
        let model = Model::new();
        Self { world, model, open: Vec::new(), inodes: vec![1], dirs: vec![1] }
    }

    fn dir(&self, choice: u8) -> u64 {
        pick(&self.dirs, choice).unwrap()
    }

    fn node(&self, choice: u8) -> u64 {
        pick(&self.inodes, choice).unwrap()
    }

    async fn run(&mut self, op: &Op) {
        match op {
            Op::Create { .. } | Op::Mkdir { .. } | Op::Symlink { .. } | Op::Fifo { .. } => {
                self.make(op).await;
            }
            Op::Link { .. } | Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. } => {
                self.names(op).await;
            }
            Op::Chmod { .. }
            | Op::Chown { .. }
            | Op::Utimes { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. } => self.attributes(op).await,
            Op::Open { node, mode, truncate } => self.open(*node, *mode, *truncate).await,
            Op::Resize { node, size } => {
                let ino = self.node(*node);
                let set = SetAttributes { size: Some((*size).into()), ..SetAttributes::default() };
                let got = errno(self.world.vfs().set_attributes(InodeNo(ino), &set).await);
                assert_eq!(got.map(drop), self.model.resize(ino, *size as usize));
            }
            Op::PublishAll => {
                self.world.vfs().publish_all().await.unwrap();
                let inodes: Vec<u64> = self.model.nodes.keys().copied().collect();
                inodes.into_iter().for_each(|ino| self.model.publish(ino));
            }
            Op::List { dir, limit } => self.list(self.dir(*dir), usize::from(*limit)).await,
            Op::Check => self.check().await,
            Op::Reopen { kill } => {
                let how = if *kill { super::Reopen::Kill } else { super::Reopen::Clean };
                self.world.reopen(how).await;
                self.model.ended(*kill);
                self.open.clear();
                self.check().await;
            }
            _ => self.data(op).await,
        }
    }

    async fn make(&mut self, op: &Op) {
        let vfs = self.world.vfs().clone();
        let (dir, name, kind) = match op {
            Op::Create { dir, name, .. } => (dir, name, Kind::File(Vec::new())),
            Op::Mkdir { dir, name } => {
                let parent = self.dir(*dir);
                (dir, name, Kind::Directory { names: BTreeMap::new(), parent })
            }
            Op::Symlink { dir, name } => (dir, name, Kind::Symlink(b"to/there".to_vec())),
            Op::Fifo { dir, name } => (dir, name, Kind::Fifo),
            other => panic!("{other:?}"),
        };
        let (dir, name) = (self.dir(*dir), name_of(*name));
        let at = InodeNo(dir);
        let expected = self.model.can_make(dir, &name);
        let mode = match kind {
            Kind::File(_) | Kind::Fifo => 0o644,
            Kind::Directory { .. } => 0o755,
            Kind::Symlink(_) => 0o777,
        };
        let got = match (&kind, op) {
            (Kind::File(_), Op::Create { exclusive, truncate, .. }) => {
                let flags = OpenFlags { exclusive: *exclusive, truncate: *truncate, ..WRITE };
                let got = errno(vfs.create(&ALICE, at, &name, 0o666, flags).await);
                if expected == Err(libc::EEXIST) && !exclusive {
                    let there = self.model.lookup(dir, &name).unwrap();
                    let opened = self.model.open(there, flags);
                    match (got, opened) {
                        (Ok((seen, handle)), Ok(open)) => {
                            assert_eq!(seen.ino.0, there);
                            self.open.push((handle, open));
                        }
                        (got, opened) => assert_eq!(got.err(), opened.err()),
                    }
                    return;
                }
                got.map(|(seen, handle)| (seen, Some(handle)))
            }
            (Kind::Directory { .. }, _) => {
                errno(vfs.mkdir(&ALICE, at, &name, 0o777).await).map(|seen| (seen, None))
            }
            (Kind::Symlink(target), _) => {
                errno(vfs.symlink(&ALICE, at, &name, target).await).map(|seen| (seen, None))
            }
            _ => {
                let mode = libc::S_IFIFO | 0o666;
                errno(vfs.mknod(&ALICE, at, &name, mode, 0).await).map(|seen| (seen, None))
            }
        };
        assert_eq!(got.as_ref().map(drop), expected.as_ref().map(drop), "{op:?}");
        let Ok((seen, handle)) = got else { return };
        let ino = seen.ino.0;
        assert!(!self.inodes.contains(&ino), "number {ino} was given before");
        self.inodes.push(ino);
        if let Kind::Directory { .. } = kind {
            self.dirs.push(ino);
        }
        self.model.make(dir, &name, ino, kind, mode);
        if let Some(handle) = handle {
            let open = self.model.open(ino, WRITE).unwrap();
            self.open.push((handle, open));
        }
    }

    async fn names(&mut self, op: &Op) {
        let vfs = self.world.vfs().clone();
        let (got, expected) = match op {
            Op::Link { node, dir, name } => {
                let (ino, dir, name) = (self.node(*node), self.dir(*dir), name_of(*name));
                let got = errno(vfs.link(InodeNo(ino), InodeNo(dir), &name).await).map(drop);
                (got, self.model.link(ino, dir, &name))
            }
            Op::Unlink { dir, name } => {
                let (dir, name) = (self.dir(*dir), name_of(*name));
                let got = errno(vfs.unlink(InodeNo(dir), &name).await);
                (got, self.model.unlink(dir, &name))
            }
            Op::Rmdir { dir, name } => {
                let (dir, name) = (self.dir(*dir), name_of(*name));
                let got = errno(vfs.rmdir(InodeNo(dir), &name).await);
                (got, self.model.rmdir(dir, &name))
            }
            Op::Rename { from, to, mode } => {
                let mode = match mode % 4 {
                    0 => RenameMode::NoReplace,
                    1 => RenameMode::Exchange,
                    _ => RenameMode::Replace,
                };
                let (from, to) =
                    ((self.dir(from.0), name_of(from.1)), (self.dir(to.0), name_of(to.1)));
                let got =
                    vfs.rename((InodeNo(from.0), &from.1), (InodeNo(to.0), &to.1), mode).await;
                (errno(got), self.model.rename((from.0, &from.1), (to.0, &to.1), mode))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(got, expected, "{op:?}");
    }

    async fn attributes(&mut self, op: &Op) {
        let vfs = self.world.vfs().clone();
        let mut set = SetAttributes::default();
        let ino = match op {
            Op::Chmod { node, mode } => {
                set.mode = Some(u32::from(*mode) & 0o7777);
                self.node(*node)
            }
            Op::Chown { node, uid } => {
                (set.uid, set.gid) = (Some((*uid).into()), Some(7));
                self.node(*node)
            }
            Op::Utimes { node, seconds } => {
                let time = Timestamp { seconds: (*seconds).into(), nanos: 999 };
                set.mtime = Some(SetTime::To(time));
                self.node(*node)
            }
            other => return self.xattrs(other).await,
        };
        let got = errno(vfs.set_attributes(InodeNo(ino), &set).await);
        let Some(node) = self.model.nodes.get_mut(&ino) else {
            assert_eq!(got.err(), Some(libc::ESTALE));
            return;
        };
        node.mode = set.mode.unwrap_or(node.mode);
        if let Some(uid) = set.uid {
            node.owner = (uid, 7);
        }
        if let Some(SetTime::To(time)) = set.mtime {
            node.mtime = Some(time);
            assert_eq!(got.unwrap().mtime, time);
        }
        self.model.publish(ino);
    }

    async fn xattrs(&mut self, op: &Op) {
        let vfs = self.world.vfs().clone();
        let (got, ino, change) = match op {
            Op::SetXattr { node, name, length, flags } => {
                let (ino, value) = (self.node(*node), pattern(3, (*length).into()));
                let flags = [0, libc::XATTR_CREATE, libc::XATTR_REPLACE][usize::from(*flags)];
                let name = format!("user.{}", name % 3).into_bytes();
                let got = errno(vfs.set_xattr(InodeNo(ino), &name, &value, flags).await);
                (got, ino, (name, Some((value, flags))))
            }
            Op::RemoveXattr { node, name } => {
                let (ino, name) = (self.node(*node), format!("user.{}", name % 3).into_bytes());
                let got = errno(vfs.remove_xattr(InodeNo(ino), &name).await);
                (got, ino, (name, None))
            }
            other => panic!("{other:?}"),
        };
        let (name, change) = change;
        let Some(node) = self.model.nodes.get_mut(&ino) else {
            assert_eq!(got, Err(libc::ESTALE));
            return;
        };
        let is_there = node.xattrs.contains_key(&name);
        let expected = match change {
            Some((_, libc::XATTR_CREATE)) if is_there => Err(libc::EEXIST),
            Some((_, libc::XATTR_REPLACE)) | None if !is_there => Err(libc::ENODATA),
            Some((value, _)) => {
                node.xattrs.insert(name, value);
                Ok(())
            }
            None => {
                node.xattrs.remove(&name);
                Ok(())
            }
        };
        assert_eq!(got, expected, "{op:?}");
    }

    async fn open(&mut self, node: u8, mode: u8, truncate: bool) {
        let ino = self.node(node);
        let write = truncate || mode.is_multiple_of(2);
        let read = mode % 3 != 0 || !write;
        let flags = OpenFlags { read, write, truncate, exclusive: false };
        // A file that has no name is opened by nobody who does not have it open.
        if self.model.nodes.get(&ino).is_some_and(|node| node.nlink == 0) {
            return;
        }
        let got = errno(self.world.vfs().open(InodeNo(ino), flags).await);
        match (got, self.model.open(ino, flags)) {
            (Ok(handle), Ok(open)) => self.open.push((handle, open)),
            (got, expected) => assert_eq!(got.err(), expected.err()),
        }
    }

    async fn data(&mut self, op: &Op) {
        let vfs = self.world.vfs().clone();
        let choice = match op {
            Op::Write { open, .. }
            | Op::Read { open, .. }
            | Op::Allocate { open, .. }
            | Op::Seek { open, .. }
            | Op::Flush { open }
            | Op::Fsync { open }
            | Op::Release { open } => *open,
            Op::Copy { from, .. } => *from,
            other => panic!("{other:?}"),
        };
        let Some((id, open)) = pick(&self.open, choice) else { return };
        match op {
            Op::Write { offset, length, fill, .. } => {
                let bytes = pattern(*fill, *length as usize);
                let at = offset.map_or(WriteAt::End, |offset| WriteAt::Offset(offset.into()));
                let got = errno(vfs.write(id, at, &bytes).await);
                let offset = offset.map(|offset| offset as usize);
                assert_eq!(got.map(drop), self.model.write(open, offset, &bytes));
            }
            Op::Read { offset, length, .. } => {
                let got = errno(vfs.read_data(id, (*offset).into(), *length).await);
                let expected = self.model.read(open, *offset as usize, *length as usize);
                assert_eq!(got.as_ref().map(|bytes| bytes.len()), expected.as_ref().map(Vec::len));
                assert!(got.map(|bytes| bytes.to_vec()) == expected, "{op:?}: other bytes");
            }
            Op::Allocate { mode, from, length, .. } => {
                self.allocate(id, open, *mode, (*from, *length)).await;
            }
            Op::Copy { to, at, length, .. } => self.copy((id, open), *to, *at, *length).await,
            Op::Seek { offset, data, .. } => self.seek(id, open, *offset as usize, *data).await,
            Op::Flush { .. } => {
                vfs.flush(id).await.unwrap();
                if self.model.nodes[&open.ino].nlink > 0 {
                    self.model.publish(open.ino);
                }
            }
            Op::Fsync { .. } => {
                vfs.fsync(id).await.unwrap();
                self.model.publish(open.ino);
                let durable = self.world.durable.local.load(Ordering::SeqCst);
                assert_eq!(durable, self.world.transactions());
            }
            _ => {
                vfs.release(id).await.unwrap();
                self.open.retain(|(other, _)| *other != id);
                self.model.release(open);
                assert_eq!(errno(vfs.flush(id).await), Err(libc::EBADF));
            }
        }
    }

    async fn allocate(&mut self, id: HandleId, open: Open, mode: u8, (from, length): (u32, u32)) {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | keep;
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        let mode = [0, keep, punch, zero, zero | keep, libc::FALLOC_FL_COLLAPSE_RANGE]
            [usize::from(mode) % 6];
        let range = u64::from(from)..u64::from(from + length);
        let got = errno(self.world.vfs().allocate(id, mode, range).await);
        let expected = match mode {
            _ if !open.flags.write => Err(libc::EBADF),
            _ if length == 0 => Err(libc::EINVAL),
            libc::FALLOC_FL_COLLAPSE_RANGE => Err(libc::EOPNOTSUPP),
            mode if mode == keep => Ok(()),
            mode => {
                let to = (from + length) as usize;
                let from = if mode == 0 { to } else { from as usize };
                self.model.empty(open, from, to, mode & keep != 0);
                Ok(())
            }
        };
        assert_eq!(got, expected);
    }

    async fn copy(&mut self, from: (HandleId, Open), to: u8, at: (u32, u32), length: u32) {
        let Some(to) = pick(&self.open, to) else { return };
        let (source, target) = (u64::from(at.0), u64::from(at.1));
        let got =
            self.world.vfs().copy_range((from.0, source), (to.0, target), length.into()).await;
        let got = errno(got);
        if !from.1.flags.read || !to.1.flags.write {
            assert_eq!(got, Err(libc::EBADF));
            return;
        }
        let is_same = from.1.ino == to.1.ino;
        if is_same && at.0 < at.1 + length && at.1 < at.0 + length {
            assert_eq!(got, Err(libc::EINVAL));
            return;
        }
        let copied = got.unwrap() as usize;
        let bytes = self.model.read(from.1, at.0 as usize, length as usize).unwrap();
        assert!(copied <= bytes.len() && (copied > 0 || bytes.is_empty()));
        self.model.publish(from.1.ino);
        self.model.publish(to.1.ino);
        if copied > 0 {
            self.model.write(to.1, Some(at.1 as usize), &bytes[..copied]).unwrap();
            self.model.publish(to.1.ino);
        }
    }

    /// What is said to be a hole must be zeros up to where data is said to begin; the end is a hole.
    async fn seek(&mut self, id: HandleId, open: Open, offset: usize, data: bool) {
        let what = if data { Seek::Data } else { Seek::Hole };
        let got = errno(self.world.vfs().seek(id, offset as u64, what).await);
        let content = self.model.data(open.ino).clone();
        if offset >= content.len() {
            assert_eq!(got, Err(libc::ENXIO));
            return;
        }
        match (got, data) {
            (Err(libc::ENXIO), true) => {
                assert!(content[offset..].iter().all(|byte| *byte == 0), "data called a hole");
            }
            (Ok(at), true) => {
                let at = at as usize;
                assert!((offset..content.len()).contains(&at));
                assert!(content[offset..at].iter().all(|byte| *byte == 0), "data called a hole");
            }
            (Ok(at), false) => assert!((offset..=content.len()).contains(&(at as usize))),
            (got, _) => panic!("{got:?}"),
        }
    }

    async fn list(&self, dir: u64, limit: usize) {
        let vfs = self.world.vfs();
        let (mut cookie, mut seen) = (0, BTreeMap::new());
        loop {
            let part = if limit.is_multiple_of(2) {
                vfs.read_dir_plus(InodeNo(dir), cookie, limit).await.unwrap()
            } else {
                vfs.read_dir(InodeNo(dir), cookie, limit).await.unwrap()
            };
            let Some(last) = part.last() else { break };
            cookie = last.cookie;
            for entry in part {
                if let Some(attributes) = entry.attributes {
                    assert_eq!(attributes.ino, entry.ino);
                    assert_eq!(attributes.kind(), entry.kind);
                }
                assert!(seen.insert(entry.name, entry.ino.0).is_none(), "listed twice");
            }
        }
        let Some(node) = self.model.nodes.get(&dir) else {
            assert!(seen.is_empty());
            return;
        };
        let Kind::Directory { names, parent } = &node.kind else { panic!("{node:?}") };
        assert_eq!(seen.remove(&b"."[..]), Some(dir));
        assert_eq!(seen.remove(&b".."[..]), Some(*parent));
        assert_eq!(seen, *names);
    }

    async fn check(&mut self) {
        let inodes: Vec<u64> = self.model.nodes.keys().copied().collect();
        for ino in inodes {
            self.check_node(ino).await;
        }
        let gone = self.inodes.iter().filter(|ino| !self.model.nodes.contains_key(ino));
        for ino in gone {
            let seen = errno(self.world.vfs().attributes(InodeNo(*ino)).await);
            assert_eq!(seen, Err(libc::ESTALE), "{ino} is gone");
        }
        let orphans = self.world.vfs().orphans().await.unwrap();
        let unnamed = self.model.nodes.values().filter(|node| node.nlink == 0).count();
        assert_eq!(orphans.len(), unnamed, "{orphans:?}");
    }

    async fn check_node(&mut self, ino: u64) {
        let vfs = self.world.vfs().clone();
        let seen = vfs.attributes(InodeNo(ino)).await.unwrap();
        let node = self.model.nodes[&ino].clone();
        assert_eq!((seen.mode & 0o7777, seen.nlink), (node.mode, node.nlink), "{ino}: {node:?}");
        assert_eq!((seen.uid, seen.gid), node.owner, "{ino}");
        if let Some(mtime) = node.mtime {
            assert_eq!(seen.mtime, mtime, "{ino}");
        }
        let mut names = vfs.xattrs(InodeNo(ino)).await.unwrap();
        names.sort();
        assert_eq!(names, node.xattrs.keys().cloned().collect::<Vec<_>>());
        for (name, value) in &node.xattrs {
            assert_eq!(&vfs.xattr(InodeNo(ino), name).await.unwrap(), value);
        }
        match &node.kind {
            Kind::File(data) => {
                assert_eq!(seen.size, data.len() as u64, "{ino}");
                let bytes =
                    match self.open.iter().find(|(_, open)| open.ino == ino && open.flags.read) {
                        Some((id, _)) => vfs.read_data(*id, 0, u32::MAX).await.unwrap().to_vec(),
                        None if node.nlink == 0 => return,
                        None => self.world.bytes(InodeNo(ino)).await,
                    };
                // `bytes` opened and closed it, which publishes.
                if node.nlink > 0
                    && !self.open.iter().any(|(_, open)| open.ino == ino && open.flags.read)
                {
                    self.model.publish(ino);
                }
                let differs = bytes.iter().zip(data).position(|(a, b)| a != b);
                assert!(bytes == *data, "{ino}: other bytes from {differs:?} of {}", data.len());
            }
            Kind::Symlink(target) => {
                assert_eq!(&vfs.read_link(InodeNo(ino)).await.unwrap(), target);
            }
            Kind::Directory { names, .. } => {
                self.list(ino, 3).await;
                for (name, child) in names {
                    assert_eq!(vfs.lookup(InodeNo(ino), name).await.unwrap().ino.0, *child);
                }
            }
            Kind::Fifo => assert_eq!(seen.kind(), libc::S_IFIFO),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_calls_do_what_the_model_does(ops in prop::collection::vec(op(), 50..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for op in &ops {
                pair.run(op).await;
            }
            pair.check().await;
            pair.run(&Op::Reopen { kill: false }).await;
        });
    }
}
