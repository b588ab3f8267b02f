//! The inodes that the kernel was told of. It may come back to one by its number, without a name, until it forgets it: as
//! long as that, the inode lives, with all that it has (rule V3).

use std::fmt;
use std::ops::Deref;

use super::departing::{AT_ONCE, Departure};
use super::hold_guard::HoldGuard;
use super::holds::Holder;
use super::{Attributes, Result, Vfs};
use crate::os;
use crate::types::InodeNo;

/// Through whom the calls of a clone of [`Vfs`] come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The kernel. It remembers what it is told, and forgets it by [`Vfs::forget`]; what it changes it knows.
    Kernel,
    /// Somebody else: of what they change the kernel is told (`invalidate.rs`).
    Others,
}

/// What `stat` shows of an inode that a call found or made. If the call is the kernel's, the inode lives from here on;
/// unless [`Known::told`] says that the kernel has it, that ends with this.
pub struct Known {
    attributes: Attributes,
    hold: KernelHold,
}

/// The kernel's hold on an inode, until it is told.
struct KernelHold(Option<(Vfs, InodeNo)>);

impl Drop for KernelHold {
    fn drop(&mut self) {
        let Some((vfs, ino)) = self.0.take() else { return };
        if !vfs.inner.holds.let_go(ino, Holder::Kernel, 1) {
            return;
        }
        // It has lost its name meanwhile. Requests run inside the runtime; what is left the next mount removes.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // After a panic it is left over, and housekeeping ends it.
            runtime.spawn(async move {
                let remove = vfs.finish_orphan(ino);
                if os::watched("removing a file", remove).await.is_err() {
                    vfs.inner.left_over.set();
                }
            });
        }
    }
}

impl Known {
    /// The kernel has it now, and will forget it.
    pub fn told(mut self) -> Attributes {
        self.hold.0.take();
        self.attributes
    }

    /// An inode that the kernel is told of without counting it (`.` and `..` in a listing).
    pub(super) fn uncounted(attributes: Attributes) -> Self {
        Self { attributes, hold: KernelHold(None) }
    }

    /// The same inode, as it is now.
    pub(super) fn now(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }
}

impl Deref for Known {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        &self.attributes
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.attributes == other.attributes
    }
}

impl Eq for Known {}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.attributes.fmt(f)
    }
}

impl Vfs {
    /// For the kernel's requests: what they are told is to be told on ([`Known::told`]) and forgotten.
    #[must_use]
    pub fn for_kernel(&self) -> Self {
        Self { via: Via::Kernel, ..self.clone() }
    }

    /// For a transaction that makes an inode or gives it a name: holds it for the kernel, if it is the kernel's.
    pub(super) fn holding(&self) -> Option<HoldGuard<'_>> {
        (self.via == Via::Kernel).then(|| self.holding_as(Holder::Kernel))
    }

    /// A hold that is let go unless it is kept.
    pub(super) fn holding_as(&self, by: Holder) -> HoldGuard<'_> {
        HoldGuard::new(&self.inner.holds, &self.inner.left_over, by)
    }

    /// The transaction was applied.
    pub(super) fn known(&self, attributes: Attributes, held: Option<HoldGuard<'_>>) -> Known {
        let ino = attributes.ino;
        let hold = KernelHold(held.is_some().then(|| (self.clone(), ino)));
        if let Some(held) = held {
            held.keep();
        }
        Known { attributes, hold }
    }

    /// Looks an inode up that `f` finds to be there, in the same state of the map: from before `f` on it stays.
    /// [`super::Error::Stale`]: it is just being removed.
    pub(super) fn know(
        &self,
        ino: InodeNo,
        f: impl FnOnce() -> Result<Attributes>,
    ) -> Result<Known> {
        let mut hold = KernelHold(None);
        if self.via == Via::Kernel {
            self.inner.holds.hold(ino, Holder::Kernel)?;
            hold.0 = Some((self.clone(), ino));
        }
        Ok(Known { attributes: f()?, hold })
    }

    /// The kernel forgets an inode that it was told of so many times. If nobody else holds it, and it has no name, it
    /// is removed, in a moment, with others: by who gets something to do for [`Vfs::depart`].
    pub fn forget(&self, ino: InodeNo, times: u64) -> Option<Departure> {
        self.inner.holds.let_go(ino, Holder::Kernel, times).then(|| self.departs(ino))?
    }

    /// The mount has ended: the kernel knows nothing any more.
    pub async fn forget_all(&self) {
        let mut gone = self.inner.departing.take();
        gone.append(&mut self.inner.holds.kernel_is_gone());
        for some in gone.chunks(AT_ONCE) {
            self.finish_orphans(some).await;
        }
    }
}
