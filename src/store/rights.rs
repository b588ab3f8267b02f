//! Which operations a bucket permits, and how fast it is: found out by trying, with probe objects that are removed again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::bucket::Bucket;
use super::error::{Error, Result};
use super::object::{Begin, Body, Put, Store};
use super::probe::{Conditional, random};

/// How many listings are timed; the fastest gives the round trip.
const KNOCKS: u32 = 3;

/// The results, in the order of the attempts; `None`: not tried, because an earlier attempt failed.
#[derive(Debug, Default)]
pub struct Rights {
    pub list: Option<Result<()>>,
    /// How far the store's clock is ahead of ours, in seconds; `None` for a directory.
    pub clock: Option<i64>,
    pub round_trip: Option<Duration>,
    pub put: Option<Result<()>>,
    pub conditional: Option<Conditional>,
    pub get: Option<Result<()>>,
    /// How long the large probe took up; `down` is the way back.
    pub up: Option<Duration>,
    pub down: Option<Duration>,
    pub delete: Option<Result<()>>,
    /// Probe objects that could not be removed.
    pub left: Vec<String>,
}

/// One request with a deadline. It is repeated once if the error says that this may help.
async fn ask<T, F: Future<Output = Result<T>>>(
    name: &str,
    limit: Duration,
    request: impl Fn() -> F,
) -> Result<T> {
    let once = async || match tokio::time::timeout(limit, request()).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Deadline { object: name.to_owned(), after: limit }),
    };
    match once().await {
        Err(error) if error.is_transient() => once().await,
        answer => answer,
    }
}

impl Bucket {
    /// Tries everything. `bytes`: the size of the object that measures the speed; `limit`: for each request.
    pub async fn try_rights(&self, bytes: usize, limit: Duration) -> Rights {
        let (store, mut rights) = (self.raw(), Rights::default());
        self.knock_for(&store, limit, &mut rights).await;
        // Some stores make a bucket for the first object that is put into it.
        if matches!(rights.list, Some(Err(Error::NoBucket { .. }))) {
            return rights;
        }
        let small = self.full(&format!("probe/{:016x}{:016x}", random(), random()));
        let large = format!("{small}-speed");
        self.put_for(&store, &small, limit, &mut rights).await;
        if matches!(rights.put, Some(Ok(()))) {
            let got = ask(&small, limit, || store.get(&small, None)).await;
            rights.get = Some(got.map(drop));
            self.measure(&store, &large, bytes, limit, &mut rights).await;
        }
        if !rights.left.is_empty() {
            let names = std::mem::take(&mut rights.left);
            let deleted = ask(&small, limit, || store.delete(&names)).await;
            for name in names {
                let gone = matches!(
                    ask(&name, limit, || store.head(&name)).await,
                    Err(Error::NotFound { .. })
                );
                if !gone {
                    rights.left.push(name);
                }
            }
            rights.delete = Some(deleted);
        }
        rights
    }

    async fn knock_for(&self, store: &Arc<dyn Store>, limit: Duration, rights: &mut Rights) {
        let prefix = self.full("superblock/");
        for _ in 0..KNOCKS {
            let begun = Instant::now();
            let listed = ask(&prefix, limit, || store.list(&prefix, &Begin::First)).await;
            let took = begun.elapsed();
            match listed {
                Ok(listing) => {
                    rights.round_trip =
                        rights.round_trip.map_or(Some(took), |least| Some(least.min(took)));
                    rights.clock = ahead(listing.time).filter(|_| self.free().is_none());
                    rights.list = Some(Ok(()));
                }
                Err(error) => {
                    rights.list = Some(Err(error));
                    return;
                }
            }
        }
    }

    /// A conditional put, and a second one of the same name, which must not win.
    async fn put_for(
        &self,
        store: &Arc<dyn Store>,
        name: &str,
        limit: Duration,
        rights: &mut Rights,
    ) {
        let first = Body::from(format!("first {name}").into_bytes());
        let second = Body::from(format!("second {name}").into_bytes());
        let put = ask(name, limit, || store.put(name, &first, Put::IfAbsent)).await;
        let put = match put {
            Err(Error::NoConditions { .. } | Error::Unsupported { .. }) => {
                rights.conditional = Some(Conditional::Refused);
                ask(name, limit, || store.put(name, &first, Put::Always)).await.map(drop)
            }
            // An answer was lost; the put is ours.
            Err(Error::Exists { .. }) => Ok(()),
            other => other.map(drop),
        };
        if put.is_ok() {
            rights.left.push(name.to_owned());
            if rights.conditional.is_none() {
                let again = ask(name, limit, || store.put(name, &second, Put::IfAbsent)).await;
                rights.conditional = match again {
                    Ok(_) => Some(Conditional::Ignored),
                    Err(Error::Exists { .. }) => Some(Conditional::NotDisproved),
                    Err(_) => None,
                };
            }
        }
        rights.put = Some(put);
    }

    async fn measure(
        &self,
        store: &Arc<dyn Store>,
        name: &str,
        bytes: usize,
        limit: Duration,
        rights: &mut Rights,
    ) {
        let mut noise = Vec::with_capacity(bytes + 8);
        while noise.len() < bytes {
            noise.extend_from_slice(&random().to_le_bytes()); // incompressible
        }
        let body = Body::from(Bytes::from(noise));
        let begun = Instant::now();
        // Whatever the outcome, it may be there.
        rights.left.push(name.to_owned());
        let put = tokio::time::timeout(limit, store.put(name, &body, Put::Always)).await;
        if !matches!(put, Ok(Ok(_))) {
            return;
        }
        rights.up = Some(begun.elapsed());
        let begun = Instant::now();
        let got = tokio::time::timeout(limit, store.get(name, None)).await;
        if let Ok(Ok(fetched)) = got
            && fetched.bytes == *body.bytes()
        {
            rights.down = Some(begun.elapsed());
        }
    }
}

/// By how many seconds `time` is ahead of our clock; `None` for 1970.
fn ahead(time: SystemTime) -> Option<i64> {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        i64::try_from(since).ok().filter(|seconds| *seconds > 0)
    };
    Some(seconds(time)? - seconds(SystemTime::now())?)
}

#[cfg(test)]
mod tests {
    use super::super::deadlines::Deadlines;
    use super::super::faulty::{Fault, Faulty, On, Verb};
    use super::super::memory_store::MemoryStore;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn denied() -> Error {
        let cause = Arc::from(Box::from("AccessDenied"));
        Error::Denied { object: "it".into(), cause }
    }

    #[tokio::test]
    async fn all_is_tried_and_nothing_is_left() {
        let store = Arc::new(MemoryStore::new());
        let bucket = Bucket::over(store.clone(), "a/b", Deadlines::of(LIMIT));
        let rights = bucket.try_rights(100_000, LIMIT).await;
        assert!(matches!(
            (&rights.list, &rights.put, &rights.get, &rights.delete),
            (Some(Ok(())), Some(Ok(())), Some(Ok(())), Some(Ok(())))
        ));
        assert_eq!(rights.conditional, Some(Conditional::NotDisproved));
        assert!(rights.up.is_some() && rights.down.is_some() && rights.round_trip.is_some());
        assert!(rights.left.is_empty(), "{rights:?}");
        assert!(store.list("", &Begin::First).await.unwrap().objects.is_empty());
    }

    #[tokio::test]
    async fn a_store_that_denies_one_thing_is_tried_for_the_others() {
        let try_with = async |verb: Verb| {
            let faulty = Faulty::over(Arc::new(MemoryStore::new()));
            faulty.inject(On::next(verb, "").always(), Fault::Fails(denied()));
            Bucket::over(faulty, "", Deadlines::of(LIMIT)).try_rights(10, LIMIT).await
        };
        let rights = try_with(Verb::Delete).await;
        assert!(matches!(rights.delete, Some(Err(Error::Denied { .. }))), "{rights:?}");
        assert_eq!(rights.left.len(), 2);
        let rights = try_with(Verb::List).await;
        assert!(matches!(rights.list, Some(Err(Error::Denied { .. }))) && rights.put.is_some());
        let rights = try_with(Verb::Put).await;
        assert!(matches!(rights.put, Some(Err(Error::Denied { .. }))), "{rights:?}");
        assert!(rights.get.is_none() && rights.left.is_empty() && rights.delete.is_none());
    }
}
