//! The credentials that sign requests, and how they change while a vault is mounted: files are rewritten, processes and
//! metadata services issue new ones, users hand them over.
//!
//! The SDK's own cache and its chain keep what they found: a file is read once, and refused credentials are used until
//! they expire. So both are built anew for each look-up, and this cache decides when to look.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::error::{Error, Result};
use super::answer::Lacking;
use super::credential_chain::{FileStamps, FindCredentials};
use super::refresh::{CredentialState, Refresh, RefreshPolicy};
use crate::os;

/// A look-up without a result is given up after this time.
const GIVEN_UP: Duration = Duration::from_secs(120);

/// A refusal older than this may be over: nobody has made a request since.
const OLD: Duration = Duration::from_secs(60);

/// The credentials of one store. A clone is the same cache.
#[derive(Clone)]
pub(super) struct CredentialCache(Arc<Inner>);

struct Inner {
    /// Where to look for new credentials; `None`: nowhere, because they were given once.
    source: Option<Box<dyn FindCredentials>>,
    /// How long a request waits for a look-up.
    wait: Duration,
    /// A leaf lock, never held across a look-up.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Credentials>,
    /// How often the current credentials were replaced.
    generation: u64,
    policy: RefreshPolicy,
    /// What the store refuses, for reading and for writing.
    refused: [Option<CredentialRefusal>; 2],
    /// Why the last look-up found none.
    lack: Option<String>,
    stamp: Option<FileStamps>,
    /// The look-up in progress, and when it began; the channel closes when it is over.
    flight: Option<(tokio::time::Instant, watch::Receiver<()>)>,
}

/// Records that the store refuses requests of one kind.
#[derive(Clone, Copy)]
struct CredentialRefusal {
    since: SystemTime,
    last: Instant,
    /// The generation of the credentials that it refused last.
    generation: u64,
}

/// The purpose of a request: a policy may allow one and not the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Reading,
    Writing,
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialCache(…)")
    }
}

impl CredentialCache {
    /// Holds the given credentials, if there are any, or else those that the source finds.
    pub(super) fn new(
        given: Option<Credentials>,
        source: Option<Box<dyn FindCredentials>>,
        wait: Duration,
    ) -> Self {
        let state = State { current: given, ..State::default() };
        Self(Arc::new(Inner { source, wait, state: Mutex::new(state) }))
    }

    /// Waits for the first credentials, longer than a request would.
    pub(super) async fn begin(&self, wait: Duration) {
        drop(self.usable(wait, false).await); // if there are none, the first request reports why
    }

    /// The credentials to sign with now. It waits for a look-up only if the current credentials are known to be useless.
    /// With `joins`, it also waits for any look-up in progress.
    async fn usable(
        &self,
        wait: Duration,
        joins: bool,
    ) -> std::result::Result<Credentials, String> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let (begun, flight) = {
                let mut state = self.0.state.lock();
                let need = self.need(&state);
                if need != Refresh::Nothing && state.flight.is_none() {
                    self.look_up(&mut state, need);
                }
                match &state.flight {
                    Some(flight) if need == Refresh::Now || joins || state.current.is_none() => {
                        flight.clone()
                    }
                    _ => return state.those(),
                }
            };
            // Counted from the look-up's beginning, so that successive requests do not each wait for it anew.
            if !over(flight, deadline.min(begun + wait)).await {
                let silent = || {
                    let asked = wait.as_secs();
                    format!("whoever gives them has not answered for {asked} s, and is waited for")
                };
                return self.0.state.lock().current.clone().ok_or_else(silent);
            }
        }
    }

    fn need(&self, state: &State) -> Refresh {
        if self.0.source.is_none() {
            return Refresh::Nothing;
        }
        let of = CredentialState {
            has: state.current.is_some(),
            expires: state.current.as_ref().and_then(Credentials::expiry),
            refused: state.refused.iter().any(Option::is_some),
        };
        state.policy.need(&of, Instant::now(), SystemTime::now())
    }

    /// Starts a look-up in the background, one at a time. It goes on even if the request that needed it is gone.
    fn look_up(&self, state: &mut State, need: Refresh) {
        let (over, flight) = watch::channel(());
        state.flight = Some((tokio::time::Instant::now(), flight));
        state.policy.begins(need, Instant::now());
        let cache = self.clone();
        tokio::spawn(async move {
            let looked = os::watched("looking for credentials", cache.find(need)).await;
            let mut state = cache.0.state.lock();
            if looked.is_err() {
                state.policy.ends(false, Instant::now());
            }
            state.flight = None;
            drop(over);
        });
    }

    async fn find(&self, need: Refresh) {
        let Some(source) = &self.0.source else { return };
        let stamp = source.stamp().await;
        let (changed, before) = {
            let mut state = self.0.state.lock();
            let changed = state.stamp.as_ref().is_some_and(|known| *known != stamp);
            state.stamp = Some(stamp);
            if need == Refresh::Look && !changed {
                return;
            }
            (changed, state.generation)
        };
        let found = tokio::time::timeout(GIVEN_UP, source.find()).await;
        let mut state = self.0.state.lock();
        let now = Instant::now();
        match found {
            // Others were handed over meanwhile, so they are newer.
            _ if state.generation != before => state.policy.ends(true, now),
            Ok(Ok(found)) => {
                state.lack = None;
                let new = state.take(found);
                state.policy.ends(new || changed, now);
                if new {
                    tracing::info!("new credentials");
                }
            }
            Ok(Err(why)) => {
                tracing::warn!(why, "no credentials were found");
                state.lack = Some(why);
                state.policy.ends(changed, now);
            }
            Err(_) => {
                let asked = GIVEN_UP.as_secs();
                state.lack = Some(format!("whoever gives them did not answer within {asked} s"));
                state.policy.gave_up(now);
            }
        }
    }

    /// The generation of the credentials that now sign requests.
    pub(super) fn generation(&self) -> u64 {
        self.0.state.lock().generation
    }

    /// Notes that the store accepted the credentials of this generation.
    pub(super) fn accepted(&self, used: u64, what: For) {
        let mut state = self.0.state.lock();
        if used != state.generation {
            return;
        }
        let was_refused = state.refused.iter().any(Option::is_some);
        state.refused[what as usize] = None;
        // What it refused of older credentials says nothing about these; a writer may not read for hours.
        for refusal in &mut state.refused {
            refusal.take_if(|refusal| refusal.generation < used);
        }
        if was_refused && state.refused.iter().all(Option::is_none) {
            tracing::info!("the store accepts the credentials again");
        }
    }

    /// Notes that the store refused the credentials of this generation, or that there were none. Looks for others, and
    /// returns whether there are any.
    pub(super) async fn refused(&self, used: u64, what: For) -> bool {
        {
            let mut state = self.0.state.lock();
            if state.generation != used {
                return true;
            }
            let before = state.refused[what as usize].map(|refusal| refusal.since);
            if before.is_none() {
                tracing::warn!("the store refuses the credentials, or there are none");
            }
            let since = before.unwrap_or_else(SystemTime::now);
            state.refused[what as usize] =
                Some(CredentialRefusal { since, last: Instant::now(), generation: used });
        }
        drop(self.usable(self.0.wait, true).await); // the generation tells the result
        self.generation() != used
    }

    /// Makes a request. If the store refuses the credentials and others are found, makes it once more.
    pub(super) async fn signed<T, F: Future<Output = Result<T>>>(
        &self,
        what: For,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let used = self.generation();
        let answer = attempt().await;
        match &answer {
            Err(Error::Denied { .. } | Error::NoCredentials { .. }) => {}
            // The store accepted the signature. Other errors say nothing about it.
            Ok(_) | Err(Error::NotFound { .. } | Error::Exists { .. }) => {
                self.accepted(used, what);
                return answer;
            }
            Err(_) => return answer,
        }
        if !self.refused(used, what).await {
            return answer;
        }
        let used = self.generation();
        let answer = attempt().await;
        if !matches!(answer, Err(Error::Denied { .. } | Error::NoCredentials { .. })) {
            self.accepted(used, what);
        }
        answer
    }

    /// Takes credentials that a user hands over.
    pub(super) fn hand_over(&self, given: Credentials) {
        let mut state = self.0.state.lock();
        state.take(given);
        (state.refused, state.lack) = ([None; 2], None);
        state.policy.ends(true, Instant::now());
        tracing::info!("credentials were handed over");
    }

    /// For people: since when the store has refused the credentials, and what to do.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.0.state.lock();
        let since = state.refused.iter().flatten().map(|refusal| refusal.since).min()?;
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let since = jiff::Timestamp::from_second(since.cast_signed())
            .map_or_else(|_| format!("{since} s after 1970"), |time| time.to_string());
        let cure = if self.0.source.is_none() {
            "they came from the environment at the start, where they cannot change: run `s3vault credentials` in a \
             shell that has others, which hands them over"
        } else {
            "others are looked for at least once a minute where `aws` finds them (profile, process, role), or hand some \
             over: `s3vault credentials`"
        };
        let lack = state.lack.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let what = if state.current.is_some() {
            "the store refuses the credentials, or what they may do,"
        } else {
            "there are no credentials for the store"
        };
        let idle = state.idle().map_or_else(String::new, |(idle, what)| {
            format!(
                " (so it was at the last {what}, {} s ago; the next {what} tells whether it is over, and none is made for that)",
                idle.as_secs()
            )
        });
        Some(format!(
            "{what} since {since}{lack}{idle}; nothing is lost: what is written stays on this disk and is sent when that ends; \
             {cure}"
        ))
    }
}

impl State {
    /// How long nobody has made a request of a refused kind, if that is long, and which kind.
    fn idle(&self) -> Option<(Duration, &'static str)> {
        let kinds = self.refused.iter().zip(["read", "write"]);
        let refused = kinds.filter_map(|(refusal, what)| Some((refusal.as_ref()?, what)));
        let latest = refused.map(|(refusal, what)| (refusal.last.elapsed(), what)).min();
        latest.filter(|(idle, _)| *idle >= OLD)
    }

    fn those(&self) -> std::result::Result<Credentials, String> {
        let lack = || self.lack.clone().unwrap_or_else(|| "none were found".to_owned());
        self.current.clone().ok_or_else(lack)
    }

    /// Replaces the current credentials; returns whether these differ.
    fn take(&mut self, found: Credentials) -> bool {
        let new = self.current.as_ref().is_none_or(|current| {
            current.access_key_id() != found.access_key_id()
                || current.secret_access_key() != found.secret_access_key()
                || current.session_token() != found.session_token()
        });
        // The same ones with another expiry are stored too.
        self.current = Some(found);
        self.generation += u64::from(new);
        new
    }
}

/// Waits until a look-up is over; returns false if it is not over at the deadline.
async fn over(mut flight: watch::Receiver<()>, deadline: tokio::time::Instant) -> bool {
    tokio::time::timeout_at(deadline, flight.changed()).await.is_ok()
}

impl ProvideCredentials for CredentialCache {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let found = self.usable(self.0.wait, false).await;
            found.map_err(|why| CredentialsError::provider_error(Lacking(why)))
        })
    }
}

#[cfg(test)]
mod tests;
