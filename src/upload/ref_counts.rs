//! Reference counts of unsent packs. A pack that nothing refers to any more is dead: it need not be sent, and its room
//! is freed (C1, J3). Pure bookkeeping, no I/O; a part of the pack table.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use super::commit_spans::{CommitSpans, SPAN_MAX};
use crate::log::DroppedPack;
use crate::types::{PackId, Seq};

/// For each pack that this process made and the bucket does not have, counts the records that refer to it. Only of these
/// packs is it known that no commit refers to them. Bounded: a pack is no longer counted once its first reference is
/// further back than [`SPAN_MAX`].
#[derive(Debug, Default)]
pub(super) struct RefCounts {
    /// Bytes of all transactions so far.
    bytes: u64,
    /// The pack that each record refers to; it may no longer be counted.
    records: HashMap<Box<[u8]>, PackId>,
    packs: HashMap<PackId, PackRefs>,
    /// How many records refer to `packs`.
    counted: u64,
    /// `packs` in the order of their first references.
    order: VecDeque<PackId>,
    /// The `packs` that no record refers to.
    dead: HashSet<PackId>,
}

#[derive(Debug)]
struct PackRefs {
    records: u64,
    first: LogPlace,
    /// The transaction that removed the last reference, while there is none.
    died: Option<LogPlace>,
}

/// A transaction, and the bytes of all before it (for a first one) or up to its end (for a last one).
#[derive(Clone, Copy, Debug)]
struct LogPlace {
    seq: Seq,
    bytes: u64,
}

impl RefCounts {
    /// Notes that a transaction was appended: the records it put or deleted, and the packs they refer to now. `begins`:
    /// whether this transaction is the first to refer to the given pack, and the pack is here and unsent. Returns
    /// whether a pack lost its last reference.
    pub(super) fn appended(
        &mut self,
        seq: Seq,
        bytes: usize,
        changed: &[(&[u8], Option<PackId>)],
        begins: impl Fn(PackId) -> bool,
    ) -> bool {
        let before = self.bytes;
        self.bytes += bytes as u64;
        let mut lost = Vec::new();
        for (key, now) in changed {
            if let Some(old) = self.records.remove(*key)
                && let Some(pack) = self.packs.get_mut(&old)
            {
                pack.records = pack.records.saturating_sub(1);
                self.counted = self.counted.saturating_sub(1);
                if pack.records == 0 {
                    lost.push(old);
                }
            }
            let Some(now) = *now else { continue };
            let pack = match self.packs.entry(now) {
                Entry::Occupied(pack) => pack.into_mut(),
                Entry::Vacant(_) if !begins(now) => continue,
                Entry::Vacant(new) => {
                    self.order.push_back(now);
                    let first = LogPlace { seq, bytes: before };
                    new.insert(PackRefs { records: 0, first, died: None })
                }
            };
            pack.records += 1;
            self.counted += 1;
            pack.died = None;
            self.dead.remove(&now);
            self.records.insert((*key).into(), now);
        }
        let died = LogPlace { seq, bytes: self.bytes };
        let mut any = false;
        for id in lost {
            if let Some(pack) = self.packs.get_mut(&id).filter(|pack| pack.records == 0) {
                pack.died = Some(died);
                any |= self.dead.insert(id);
            }
        }
        self.forget_old();
        any
    }

    /// A pack whose first reference is too far back can no longer be dropped, unless it is dead already.
    fn forget_old(&mut self) {
        while let Some(oldest) = self.order.front().copied() {
            let pack = self.packs.get(&oldest);
            if pack.is_some_and(|pack| self.bytes - pack.first.bytes <= SPAN_MAX) {
                break;
            }
            self.order.pop_front();
            if pack.is_some_and(|pack| pack.died.is_none()) {
                self.forget(oldest);
            }
        }
        // Records of forgotten packs are removed many at a time, so that each costs little.
        if self.records.len() as u64 > 2 * self.counted + 4096 {
            self.records.retain(|_, pack| self.packs.contains_key(pack));
        }
    }

    /// Forgets a pack that is in the bucket, or no longer here.
    pub(super) fn forget(&mut self, id: PackId) {
        if let Some(pack) = self.packs.remove(&id) {
            self.counted = self.counted.saturating_sub(pack.records);
        }
        self.dead.remove(&id);
    }

    /// Whether no record refers to the pack any more.
    pub(super) fn is_dead(&self, id: PackId) -> bool {
        self.dead.contains(&id)
    }

    /// The packs that no record refers to any more.
    pub(super) fn dead(&self) -> impl Iterator<Item = PackId> {
        self.dead.iter().copied()
    }

    /// Binds all transactions from the first that refers to a dead pack to the one after which none does into one
    /// commit. `None` if that is too much for one commit: the pack must be sent.
    pub(super) fn bind(&self, id: PackId, spans: &mut CommitSpans) -> Option<DroppedPack> {
        let pack = self.packs.get(&id)?;
        let (first, died) = (pack.first, pack.died?);
        let bound = spans.bind(first.seq, died.seq, first.bytes..died.bytes);
        bound.then_some(DroppedPack { pack: id, first: first.seq, last: died.seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn id(n: u8) -> PackId {
        PackId([n; 16])
    }

    /// Appends a transaction with one record for each key, and the pack that it refers to.
    fn put(counts: &mut RefCounts, seq: u64, bytes: usize, changed: &[(u8, Option<u8>)]) -> bool {
        let keys: Vec<_> = changed.iter().map(|(key, pack)| ([*key], pack.map(id))).collect();
        let changed: Vec<_> = keys.iter().map(|(key, pack)| (&key[..], *pack)).collect();
        counts.appended(Seq(seq), bytes, &changed, |_| true)
    }

    fn dropped(n: u8, first: u64, last: u64) -> DroppedPack {
        DroppedPack { pack: id(n), first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn c1_a_pack_is_dead_when_its_last_record_is_gone() {
        let (mut counts, mut spans) = (RefCounts::default(), CommitSpans::default());
        assert!(!put(&mut counts, 1, 100, &[(1, Some(1)), (2, Some(1))]));
        assert!(!put(&mut counts, 2, 100, &[(3, Some(1)), (1, Some(2))]), "copied, overwritten");
        assert!(!put(&mut counts, 3, 100, &[(2, None)]));
        assert!(!put(&mut counts, 4, 100, &[(3, Some(1))]), "put again as it was");
        assert!(put(&mut counts, 5, 100, &[(3, None), (9, None)]));
        assert!(counts.is_dead(id(1)) && !counts.is_dead(id(2)));
        assert_eq!(counts.bind(id(1), &mut spans), Some(dropped(1, 1, 5)));
        assert_eq!(counts.bind(id(2), &mut spans), None);
        // An unpublished write that still referred to it is published.
        put(&mut counts, 6, 100, &[(7, Some(1))]);
        assert!(!counts.is_dead(id(1)));
        counts.forget(id(1));
        assert!(!put(&mut counts, 7, 100, &[(7, None)]), "the bucket has it by now");
    }

    #[test]
    fn c1_what_began_too_long_ago_is_not_counted() {
        let (mut counts, mut spans) = (RefCounts::default(), CommitSpans::default());
        put(&mut counts, 1, MIB, &[(1, Some(1))]);
        put(&mut counts, 2, MIB, &[(2, Some(2))]);
        put(&mut counts, 3, 9 * MIB, &[]);
        assert!(put(&mut counts, 4, MIB, &[(1, None)]));
        assert_eq!(counts.bind(id(1), &mut spans), Some(dropped(1, 1, 4)), "just so much");
        assert!(put(&mut counts, 5, MIB / 2, &[(2, None)]));
        assert_eq!(counts.bind(id(2), &mut spans), None, "with the first it is too much");
        put(&mut counts, 6, MIB, &[(3, Some(3))]);
        put(&mut counts, 7, 13 * MIB, &[(4, Some(4))]);
        assert!(!put(&mut counts, 8, 1, &[(3, None)]));
        assert!(put(&mut counts, 9, 1, &[(4, None)]) || !counts.packs.contains_key(&id(4)));
        // Thousands of packs come and go, and their records do not pile up.
        for n in 0..20_000_u32 {
            let key = n.to_be_bytes();
            let pack = PackId([n.to_be_bytes(); 4].concat().try_into().unwrap());
            counts.appended(Seq(10 + u64::from(n)), MIB, &[(&key[..], Some(pack))], |_| true);
        }
        assert!(counts.packs.len() < 20 && counts.order.len() < 20);
        assert!(counts.records.len() < 5000, "{}", counts.records.len());
    }
}
