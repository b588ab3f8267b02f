//! The users logged in at the page: a bounded table in memory. A session is valid only while its token is, which is
//! looked up at every request.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::crypto;
use crate::types::Hash;

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long it lasts while unused.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// The most sessions. The least recently used one makes room for another.
const SESSIONS_MAX: usize = 1024;

/// A session.
struct LoggedIn {
    token: Hash,
    csrf: String,
    begun: Instant,
    used: Instant,
}

/// All sessions, by the SHA-256 of the cookie's value, so that the time of a look-up reveals nothing about the value.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Hash, LoggedIn>>);

/// 256 random bits as hex: a cookie's value, or the CSRF word of a form.
pub(super) fn random_word() -> String {
    Hash(crypto::random()).to_string()
}

impl Sessions {
    /// Opens a session for the token with this hash; returns the cookie's value.
    pub(super) fn open(&self, token: Hash) -> String {
        self.open_at(token, Instant::now())
    }

    fn open_at(&self, token: Hash, now: Instant) -> String {
        let value = random_word();
        let entry = LoggedIn { token, csrf: random_word(), begun: now, used: now };
        let mut table = self.0.lock();
        table.retain(|_, entry| entry.lives(now));
        if table.len() >= SESSIONS_MAX {
            let oldest = table.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            oldest.and_then(|key| table.remove(&key));
        }
        table.insert(crypto::sha256(value.as_bytes()), entry);
        value
    }

    /// The token hash and CSRF word of the session with this cookie value, if it has not expired.
    pub(super) fn find(&self, value: &str) -> Option<(Hash, String)> {
        self.find_at(value, Instant::now())
    }

    fn find_at(&self, value: &str, now: Instant) -> Option<(Hash, String)> {
        let key = crypto::sha256(value.as_bytes());
        let mut table = self.0.lock();
        let entry = table.get_mut(&key)?;
        if !entry.lives(now) {
            table.remove(&key);
            return None;
        }
        entry.used = now;
        Some((entry.token, entry.csrf.clone()))
    }

    /// Ends a session.
    pub(super) fn close(&self, value: &str) {
        self.0.lock().remove(&crypto::sha256(value.as_bytes()));
    }
}

impl LoggedIn {
    fn lives(&self, now: Instant) -> bool {
        now < self.begun + LIFETIME && now < self.used + IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_closed_unused_or_old() {
        let sessions = Sessions::default();
        let (token, start) = (Hash([7; 32]), Instant::now());
        let value = sessions.open_at(token, start);
        let (found, csrf) = sessions.find_at(&value, start).unwrap();
        assert_eq!(found, token);
        assert_eq!(sessions.find_at(&value, start).unwrap().1, csrf);
        assert_ne!(value, csrf);
        assert!(sessions.find_at(&csrf, start).is_none());
        sessions.close(&value);
        assert!(sessions.find_at(&value, start).is_none());

        let value = sessions.open_at(token, start);
        let mut now = start;
        while now + IDLE / 2 < start + LIFETIME {
            assert!(sessions.find_at(&value, now).is_some());
            now += IDLE / 2;
        }
        assert!(sessions.find_at(&value, start + LIFETIME).is_none());
        let value = sessions.open_at(token, start);
        assert!(sessions.find_at(&value, start + IDLE).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let at = |n: usize| start + Duration::from_millis(n as u64);
        let values: Vec<_> =
            (0..SESSIONS_MAX + 2).map(|n| sessions.open_at(Hash([1; 32]), at(n))).collect();
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
        let now = at(values.len());
        assert!(sessions.find_at(&values[1], now).is_none());
        assert!(sessions.find_at(&values[2], now).is_some());
    }
}
