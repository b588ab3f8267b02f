//! The files in use: one for each inode, as long as anyone holds it or it has unpublished writes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::types::InodeNo;

/// The number of locks: so many that threads which open and close files rarely meet at one.
const STRIPES: usize = 16;

/// The files by inode. A file knows its table, so the table is generic, and keeps alive only files with unpublished
/// writes.
pub(super) struct OpenFiles<F> {
    stripes: [Mutex<Stripe<F>>; STRIPES],
}

struct Stripe<F> {
    files: HashMap<InodeNo, Weak<F>>,
    dirty: HashMap<InodeNo, Arc<F>>,
}

impl<F> Default for OpenFiles<F> {
    fn default() -> Self {
        let stripe = |_| Mutex::new(Stripe { files: HashMap::new(), dirty: HashMap::new() });
        Self { stripes: std::array::from_fn(stripe) }
    }
}

impl<F> OpenFiles<F> {
    fn stripe(&self, ino: InodeNo) -> &Mutex<Stripe<F>> {
        // The remainder is below STRIPES.
        &self.stripes[usize::try_from(ino.0 % STRIPES as u64).unwrap_or(0)]
    }

    pub(super) fn get(&self, ino: InodeNo) -> Option<Arc<F>> {
        self.stripe(ino).lock().files.get(&ino).and_then(Weak::upgrade)
    }

    /// The file of this inode; if there is none, a new one, made under a lock of the table.
    pub(super) fn get_or_new(&self, ino: InodeNo, make: impl FnOnce() -> F) -> Arc<F> {
        let mut stripe = self.stripe(ino).lock();
        if let Some(file) = stripe.files.get(&ino).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::new(make());
        stripe.files.insert(ino, Arc::downgrade(&file));
        file
    }

    /// The file has unpublished writes from now on: the table keeps it alive.
    pub(super) fn keep(&self, ino: InodeNo) {
        let mut stripe = self.stripe(ino).lock();
        if let Some(file) = stripe.files.get(&ino).and_then(Weak::upgrade) {
            stripe.dirty.insert(ino, file);
        }
    }

    /// The file has no unpublished writes any more. The caller must release the file's own lock before it drops what
    /// this returns: that may be the last reference, and a file's drop calls this table.
    pub(super) fn release(&self, ino: InodeNo) -> Option<Arc<F>> {
        self.stripe(ino).lock().dirty.remove(&ino)
    }

    /// The files with unpublished writes.
    pub(super) fn dirty(&self) -> Vec<Arc<F>> {
        self.stripes
            .iter()
            .flat_map(|stripe| stripe.lock().dirty.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// The last reference to a file was dropped. A new file that the inode may have by now stays.
    pub(super) fn forget(&self, ino: InodeNo) {
        let mut stripe = self.stripe(ino).lock();
        if stripe.files.get(&ino).is_some_and(|file| file.strong_count() == 0) {
            stripe.files.remove(&ino);
        }
    }

    /// The vault closes: nothing is kept alive any more.
    pub(super) fn clear(&self) {
        for stripe in &self.stripes {
            let dirty = std::mem::take(&mut stripe.lock().dirty);
            drop(dirty);
        }
    }
}
