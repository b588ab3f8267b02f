//! Reading directories. A position in a directory is a cookie, which an entry keeps for ever, so a listing continues
//! correctly whatever changes between its parts.

use crate::types::{InodeNo, NameHash};

use super::{Error, Known, Result, Vfs};

/// The cookies of `.` and `..`; 0 is the beginning. The chance that an entry has so small a cookie is 2^-61.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// How many inodes one `readdirplus` may fetch one by one, if they are not here after all were fetched together.
/// The rest is left to `lookup`.
const FETCHES_MAX: usize = 2;
/// How many entries' inodes are fetched together for somebody who looks at all entries. Entries come in no useful
/// order, so the inodes of the next thousands lie all over the map.
pub(super) const BROUGHT: usize = 2048;

/// One entry of a listing.
#[derive(Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The inode that the name refers to.
    pub ino: InodeNo,
    /// Its file type, the `S_IFMT` bits.
    pub kind: u32,
    /// The name.
    pub name: Vec<u8>,
    /// The cookie with which a listing continues after this entry.
    pub cookie: u64,
    /// What `stat` shows of the inode, if that was asked for.
    pub attributes: Option<Known>,
}

impl Vfs {
    /// Up to `limit` entries after `cookie` (0: from the beginning). An empty list is the end.
    pub async fn read_dir(&self, ino: InodeNo, cookie: u64, limit: usize) -> Result<Vec<DirEntry>> {
        self.read(|view| {
            // A directory that was removed while open has no entries, not even `.`, as on a local disk.
            let Some(dir) = view.inode(ino)?.filter(|dir| dir.is_dir() && dir.nlink > 0) else {
                return Ok(Vec::new());
            };
            let dot = |cookie, name: &[u8], ino| DirEntry {
                ino,
                kind: libc::S_IFDIR,
                name: name.to_vec(),
                cookie,
                attributes: None,
            };
            let mut list = Vec::with_capacity(limit.min(1024));
            if cookie < DOT {
                list.push(dot(DOT, b".", ino));
            }
            if cookie < DOT_DOT {
                list.push(dot(DOT_DOT, b"..", dir.parent));
            }
            let after = (cookie > DOT_DOT).then(|| last_of(cookie));
            let rest = limit.saturating_sub(list.len());
            list.extend(view.entries(ino, after, rest)?.into_iter().map(|(hash, entry)| {
                let cookie = hash.cookie().max(DOT_DOT + 1);
                DirEntry {
                    ino: entry.ino,
                    kind: entry.kind,
                    name: entry.name,
                    cookie,
                    attributes: None,
                }
            }));
            Ok(list)
        })
        .await
    }

    /// A listing begins: this moves the atime as a read does.
    pub async fn note_listing(&self, ino: InodeNo) -> Result<()> {
        if let Some(dir) = self.read(|view| Ok(view.inode(ino)?)).await? {
            self.touch(ino, &dir);
        }
        Ok(())
    }

    /// As `read_dir`, with the attributes of each entry. The list is shorter if those would have to be fetched one by
    /// one.
    pub async fn read_dir_plus(
        &self,
        ino: InodeNo,
        mut cookie: u64,
        limit: usize,
    ) -> Result<Vec<DirEntry>> {
        loop {
            let mut list = self.read_dir(ino, cookie, limit).await?;
            self.fill_in(ino, &mut list, cookie != 0).await?;
            // The list has only entries that were looked at; what comes after them is listed next.
            let Some(last) = list.last() else { return Ok(list) };
            cookie = last.cookie;
            list.retain(|entry| entry.attributes.is_some());
            // Only if all of these were removed: an empty list would mean the end.
            if !list.is_empty() {
                return Ok(list);
            }
        }
    }

    /// As `read_dir_plus`, but stops before the first entry whose inode is not here. An empty list is not the end.
    pub async fn read_dir_at_hand(
        &self,
        ino: InodeNo,
        cookie: u64,
        limit: usize,
    ) -> Result<Vec<DirEntry>> {
        let mut list = self.read_dir(ino, cookie, limit).await?;
        let filled = self.fill(&mut list).await?;
        list.truncate(filled);
        Ok(list)
    }

    /// Fills in attributes from the beginning, and cuts the list where too many would have to be fetched one by one.
    async fn fill_in(&self, dir: InodeNo, list: &mut Vec<DirEntry>, goes_on: bool) -> Result<()> {
        let mut filled = self.fill(list).await?;
        // At the beginning of a listing, it is not known whether anybody wants the attributes.
        if goes_on && filled < list.len() {
            self.bring_on(dir, &list[filled..]).await;
        }
        let mut fetches = 0;
        loop {
            filled += self.fill(&mut list[filled..]).await?;
            if filled == list.len() || fetches == FETCHES_MAX {
                break;
            }
            // Fetching one also fetches its neighbours in the map: files made together lie together.
            let entry = &mut list[filled];
            let known = match &*entry.name {
                b"." | b".." => self.attributes(entry.ino).await.map(Known::uncounted),
                // The name may refer to another inode by now.
                name => self.look_up(dir, name).await,
            };
            match known {
                Ok(known) => {
                    (entry.ino, entry.kind) = (known.ino, known.kind());
                    entry.attributes = Some(known);
                    fetches += 1;
                }
                Err(Error::Stale | Error::NotFound) => {} // removed since
                // The entries before it can be listed.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
            filled += 1;
        }
        list.truncate(filled);
        Ok(())
    }

    /// Fetches these inodes, and those of many later entries, together. What does not come is looked up one by one.
    async fn bring_on(&self, dir: InodeNo, list: &[DirEntry]) {
        let mut inodes: Vec<_> = list.iter().map(|entry| entry.ino).collect();
        if let Some(last) = list.last()
            && let Ok(later) = self.read_dir(dir, last.cookie, BROUGHT).await
        {
            inodes.extend(later.into_iter().map(|entry| entry.ino));
        }
        self.bring(&inodes).await;
    }

    /// Fetches inodes that are needed next together, as far as they come quickly ([`crate::index::Index::bring`]). Does
    /// nothing if the first of them are here.
    pub async fn bring(&self, inodes: &[InodeNo]) {
        if let Err(error) = self.inner.index.bring(inodes).await {
            tracing::debug!(%error, "inodes did not come together");
        }
    }

    /// Whether the kernel may ask for the attributes of all that it lists, because nothing has to be fetched for that.
    pub fn has_inodes_here(&self) -> bool {
        self.inner.index.base().has_inodes_here()
    }

    /// Fills in attributes without a fetch, up to the first entry whose inode is not here. Returns how many were filled in.
    async fn fill(&self, list: &mut [DirEntry]) -> Result<usize> {
        let wanted: Vec<(InodeNo, bool)> =
            list.iter().map(|entry| (entry.ino, matches!(&*entry.name, b"." | b".."))).collect();
        let seen = self
            .read(|view| {
                let mut seen = Vec::with_capacity(wanted.len());
                for &(ino, is_dot) in &wanted {
                    let find = || {
                        let unpublished =
                            self.inner.content.known(ino).and_then(|file| file.unpublished());
                        let inode = view.try_inode_cached(ino)?.ok_or(Error::Stale)?;
                        Ok(self.merged(ino, &inode, unpublished))
                    };
                    let known =
                        if is_dot { find().map(Known::uncounted) } else { self.know(ino, find) };
                    match known {
                        Ok(known) => seen.push(known),
                        // The inode is not here, or is just being removed.
                        Err(Error::Stale) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(seen)
            })
            .await?;
        let count = seen.len();
        for (entry, known) in list.iter_mut().zip(seen) {
            entry.attributes = Some(known);
        }
        Ok(count)
    }
}

/// The greatest hash with this cookie: a listing goes on after it.
fn last_of(cookie: u64) -> NameHash {
    let mut hash = [0xff; 16];
    hash[..8].copy_from_slice(&(cookie << 1 | 1).to_be_bytes());
    NameHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_after_the_entry_of_its_cookie() {
        let hash = NameHash([0x8a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let last = last_of(hash.cookie());
        assert!(hash <= last);
        assert_eq!(last.cookie(), hash.cookie());
        let next = NameHash([0x8a, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(next > last && next.cookie() == hash.cookie() + 1);
    }

    #[tokio::test]
    async fn what_is_removed_while_a_listing_waits_hides_nothing() {
        let world = crate::vfs::tests::World::new().await;
        let vfs = world.vfs();
        let caller = crate::vfs::Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
        for n in 0..20 {
            vfs.mkdir(&caller, InodeNo::ROOT, format!("{n}").as_bytes(), 0o755).await.unwrap();
        }
        let mut list = vfs.read_dir(InodeNo::ROOT, DOT_DOT, 20).await.unwrap();
        for entry in &list[..5] {
            vfs.rmdir(InodeNo::ROOT, &entry.name).await.unwrap();
        }
        vfs.fill_in(InodeNo::ROOT, &mut list, false).await.unwrap();
        assert_eq!(list.len(), 20);
        let is_shown: Vec<_> = list.iter().map(|entry| entry.attributes.is_some()).collect();
        assert_eq!(is_shown, [[false; 5].as_slice(), &[true; 15]].concat());
    }
}
