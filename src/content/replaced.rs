//! Counts how many published records the unpublished writes of a file replace, at most. A publication deletes them in
//! its one transaction, whose size is bounded: so they are counted before a write is taken (V1). There is no I/O here:
//! the caller asks the map, and only if the number of bytes does not bound the number of records well enough.

use std::collections::HashMap;
use std::ops::Range;

use crate::types::{EXTENT_MAX, Extent};

/// The most bytes that an unpublished piece adds to the transaction: its record, and the remainders of old ones before
/// and behind it.
const PIECE: u64 = 500;
/// The weight of a record that is replaced. It takes a third of this in the transaction; the rest stands for memory,
/// and for time under the append lock.
const OLD: u64 = 64;
/// A window with at most this many records is counted once, as a whole. In one with more, each write asks for its own
/// range.
const FEW: u64 = 64;
/// The count of a window that has more than `FEW`.
const MANY: u64 = u64::MAX;
/// For how many windows the count is remembered; at that number all are forgotten.
const WINDOWS_MAX: usize = 4096;

/// What a caller must ask the map before a write can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question: how many records overlap this range.
    pub range: Range<u64>,
    /// The count may stop at this number.
    pub most: u64,
    version: u64,
}

/// The map's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlapCount {
    /// How many records overlap the range, at most `most`.
    pub records: u64,
    /// Where the first record beyond `most` begins.
    pub next: Option<u64>,
}

/// The questions asked for one write, with their answers.
#[derive(Debug, Default)]
pub struct Answers(Vec<(Question, OverlapCount)>);

impl Answers {
    /// Adds the answer to a question.
    pub fn add(&mut self, question: Question, counted: OverlapCount) {
        self.0.push((question, counted));
    }

    fn to(&self, question: &Question) -> Option<OverlapCount> {
        self.0.iter().find(|(asked, _)| asked == question).map(|(_, counted)| *counted)
    }
}

/// What happens to a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weighed {
    /// It is taken up to this offset, and counted.
    Taken(u64),
    /// That depends on the answer to this.
    Ask(Question),
    /// It must wait until what is unpublished has been published.
    Publish,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    /// The most published records that overlap it.
    records: u64,
    /// The epoch in which they were last added to `sum`.
    added: u64,
}

/// The records that one file's unpublished writes replace.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The weight that one transaction takes of pieces and replaced records.
    limit: u64,
    windows: HashMap<u64, Window>,
    sum: u64,
    /// Counts seals: what is written after one does not belong to its publication.
    epoch: u64,
    /// Incremented when the published records change.
    version: u64,
}

impl Replaced {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, windows: HashMap::new(), sum: 0, epoch: 1, version: 0 }
    }

    /// The weight of a publication of this many pieces now.
    pub(super) fn weight(&self, pieces: u64) -> u64 {
        pieces.saturating_mul(PIECE).saturating_add(self.sum.saturating_mul(OLD))
    }

    #[cfg(test)]
    fn sum(&self) -> u64 {
        self.sum
    }

    /// Weighs a write of `range` while `pieces` pieces are unpublished. It is taken whole, unless it alone replaces
    /// more than its share of a transaction: then only its beginning is taken.
    pub(super) fn take(&mut self, pieces: u64, range: Range<u64>, answers: &Answers) -> Weighed {
        let most = self.limit / OLD / 4;
        let (mut at, mut sum) = (range.start, 0);
        let mut added = Vec::new();
        while at < range.end {
            let window = at / EXTENT_MAX;
            let whole = window * EXTENT_MAX..(window + 1).saturating_mul(EXTENT_MAX);
            let part = at..range.end.min(whole.end);
            let known = self.windows.get(&window).copied();
            at = part.end;
            if known.is_some_and(|known| known.records <= FEW && known.added == self.epoch) {
                continue;
            }
            // The range overlaps at most as many records as it has bytes.
            if self.sum + sum + (part.end - part.start) <= most {
                sum += part.end - part.start;
                continue;
            }
            let records = if let Some(known) = known {
                known.records
            } else {
                let question = Question { range: whole, most: FEW, version: self.version };
                let Some(counted) = answers.to(&question) else { return Weighed::Ask(question) };
                self.know(window, counted)
            };
            if records <= FEW {
                sum += records;
                added.push(window);
                continue;
            }
            let question = Question { range: part.clone(), most, version: self.version };
            let Some(counted) = answers.to(&question) else { return Weighed::Ask(question) };
            sum += counted.records;
            if let Some(next) = counted.next {
                at = next.clamp(part.start + 1, part.end);
                break;
            }
        }
        let before = self.weight(pieces);
        if before > 0 && before.saturating_add(sum * OLD + PIECE) > self.limit {
            return Weighed::Publish;
        }
        self.sum += sum;
        for window in added {
            if let Some(known) = self.windows.get_mut(&window) {
                known.added = self.epoch;
            }
        }
        Weighed::Taken(at)
    }

    fn know(&mut self, window: u64, counted: OverlapCount) -> u64 {
        if self.windows.len() >= WINDOWS_MAX {
            self.windows.clear();
        }
        let records = if counted.next.is_some() { MANY } else { counted.records };
        self.windows.insert(window, Window { records, added: 0 });
        records
    }

    /// Everything is sealed for a publication: returns how many records that replaces.
    pub(super) fn sealed(&mut self) -> u64 {
        self.epoch += 1;
        self.sum
    }

    /// The publication of these pieces, which replaced `sum` records, was appended. `is_left`: something was written
    /// since it was sealed.
    pub(super) fn published(&mut self, sum: u64, pieces: &[(u64, Extent)], is_left: bool) {
        self.sum = self.sum.saturating_sub(sum);
        self.version += 1;
        for (offset, extent) in pieces {
            for window in offset / EXTENT_MAX..=(offset + extent.length) / EXTENT_MAX {
                if let Some(known) = self.windows.get_mut(&window)
                    && known.records != MANY
                {
                    // The new record itself, and the remainder of one that it was laid into.
                    known.records += 2;
                    if known.records > FEW {
                        // There may be fewer: it is counted again when needed.
                        self.windows.remove(&window);
                    }
                }
            }
        }
        self.left(is_left, 2 * pieces.len() as u64);
    }

    /// The published records were changed in another way, and there may be `more` of them.
    pub(super) fn changed(&mut self, more: u64, is_left: bool) {
        self.version += 1;
        self.windows.clear();
        self.left(is_left, more);
    }

    /// What was written meanwhile may replace the records that were added meanwhile.
    fn left(&mut self, is_left: bool, more: u64) {
        self.sum = if is_left { self.sum + more } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = EXTENT_MAX;
    /// With this limit, a transaction takes 1,024 replaced records, and the range of one write at most 256.
    const LIMIT: u64 = 1024 * OLD;

    /// Takes a write of a file with `density` records in each KiB, asking as a caller does.
    fn take(replaced: &mut Replaced, pieces: u64, range: Range<u64>, density: u64) -> Weighed {
        let mut answers = Answers::default();
        for _ in 0..9 {
            match replaced.take(pieces, range.clone(), &answers) {
                Weighed::Ask(question) => {
                    let there = (question.range.end - question.range.start) / 1024 * density;
                    let next = question.range.start + question.most * 1024 / density.max(1);
                    let next = (there > question.most).then_some(next);
                    let records = there.min(question.most);
                    answers.add(question, OverlapCount { records, next });
                }
                other => return other,
            }
        }
        panic!("it asks for ever");
    }

    #[test]
    fn v1_small_writes_ask_nothing_and_a_window_is_asked_about_once() {
        let mut replaced = Replaced::new(LIMIT);
        let nothing = Answers::default();
        assert_eq!(replaced.take(0, 0..200, &nothing), Weighed::Taken(200));
        assert!(matches!(replaced.take(1, 200..1000, &nothing), Weighed::Ask(_)));
        assert_eq!(take(&mut replaced, 1, 200..1000, 0), Weighed::Taken(1000));
        for n in 1..1000 {
            let range = n * 4096..(n + 1) * 4096;
            assert_eq!(replaced.take(1, range.clone(), &nothing), Weighed::Taken(range.end));
        }
        assert_eq!(replaced.sum(), 200, "an empty window adds nothing");
    }

    #[test]
    fn v1_what_would_replace_too_much_waits_for_a_publication() {
        let mut replaced = Replaced::new(LIMIT);
        let (mut at, mut published) = (0, 0);
        while at < 8 * WINDOW {
            let range = at..(at + (1 << 20)).min((at / WINDOW + 1) * WINDOW);
            match take(&mut replaced, 1, range.clone(), 1) {
                Weighed::Taken(end) => {
                    assert!(end > at && end - at <= 256 << 10, "{} of it", end - at);
                    at = end;
                }
                Weighed::Publish => {
                    let sum = replaced.sealed();
                    assert!(sum * OLD + PIECE <= LIMIT && sum > 0);
                    replaced.published(sum, &[], false);
                    published += 1;
                }
                Weighed::Ask(_) => unreachable!(),
            }
        }
        assert_eq!(published, 8 * WINDOW / 1024 / 768, "whenever a transaction is full");
    }

    #[test]
    fn v1_an_answer_is_no_good_once_the_records_have_changed() {
        let mut replaced = Replaced::new(LIMIT);
        let mut answers = Answers::default();
        let Weighed::Ask(question) = replaced.take(0, 0..4096, &answers) else { panic!() };
        answers.add(question.clone(), OverlapCount { records: 3, next: None });
        replaced.changed(100, true);
        assert_eq!(replaced.sum(), 100, "what is written may replace what came");
        let Weighed::Ask(again) = replaced.take(1, 0..4096, &answers) else { panic!() };
        assert_ne!(question, again);
    }
}
