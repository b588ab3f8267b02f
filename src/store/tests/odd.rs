//! A store in memory that answers incorrectly.

use parking_lot::Mutex;

use super::*;

/// The checksum and the entity tag that a store reports for these bytes.
pub(super) type Says = fn(&[u8]) -> (Option<u32>, Option<String>);

/// A store in memory, except for what is set here.
#[derive(Default)]
pub(super) struct OddStore {
    pub(super) memory: MemoryStore,
    /// It does not know conditions.
    pub(super) is_careless: bool,
    pub(super) says: Option<Says>,
    /// What a get returns instead: bytes, and the object's total length.
    pub(super) brings: Mutex<Option<(Bytes, u64)>>,
    /// The pages of its listing.
    pub(super) page: Option<Box<dyn Fn(&Begin) -> Listing + Send + Sync>>,
}

impl OddStore {
    /// A bucket over it, with short deadlines.
    pub(super) fn bucket(self) -> (Arc<Self>, Bucket) {
        let store = Arc::new(self);
        let limits = Deadlines::of(Duration::from_millis(300));
        (store.clone(), Bucket::over(store, "", limits))
    }
}

impl std::fmt::Debug for OddStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OddStore")
    }
}

#[async_trait::async_trait]
impl Store for OddStore {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        tokio::task::yield_now().await;
        let condition = if self.is_careless { Put::Always } else { condition };
        let reply = self.memory.put(name, body, condition).await?;
        let Some(says) = self.says else { return Ok(reply) };
        let (crc32, etag) = says(body.bytes());
        Ok(PutReply { crc32, etag, ..reply })
    }

    async fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Fetched> {
        let fetched = self.memory.get(name, range).await?;
        Ok(match self.brings.lock().clone() {
            Some((bytes, object_length)) => Fetched { bytes, object_length, ..fetched },
            None => fetched,
        })
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        let head = self.memory.head(name).await?;
        let Some(says) = self.says else { return Ok(head) };
        let (crc32, etag) = says(&self.memory.peek(name).unwrap_or_default());
        Ok(HeadReply { crc32, etag, ..head })
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        match &self.page {
            Some(page) => Ok(page(begin)),
            None => self.memory.list(prefix, begin).await,
        }
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        self.memory.delete(names).await
    }
}
