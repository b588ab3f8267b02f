//! The versions of a path: reads the log, commit by commit, from the oldest promised state on.

use std::collections::HashSet;

use super::version::{FileVersion, Happened, OnHistory, Teller};
use super::{PastState, States};
use crate::index::{self, Index};
use crate::log::{self, ChainedCommit, Links, ListedCommits};
use crate::records::{Change, Entry, Inode, Key, MetaKey, Tag, WriterClaim, decode_value};
use crate::types::{CommitNo, InodeNo, Timestamp};
use crate::vault::open_vault::Vault;
use crate::vault::{Error, Result};

/// What is at the path, and which records concern it.
struct WatchedNames {
    /// The entries on the way, and the inode.
    keys: HashSet<Vec<u8>>,
    /// The key prefix of its extents.
    extents: Option<Vec<u8>>,
    there: Option<(InodeNo, Inode)>,
}

impl WatchedNames {
    async fn new(index: &Index, names: &[Vec<u8>]) -> Result<Self> {
        let found = index.read(|view| {
            let (mut at, mut keys, mut whole) = (InodeNo::ROOT, HashSet::new(), true);
            for name in names {
                keys.insert(Key::Entry(at, view.name_hash(at, name)).encode());
                match view.entry(at, name)? {
                    Some(entry) => at = entry.ino,
                    None => {
                        whole = false;
                        break;
                    }
                }
            }
            let there = if whole { view.inode(at)?.map(|inode| (at, inode)) } else { None };
            Ok::<_, index::Error>((keys, there))
        });
        let (mut keys, there) = found.await?;
        let extents = there.as_ref().map(|(ino, _)| {
            keys.insert(Key::Inode(*ino).encode());
            let mut begin = vec![Tag::Extent.byte()];
            begin.extend(ino.0.to_be_bytes());
            begin
        });
        Ok(Self { keys, extents, there })
    }

    fn is_extent(&self, key: &[u8]) -> bool {
        self.extents.as_ref().is_some_and(|begin| key.starts_with(begin))
    }

    fn concerns(&self, change: &Change) -> bool {
        self.keys.contains(&change.key) || self.is_extent(&change.key)
    }
}

/// The inodes that these changes give this name, in any directory.
fn named(changes: &[Change], name: Option<&Vec<u8>>) -> Result<Vec<InodeNo>> {
    let mut found = Vec::new();
    for change in changes.iter().filter(|change| Tag::of(&change.key) == Some(Tag::Entry)) {
        if let Some(value) = &change.value {
            let entry: Entry = decode_value("entry", value)?;
            if Some(&entry.name) == name {
                found.push(entry.ino);
            }
        }
    }
    Ok(found)
}

/// Whether two versions of an inode have the same content, given that no extent record changed.
fn is_same(before: &Inode, after: &Inode) -> bool {
    before.is_dir() && after.is_dir()
        || before.size == after.size
            && before.extent == after.extent
            && before.target == after.target
            && (before.mtime == after.mtime || !after.is_file())
}

/// One walk through the log.
struct Walk<'a> {
    states: &'a States<'a>,
    listed: &'a ListedCommits,
    names: &'a [Vec<u8>],
    index: Index,
    watch: WatchedNames,
    claim: Option<WriterClaim>,
}

impl Vault {
    /// Reports the versions of a path, oldest first: those in snapshots, and those since the oldest promised state.
    /// Changes that are not in the bucket yet are not included.
    ///
    /// # Errors
    /// What the store and the log say.
    pub async fn history(&self, names: &[Vec<u8>], tell: OnHistory<'_>) -> Result<()> {
        let mut teller = Teller::new(tell);
        if self.tell_history(names, &mut teller).await? {
            teller.end();
        }
        Ok(())
    }

    /// Returns whether `teller` listened to the end.
    async fn tell_history(&self, names: &[Vec<u8>], teller: &mut Teller<'_>) -> Result<bool> {
        let states = self.states().await?;
        let oldest = states.oldest().await?;
        let mut before = None;
        for (name, commit) in states.pinned_before(oldest.as_of.commit).await? {
            let state = states.pinned(commit, Some(name)).await?;
            let found = self.version_in(&state, names, &mut before).await?;
            if found.is_some_and(|version| teller.version(version).is_break()) {
                return Ok(false);
            }
        }
        self.tell_since(&states, &oldest, (names, before), teller).await
    }

    /// Reports the versions since a state, beginning with that state's own unless it equals `before`. Returns whether
    /// `teller` listened to the end.
    pub(super) async fn tell_since(
        &self,
        states: &States<'_>,
        begin: &PastState,
        (names, mut before): (&[Vec<u8>], Option<(InodeNo, Inode)>),
        teller: &mut Teller<'_>,
    ) -> Result<bool> {
        let (index, head, _dir) = self.index_of_past(begin).await?;
        let watch = WatchedNames::new(&index, names).await?;
        let found = version_of(&watch, begin, &mut before, None);
        if found.is_some_and(|version| teller.version(version).is_break()) {
            return Ok(false);
        }
        let claim = index.read(|view| view.writer()).await.map_err(Error::from)?;
        let chain = self.kept_chain();
        // Without a listing, the time of each commit takes a request, and four commits are read at a time.
        let listed = chain.listed(head.number).await.map_or_else(
            |error| {
                tracing::debug!(%error, "the log is read without a listing");
                ListedCommits::default()
            },
            |(listed, _)| listed,
        );
        let last = states.head().max(head.number);
        let links = chain.links((head.number, head.hash), last, &listed);
        let mut walk = Walk { states, listed: &listed, names, index, watch, claim };
        walk.go(links, last, teller).await
    }

    /// The version in a snapshot, unless it is the same as the one before.
    async fn version_in(
        &self,
        state: &PastState,
        names: &[Vec<u8>],
        before: &mut Option<(InodeNo, Inode)>,
    ) -> Result<Option<FileVersion>> {
        let (index, _, _dir) = self.index_of_past(state).await?;
        let watch = WatchedNames::new(&index, names).await?;
        Ok(version_of(&watch, state, before, state.as_of.snapshot.clone()))
    }
}

fn version_of(
    watch: &WatchedNames,
    state: &PastState,
    before: &mut Option<(InodeNo, Inode)>,
    snapshot: Option<String>,
) -> Option<FileVersion> {
    let (ino, inode) = watch.there.as_ref()?;
    let same = before.as_ref().is_some_and(|(old, was)| old == ino && is_same(was, inode));
    before.clone_from(&watch.there);
    if same {
        return None;
    }
    Some(FileVersion {
        commit: state.as_of.commit,
        time: state.as_of.time,
        what: Happened::Kept(snapshot),
        kind: inode.kind(),
        size: inode.size,
        host: None,
    })
}

impl Walk<'_> {
    /// Returns whether `teller` listened to the end.
    async fn go(
        &mut self,
        mut links: Links<'_>,
        last: CommitNo,
        teller: &mut Teller<'_>,
    ) -> Result<bool> {
        let (first, _) = links.at();
        while let Some(link) = links.next().await? {
            note_claim(&mut self.claim, &link)?;
            let changes = link.content.changes()?;
            if changes.iter().any(|change| self.watch.concerns(change)) {
                let version = self.step(&link, &changes).await?;
                if version.is_some_and(|version| teller.version(version).is_break()) {
                    return Ok(false);
                }
            } else {
                self.index.apply_commit(&link)?;
            }
            let (read, of) = (link.number.0 - first.0, last.0 - first.0);
            if read.is_multiple_of(64) && teller.read(read, of).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies a commit that concerns the path, and returns the version that it makes, if any.
    async fn step(
        &mut self,
        link: &ChainedCommit,
        changes: &[Change],
    ) -> Result<Option<FileVersion>> {
        let named = named(changes, self.names.last())?;
        let were_there = self.index.read(|view| {
            // What had no name yet, like an upload under way, did not arrive from anywhere.
            let is_named = |inode: &Inode| inode.nlink > 0;
            let there =
                named.iter().map(|ino| Ok(view.inode(*ino)?.filter(is_named).map(|_| *ino)));
            there.collect::<Result<Vec<Option<InodeNo>>, index::Error>>()
        });
        let were_there = were_there.await?;
        self.index.apply_commit(link)?;
        let now = WatchedNames::new(&self.index, self.names).await?;
        let before = std::mem::replace(&mut self.watch, now);
        let is_written = changes.iter().any(|change| before.is_extent(&change.key));
        let what = match (&before.there, &self.watch.there) {
            (None, None) => return Ok(None),
            // It may come with a directory on the way, without a change of its own.
            (None, Some((ino, _)))
                if were_there.contains(&Some(*ino)) || !is_changed(changes, *ino) =>
            {
                Happened::Arrived
            }
            (None, Some(_)) => Happened::Created,
            (Some((ino, _)), None) => {
                let left = self.index.read(|view| view.inode(*ino)).await.map_err(Error::from)?;
                let moved = left.is_some_and(|inode| inode.nlink > 0);
                if moved { Happened::Left } else { Happened::Deleted }
            }
            (Some((old, was)), Some((ino, inode))) => {
                if old == ino && !is_written && is_same(was, inode) {
                    return Ok(None);
                }
                Happened::Written
            }
        };
        let shown = self.watch.there.as_ref().or(before.there.as_ref());
        let (kind, size) = shown.map_or((0, 0), |(_, inode)| (inode.kind(), inode.size));
        let time = match self.listed.put_at(link.number) {
            Some(put) => Some(put),
            None => self.states.put_at(link.number).await?,
        };
        let time = time.map_or(link.content.header.time, Timestamp::from);
        let claim = self.claim.as_ref().filter(|claim| claim.epoch == link.content.header.claim);
        let host = claim.map(|claim| claim.host.clone());
        Ok(Some(FileVersion { commit: link.number, time, what, kind, size, host }))
    }
}

/// Whether these changes put the inode's own record.
fn is_changed(changes: &[Change], ino: InodeNo) -> bool {
    let key = Key::Inode(ino).encode();
    changes.iter().any(|change| change.key == key)
}

/// Notes who writes from this commit on.
fn note_claim(claim: &mut Option<WriterClaim>, link: &ChainedCommit) -> log::Result<()> {
    let key = Key::Meta(MetaKey::Writer).encode();
    for record in link.content.header.records.iter().filter(|record| record.key == key) {
        if let Some(value) = &record.value {
            *claim = Some(decode_value("meta", value)?);
        }
    }
    Ok(())
}
