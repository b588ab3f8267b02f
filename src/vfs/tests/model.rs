//! A model of a file system, as simple as possible: maps in memory. Errors are errnos.

use std::collections::BTreeMap;

use super::super::{OpenFlags, RenameMode};
use crate::types::Timestamp;

type OrErrno<T = ()> = Result<T, i32>;
type Name = Vec<u8>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    File(Vec<u8>),
    Directory { names: BTreeMap<Name, u64>, parent: u64 },
    Symlink(Vec<u8>),
    Fifo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) nlink: u32,
    pub(super) xattrs: BTreeMap<Name, Vec<u8>>,
    /// Known exactly from when it is set until the content changes.
    pub(super) mtime: Option<Timestamp>,
    /// What is left of a file if the daemon dies.
    pub(super) published: Vec<u8>,
    /// The writes since then, in order.
    writes: Vec<(usize, Vec<u8>)>,
    opens: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OpenNode {
    pub(super) ino: u64,
    pub(super) flags: OpenFlags,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) nodes: BTreeMap<u64, Node>,
}

impl Model {
    pub(super) fn new() -> Self {
        let mut model = Self::default();
        let kind = NodeKind::Directory { names: BTreeMap::new(), parent: 1 };
        model.insert(1, kind, 0o755, (0, 0));
        model
    }

    fn insert(&mut self, ino: u64, kind: NodeKind, mode: u32, owner: (u32, u32)) {
        let nlink = if matches!(kind, NodeKind::Directory { .. }) { 2 } else { 1 };
        let node = Node {
            kind,
            mode,
            owner,
            nlink,
            xattrs: BTreeMap::new(),
            mtime: None,
            published: Vec::new(),
            writes: Vec::new(),
            opens: 0,
        };
        self.nodes.insert(ino, node);
    }

    pub(super) fn names(&self, dir: u64) -> OrErrno<&BTreeMap<Name, u64>> {
        match self.nodes.get(&dir).map(|node| &node.kind) {
            Some(NodeKind::Directory { names, .. }) => Ok(names),
            Some(_) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn names_mut(&mut self, dir: u64) -> &mut BTreeMap<Name, u64> {
        let node = self.nodes.get_mut(&dir).unwrap();
        node.mtime = None;
        match &mut node.kind {
            NodeKind::Directory { names, .. } => names,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn lookup(&self, dir: u64, name: &[u8]) -> OrErrno<u64> {
        self.names(dir).map_err(|_| libc::ENOENT)?.get(name).copied().ok_or(libc::ENOENT)
    }

    fn is_dir(&self, ino: u64) -> bool {
        matches!(self.nodes[&ino].kind, NodeKind::Directory { .. })
    }

    /// Checks that a new name can be made there.
    pub(super) fn can_make(&self, dir: u64, name: &[u8]) -> OrErrno {
        if self.names(dir)?.contains_key(name) { Err(libc::EEXIST) } else { Ok(()) }
    }

    pub(super) fn make(&mut self, dir: u64, name: &[u8], ino: u64, kind: NodeKind, mode: u32) {
        let parent = self.nodes.get_mut(&dir).unwrap();
        let (mut mode, mut group) = (mode, super::ALICE.gid);
        let inherits = parent.mode & libc::S_ISGID != 0;
        if inherits {
            group = parent.owner.1;
        }
        if let NodeKind::Directory { .. } = kind {
            parent.nlink += 1;
            mode |= if inherits { libc::S_ISGID } else { 0 };
        }
        self.insert(ino, kind, mode, (super::ALICE.uid, group));
        self.names_mut(dir).insert(name.to_vec(), ino);
    }

    pub(super) fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> OrErrno {
        let node = self.nodes.get(&ino).ok_or(libc::ENOENT)?;
        self.names(dir)?;
        if self.is_dir(ino) {
            return Err(libc::EPERM);
        }
        if node.nlink == 0 {
            return Err(libc::ENOENT);
        }
        self.can_make(dir, name)?;
        self.publish(ino);
        self.nodes.get_mut(&ino).unwrap().nlink += 1;
        self.names_mut(dir).insert(name.to_vec(), ino);
        Ok(())
    }

    fn drop_name(&mut self, ino: u64) {
        let node = self.nodes.get_mut(&ino).unwrap();
        node.nlink -= 1;
        if node.nlink == 0 && node.opens == 0 {
            self.nodes.remove(&ino);
        }
    }

    pub(super) fn unlink(&mut self, dir: u64, name: &[u8]) -> OrErrno {
        self.names(dir)?;
        let ino = self.lookup(dir, name)?;
        if self.is_dir(ino) {
            return Err(libc::EISDIR);
        }
        self.names_mut(dir).remove(name);
        self.drop_name(ino);
        Ok(())
    }

    fn check_empty(&self, ino: u64) -> OrErrno {
        if self.names(ino)?.is_empty() { Ok(()) } else { Err(libc::ENOTEMPTY) }
    }

    pub(super) fn rmdir(&mut self, dir: u64, name: &[u8]) -> OrErrno {
        self.names(dir)?;
        let ino = self.lookup(dir, name)?;
        self.check_empty(ino)?;
        self.names_mut(dir).remove(name);
        self.nodes.remove(&ino);
        self.nodes.get_mut(&dir).unwrap().nlink -= 1;
        Ok(())
    }

    fn is_above(&self, ino: u64, mut dir: u64) -> bool {
        loop {
            if dir == ino {
                return true;
            }
            match &self.nodes[&dir].kind {
                NodeKind::Directory { parent, .. } if dir != 1 => dir = *parent,
                _ => return false,
            }
        }
    }

    pub(super) fn rename(
        &mut self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
    ) -> OrErrno {
        self.names(from.0)?;
        let source = self.lookup(from.0, from.1)?;
        self.names(to.0)?;
        let target = self.lookup(to.0, to.1).ok();
        if mode == RenameMode::Exchange {
            return self.exchange(from, source, to, target.ok_or(libc::ENOENT)?);
        }
        if self.is_dir(source) && from.0 != to.0 && self.is_above(source, to.0) {
            return Err(libc::EINVAL);
        }
        if let Some(target) = target {
            if mode == RenameMode::NoReplace {
                return Err(libc::EEXIST);
            }
            if target == source {
                return Ok(());
            }
            match (self.is_dir(source), self.is_dir(target)) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) => {
                    self.check_empty(target)?;
                    self.nodes.remove(&target);
                    self.nodes.get_mut(&to.0).unwrap().nlink -= 1;
                }
                (false, false) => self.drop_name(target),
            }
        }
        self.names_mut(from.0).remove(from.1);
        self.place(source, from.0, to);
        Ok(())
    }

    /// Puts the inode, which was in the directory `old`, at a place.
    fn place(&mut self, ino: u64, old: u64, to: (u64, &[u8])) {
        self.names_mut(to.0).insert(to.1.to_vec(), ino);
        if let NodeKind::Directory { parent, .. } = &mut self.nodes.get_mut(&ino).unwrap().kind {
            *parent = to.0;
            self.nodes.get_mut(&old).unwrap().nlink -= 1;
            self.nodes.get_mut(&to.0).unwrap().nlink += 1;
        }
        self.publish(ino);
    }

    fn exchange(&mut self, from: (u64, &[u8]), a: u64, to: (u64, &[u8]), b: u64) -> OrErrno {
        if a == b {
            return Ok(());
        }
        let is_inside = |dir, into| self.is_dir(dir) && self.is_above(dir, into);
        if from.0 != to.0 && (is_inside(a, to.0) || is_inside(b, from.0)) {
            return Err(libc::EINVAL);
        }
        self.place(a, from.0, to);
        self.place(b, to.0, from);
        Ok(())
    }

    pub(super) fn can_open(&self, ino: u64) -> OrErrno {
        match self.nodes.get(&ino).map(|node| &node.kind) {
            None => Err(libc::ESTALE),
            Some(NodeKind::File(_)) => Ok(()),
            Some(NodeKind::Directory { .. }) => Err(libc::EISDIR),
            Some(_) => Err(libc::EINVAL),
        }
    }

    pub(super) fn open(&mut self, ino: u64, flags: OpenFlags) -> OrErrno<OpenNode> {
        self.can_open(ino)?;
        self.nodes.get_mut(&ino).unwrap().opens += 1;
        if flags.truncate {
            self.resize(ino, 0)?;
        }
        Ok(OpenNode { ino, flags })
    }

    pub(super) fn release(&mut self, open: OpenNode) {
        let node = self.nodes.get_mut(&open.ino).unwrap();
        node.opens -= 1;
        if node.nlink == 0 {
            if node.opens == 0 {
                self.nodes.remove(&open.ino);
            }
        } else {
            self.publish(open.ino);
        }
    }

    pub(super) fn data(&mut self, ino: u64) -> &mut Vec<u8> {
        match &mut self.nodes.get_mut(&ino).unwrap().kind {
            NodeKind::File(data) => data,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn publish(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && let NodeKind::File(data) = &node.kind
        {
            node.published.clone_from(data);
            node.writes.clear();
        }
    }

    /// After a kill: the file found must be the published one after the first few of the writes since, and perhaps the
    /// beginning of the next.
    pub(super) fn settle(&mut self, ino: u64, found: Vec<u8>) {
        let node = self.nodes.get_mut(&ino).unwrap();
        let mut state = node.published.clone();
        let mut is_one = state == found;
        for (offset, bytes) in &node.writes {
            let end = offset + bytes.len();
            let whole = state.len().max(end);
            let mut next = state.clone();
            next.resize(whole, 0);
            next[*offset..end].copy_from_slice(bytes);
            // The part of this write that agrees with `found`, over what was there before.
            let agrees = next.iter().zip(&found).take_while(|(a, b)| a == b).count().min(end);
            if agrees > *offset {
                let mut part = state.clone();
                part.resize(state.len().max(agrees), 0);
                part[*offset..agrees].copy_from_slice(&bytes[..agrees - offset]);
                is_one |= part == found;
            }
            state = next;
        }
        assert!(is_one, "{ino}: no state that the file was in: {} bytes", found.len());
        node.published = found;
    }

    /// An offset of `None` is the end.
    pub(super) fn write(&mut self, open: OpenNode, offset: Option<usize>, bytes: &[u8]) -> OrErrno {
        if !open.flags.write {
            return Err(libc::EBADF);
        }
        let data = self.data(open.ino);
        let offset = offset.unwrap_or(data.len());
        let end = offset + bytes.len();
        if data.len() < end && !bytes.is_empty() {
            data.resize(end, 0);
        }
        if !bytes.is_empty() {
            data[offset..end].copy_from_slice(bytes);
            let node = self.nodes.get_mut(&open.ino).unwrap();
            node.mtime = None;
            node.writes.push((offset, bytes.to_vec()));
        }
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        open: OpenNode,
        offset: usize,
        length: usize,
    ) -> OrErrno<Vec<u8>> {
        if !open.flags.read {
            return Err(libc::EBADF);
        }
        let data = self.data(open.ino);
        let end = (offset + length).min(data.len());
        Ok(data.get(offset..end).unwrap_or_default().to_vec())
    }

    pub(super) fn resize(&mut self, ino: u64, size: usize) -> OrErrno {
        self.can_open(ino)?;
        self.data(ino).resize(size, 0);
        self.nodes.get_mut(&ino).unwrap().mtime = None;
        self.publish(ino);
        Ok(())
    }

    pub(super) fn empty(&mut self, open: OpenNode, from: usize, to: usize, keeps_size: bool) {
        let data = self.data(open.ino);
        if !keeps_size && data.len() < to {
            data.resize(to, 0);
        }
        let end = to.min(data.len());
        if from < end {
            data[from..end].fill(0);
        }
        self.nodes.get_mut(&open.ino).unwrap().mtime = None;
        self.publish(open.ino);
    }

    /// The daemon died or ended: no file is open, and files without a name are gone.
    pub(super) fn ended(&mut self, was_killed: bool) {
        for node in self.nodes.values_mut() {
            node.opens = 0;
            if let NodeKind::File(data) = &mut node.kind {
                if was_killed {
                    if *data != node.published {
                        node.mtime = None;
                    }
                    data.clone_from(&node.published);
                } else {
                    node.published.clone_from(data);
                }
                node.writes.clear();
            }
        }
        self.nodes.retain(|_, node| node.nlink > 0);
    }
}
