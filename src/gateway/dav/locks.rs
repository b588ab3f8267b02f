//! WebDAV locks (RFC 4918, section 6): kept in memory, by path, each for a limited time. They bind WebDAV clients only.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::crypto::random;
use crate::types::Hash;

/// The most locks at a time: in all, and per access token. One more is refused.
const LOCKS_MAX: usize = 1000;
const LOCKS_OF_ONE: usize = 250;
/// How long a lock lasts without a refresh: by default, and at most.
pub(super) const LASTS: Duration = Duration::from_secs(600);
pub(super) const LASTS_MAX: Duration = Duration::from_secs(3600);

/// Path components from the root down.
pub(super) type Names = Vec<Vec<u8>>;

/// Who holds a lock: the hash of the token they authenticated with; `None` where nobody needs a token.
pub(super) type Holder = Option<Hash>;

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DavLock {
    /// `urn:uuid:...`; whoever sends it shows that they know of the lock.
    pub(super) token: String,
    /// What was locked.
    pub(super) root: Names,
    pub(super) is_exclusive: bool,
    /// Whether everything below is locked, too.
    pub(super) is_deep: bool,
    /// What the client says about itself, as XML.
    pub(super) owner: String,
    pub(super) holder: Holder,
    until: Instant,
}

/// A request for a lock.
#[derive(Clone, Debug)]
pub(super) struct LockWish {
    pub(super) root: Names,
    pub(super) is_exclusive: bool,
    pub(super) is_deep: bool,
    pub(super) owner: String,
    pub(super) holder: Holder,
    pub(super) lasts: Duration,
}

/// Why a lock operation is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LockRefusal {
    /// The lock at this path stands in the way.
    Locked(Names),
    /// There are too many locks.
    Many,
    /// No such lock is at this path.
    Unknown,
    /// The lock belongs to somebody else.
    NotHolder,
}

/// All locks, and the places that requests are changing.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    locks: Mutex<Vec<DavLock>>,
    /// With everything below them. Taken after `locks`.
    changing: Mutex<Vec<Arc<Names>>>,
}

/// A place that a request is changing: until this is dropped, nobody gets a lock there. So a change that takes long goes by the
/// locks that there were when it began.
#[derive(Debug)]
pub(super) struct ChangingPlace<'a> {
    table: &'a LockTable,
    root: Arc<Names>,
}

impl Drop for ChangingPlace<'_> {
    fn drop(&mut self) {
        self.table.changing.lock().retain(|root| !Arc::ptr_eq(root, &self.root));
    }
}

impl DavLock {
    /// How long the lock still lasts.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn covers(&self, path: &[Vec<u8>]) -> bool {
        self.root == path || self.is_deep && path.starts_with(&self.root)
    }
}

impl LockTable {
    fn living(&self) -> parking_lot::MutexGuard<'_, Vec<DavLock>> {
        let mut locks = self.locks.lock();
        let now = Instant::now();
        locks.retain(|lock| lock.until > now);
        locks
    }

    /// Makes a lock, if no other is in its way.
    pub(super) fn lock(&self, wish: LockWish) -> Result<DavLock, LockRefusal> {
        let LockWish { root, is_exclusive, is_deep, owner, holder, lasts } = wish;
        let mut locks = self.living();
        let in_the_way = locks.iter().find(|lock| {
            let meets = lock.covers(&root) || is_deep && lock.root.starts_with(&root);
            meets && (is_exclusive || lock.is_exclusive)
        });
        if let Some(lock) = in_the_way {
            return Err(LockRefusal::Locked(lock.root.clone()));
        }
        let changing = self.changing.lock();
        let meets = |place: &&Arc<Names>| {
            root.starts_with(place) || root == ***place || is_deep && place.starts_with(&root)
        };
        if let Some(place) = changing.iter().find(meets) {
            return Err(LockRefusal::Locked(place.to_vec()));
        }
        drop(changing);
        let own = locks.iter().filter(|lock| lock.holder == holder).count();
        // Where nobody needs a token, all clients are one holder.
        let most = if holder.is_some() { LOCKS_OF_ONE } else { LOCKS_MAX };
        if locks.len() >= LOCKS_MAX || own >= most {
            return Err(LockRefusal::Many);
        }
        let until = Instant::now() + lasts.min(LASTS_MAX);
        let lock = DavLock { token: uuid(), root, is_exclusive, is_deep, owner, holder, until };
        locks.push(lock.clone());
        Ok(lock)
    }

    /// Begins to change a place and everything below it. What is locked there is checked afterwards: until the end nothing
    /// more is.
    pub(super) fn changes(&self, path: &[Vec<u8>]) -> ChangingPlace<'_> {
        let _no_lock_is_made = self.locks.lock();
        let root = Arc::new(path.to_vec());
        self.changing.lock().push(root.clone());
        ChangingPlace { table: self, root }
    }

    /// Extends a lock: the first that covers the path and that its holder names.
    pub(super) fn refresh(
        &self,
        path: &[Vec<u8>],
        tokens: &[String],
        holder: Holder,
        lasts: Duration,
    ) -> Result<DavLock, LockRefusal> {
        let mut locks = self.living();
        let named = |lock: &&mut DavLock| lock.covers(path) && tokens.contains(&lock.token);
        let lock = locks.iter_mut().find(named).ok_or(LockRefusal::Unknown)?;
        if lock.holder != holder {
            return Err(LockRefusal::NotHolder);
        }
        lock.until = Instant::now() + lasts.min(LASTS_MAX);
        Ok(lock.clone())
    }

    /// Ends a lock.
    pub(super) fn unlock(
        &self,
        path: &[Vec<u8>],
        token: &str,
        holder: Holder,
    ) -> Result<(), LockRefusal> {
        let mut locks = self.living();
        let named = |lock: &DavLock| lock.token == token && lock.covers(path);
        let at = locks.iter().position(named).ok_or(LockRefusal::Unknown)?;
        if locks[at].holder != holder {
            return Err(LockRefusal::NotHolder);
        }
        locks.swap_remove(at);
        Ok(())
    }

    /// The locks that cover a path.
    pub(super) fn covering(&self, path: &[Vec<u8>]) -> Vec<DavLock> {
        self.living().iter().filter(|lock| lock.covers(path)).cloned().collect()
    }

    /// Whether a lock of this token covers the path.
    pub(super) fn is_under(&self, path: &[Vec<u8>], token: &str) -> bool {
        self.living().iter().any(|lock| lock.token == token && lock.covers(path))
    }

    /// Whether `holder` may change what is at a path, and with `below` everything under it. For each locked place they
    /// must hold a lock and name its token.
    pub(super) fn check(
        &self,
        path: &[Vec<u8>],
        below: bool,
        tokens: &[String],
        holder: Holder,
    ) -> Result<(), LockRefusal> {
        let locks = self.living();
        let meets = |lock: &&DavLock| lock.covers(path) || below && lock.root.starts_with(path);
        let opens = |root: &Names| {
            let own = |lock: &DavLock| {
                lock.root == *root && lock.holder == holder && tokens.contains(&lock.token)
            };
            locks.iter().any(own)
        };
        match locks.iter().filter(meets).find(|lock| !opens(&lock.root)) {
            Some(lock) => Err(LockRefusal::Locked(lock.root.clone())),
            None => Ok(()),
        }
    }

    /// Drops the locks of a path, and of everything below it, that no longer exists.
    pub(super) fn gone(&self, path: &[Vec<u8>]) {
        self.living().retain(|lock| !lock.root.starts_with(path));
    }

    /// Drops the locks of what was below a path, which was replaced. Its own stay: they are the new one's.
    pub(super) fn gone_below(&self, path: &[Vec<u8>]) {
        self.living().retain(|lock| lock.root == path || !lock.root.starts_with(path));
    }
}

/// A random lock token (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes: [u8; 16] = random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("urn:uuid:{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: Holder = Some(Hash([1; 32]));
    const BERT: Holder = Some(Hash([2; 32]));

    fn names(path: &str) -> Names {
        path.split('/').filter(|name| !name.is_empty()).map(|name| name.into()).collect()
    }

    fn wish(path: &str, holder: Holder) -> LockWish {
        let (root, owner, lasts) = (names(path), String::new(), Duration::from_secs(60));
        LockWish { root, is_exclusive: true, is_deep: true, owner, holder, lasts }
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_change_what_under_which_locks() {
        let table = LockTable::default();
        let deep = table.lock(wish("a/b", ANNA)).unwrap();
        let own = [deep.token.clone()];
        let check = |path: &str, below, tokens: &[String], holder| {
            table.check(&names(path), below, tokens, holder).is_ok()
        };
        for path in ["a/b", "a/b/c", "a/b/c/d"] {
            assert!(!check(path, false, &[], ANNA) && !check(path, false, &own, BERT));
            assert!(check(path, false, &own, ANNA), "{path}");
        }
        assert!(check("a", false, &[], BERT) && check("a/bc", false, &[], BERT));
        assert!(!check("a", true, &[], BERT) && check("a", true, &own, ANNA));
        for path in ["a/b", "a/b/c", "a", ""] {
            let refused = LockRefusal::Locked(names("a/b"));
            assert_eq!(table.lock(wish(path, BERT)).unwrap_err(), refused, "{path}");
        }
        let shallow = LockWish { is_deep: false, ..wish("a", BERT) };
        table.lock(shallow).unwrap();
        assert!(check("a/x", false, &[], ANNA) && !check("a", false, &[], ANNA));
        assert_eq!(table.unlock(&names("a/b"), &own[0], BERT), Err(LockRefusal::NotHolder));
        assert_eq!(table.unlock(&names("a"), &own[0], ANNA), Err(LockRefusal::Unknown));
        assert_eq!(table.unlock(&names("a/b/c"), &own[0], ANNA), Ok(()));
        assert!(check("a/b", false, &[], BERT));
        let shared = |holder| LockWish { is_exclusive: false, ..wish("s", holder) };
        let one = [table.lock(shared(ANNA)).unwrap().token];
        table.lock(shared(BERT)).unwrap();
        assert!(table.lock(wish("s", ANNA)).is_err());
        assert!(check("s/x", false, &one, ANNA) && !check("s/x", false, &one, BERT));
        table.gone(&names("s"));
        assert!(check("s/x", false, &[], BERT));
    }

    #[test]
    fn nobody_gets_a_lock_where_a_request_changes_something() {
        let table = LockTable::default();
        let shallow = |path| LockWish { is_deep: false, ..wish(path, ANNA) };
        let changing = table.changes(&names("a/b"));
        let other = table.changes(&names("a/b"));
        for path in ["a/b", "a/b/c"] {
            assert_eq!(table.lock(shallow(path)), Err(LockRefusal::Locked(names("a/b"))), "{path}");
        }
        assert!(table.lock(wish("a", ANNA)).is_err());
        assert!(table.lock(shallow("a")).is_ok() && table.lock(wish("a/bc", ANNA)).is_ok());
        drop(changing);
        assert!(table.lock(shallow("a/b")).is_err(), "the other one goes on");
        drop(other);
        assert!(table.lock(shallow("a/b")).is_ok());
        assert!(table.lock(shallow("a/b/c")).is_ok());
        table.gone_below(&names("a/b"));
        assert!(table.check(&names("a/b/c"), false, &[], BERT).is_ok());
        assert!(table.check(&names("a/b"), false, &[], BERT).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_ends_by_itself_unless_it_is_refreshed() {
        let table = LockTable::default();
        let lock = table.lock(wish("a", ANNA)).unwrap();
        let own = [lock.token.clone()];
        tokio::time::advance(Duration::from_secs(50)).await;
        let long = Duration::from_secs(1 << 40);
        assert!(table.refresh(&names("a/x"), &own, BERT, long).is_err());
        assert!(table.refresh(&names("x"), &own, ANNA, long).is_err());
        assert!(table.refresh(&names("a/x"), &own, ANNA, long).unwrap().left() <= LASTS_MAX);
        tokio::time::advance(LASTS_MAX - Duration::from_secs(1)).await;
        assert!(table.is_under(&names("a"), &own[0]));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(table.covering(&names("a")).is_empty());
        assert!(table.lock(wish("a", BERT)).is_ok());
    }

    #[test]
    fn the_locks_of_one_and_of_all_are_bounded() {
        let table = LockTable::default();
        for holder in 1..=4 {
            for number in 0..LOCKS_OF_ONE {
                let path = format!("{holder}/{number}");
                table.lock(wish(&path, Some(Hash([holder; 32])))).unwrap();
            }
            assert_eq!(table.lock(wish("x", Some(Hash([holder; 32])))), Err(LockRefusal::Many));
        }
        assert_eq!(table.lock(wish("x", Some(Hash([9; 32])))), Err(LockRefusal::Many));
        assert!(uuid().len() == 45 && uuid() != uuid());
    }
}
