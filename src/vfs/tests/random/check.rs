//! Compares the whole of world and model.

use super::*;

impl Pair {
    pub(super) async fn list(&self, dir: u64, limit: usize) {
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
        let NodeKind::Directory { names, parent } = &node.kind else { panic!("{node:?}") };
        assert_eq!(seen.remove(&b"."[..]), Some(dir));
        assert_eq!(seen.remove(&b".."[..]), Some(*parent));
        assert_eq!(seen, *names);
    }

    pub(super) async fn check(&mut self) {
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
            NodeKind::File(data) => {
                assert_eq!(seen.size, data.len() as u64, "{ino}");
                let bytes =
                    match self.open.iter().find(|(_, open)| open.ino == ino && open.flags.read) {
                        Some((id, _)) => vfs.read_data(*id, 0, u32::MAX).await.unwrap().to_vec(),
                        None if node.nlink == 0 => return,
                        None => self.world.bytes(InodeNo(ino)).await,
                    };
                // `bytes` has opened and closed it, which publishes it.
                if node.nlink > 0
                    && !self.open.iter().any(|(_, open)| open.ino == ino && open.flags.read)
                {
                    self.model.publish(ino);
                }
                let differs = bytes.iter().zip(data).position(|(a, b)| a != b);
                assert!(bytes == *data, "{ino}: other bytes from {differs:?} of {}", data.len());
            }
            NodeKind::Symlink(target) => {
                assert_eq!(&vfs.read_link(InodeNo(ino)).await.unwrap(), target);
            }
            NodeKind::Directory { names, .. } => {
                self.list(ino, 3).await;
                for (name, child) in names {
                    assert_eq!(vfs.lookup(InodeNo(ino), name).await.unwrap().ino.0, *child);
                }
            }
            NodeKind::Fifo => assert_eq!(seen.kind(), libc::S_IFIFO),
        }
    }
}
