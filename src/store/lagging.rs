//! A store in memory as a slow client sees it: for tests of a reader beside a writer.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::error::{Error, Result};
use super::memory_store::MemoryStore;
use super::object::{Begin, Body, Fetched, HeadReply, Listing, Put, PutReply, Store};

/// Given the number of waiting changes, how many of them arrive before the next request.
type HowMany = Box<dyn FnMut(usize) -> usize + Send>;

/// Shows the objects of another store as they were at an earlier moment. Before each request, some of the changes made there
/// since arrive, in their order. So a reader's requests can fall between a writer's, although the writer finishes before the
/// reader begins. It is read-only.
pub struct Lagging {
    source: Arc<MemoryStore>,
    shown: MemoryStore,
    state: Mutex<LaggingState>,
}

struct LaggingState {
    pace: HowMany,
    /// How many changes have arrived.
    taken: usize,
}

impl Lagging {
    /// A view of `source`, which keeps its changes from now on. It starts up to date.
    pub fn behind(source: Arc<MemoryStore>) -> Self {
        source.keep_changes();
        let state = LaggingState { pace: Box::new(|waiting| waiting), taken: 0 };
        let lagging = Self { source, shown: MemoryStore::new(), state: state.into() };
        lagging.catches_up();
        lagging
    }

    /// From now on `pace` decides how many of the waiting changes arrive before a request.
    pub fn pace(&self, pace: impl FnMut(usize) -> usize + Send + 'static) {
        self.state.lock().pace = Box::new(pace);
    }

    /// Lets all changes made until now arrive.
    pub fn catches_up(&self) {
        self.pace(|waiting| waiting);
        self.take();
    }

    fn take(&self) {
        let mut state = self.state.lock();
        let (all, _) = self.source.change(0);
        let waiting = all - state.taken;
        let upto = state.taken + (state.pace)(waiting).min(waiting);
        let mut time = SystemTime::UNIX_EPOCH;
        while state.taken < upto
            && let (_, Some(change)) = self.source.change(state.taken)
        {
            // The clock must not go back when it is set.
            time = time.max(change.time);
            self.shown.set_time(time);
            match change.bytes {
                Some(bytes) => self.shown.plant(&change.name, bytes),
                None => drop(self.shown.steal(&change.name)),
            }
            state.taken += 1;
        }
        if state.taken == all {
            self.shown.set_time(self.source.now());
        }
    }
}

impl fmt::Debug for Lagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lagging({:?})", self.source)
    }
}

fn read_only() -> Error {
    Error::Unsupported { what: "who only reads puts and deletes nothing".to_owned() }
}

#[async_trait]
impl Store for Lagging {
    async fn put(&self, _: &str, _: &Body, _: Put) -> Result<PutReply> {
        Err(read_only())
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        self.take();
        self.shown.get(name, range).await
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        self.take();
        self.shown.head(name).await
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        self.take();
        self.shown.list(prefix, begin).await
    }

    async fn delete(&self, _: &[String]) -> Result<()> {
        Err(read_only())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_shows_what_was_and_then_what_came_since_in_its_order() {
        let source = Arc::new(MemoryStore::new());
        source.plant("a", "1");
        let lagging = Lagging::behind(source.clone());
        lagging.pace(|_| 1);
        source.plant("b", "2");
        source.steal("a");
        source.plant("a", "3");
        let mut seen = Vec::new();
        for _ in 0..4 {
            let page = lagging.list("", &Begin::First).await.unwrap();
            seen.push(page.objects.into_iter().map(|object| object.name).collect::<Vec<_>>());
        }
        assert_eq!(seen, [vec!["a", "b"], vec!["b"], vec!["a", "b"], vec!["a", "b"]]);
        assert_eq!(lagging.get("a", None).await.unwrap().bytes, "3");
        lagging.delete(&["a".to_owned()]).await.unwrap_err();
    }
}
