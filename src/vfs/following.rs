//! A reader follows what another machine writes (W5): the map changes under the file system, commit by commit, and the
//! kernel is told. What it is not told it soon forgets: it keeps a reader's names and attributes for one second.
//!
//! Each read asks the map, so an open file shows what is new, and one that is gone is stale.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Error, Invalidation, Result, Vfs};
use crate::os;
use crate::records::{Change, Entry, Inode, Key, decode_value};
use crate::types::{InodeNo, NameHash};

/// How many names of one commit the kernel is told of; and how many inodes at a time after the whole map was replaced.
const TOLD_MAX: usize = 1024;
/// How long to look for the names that a commit removes: a page may have to be fetched for one.
const NAMES_WAIT: Duration = Duration::from_secs(5);

/// What a commit changes of what the kernel may remember.
#[derive(Default)]
struct CommitNews {
    names: Vec<((InodeNo, NameHash), Option<Bytes>)>,
    /// The inodes that were changed in any way, each with whether it has no name any more.
    inodes: BTreeMap<InodeNo, bool>,
}

impl Vfs {
    /// Returns when somebody uses the file system, or at once if that happened since the last call. For a reader.
    pub async fn used(&self) {
        self.inner.used.notified().await;
    }

    /// Takes in what another machine changed: `apply` does that, all at once. Then tells the kernel. Fails with
    /// [`Error::Unheard`] if the kernel does not take notifications; then nothing is done.
    pub async fn take_in<E: From<Error> + Send + 'static>(
        &self,
        changes: &[Change],
        apply: impl FnOnce() -> std::result::Result<(), E> + Send + 'static,
    ) -> std::result::Result<(), E> {
        let slot = self.invalidation_slot().await?;
        let news = self.news_of(changes)?;
        // Found before `apply`: afterwards nobody knows the removed names.
        let told = match slot.is_heard() {
            true => self.told_of(&news).await,
            false => Vec::new(),
        };
        os::blocking(apply).await.map_err(|_| Error::PushedOut)??;
        slot.tell(|| told).notified().await;
        Ok(())
    }

    /// The whole map may have changed: tells the kernel about every inode that it knows.
    pub async fn forget_what_was(&self) -> Result<()> {
        let mut known = self.inner.holds.known_to_kernel();
        known.push(InodeNo::ROOT);
        for some in known.chunks(TOLD_MAX) {
            let slot = self.invalidation_slot().await?;
            let all = || some.iter().map(|ino| Invalidation::Content(*ino)).collect();
            slot.tell(all).notified().await;
        }
        Ok(())
    }

    /// Picks out what changes something that the kernel knows.
    fn news_of(&self, changes: &[Change]) -> Result<CommitNews> {
        let (mut news, mut names) = (CommitNews::default(), HashMap::new());
        let is_known = |ino| ino == InodeNo::ROOT || self.inner.holds.is_known_to_kernel(ino);
        for Change { key, value } in changes {
            match Key::decode(key).map_err(crate::index::Error::from)? {
                Key::Inode(ino) if is_known(ino) => {
                    news.inodes.insert(ino, has_left(value.as_ref()));
                }
                Key::Extent(ino, _) | Key::Xattr(ino, _) if is_known(ino) => {
                    news.inodes.entry(ino).or_default();
                }
                // Of several changes of one record, the last counts.
                Key::Entry(parent, hash) if is_known(parent) => {
                    names.insert((parent, hash), value.clone());
                }
                _ => {}
            }
        }
        news.names = names.into_iter().take(TOLD_MAX).collect();
        // A removed name may need a page of the map: those come last.
        news.names.sort_by_key(|(_, value)| value.is_none());
        Ok(news)
    }

    /// Makes invalidations of the news. A name that cannot be found in time is left out: the kernel remembers it for a
    /// second. But it may remember the content of a file for as long as somebody has it open, so no inode is left out.
    async fn told_of(&self, news: &CommitNews) -> Vec<Invalidation> {
        let mut told = Vec::new();
        if timeout(NAMES_WAIT, self.tell_names(news, &mut told)).await.is_err() {
            tracing::debug!("names that a commit takes away are not told: their pages come late");
        }
        told.extend(news.inodes.keys().map(|ino| Invalidation::Content(*ino)));
        told
    }

    /// Adds the invalidations of the names to `told`, one after the other.
    async fn tell_names(&self, news: &CommitNews, told: &mut Vec<Invalidation>) {
        for ((parent, hash), value) in &news.names {
            let key = Key::Entry(*parent, *hash);
            let before = match value {
                Some(_) => Ok(None),
                None => self.inner.index.read(|view| view.get(&key)).await,
            };
            let entry = value.clone().or_else(|| before.ok().flatten());
            let entry: Option<Entry> = entry.and_then(|entry| decode_value("entry", &entry).ok());
            let Some(entry) = entry else { continue };
            told.push(match value.is_none() && news.inodes.get(&entry.ino) == Some(&true) {
                true => Invalidation::Gone(*parent, entry.name, entry.ino),
                false => Invalidation::Name(*parent, entry.name),
            });
        }
    }
}

/// Whether an inode with this record (`None`: deleted) has no name any more.
fn has_left(value: Option<&Bytes>) -> bool {
    let inode = value.map(|value| decode_value::<Inode>("inode", value));
    inode.is_none_or(|inode| inode.is_ok_and(|inode| inode.nlink == 0))
}
