//! The shared open pack: small extents of many files, sealed outside its lock and appended under it (J7).

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

/// How long the shared pack is kept open for more extents. It is closed at the earlier of the two times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    /// Time since its first extent.
    pub age: Duration,
    /// Time since its last extent.
    pub quiet: Duration,
}

/// `PROTOCOL.md`, "Settled details".
const LINGER: Linger = Linger { age: Duration::from_millis(200), quiet: Duration::from_millis(50) };

impl Linger {
    /// The times of the program. A build with the feature `testing` takes others from the environment, in seconds: what
    /// a test counts must not depend on the speed of the machine.
    pub(super) fn of_program() -> Self {
        #[cfg(feature = "testing")]
        if let Some(told) = std::env::var("S3VAULT_PACK_LINGER").ok().and_then(|s| s.parse().ok()) {
            let told = Duration::from_secs(told);
            return Self { age: told, quiet: told };
        }
        LINGER
    }
}

/// How long the thread waits after a panic before it starts again.
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
    /// How many bytes of a file, just before its extent in here, fill packs of their own: the most of any extent. For
    /// the padding, if all extents are of one file.
    before: u64,
    first: Instant,
    last: Instant,
}

impl Packer {
    pub(super) fn new(keys: Keys, staging: Staging, linger: Linger) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self { inner: Arc::new(Inner { keys, staging, linger, state, wake }) }
    }

    /// Seals `parts`, joined, as one extent at `offset` of the file; it is in staging when this returns. `before`:
    /// bytes of the file just before it that are in full packs of their own.
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

    /// Closes the open pack, if there is one: it is in the upload queue when this returns.
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
    /// Whether `sealed` more bytes keep the pack within the size of a full one.
    fn has_room(&self, sealed: u64) -> bool {
        let full = layout::sealed_length(EXTENT_MAX);
        self.footer.entries.is_empty() || self.pack.length() + self.footer_weight + sealed < full
    }
}

impl Inner {
    /// Opens a new pack; closes the one that is open.
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
                // Without it, packs close when they are full, or by `close`. The next pack tries again to start a
                // thread.
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

    /// The closing thread: closes each pack in time.
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
                // This has poisoned staging (J6), which tells everybody else.
                tracing::error!(%error, "closing a pack");
            }
        }
    }
}
