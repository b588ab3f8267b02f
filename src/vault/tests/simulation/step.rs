//! What can happen, and how a seed makes a run of it.

use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;

use crate::store::Verb;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    // What programs do.
    Write {
        path: u8,
        seed: u64,
        length: usize,
        fsync: bool,
    },
    Patch {
        path: u8,
        seed: u64,
        at: u64,
        length: usize,
    },
    Truncate {
        path: u8,
        size: u64,
    },
    Chmod {
        path: u8,
        mode: u32,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Link {
        from: u8,
        to: u8,
    },
    Unlink {
        path: u8,
        while_open: bool,
    },
    MakeDir(u8),
    RemoveDir(u8),
    CopyRange {
        from: u8,
        to: u8,
        length: u64,
    },
    Look,
    // What people do.
    Sync,
    Checkpoint,
    /// Old states are kept for half a minute, and what no state needs is deleted.
    Gc,
    Reopen,
    LookFromBucket,
    /// The reader on another machine looks for what is new, in the way that the seed decides.
    Follow {
        seed: u64,
    },
    /// The reader looks until it shows all that is in the bucket, with nothing wrong.
    CatchUp,
    TakeOver {
        seed: u64,
    },
    /// A new key epoch; `rewrite`: older data is sealed anew, too.
    Rotate {
        rewrite: bool,
    },
    /// Waits until that is done.
    Renew,
    AddSlot,
    RemoveSlot,
    /// The machine is off for longer than commits are kept.
    DaysOff,
    /// Milliseconds.
    Wait(u64),
    // What happens to them.
    Kill,
    PowerCut,
    LoseIndex,
    LoseCache,
    LoseState,
    /// The process ends after this many more changes of the disk: by a kill, or a loss of power.
    EndAt {
        changes: u64,
        power: bool,
    },
    /// The process ends after this many more matching requests to the store, and the fault `kind` applies to the last one.
    EndAtRequest {
        verb: Option<Verb>,
        what: &'static str,
        kind: u8,
        skip: u32,
    },
    DiskFull {
        changes: Range<u64>,
    },
    DiskFails {
        change: u64,
    },
    DiskHeals,
    StoreFault {
        verb: Verb,
        what: &'static str,
        kind: u8,
        skip: u32,
        times: u32,
    },
    StoreGone,
    StoreHeals,
}

const NAMES: u8 = 5;
const DIRECTORIES: u8 = 3;

/// There are few paths, so that they collide: five names, in the root and in two directories.
pub(super) fn path(number: u8) -> String {
    match number / NAMES % DIRECTORIES {
        0 => format!("f{}", number % NAMES),
        directory => format!("d{directory}/f{}", number % NAMES),
    }
}

/// The directories besides the root.
pub(super) fn directory(number: u8) -> String {
    format!("d{}", 1 + number % (DIRECTORIES - 1))
}

/// A file length: mostly small; around a chunk; sometimes more than a buffer.
fn length(dice: &mut StdRng) -> usize {
    match dice.random_range(0..20) {
        0 => 0,
        1..=13 => dice.random_range(1..3000),
        14..=17 => dice.random_range(16_300..16_500),
        18 => dice.random_range(30_000..90_000),
        _ => dice.random_range(100_000..400_000),
    }
}

fn program(dice: &mut StdRng) -> Step {
    let path = |dice: &mut StdRng| dice.random_range(0..NAMES * DIRECTORIES);
    let (one, other, seed) = (path(dice), path(dice), dice.random());
    match dice.random_range(0..30) {
        0..=10 => {
            let (length, fsync) = (length(dice), dice.random_range(0..4) == 0);
            Step::Write { path: one, seed, length, fsync }
        }
        11..=14 => {
            let (at, length) = (dice.random_range(0..40_000), dice.random_range(1..2000));
            Step::Patch { path: one, seed, at, length }
        }
        15..=16 => Step::Truncate { path: one, size: dice.random_range(0..40_000) },
        17 => Step::Chmod { path: one, mode: dice.random_range(0..0o1000) },
        18..=20 => Step::Rename { from: one, to: other },
        21 => Step::Link { from: one, to: other },
        22..=24 => Step::Unlink { path: one, while_open: dice.random() },
        25..=26 => Step::MakeDir(dice.random()),
        27 => Step::RemoveDir(dice.random()),
        28 => Step::CopyRange { from: one, to: other, length: dice.random_range(1..60_000) },
        _ => Step::Look,
    }
}

fn people(dice: &mut StdRng) -> Step {
    match dice.random_range(0..22) {
        20..=21 => Step::Gc,
        0..=5 => Step::Wait(dice.random_range(1..400)),
        6..=7 => Step::Wait(dice.random_range(5_000..40_000)),
        8 => Step::Wait(dice.random_range(3_600_000..8_000_000)),
        9..=11 => Step::Sync,
        12..=13 => Step::Checkpoint,
        14..=15 => Step::Reopen,
        16..=18 => Step::LookFromBucket,
        _ => Step::TakeOver { seed: dice.random() },
    }
}

fn trouble(dice: &mut StdRng) -> Step {
    let few = |dice: &mut StdRng| {
        if dice.random() { dice.random_range(1..12) } else { dice.random_range(1..120) }
    };
    match dice.random_range(0..30) {
        0..=1 => Step::Kill,
        2..=3 => Step::PowerCut,
        4 => Step::LoseIndex,
        5 => Step::LoseCache,
        6 => Step::LoseState,
        7..=12 => Step::EndAt { changes: few(dice), power: dice.random() },
        13..=15 => {
            let from = few(dice);
            Step::DiskFull { changes: from..from + few(dice) }
        }
        16 => Step::DiskFails { change: few(dice) },
        17..=18 => Step::DiskHeals,
        19..=25 => {
            let verbs = [Verb::Put, Verb::Put, Verb::Get, Verb::Head, Verb::List, Verb::Delete];
            let what = ["", "log/", "pack/", "page/", "checkpoint/"];
            Step::StoreFault {
                verb: verbs[dice.random_range(0..verbs.len())],
                what: what[dice.random_range(0..what.len())],
                kind: dice.random(),
                skip: dice.random_range(0..4),
                times: dice.random_range(1..5),
            }
        }
        26 => Step::StoreGone,
        _ => Step::StoreHeals,
    }
}

/// Makes `count` steps.
pub(super) fn steps(dice: &mut StdRng, count: usize) -> Vec<Step> {
    // Some runs are calm, some are not.
    let (troubles, peoples) = (dice.random_range(1..12), dice.random_range(1..12));
    let one = |_| match dice.random_range(0..40) {
        n if n < troubles => trouble(dice),
        n if n < troubles + peoples => people(dice),
        _ => program(dice),
    };
    (0..count).map(one).collect()
}

fn keys(dice: &mut StdRng) -> Step {
    match dice.random_range(0..14) {
        0..=4 => Step::Rotate { rewrite: true },
        5..=6 => Step::Rotate { rewrite: false },
        7..=8 => Step::Renew,
        9 => Step::AddSlot,
        10 => Step::RemoveSlot,
        11 => Step::Gc,
        _ => Step::DaysOff,
    }
}

/// What a store does to a superblock. Keeping other bytes of the same length is not among these: then only the owner's copy
/// opens that vault (O1).
fn trouble_with_keys(dice: &mut StdRng) -> Step {
    let (verbs, kinds) = ([Verb::Put, Verb::Put, Verb::Get, Verb::List, Verb::Delete], KEY_FAULTS);
    let verb = verbs[dice.random_range(0..verbs.len())];
    let what = ["superblock/", "superblock/", "log/"][dice.random_range(0..3)];
    let kind = kinds[dice.random_range(0..kinds.len())];
    match dice.random_range(0..6) {
        0 => Step::EndAt { changes: dice.random_range(1..40), power: dice.random() },
        1 => {
            let skip = dice.random_range(0..5);
            Step::EndAtRequest { verb: Some(verb), what, kind, skip }
        }
        2 => Step::EndAtRequest { verb: None, what: "", kind, skip: dice.random_range(0..60) },
        _ => {
            let (skip, times) = (dice.random_range(0..4), dice.random_range(1..5));
            Step::StoreFault { verb, what, kind, skip, times }
        }
    }
}

/// Breaks, a lost reply, stalls, delays, half kept, nothing kept, a bit, a half, 503, half kept and a lie (`run::fault`).
const KEY_FAULTS: [u8; 13] = [0, 1, 2, 3, 5, 7, 7, 8, 11, 12, 13, LIES, LIES];

/// The kind of a fault for superblocks only: half is kept, and the checksum returned is that of the whole. They are read back
/// whatever a store says; other objects are not (C5).
pub(super) const LIES: u8 = 17;

/// Every third run has a reader on another machine, which looks between the other steps.
pub(super) fn with_reader(dice: &mut StdRng, mut steps: Vec<Step>) -> Vec<Step> {
    if dice.random_range(0..3) > 0 {
        return steps;
    }
    for _ in 0..dice.random_range(4..30) {
        let at = dice.random_range(0..=steps.len());
        let step = match dice.random_range(0..4) {
            0 => Step::CatchUp,
            _ => Step::Follow { seed: dice.random() },
        };
        steps.insert(at, step);
    }
    steps.push(Step::CatchUp);
    steps
}

/// In every other run the keys change, too, between the other steps, which stay the same.
pub(super) fn with_keys(dice: &mut StdRng, mut steps: Vec<Step>) -> Vec<Step> {
    if dice.random() {
        return steps;
    }
    for _ in 0..dice.random_range(1..9) {
        let at = dice.random_range(0..=steps.len());
        steps.insert(at, keys(dice));
        if dice.random_range(0..3) == 0 {
            steps.insert(at, trouble_with_keys(dice));
        }
    }
    steps
}
