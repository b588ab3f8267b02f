use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;

use super::*;

/// A source that a test turns.
#[derive(Default)]
struct Played {
    key: Mutex<Option<&'static str>>,
    written: Mutex<u64>,
    hangs: std::sync::atomic::AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl Find for Arc<Played> {
    async fn find(&self) -> std::result::Result<Credentials, String> {
        self.asked.fetch_add(1, Relaxed);
        if self.hangs.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        self.key.lock().map(key).ok_or_else(|| "there is none".to_owned())
    }

    async fn stamp(&self) -> Stamp {
        vec![Some((SystemTime::UNIX_EPOCH, *self.written.lock()))]
    }
}

fn key(id: &str) -> Credentials {
    Credentials::new(id, "s3cret", None, None, "test")
}

fn keys(played: &Arc<Played>) -> Keys {
    let keys = Keys::new(None, Some(Box::new(played.clone())), Duration::from_millis(200));
    assert_eq!(format!("{keys:?}"), "Keys(…)");
    keys
}

/// A store that knows one key.
async fn ask(keys: &Keys, known: &str) -> Result<String> {
    with(keys, For::Writing, || async {
        let object = || "o".to_owned();
        let cause = |words: &str| -> super::super::super::error::Cause {
            Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(words.to_owned()))
        };
        match keys.provide_credentials().await {
            Ok(found) if found.access_key_id() == known => Ok(found.access_key_id().to_owned()),
            Ok(_) => Err(Error::Denied { object: object(), cause: cause("403") }),
            Err(error) => Err(Error::NoCredentials { cause: cause(&answer(&error)) }),
        }
    })
    .await
}

fn answer(error: &CredentialsError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

#[tokio::test]
async fn what_the_store_refuses_is_looked_for_at_once_and_asked_again_with() {
    let played = Arc::new(Played::default());
    *played.key.lock() = Some("old");
    let keys = keys(&played);
    assert_eq!(ask(&keys, "old").await.unwrap(), "old");
    assert!(keys.trouble().is_none());
    *played.key.lock() = Some("new");
    assert_eq!(ask(&keys, "old").await.unwrap(), "old", "nobody refuses them");
    assert_eq!(played.asked.load(Relaxed), 1);
    // Well after the first look-up; in a moment they would be looked for again, but not at once.
    keys.0.state.lock().policy = policy::Policy::default();
    assert_eq!(ask(&keys, "new").await.unwrap(), "new", "within one request");
    assert_eq!(played.asked.load(Relaxed), 2);
    assert!(keys.trouble().is_none());
    // Refused for good: said, and not looked for by every request.
    for _ in 0..20 {
        ask(&keys, "newer").await.unwrap_err();
    }
    assert!(played.asked.load(Relaxed) <= 3);
    let said = keys.trouble().unwrap();
    assert!(said.contains("since 2") && said.contains("s3vault credentials"), "{said}");
    assert!(!said.contains("s3cret"));
    keys.hand_over(key("newer"));
    assert_eq!(ask(&keys, "newer").await.unwrap(), "newer");
    assert!(keys.trouble().is_none());
}

#[tokio::test]
async fn a_file_that_is_rewritten_is_taken_though_nobody_refuses() {
    let played = Arc::new(Played::default());
    *played.key.lock() = Some("old");
    let keys = keys(&played);
    ask(&keys, "old").await.unwrap();
    (*played.key.lock(), *played.written.lock()) = (Some("new"), 1);
    // Five seconds later.
    keys.0.state.lock().policy = policy::Policy::default();
    ask(&keys, "old").await.unwrap();
    let begun = Instant::now();
    while keys.generation() == 1 && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ask(&keys, "new").await.unwrap(), "new");
}

#[tokio::test]
async fn who_gives_none_or_hangs_keeps_a_request_no_longer_than_its_patience() {
    let played = Arc::new(Played::default());
    let keys = keys(&played);
    let none = ask(&keys, "any").await.unwrap_err();
    assert!(none.chain().contains("there is none"), "{}", none.chain());
    assert!(keys.trouble().unwrap().contains("no credentials"));
    played.hangs.store(true, Relaxed);
    keys.0.state.lock().policy = policy::Policy::default();
    let begun = Instant::now();
    for _ in 0..3 {
        ask(&keys, "any").await.unwrap_err();
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(played.asked.load(Relaxed), 2, "one look-up at a time, however many wait");
    keys.hand_over(key("any"));
    assert_eq!(ask(&keys, "any").await.unwrap(), "any", "nobody waits for what hangs");
    // What was given once is all that there is.
    let given = Keys::new(Some(key("old")), None, Duration::from_millis(200));
    ask(&given, "new").await.unwrap_err();
    assert!(given.trouble().unwrap().contains("environment"));
    assert!(ask(&given, "old").await.is_ok() && given.trouble().is_none());
}
