//! When to look for other credentials. Pure: the caller passes the time.

use std::time::{Duration, Instant, SystemTime};

/// How often the files are checked for changes while requests are made.
const LOOK: Duration = Duration::from_secs(5);
/// How soon after a look-up that found nothing new the next may begin; it doubles each time.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest such pause: new credentials are picked up within a minute.
const PAUSE_MAX: Duration = Duration::from_secs(50);
/// The pause after a look-up that was given up: it may have left a hanging process.
const PAUSE_GIVEN_UP: Duration = Duration::from_secs(600);
/// How long before they expire others are looked for, while these still serve.
const AHEAD: Duration = Duration::from_secs(300);
/// How long before they expire they count as expired: the store's clock differs from this
/// machine's.
const EXPIRED: Duration = Duration::from_secs(10);

/// What to do before the next request is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    Nothing,
    /// Check in the background whether the files have changed; if so, look for others.
    Look,
    /// Look for others in the background; the current ones serve meanwhile.
    Soon,
    /// Look for others, and wait.
    Now,
}

/// The state of the credentials, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct CredentialState {
    pub(super) has: bool,
    pub(super) expires: Option<SystemTime>,
    pub(super) refused: bool,
}

/// When look-ups happened.
#[derive(Debug, Default)]
pub(super) struct RefreshPolicy {
    /// No look-up begins before this; `None`: one may begin at once.
    next: Option<Instant>,
    pause: Option<Duration>,
    looked: Option<Instant>,
}

impl RefreshPolicy {
    pub(super) fn need(&self, of: &CredentialState, now: Instant, wall: SystemTime) -> Refresh {
        let may = self.next.is_none_or(|next| now >= next);
        let expires_within = |time| of.expires.is_some_and(|end| end <= wall + time);
        match () {
            () if may && (!of.has || of.refused || expires_within(EXPIRED)) => Refresh::Now,
            () if may && expires_within(AHEAD) => Refresh::Soon,
            () if self.looked.is_none_or(|looked| now >= looked + LOOK) => Refresh::Look,
            () => Refresh::Nothing,
        }
    }

    /// Notes that a look-up, or a check of the files, begins.
    pub(super) fn begins(&mut self, need: Refresh, now: Instant) {
        self.looked = Some(now);
        if need != Refresh::Look {
            // In case it never ends; its end sets this anew.
            self.next = Some(now + PAUSE);
        }
    }

    /// Notes that a look-up ended; `new`: it found something new, so the next may come soon.
    pub(super) fn ends(&mut self, new: bool, now: Instant) {
        let longer = self.pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX));
        self.pause = if new { None } else { Some(longer) };
        self.next = Some(now + self.pause.unwrap_or(PAUSE));
    }

    /// Notes that a look-up was given up: it never ended.
    pub(super) fn gave_up(&mut self, now: Instant) {
        self.next = Some(now + PAUSE_GIVEN_UP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: CredentialState = CredentialState { has: true, expires: None, refused: false };

    #[test]
    fn what_is_refused_or_lacking_is_looked_for_at_once_and_then_at_most_every_minute() {
        for of in
            [CredentialState { refused: true, ..GOOD }, CredentialState { has: false, ..GOOD }]
        {
            let (mut policy, mut now, wall) =
                (RefreshPolicy::default(), Instant::now(), SystemTime::now());
            let mut waited = Vec::new();
            for _ in 0..6 {
                let begun = now;
                while policy.need(&of, now, wall) != Refresh::Now {
                    if policy.need(&of, now, wall) == Refresh::Look {
                        policy.begins(Refresh::Look, now);
                    }
                    now += Duration::from_secs(1);
                }
                waited.push((now - begun).as_secs());
                policy.begins(Refresh::Now, now);
                policy.ends(false, now);
            }
            assert_eq!(waited, [0, 5, 10, 20, 40, 50]);
            // After something new, the next look-up may come soon again.
            policy.ends(true, now);
            assert_eq!(policy.need(&of, now + Duration::from_secs(5), wall), Refresh::Now);
            // A hanging look-up is not started again and again.
            policy.gave_up(now);
            assert_ne!(policy.need(&of, now + Duration::from_secs(599), wall), Refresh::Now);
            assert_eq!(policy.need(&of, now + Duration::from_secs(600), wall), Refresh::Now);
        }
    }

    #[test]
    fn what_expires_is_renewed_before_and_files_are_looked_at() {
        let (mut policy, now, wall) = (RefreshPolicy::default(), Instant::now(), SystemTime::now());
        let expires = |seconds| CredentialState {
            expires: Some(wall + Duration::from_secs(seconds)),
            ..GOOD
        };
        assert_eq!(policy.need(&expires(301), now, wall), Refresh::Look);
        assert_eq!(policy.need(&expires(300), now, wall), Refresh::Soon);
        assert_eq!(policy.need(&expires(10), now, wall), Refresh::Now);
        policy.begins(Refresh::Soon, now);
        assert_eq!(policy.need(&expires(300), now, wall), Refresh::Nothing);
        let later = now + LOOK;
        assert_eq!(policy.need(&GOOD, later, wall), Refresh::Look);
        policy.begins(Refresh::Look, later);
        assert_eq!(policy.need(&GOOD, later, wall), Refresh::Nothing);
        assert_eq!(policy.need(&GOOD, later + LOOK, wall), Refresh::Look);
    }
}
