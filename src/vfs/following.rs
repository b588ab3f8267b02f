//! A reader follows what another machine writes (W5): the map changes under the file system, by whole commits, and the
//! kernel is told. What it is not told of by name it forgets by itself: it keeps names and attributes of a reader for a second.
//!
//! Reading asks the map each time, so an open file shows what is new, and one that is gone is stale.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Error, Invalidation, Result, Vfs};
use crate::os;
use crate::records::{Change, Entry, Inode, Key, decode_value};
use crate::types::{InodeNo, NameHash};

/// Names of one commit that the kernel is told of; and inodes at a time, where all are another map's.
const TOLD_MAX: usize = 1024;
/// For what the names were that a commit takes away: a page may have to be fetched for one.
const NAMES_WAIT: Duration = Duration::from_secs(5);

/// What of a commit the kernel may remember otherwise.
#[derive(Default)]
struct CommitNews {
    names: Vec<((InodeNo, NameHash), Option<Bytes>)>,
    /// Inodes of which anything changed, and whether they have no name any more.
    inodes: BTreeMap<InodeNo, bool>,
}

impl Vfs {
    /// Returns when somebody uses the file system, or did since this returned last. For a reader.
    pub async fn used(&self) {
        self.inner.used.notified().await;
    }

    /// Lets `apply` take in what another machine changed, all at once, and tells the kernel. [`Error::Unheard`]: the kernel does
    /// not take news, and nothing was done.
    pub async fn take_in<E: From<Error> + Send + 'static>(
        &self,
        changes: &[Change],
        apply: impl FnOnce() -> std::result::Result<(), E> + Send + 'static,
    ) -> std::result::Result<(), E> {
        let place = self.place().await?;
        let news = self.news_of(changes)?;
        // Before: then nobody knows them any more.
        let told = match place.is_heard() {
            true => self.told_of(&news).await,
            false => Vec::new(),
        };
        os::blocking(apply).await.map_err(|_| Error::PushedOut)??;
        place.tell(|| told).heard().await;
        Ok(())
    }

    /// All of the map may be another: the kernel is told of each inode that it knows.
    pub async fn forget_what_was(&self) -> Result<()> {
        let mut known = self.inner.holds.known_to_kernel();
        known.push(InodeNo::ROOT);
        for some in known.chunks(TOLD_MAX) {
            let place = self.place().await?;
            let all = || some.iter().map(|ino| Invalidation::Content(*ino)).collect();
            place.tell(all).heard().await;
        }
        Ok(())
    }

    /// What is changed of what the kernel knows.
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
                // The last change of a record counts.
                Key::Entry(parent, hash) if is_known(parent) => {
                    names.insert((parent, hash), value.clone());
                }
                _ => {}
            }
        }
        news.names = names.into_iter().take(TOLD_MAX).collect();
        // For what a commit takes away a page may be needed: that comes last.
        news.names.sort_by_key(|(_, value)| value.is_none());
        Ok(news)
    }

    /// In the words of the kernel. A name that cannot be told, or not in time, is left out: the kernel remembers it for a
    /// second. What is in a file it may remember for as long as somebody has that open: no inode is left out.
    async fn told_of(&self, news: &CommitNews) -> Vec<Invalidation> {
        let mut told = Vec::new();
        if timeout(NAMES_WAIT, self.tell_names(news, &mut told)).await.is_err() {
            tracing::debug!("names that a commit takes away are not told: their pages come late");
        }
        told.extend(news.inodes.keys().map(|ino| Invalidation::Content(*ino)));
        told
    }

    /// Puts one name after the other into `told`.
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

/// Whether an inode of which this is the record has no name any more.
fn has_left(value: Option<&Bytes>) -> bool {
    let inode = value.map(|value| decode_value::<Inode>("inode", value));
    inode.is_none_or(|inode| inode.is_ok_and(|inode| inode.nlink == 0))
}
