//! Fetches an object again before damage is believed: a bit may have changed on the way.

use std::time::Duration;

use bytes::Bytes;

use super::Error;
use crate::store::{self, Bucket};

/// How often an object is fetched before it is believed to be damaged.
const ASKS: u32 = 3;
/// The pause between two fetches.
const PAUSE: Duration = Duration::from_millis(100);

/// An error that distinguishes damaged bytes from everything else.
pub trait DamageError: From<store::Error> + std::fmt::Display {
    /// Whether the bytes are not what they must be. They may have changed on the way, so they are fetched again.
    fn is_damage(&self) -> bool;
}

impl DamageError for Error {
    fn is_damage(&self) -> bool {
        Error::is_damage(self)
    }
}

/// Fetches an object and opens it. If it does not open, it is fetched again until it opens, until the same bytes come
/// twice (then the bucket holds them), or until three fetches were made. `first`: its bytes, if the caller has them.
///
/// # Errors
/// What `open` returned for the last bytes, or the store's error.
pub async fn open_object<T, E: DamageError>(
    bucket: &Bucket,
    name: &str,
    first: Option<Bytes>,
    open: impl Fn(&Bytes) -> Result<T, E> + Send,
) -> Result<T, E> {
    let (mut next, mut before) = (first, None);
    for asked in 1.. {
        let fetched = match next.take() {
            Some(bytes) => Ok(bytes),
            None => bucket.get(name, None).await.map_err(E::from),
        };
        let (bytes, error) = match fetched {
            Ok(bytes) => match open(&bytes) {
                Ok(opened) => return Ok(opened),
                Err(error) => (Some(bytes), error),
            },
            Err(error) => (None, error),
        };
        let same = bytes.is_some() && bytes == before;
        if !error.is_damage() || same || asked == ASKS {
            return Err(error);
        }
        tracing::warn!(object = name, %error, "asking for it again");
        before = bytes;
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it returns at the last of its tries")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Error;
    use crate::store::{Deadlines, Fault, Faulty, MemoryStore, On, Verb};

    #[tokio::test]
    async fn o1_damage_is_believed_when_the_same_bytes_come_twice() {
        let faulty = Faulty::over(std::sync::Arc::new(MemoryStore::new()));
        let bucket = Bucket::over(faulty.clone(), "", Deadlines::default());
        bucket.put_new("x", Bytes::from_static(b"good bytes")).await.unwrap();
        bucket.put_new("y", Bytes::from_static(b"bad bytes")).await.unwrap();
        let open = |bytes: &Bytes| match &bytes[..] {
            b"good bytes" => Ok(()),
            _ => Err(Error::malformed("it", "a test says so")),
        };
        for (flips, asks, opens) in [(0, 1, true), (1, 2, true), (2, 2, false)] {
            (0..flips).for_each(|_| faulty.inject(On::next(Verb::Get, "x"), Fault::FlipsBit));
            faulty.take_requests();
            let opened = open_object(&bucket, "x", None, open).await;
            assert_eq!((opened.is_ok(), faulty.take_requests().len()), (opens, asks), "{flips}");
            faulty.heal();
        }
        open_object(&bucket, "y", None, open).await.unwrap_err();
        assert_eq!(faulty.take_requests().len(), 2);
        // The bytes that the caller fetched count as the first fetch.
        open_object(&bucket, "x", Some(Bytes::from_static(b"?")), open).await.unwrap();
        assert_eq!(faulty.take_requests().len(), 1);
        assert!(open_object(&bucket, "z", None, open).await.is_err_and(|e| !e.is_damage()));
    }
}
