//! The search: breadth first, each moment once. For moments seen it keeps only a 64-bit fingerprint and that of their
//! predecessor; the trace is found by repeating the steps.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::rules::SearchSpace;
use super::state::VaultMoment;
use super::steps::{NOBODY, Steps};
use super::{check, checkpoint, collection, tidy, writer};

/// What a search found.
pub(super) struct SearchResult {
    pub(super) moments: usize,
    pub(super) steps: usize,
    /// The broken invariant, and the shortest way there.
    pub(super) broken: Option<(&'static str, Vec<String>)>,
}

/// A fast hash, good enough where nobody attacks it.
#[derive(Default)]
struct FingerprintHasher(u64);

impl Hasher for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(26) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 29
    }
}

fn fingerprint(of: &VaultMoment) -> u64 {
    let mut hasher = FingerprintHasher::default();
    of.hash(&mut hasher);
    hasher.finish()
}

fn next<'a>(from: &'a VaultMoment, space: &'a SearchSpace) -> Steps<'a> {
    let mut all = Steps::new(space, from);
    for machine in 0..2 {
        writer::steps(&mut all, machine);
        writer::late_steps(&mut all, machine);
        checkpoint::steps(&mut all, machine);
        collection::steps(&mut all, machine);
    }
    if from.now < space.bounds.ticks {
        all.may(NOBODY, "the clock shows", from.now + 1, |next| next.now += 1);
    }
    if space.bounds.follows && from.reader.0 <= from.last {
        all.may(NOBODY, "the reader asks for commit", from.reader.0 + 1, |next| {
            check::follow(next, space);
        });
    }
    all
}

type SeenFrom = HashMap<u64, u64, BuildHasherDefault<FingerprintHasher>>;

/// Visits every moment that can come within the bounds, until one is broken.
pub(super) fn search(space: &SearchSpace) -> SearchResult {
    let first = VaultMoment::first(&space.bounds);
    let mut seen = SeenFrom::default();
    seen.insert(fingerprint(&first), 0);
    let (mut now, mut then, mut steps) = (vec![(fingerprint(&first), first)], Vec::new(), 0);
    while !now.is_empty() {
        for (before, from) in now.drain(..) {
            for (_, to) in next(&from, space).next {
                steps += 1;
                let print = fingerprint(&to);
                let Entry::Vacant(entry) = seen.entry(print) else { continue };
                entry.insert(before);
                let broken = check::broken(&to, space);
                if let Some(why) = broken.or_else(|| tidy::left(&to, print, space)) {
                    let way = trace(&seen, print, space);
                    return SearchResult { moments: seen.len(), steps, broken: Some((why, way)) };
                }
                then.push((print, to));
            }
        }
        std::mem::swap(&mut now, &mut then);
    }
    SearchResult { moments: seen.len(), steps, broken: None }
}

fn trace(seen: &SeenFrom, last: u64, space: &SearchSpace) -> Vec<String> {
    let mut way = vec![last];
    while let Some(before) = seen.get(&way[way.len() - 1]).filter(|before| **before != 0) {
        way.push(*before);
    }
    let mut at = VaultMoment::first(&space.bounds);
    let mut told = Vec::new();
    for print in way.iter().rev().skip(1) {
        let steps = next(&at, space).next;
        let Some((name, to)) = steps.into_iter().find(|(_, to)| fingerprint(to) == *print) else {
            break;
        };
        let who = ["A ", "B ", ""][usize::from(name.machine)];
        told.push(format!("[{}] {who}{} {}", at.now, name.what, name.of));
        at = to;
    }
    told
}
