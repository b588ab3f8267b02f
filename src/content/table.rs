//! Which files are in use: one `File` for each inode, as long as anyone holds it or something of it is unpublished.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::file::File;
use super::writes::Sealing;
use crate::types::InodeNo;

/// Threads that open and close files rarely meet in one of these.
const SHARDS: usize = 16;

#[derive(Default)]
pub(super) struct Table {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    files: HashMap<InodeNo, Weak<File>>,
    dirty: HashMap<InodeNo, Arc<File>>,
}

impl Table {
    fn shard(&self, ino: InodeNo) -> &Mutex<Shard> {
        // The remainder is below SHARDS.
        &self.shards[usize::try_from(ino.0 % SHARDS as u64).unwrap_or(0)]
    }

    pub(super) fn get(&self, ino: InodeNo) -> Option<Arc<File>> {
        self.shard(ino).lock().files.get(&ino).and_then(Weak::upgrade)
    }

    pub(super) fn get_or_new(self: &Arc<Self>, ino: InodeNo, sealing: &Arc<Sealing>) -> Arc<File> {
        let mut shard = self.shard(ino).lock();
        if let Some(file) = shard.files.get(&ino).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::new(File::new(ino, sealing.clone(), self.clone()));
        shard.files.insert(ino, Arc::downgrade(&file));
        file
    }

    /// Something of the file is unpublished from now on: it is kept.
    pub(super) fn keep(&self, ino: InodeNo) {
        let mut shard = self.shard(ino).lock();
        if let Some(file) = shard.files.get(&ino).and_then(Weak::upgrade) {
            shard.dirty.insert(ino, file);
        }
    }

    /// Nothing of it is unpublished any more. The caller drops the answer after it let go of the file's lock.
    pub(super) fn release(&self, ino: InodeNo) -> Option<Arc<File>> {
        self.shard(ino).lock().dirty.remove(&ino)
    }

    /// The files of which something is unpublished.
    pub(super) fn dirty(&self) -> Vec<Arc<File>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.lock().dirty.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// A file's last holder let go of it. There may be a new one under its number already.
    pub(super) fn forget(&self, ino: InodeNo) {
        let mut shard = self.shard(ino).lock();
        if shard.files.get(&ino).is_some_and(|file| file.strong_count() == 0) {
            shard.files.remove(&ino);
        }
    }

    /// The vault closes: what is unpublished is let go of.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let dirty = std::mem::take(&mut shard.lock().dirty);
            drop(dirty);
        }
    }
}
