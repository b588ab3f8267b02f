//! Packs that nothing refers to any more before they were sent (C1, J3): they need not be sent, and give their room back.
//! Pure bookkeeping, no I/O; a part of the table of packs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;

use crate::log::{COMMIT_BYTES, DroppedPack};
use crate::records::TRANSACTION_MAX;
use crate::types::{PackId, Seq};

/// The first reference to a pack and the transaction that took the last one away lie in one commit, which is applied
/// whole: so far apart they may be at most, in bytes of transactions.
const SPAN_MAX: u64 = (COMMIT_BYTES - TRANSACTION_MAX) as u64;

/// Counts the records that refer to packs which the bucket does not have. Of packs that were made here, in this process:
/// only of those is it known that no commit refers to them. Bounded, for what is older than [`SPAN_MAX`] is not counted.
#[derive(Debug, Default)]
pub(super) struct Living {
    /// Bytes of all transactions so far.
    bytes: u64,
    /// What a record refers to. It may name packs that are not counted any more.
    records: HashMap<Box<[u8]>, PackId>,
    packs: HashMap<PackId, Counted>,
    /// How many records refer to those.
    counted: u64,
    /// In the order of their first references.
    order: VecDeque<PackId>,
    dead: HashSet<PackId>,
}

#[derive(Debug)]
struct Counted {
    records: u64,
    first: Mark,
    /// The transaction that took the last reference away, while there is none.
    died: Option<Mark>,
}

/// A transaction, and the bytes of all before it (of a first one) or up to its end (of a last one).
#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: Seq,
    bytes: u64,
}

impl Living {
    /// A transaction was appended: the records that it put or deleted, and the packs that they refer to now.
    /// `begins`: whether this transaction is the first to refer to that pack, which is here and unsent. Answers whether a
    /// pack lost its last reference.
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
                    let first = Mark { seq, bytes: before };
                    new.insert(Counted { records: 0, first, died: None })
                }
            };
            pack.records += 1;
            self.counted += 1;
            pack.died = None;
            self.dead.remove(&now);
            self.records.insert((*key).into(), now);
        }
        let died = Mark { seq, bytes: self.bytes };
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

    /// What began too long ago can never be dropped, unless it is dead by now.
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
        // Records of forgotten packs go together, so that each costs little.
        if self.records.len() as u64 > 2 * self.counted + 4096 {
            self.records.retain(|_, pack| self.packs.contains_key(pack));
        }
    }

    /// The pack is in the bucket, or not here any more.
    pub(super) fn forget(&mut self, id: PackId) {
        if let Some(pack) = self.packs.remove(&id) {
            self.counted = self.counted.saturating_sub(pack.records);
        }
        self.dead.remove(&id);
    }

    /// Whether nothing refers to the pack any more.
    pub(super) fn is_dead(&self, id: PackId) -> bool {
        self.dead.contains(&id)
    }

    /// Those to which nothing refers any more.
    pub(super) fn dead(&self) -> impl Iterator<Item = PackId> {
        self.dead.iter().copied()
    }

    /// Where the life of a dead pack lies, if that fits into one commit beside what is to be in it already: from now on
    /// that commit holds all of it.
    pub(super) fn bind(&self, id: PackId, spans: &mut Spans) -> Option<DroppedPack> {
        let pack = self.packs.get(&id)?;
        let (first, died) = (pack.first, pack.died?);
        let bound = spans.bind(first.seq, died.seq, first.bytes..died.bytes);
        bound.then_some(DroppedPack { pack: id, first: first.seq, last: died.seq })
    }
}

/// Runs of transactions that no two commits may share among them: they begin with one that refers to a pack which the
/// bucket never gets, and end with the one after which nothing does. Disjoint, by first transaction.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<Seq, Span>);

#[derive(Clone, Debug)]
struct Span {
    last: Seq,
    /// From where to where it lies, in bytes of transactions.
    bytes: Range<u64>,
}

impl Spans {
    /// Binds the transactions `first..=last` together, and with what they overlap; `false` if that is too much for one
    /// commit: then nothing has changed.
    fn bind(&mut self, mut first: Seq, mut last: Seq, mut bytes: Range<u64>) -> bool {
        let met: Vec<_> = self
            .0
            .range(..=last)
            .rev()
            .take_while(|(_, span)| span.last >= first)
            .map(|(first, span)| (*first, span.clone()))
            .collect();
        for (other, span) in &met {
            first = first.min(*other);
            last = last.max(span.last);
            bytes = bytes.start.min(span.bytes.start)..bytes.end.max(span.bytes.end);
        }
        if bytes.end - bytes.start > SPAN_MAX {
            return false;
        }
        met.iter().for_each(|(first, _)| _ = self.0.remove(first));
        self.0.insert(first, Span { last, bytes });
        true
    }

    /// Of a journal that goes on: what was bound before. Nothing new can overlap it.
    pub(super) fn restore(&mut self, dropped: &[DroppedPack]) {
        for one in dropped {
            self.bind(one.first, one.last, 0..0);
        }
    }

    /// The last place up to `upto` where a commit may end.
    pub(super) fn end_before(&self, upto: Seq) -> Seq {
        match self.0.range(..=upto).next_back() {
            Some((first, span)) if upto < span.last => Seq(first.0.saturating_sub(1)),
            _ => upto,
        }
    }

    /// Where a commit ends that follows `from` and would end with `at`: there; or before what must not be cut; or, where
    /// that comes first in it, behind.
    pub(super) fn end_near(&self, from: Seq, at: Seq) -> Seq {
        match self.end_before(at) {
            before if before > from => before,
            _ => self.0.range(..=at).next_back().map_or(at, |(_, span)| span.last.max(at)),
        }
    }

    /// Everything up to here is in the bucket.
    pub(super) fn confirmed(&mut self, upto: Seq) {
        self.0.retain(|_, span| span.last > upto);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn id(n: u8) -> PackId {
        PackId([n; 16])
    }

    /// One record each, by its number, and the pack it refers to.
    fn put(living: &mut Living, seq: u64, bytes: usize, changed: &[(u8, Option<u8>)]) -> bool {
        let keys: Vec<_> = changed.iter().map(|(key, pack)| ([*key], pack.map(id))).collect();
        let changed: Vec<_> = keys.iter().map(|(key, pack)| (&key[..], *pack)).collect();
        living.appended(Seq(seq), bytes, &changed, |_| true)
    }

    fn dropped(n: u8, first: u64, last: u64) -> DroppedPack {
        DroppedPack { pack: id(n), first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn c1_a_pack_is_dead_when_its_last_record_is_gone() {
        let (mut living, mut spans) = (Living::default(), Spans::default());
        assert!(!put(&mut living, 1, 100, &[(1, Some(1)), (2, Some(1))]));
        assert!(!put(&mut living, 2, 100, &[(3, Some(1)), (1, Some(2))]), "copied, overwritten");
        assert!(!put(&mut living, 3, 100, &[(2, None)]));
        assert!(!put(&mut living, 4, 100, &[(3, Some(1))]), "put again as it was");
        assert!(put(&mut living, 5, 100, &[(3, None), (9, None)]));
        assert!(living.is_dead(id(1)) && !living.is_dead(id(2)));
        assert_eq!(living.bind(id(1), &mut spans), Some(dropped(1, 1, 5)));
        assert_eq!(living.bind(id(2), &mut spans), None);
        // What an unpublished write still referred to comes back.
        put(&mut living, 6, 100, &[(7, Some(1))]);
        assert!(!living.is_dead(id(1)));
        living.forget(id(1));
        assert!(!put(&mut living, 7, 100, &[(7, None)]), "the bucket has it by now");
    }

    #[test]
    fn c1_what_began_too_long_ago_is_not_counted() {
        let (mut living, mut spans) = (Living::default(), Spans::default());
        put(&mut living, 1, MIB, &[(1, Some(1))]);
        put(&mut living, 2, MIB, &[(2, Some(2))]);
        put(&mut living, 3, 9 * MIB, &[]);
        assert!(put(&mut living, 4, MIB, &[(1, None)]));
        assert_eq!(living.bind(id(1), &mut spans), Some(dropped(1, 1, 4)), "just so much");
        assert!(put(&mut living, 5, MIB / 2, &[(2, None)]));
        assert_eq!(living.bind(id(2), &mut spans), None, "with the first it is too much");
        put(&mut living, 6, MIB, &[(3, Some(3))]);
        put(&mut living, 7, 13 * MIB, &[(4, Some(4))]);
        assert!(!put(&mut living, 8, 1, &[(3, None)]));
        assert!(put(&mut living, 9, 1, &[(4, None)]) || !living.packs.contains_key(&id(4)));
        // Thousands of packs come and go: their records do not stay.
        for n in 0..20_000_u32 {
            let key = n.to_be_bytes();
            let pack = PackId([n.to_be_bytes(); 4].concat().try_into().unwrap());
            living.appended(Seq(10 + u64::from(n)), MIB, &[(&key[..], Some(pack))], |_| true);
        }
        assert!(living.packs.len() < 20 && living.order.len() < 20);
        assert!(living.records.len() < 5000, "{}", living.records.len());
    }

    #[test]
    fn c1_no_commit_ends_inside_a_span() {
        let mut spans = Spans::default();
        let mut bind = |first, last| spans.bind(Seq(first), Seq(last), first..last + 1);
        assert!(bind(3, 5) && bind(10, 12) && bind(5, 7) && bind(20, 22) && bind(11, 13));
        assert!(!spans.bind(Seq(6), Seq(11), 0..SPAN_MAX + 1), "too much");
        let end = |upto| spans.end_before(Seq(upto)).0;
        assert_eq!(
            [2, 3, 6, 7, 9, 10, 12, 13, 19, 21, 22, 30].map(end),
            [2, 2, 2, 7, 9, 9, 9, 13, 19, 19, 22, 30]
        );
        let near = |from, at| spans.end_near(Seq(from), Seq(at)).0;
        assert_eq!(
            (near(0, 4), near(2, 4), near(2, 8), near(9, 10), near(7, 10)),
            (2, 7, 8, 13, 9)
        );
        spans.confirmed(Seq(9));
        assert_eq!((spans.end_before(Seq(4)), spans.end_before(Seq(11))), (Seq(4), Seq(9)));
        spans.restore(&[dropped(1, 30, 33)]);
        assert_eq!(spans.end_before(Seq(31)), Seq(29));
    }
}
