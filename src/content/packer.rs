//! The shared open pack: small extents of many files, sealed outside its lock, appended under it (J7).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Result;
use super::footer::{Footer, Origin, seal_footer};
use super::seal::seal_extent;
use super::staged_extent::StagedExtent;
use crate::crypto::{Keys, layout, random};
use crate::os;
use crate::types::{EXTENT_MAX, PackId};
use crate::upload::{OpenPack, Staging};

/// How long a shared pack waits for more extents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    /// It is closed so long after its first extent,
    pub age: Duration,
    /// or so long after its last.
    pub quiet: Duration,
}

/// `PROTOCOL.md`, "Settled details".
const LINGER: Linger = Linger { age: Duration::from_millis(200), quiet: Duration::from_millis(50) };

impl Linger {
    /// As it is in a program. One with the feature `testing` can be told otherwise, in seconds: what a test counts must
    /// not depend on how long the machine takes for it.
    pub(super) fn of_program() -> Self {
        #[cfg(feature = "testing")]
        if let Some(told) = std::env::var("S3VAULT_PACK_LINGER").ok().and_then(|s| s.parse().ok()) {
            let told = Duration::from_secs(told);
            return Self { age: told, quiet: told };
        }
        LINGER
    }
}

/// After a panic the thread begins again so much later.
const AGAIN: Duration = Duration::from_millis(100);

/// The shared pack, and the thread that closes it when it has lingered.
pub(super) struct Packer {
    inner: Arc<Inner>,
}

struct Inner {
    keys: Keys,
    staging: Staging,
    linger: Linger,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    open: Option<SharedPack>,
    has_thread: bool,
    stopped: bool,
}

struct SharedPack {
    pack: OpenPack,
    footer: Footer,
    footer_weight: u64,
    /// What one of its files fills in packs of its own, if it is alone here.
    before: u64,
    first: Instant,
    last: Instant,
}

impl Packer {
    pub(super) fn new(keys: Keys, staging: Staging, linger: Linger) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self { inner: Arc::new(Inner { keys, staging, linger, state, wake }) }
    }

    /// Seals `parts`, one after the other, as one extent at `offset` of the file, which fills `before` bytes of packs
    /// just before it; it is in staging when this returns.
    pub(super) fn add(
        &self,
        origin: &Origin,
        (offset, before): (u64, u64),
        parts: &[&[u8]],
    ) -> Result<StagedExtent> {
        let mut sealed = Vec::new();
        let extent = seal_extent(&self.inner.keys, parts, &mut sealed);

        let mut state = self.inner.state.lock();
        let open = match &mut state.open {
            Some(open) if open.has_room(sealed.len() as u64) => open,
            _ => self.inner.begin(&mut state)?,
        };
        let hold = self.inner.staging.hold(open.pack.id());
        let at = open.pack.append(&sealed)?;
        let reference = extent.at(open.pack.id(), at);
        let entry = origin.entry(reference.clone(), offset);
        open.footer_weight += entry.weight();
        open.footer.entries.push(entry);
        open.before = open.before.max(before);
        open.last = Instant::now();
        if !open.has_room(0) {
            self.inner.close(&mut state)?;
        }
        Ok(StagedExtent::new(reference, hold))
    }

    /// Closes the pack if one is open: it is in the upload queue when this returns.
    pub(super) fn close(&self) -> Result<()> {
        self.inner.close(&mut self.inner.state.lock())
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.stopped = true;
        self.inner.wake.notify_all();
        if let Err(error) = self.inner.close(&mut state) {
            tracing::warn!(%error, "the open pack was left for the next mount to close");
        }
    }
}

impl SharedPack {
    /// Whether the pack stays within the size of a full one with another `sealed` bytes.
    fn has_room(&self, sealed: u64) -> bool {
        let full = layout::sealed_length(EXTENT_MAX);
        self.footer.entries.is_empty() || self.pack.length() + self.footer_weight + sealed < full
    }
}

impl Inner {
    /// A new open pack, instead of the one that is there.
    fn begin<'a>(self: &Arc<Self>, state: &'a mut State) -> Result<&'a mut SharedPack> {
        self.close(state)?;
        if !state.has_thread {
            let this = self.clone();
            let close = move || {
                while os::watched_here("closing packs", || this.linger()).is_err() {
                    std::thread::sleep(AGAIN);
                }
            };
            let spawned = os::thread("packer", close);
            match spawned {
                Ok(_) => state.has_thread = true,
                // Packs then close when they are full, or by `close`; the next one tries for a thread again.
                Err(error) => tracing::error!(%error, "no thread to close packs"),
            }
        }
        let pack = self.staging.create(PackId(random()))?;
        let now = Instant::now();
        self.wake.notify_all();
        let footer = Footer::default();
        let open = SharedPack { pack, footer, footer_weight: 0, before: 0, first: now, last: now };
        Ok(state.open.insert(open))
    }

    fn close(&self, state: &mut State) -> Result<()> {
        let Some(open) = state.open.take() else { return Ok(()) };
        let (pack, end) = (open.pack.id(), open.pack.length());
        let footer = seal_footer(&self.keys, pack, &open.footer, end, open.before);
        Ok(open.pack.close(&footer)?)
    }

    /// The thread: closes each pack in time.
    fn linger(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            let Some(open) = &state.open else {
                self.wake.wait(&mut state);
                continue;
            };
            let due = (open.first + self.linger.age).min(open.last + self.linger.quiet);
            if Instant::now() < due {
                self.wake.wait_until(&mut state, due);
            } else if let Err(error) = self.close(&mut state) {
                // This has poisoned staging (J6): everybody else is told there.
                tracing::error!(%error, "closing a pack");
            }
        }
    }
}
