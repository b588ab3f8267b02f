//! Which files are in use: one for each inode, as long as anyone holds it or something of it is unpublished.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::types::InodeNo;

/// So many locks: threads that open and close files rarely meet in one of them.
const STRIPES: usize = 16;

/// The files by inode. A file knows the table that it is in, so the table knows nothing of files.
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

    /// The file of this inode, or a new one, made under a lock of the table.
    pub(super) fn get_or_new(&self, ino: InodeNo, make: impl FnOnce() -> F) -> Arc<F> {
        let mut stripe = self.stripe(ino).lock();
        if let Some(file) = stripe.files.get(&ino).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::new(make());
        stripe.files.insert(ino, Arc::downgrade(&file));
        file
    }

    /// Something of the file is unpublished from now on: the table keeps it alive.
    pub(super) fn keep(&self, ino: InodeNo) {
        let mut stripe = self.stripe(ino).lock();
        if let Some(file) = stripe.files.get(&ino).and_then(Weak::upgrade) {
            stripe.dirty.insert(ino, file);
        }
    }

    /// Nothing of the file is unpublished any more. The caller drops what this returns after it released the file's
    /// own lock: it may be the last holder, and a file's drop comes back to this table.
    pub(super) fn release(&self, ino: InodeNo) -> Option<Arc<F>> {
        self.stripe(ino).lock().dirty.remove(&ino)
    }

    /// The files of which something is unpublished.
    pub(super) fn dirty(&self) -> Vec<Arc<F>> {
        self.stripes
            .iter()
            .flat_map(|stripe| stripe.lock().dirty.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// The last holder of a file has dropped it. The inode may have a new file already, which stays.
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
