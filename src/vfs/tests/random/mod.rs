//! Thousands of random calls, each compared with the model: results, errors, and at times the whole tree. In between,
//! mounts end cleanly or by a kill.

mod check;
mod data;
mod ops;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{Model, NodeKind, OpenNode};
use super::*;
use crate::types::noise;
use ops::{Op, op};

/// The world and the model of it.
struct Pair {
    world: World,
    model: Model,
    open: Vec<(HandleId, OpenNode)>,
    /// Whether transactions are so small that much is published before any call asks for it.
    publishes_early: bool,
    /// Every inode number so far: those of removed inodes are tried too.
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

fn pick<T: Copy>(list: &[T], choice: u8) -> Option<T> {
    (!list.is_empty()).then(|| list[usize::from(choice) % list.len()])
}

impl Pair {
    fn new(world: World) -> Self {
        let model = Model::new();
        let publishes_early = false;
        Self { world, model, open: Vec::new(), publishes_early, inodes: vec![1], dirs: vec![1] }
    }

    /// After a kill, each file is as it was at some moment since it was last published.
    async fn settle(&mut self) {
        let files = self.model.nodes.iter().filter(|(_, node)| node.nlink > 0);
        let files: Vec<u64> = files
            .filter(|(_, node)| matches!(node.kind, NodeKind::File(_)))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in files {
            let bytes = self.world.bytes(InodeNo(ino)).await;
            self.model.settle(ino, bytes);
        }
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
                for ino in inodes {
                    self.model.publish(ino);
                }
            }
            Op::List { dir, limit } => self.list(self.dir(*dir), usize::from(*limit)).await,
            Op::Check => self.check().await,
            Op::Reopen { kill } => {
                let how = if *kill { super::Reopen::Kill } else { super::Reopen::Clean };
                self.world.reopen(how).await;
                if *kill && self.publishes_early {
                    self.settle().await;
                }
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
            Op::Create { dir, name, .. } => (dir, name, NodeKind::File(Vec::new())),
            Op::Mkdir { dir, name } => {
                let parent = self.dir(*dir);
                (dir, name, NodeKind::Directory { names: BTreeMap::new(), parent })
            }
            Op::Symlink { dir, name } => (dir, name, NodeKind::Symlink(b"to/there".to_vec())),
            Op::Fifo { dir, name } => (dir, name, NodeKind::Fifo),
            other => panic!("{other:?}"),
        };
        let (dir, name) = (self.dir(*dir), name_of(*name));
        let at = InodeNo(dir);
        let expected = self.model.can_make(dir, &name);
        let mode = match kind {
            NodeKind::File(_) | NodeKind::Fifo => 0o644,
            NodeKind::Directory { .. } => 0o755,
            NodeKind::Symlink(_) => 0o777,
        };
        let got = match (&kind, op) {
            (NodeKind::File(_), Op::Create { exclusive, truncate, .. }) => {
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
            (NodeKind::Directory { .. }, _) => {
                errno(vfs.mkdir(&ALICE, at, &name, 0o777).await).map(|seen| (seen, None))
            }
            (NodeKind::Symlink(target), _) => {
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
        if let NodeKind::Directory { .. } = kind {
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
            assert_eq!(got, Err(libc::ESTALE), "{op:?}");
            return;
        };
        node.mode = set.mode.unwrap_or(node.mode);
        if let Some(uid) = set.uid {
            node.owner = (uid, 7);
            // chown(2) removes setuid, and setgid if the group may execute; not from directories.
            if !matches!(node.kind, NodeKind::Directory { .. }) {
                let setgid = if node.mode & 0o010 != 0 { 0o2000 } else { 0 };
                node.mode &= !(0o4000 | setgid);
            }
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
                let (ino, value) = (self.node(*node), noise(3, (*length).into()));
                let flags = [0, libc::XATTR_CREATE, libc::XATTR_REPLACE][usize::from(*flags)];
                let name = format!("user.{}", name % 3).into_bytes();
                let got = errno(
                    vfs.set_xattr(InodeNo(ino), &name, &value, flags, &Setter::Superuser).await,
                );
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
        let read = !mode.is_multiple_of(3) || !write;
        let flags = OpenFlags { read, write, truncate, ..OpenFlags::default() };
        // Nobody can open a file without a name, unless it is open already.
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
                let bytes = noise((*fill).into(), *length as usize);
                let at = offset.map_or(WriteAt::End, |offset| WriteAt::Offset(offset.into()));
                let got = errno(vfs.write(id, at, &bytes).await);
                let offset = offset.map(|offset| offset as usize);
                assert_eq!(got.map(drop), self.model.write(open, offset, &bytes));
            }
            Op::Read { offset, length, .. } => {
                let got = errno(vfs.read_data(id, (*offset).into(), *length).await);
                let expected = self.model.read(open, *offset as usize, *length as usize);
                assert_eq!(got.as_ref().map(bytes::Bytes::len), expected.as_ref().map(Vec::len));
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
}

async fn run(world: World, publishes_early: bool, ops: &[Op]) {
    let mut pair = Pair::new(world);
    pair.publishes_early = publishes_early;
    for op in ops {
        pair.run(op).await;
    }
    pair.check().await;
    pair.run(&Op::Reopen { kill: false }).await;
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 3000, ..crate::types::cases(32) })]
    #[test]
    fn random_calls_do_what_the_model_does(ops in prop::collection::vec(op(), 50..300)) {
        block_on(async { run(World::new().await, false, &ops).await });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 3000, ..crate::types::cases(16) })]
    #[test]
    fn v1_random_calls_in_small_transactions_leave_files_as_they_were_at_one_moment(
        ops in prop::collection::vec(op(), 50..300)
    ) {
        block_on(async { run(World::of_small_transactions(4096).await, true, &ops).await });
    }
}
