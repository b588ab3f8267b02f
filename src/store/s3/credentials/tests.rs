use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;

use super::*;
use crate::types::with_causes;

/// A source that a test controls.
#[derive(Default)]
struct ScriptedSource {
    key: Mutex<Option<&'static str>>,
    written: Mutex<u64>,
    hangs: std::sync::atomic::AtomicBool,
    panics: std::sync::atomic::AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl FindCredentials for Arc<ScriptedSource> {
    async fn find(&self) -> std::result::Result<Credentials, String> {
        self.asked.fetch_add(1, Relaxed);
        if self.hangs.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        assert!(!self.panics.swap(false, Relaxed), "planted");
        self.key.lock().map(key).ok_or_else(|| "there is none".to_owned())
    }

    async fn stamp(&self) -> FileStamps {
        vec![Some((SystemTime::UNIX_EPOCH, *self.written.lock()))]
    }
}

const PATIENCE: Duration = Duration::from_millis(200);

fn key(id: &str) -> Credentials {
    Credentials::new(id, "s3cret", None, None, "test")
}

fn cache_of(source: &Arc<ScriptedSource>) -> CredentialCache {
    let cache = CredentialCache::new(None, Some(Box::new(source.clone())), PATIENCE);
    assert_eq!(format!("{cache:?}"), "CredentialCache(…)");
    cache
}

/// A store that knows one key.
async fn ask(cache: &CredentialCache, known: &str) -> Result<String> {
    ask_for(cache, known, For::Writing).await
}

async fn ask_for(cache: &CredentialCache, known: &str, what: For) -> Result<String> {
    cache
        .signed(what, || async {
            let object = || "o".to_owned();
            let cause = |words: &str| -> super::super::super::error::Cause {
                Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(words.to_owned()))
            };
            match cache.provide_credentials().await {
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
    let source = Arc::new(ScriptedSource::default());
    *source.key.lock() = Some("old");
    let cache = cache_of(&source);
    assert_eq!(ask(&cache, "old").await.unwrap(), "old");
    assert!(cache.trouble().is_none());
    *source.key.lock() = Some("new");
    assert_eq!(ask(&cache, "old").await.unwrap(), "old", "nobody refuses them");
    assert_eq!(source.asked.load(Relaxed), 1);
    // Well after the first look-up: the next one is due soon, but not at once.
    cache.0.state.lock().policy = RefreshPolicy::default();
    assert_eq!(ask(&cache, "new").await.unwrap(), "new", "within one request");
    assert_eq!(source.asked.load(Relaxed), 2);
    assert!(cache.trouble().is_none());
    // Refused for good: reported, but not every request triggers a look-up.
    for _ in 0..20 {
        ask(&cache, "newer").await.unwrap_err();
    }
    assert!(source.asked.load(Relaxed) <= 3);
    let said = cache.trouble().unwrap();
    assert!(said.contains("since 2") && said.contains("s3vault credentials"), "{said}");
    assert!(!said.contains("s3cret"));
    cache.hand_over(key("newer"));
    assert_eq!(ask(&cache, "newer").await.unwrap(), "newer");
    assert!(cache.trouble().is_none());
}

/// A refused listing is not repeated until somebody needs it; until then only puts show that all is well.
#[tokio::test]
async fn what_was_refused_of_former_credentials_says_nothing_of_new_ones() {
    let source = Arc::new(ScriptedSource::default());
    *source.key.lock() = Some("old");
    let cache = cache_of(&source);
    for what in [For::Writing, For::Reading] {
        ask_for(&cache, "new", what).await.unwrap_err();
    }
    cache.accepted(cache.generation(), For::Writing);
    let said = cache.trouble().expect("a policy may allow puts and no lists");
    assert!(!said.contains("the last read"), "{said}");
    // Nobody reads for a while. The refusal may be over, but no request is made to find that out.
    if let Some(refusal) = &mut cache.0.state.lock().refused[For::Reading as usize] {
        refusal.last -= Duration::from_secs(100);
    }
    let said = cache.trouble().unwrap();
    assert!(said.contains("at the last read, 100 s ago"), "{said}");
    *source.key.lock() = Some("new");
    cache.0.state.lock().policy = RefreshPolicy::default();
    // The first may have begun with the former credentials.
    assert_eq!(ask(&cache, "new").await.unwrap(), "new");
    assert_eq!(ask(&cache, "new").await.unwrap(), "new");
    assert!(cache.trouble().is_none());
    // New credentials that may write but not read.
    cache.refused(cache.generation(), For::Reading).await;
    cache.accepted(cache.generation(), For::Writing);
    assert!(cache.trouble().is_some());
}

#[tokio::test]
async fn a_file_that_is_rewritten_is_taken_though_nobody_refuses() {
    let source = Arc::new(ScriptedSource::default());
    *source.key.lock() = Some("old");
    let cache = cache_of(&source);
    ask(&cache, "old").await.unwrap();
    (*source.key.lock(), *source.written.lock()) = (Some("new"), 1);
    // Five seconds later.
    cache.0.state.lock().policy = RefreshPolicy::default();
    ask(&cache, "old").await.unwrap();
    let begun = Instant::now();
    while cache.generation() == 1 && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ask(&cache, "new").await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn who_gives_none_or_hangs_keeps_a_request_no_longer_than_its_patience() {
    let source = Arc::new(ScriptedSource::default());
    let cache = cache_of(&source);
    let none = ask(&cache, "any").await.unwrap_err();
    let none = with_causes(&none);
    assert!(none.contains("there is none"), "{none}");
    assert!(cache.trouble().unwrap().contains("no credentials"));
    source.hangs.store(true, Relaxed);
    cache.0.state.lock().policy = RefreshPolicy::default();
    let begun = tokio::time::Instant::now();
    for _ in 0..20 {
        ask(&cache, "any").await.unwrap_err();
    }
    assert_eq!(begun.elapsed(), PATIENCE, "whoever stands in line does not wait for it anew");
    assert_eq!(source.asked.load(Relaxed), 2, "one look-up at a time, however many wait");
    cache.hand_over(key("any"));
    assert_eq!(ask(&cache, "any").await.unwrap(), "any", "nobody waits for what hangs");
    // Credentials that were given once are all there are.
    let given = CredentialCache::new(Some(key("old")), None, Duration::from_millis(200));
    ask(&given, "new").await.unwrap_err();
    assert!(given.trouble().unwrap().contains("environment"));
    assert!(ask(&given, "old").await.is_ok() && given.trouble().is_none());
}

#[tokio::test]
async fn a_look_up_that_panics_is_over_and_the_next_one_finds_them() {
    let source = Arc::new(ScriptedSource::default());
    *source.key.lock() = Some("any");
    source.panics.store(true, Relaxed);
    let cache = cache_of(&source);
    ask(&cache, "any").await.unwrap_err();
    assert!(os::panics().iter().any(|line| line.starts_with("looking for credentials: panicked")));
    // After the pause.
    cache.0.state.lock().policy = RefreshPolicy::default();
    assert_eq!(ask(&cache, "any").await.unwrap(), "any");
}
