//! The inodes that the kernel was told of. Until it forgets one, it may come back to it by its number, without a name;
//! for that long the inode lives, with all its records (rule V3).

use std::fmt;
use std::ops::Deref;

use super::departing::{AT_ONCE, Departure};
use super::hold_guard::HoldGuard;
use super::holds::Holder;
use super::{Attributes, Result, Vfs};
use crate::os;
use crate::types::InodeNo;

/// Where the calls through a clone of [`Vfs`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The kernel. It remembers what it is told until [`Vfs::forget`], and knows what it changes itself.
    Kernel,
    /// Somebody else: the kernel is told what they change (`invalidate.rs`).
    Others,
}

/// The attributes of an inode that a call found or made. If the kernel called, the inode is held for it from here on:
/// [`Known::told`] passes the hold on to the kernel, otherwise it ends with this.
pub struct Known {
    attributes: Attributes,
    hold: KernelHold,
}

/// A hold for the kernel, until the kernel is told of the inode.
struct KernelHold(Option<(Vfs, InodeNo)>);

impl Drop for KernelHold {
    fn drop(&mut self) {
        let Some((vfs, ino)) = self.0.take() else { return };
        if !vfs.inner.holds.let_go(ino, Holder::Kernel, 1) {
            return;
        }
        // It has lost its name meanwhile. Requests run inside the runtime, so it can be spawned; otherwise the next
        // mount removes the inode.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // After a panic it is left over for housekeeping.
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
    /// The kernel is told of it, and will forget it later.
    pub fn told(mut self) -> Attributes {
        self.hold.0.take();
        self.attributes
    }

    /// The attributes of an inode of which the kernel is told without counting it (`.` and `..` in a listing).
    pub(super) fn uncounted(attributes: Attributes) -> Self {
        Self { attributes, hold: KernelHold(None) }
    }

    /// The same inode with new attributes.
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
    /// A clone for the kernel's requests. The kernel must be told of what they find ([`Known::told`]), and forget it
    /// later.
    #[must_use]
    pub fn for_kernel(&self) -> Self {
        Self { via: Via::Kernel, ..self.clone() }
    }

    /// For a transaction that creates or names an inode: a hold for the kernel, if the call is the kernel's.
    pub(super) fn holding(&self) -> Option<HoldGuard<'_>> {
        (self.via == Via::Kernel).then(|| self.holding_as(Holder::Kernel))
    }

    /// A hold that is released unless it is kept.
    pub(super) fn holding_as(&self, by: Holder) -> HoldGuard<'_> {
        HoldGuard::new(&self.inner.holds, &self.inner.left_over, by)
    }

    /// Makes a [`Known`] of an inode after its transaction was applied.
    pub(super) fn known(&self, attributes: Attributes, held: Option<HoldGuard<'_>>) -> Known {
        let ino = attributes.ino;
        let hold = KernelHold(held.is_some().then(|| (self.clone(), ino)));
        if let Some(held) = held {
            held.keep();
        }
        Known { attributes, hold }
    }

    /// Looks up an inode that `f` finds in the same state of the map. It is held from before `f` on. Fails with
    /// [`super::Error::Stale`] if the inode is just being removed.
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

    /// The kernel forgets `times` of the times that it was told of an inode. If nobody holds it any more and it has no
    /// name, it is removed soon, together with others. Whoever gets a [`Departure`] must pass it to [`Vfs::depart`].
    pub fn forget(&self, ino: InodeNo, times: u64) -> Option<Departure> {
        self.inner.holds.let_go(ino, Holder::Kernel, times).then(|| self.departs(ino))?
    }

    /// The mount has ended: the kernel knows no inode any more.
    pub async fn forget_all(&self) {
        let mut gone = self.inner.departing.take();
        gone.append(&mut self.inner.holds.kernel_is_gone());
        for some in gone.chunks(AT_ONCE) {
            self.finish_orphans(some).await;
        }
    }
}
