//! A run of K5, judged by K4.

use super::rules::{RulePart, SearchSpace};
use super::state::{
    Collection, Doomed, LogObject, LoggedChange, NEVER, NUMBERS, PACKS, Power, RunStage,
    VaultMoment, page_bit,
};
use super::steps::{NOBODY, Steps};
use super::writer::{fence, send};

/// Ticks for which commits stay ("three days"): longer than a 200 is believed after the last sight of
/// the head.
const COMMITS_STAY: u8 = 1;

/// The pin by which the run judges.
fn judging_pin(run: &Collection, space: &SearchSpace) -> Option<u8> {
    (run.by.0 != 0 && space.keeps(RulePart::Pins)).then_some(run.by.0)
}

/// K4: whether what was put at tick `put` is older than the retention.
fn is_older(to: &VaultMoment, machine: u8, put: u8, space: &SearchSpace) -> bool {
    put != NEVER && to.now - put > to.holds(machine, space).1
}

/// K5 (2): lists the manifests, and chooses N and R. The base moves onto N (J9).
pub(super) fn list_manifests(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let n = to.newest_manifest();
    let it = to.machines[usize::from(machine)];
    let by = to.holds(machine, space);
    let pin = judging_pin(&Collection { by, ..it.collection }, space);
    let is_own = |number: u8| number >= it.claim && space.keeps(RulePart::OwnIsNotLate);
    let is_base = |number: &u8| {
        to.has_manifest(*number) && (is_own(*number) || !to.is_late(*number, pin, space))
    };
    let bases: Vec<u8> = (1..NUMBERS as u8).filter(is_base).collect();
    let is_enough = |number: &&u8| {
        !space.keeps(RulePart::Retention)
            || is_older(to, machine, to.manifests[usize::from(**number)].put, space)
    };
    let r = bases.iter().filter(is_enough).max().copied().unwrap_or(0);
    // Those that are no base stay, too, until R is beyond them.
    let stays = |number: &u8| to.has_manifest(*number) && (*number >= r || Some(*number) == pin);
    let keep = (1..NUMBERS as u8).filter(stays).fold(0, |all, number| all | 1_u16 << number);
    let listed = (1..NUMBERS).filter(|at| to.manifests[*at].put != NEVER);
    let manifests = listed.fold(0, |all, at| all | 1_u16 << at) & !keep;
    let it = to.machine(machine);
    if r == 0 {
        it.collection = Collection::default();
        return;
    }
    it.base = n;
    let run = &mut it.collection;
    (run.stage, run.n, run.r, run.keep) = (RunStage::ManifestsListed, n, r, keep);
    run.by = by;
    run.doomed.manifests = manifests;
}

/// K5 (2): lists everything else, and judges it by K4.
pub(super) fn list_rest(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let run = to.machines[usize::from(machine)].collection;
    let packs = doomed_packs(to, machine, space);
    let mut doomed = Doomed { packs, ..run.doomed };
    let kept = (0..NUMBERS).filter(|at| run.keep & 1 << at != 0).map(|at| to.manifests[at].pages);
    let named = kept.fold(0, |all, pages| all | page_bit(pages[0], 0) | page_bit(pages[1], 1));
    for number in 1..NUMBERS as u8 {
        for half in 0..2 {
            let put = to.pages[usize::from(number)][half];
            let bit = page_bit(number, half);
            let is_old = !space.keeps(RulePart::PagesOld) || is_older(to, machine, put, space);
            let is_below = !space.keeps(RulePart::PagesUpToN) || number <= run.n;
            if put != NEVER && is_old && is_below && named & bit == 0 {
                doomed.pages |= bit;
            }
        }
    }
    for number in 1..=run.r {
        let link = to.chain[usize::from(number)];
        let is_old = !space.keeps(RulePart::CommitsStay) || to.now - link.put > COMMITS_STAY;
        if link.object != LogObject::Absent && is_old {
            doomed.commits |= 1 << number;
        }
    }
    let is_last = to.left.batches == 0;
    let run = &mut to.machine(machine).collection;
    (run.stage, run.doomed) = (after(run.stage), doomed);
    run.keep = if is_last { 0 } else { run.keep };
}

fn doomed_packs(to: &VaultMoment, machine: u8, space: &SearchSpace) -> u8 {
    let it = to.machines[usize::from(machine)];
    let run = it.collection;
    let pin = judging_pin(&run, space);
    let may_go = |pack: &u8| {
        let put = to.packs[usize::from(*pack)];
        if put == NEVER {
            return false;
        }
        if to.has_row(*pack, run.n, space) {
            let is_dead = to.death(*pack, run.n).is_some_and(|death| death <= run.r);
            return is_dead && !to.pin_holds(pin, *pack, run.n);
        }
        !space.keeps(RulePart::StraysOld) || is_older(to, machine, put, space)
    };
    (0..PACKS as u8).filter(may_go).fold(0, |all, pack| all | 1 << pack)
}

/// Packs that commits after `after` refer to.
fn referred(to: &VaultMoment, after: u8, last: u8) -> u8 {
    let links = &to.chain[usize::from(after) + 1..=usize::from(last)];
    links.iter().fold(0, |all, link| match link.change {
        LoggedChange::Refer(pack) => all | 1 << pack,
        _ => all,
    })
}

/// K5 (2): reads the commits after N to the log's end.
pub(super) fn read_log(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let it = to.machines[usize::from(machine)];
    let others = usize::from(it.head) + 1..=usize::from(to.last);
    if to.chain[others].iter().any(|link| link.by != machine || link.change == LoggedChange::Claim)
    {
        return fence(to, machine, space);
    }
    let referred = referred(to, it.collection.n, to.last);
    let run = &mut to.machine(machine).collection;
    (run.stage, run.referred) = (after(run.stage), referred);
}

fn after(stage: RunStage) -> RunStage {
    if stage == RunStage::ManifestsListed { RunStage::HalfJudged } else { RunStage::Judged }
}

/// K5 (3): freezes.
pub(super) fn freeze(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let it = to.machine(machine);
    it.collection.stage = RunStage::Frozen;
    spare(to, machine, space);
    if space.keeps(RulePart::ListedBeforeReceipt) && to.left.batches == 0 {
        let run = &mut to.machine(machine).collection;
        (run.n, run.mentioned, run.referred) = (0, 0, 0);
    }
}

fn spare(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let it = to.machine(machine);
    if space.keeps(RulePart::CommitsAfterN) {
        it.collection.doomed.packs &= !it.collection.referred;
    }
    if space.keeps(RulePart::StagingStays) {
        it.collection.doomed.packs &= !it.staging;
    }
    if space.keeps(RulePart::MentionedStays) {
        it.collection.doomed.packs &= !it.collection.mentioned;
    }
}

/// K5 (4): puts the horizon.
pub(super) fn put_horizon(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let it = to.machines[usize::from(machine)];
    if to.holds(machine, space) != it.collection.by && space.keeps(RulePart::JudgedByWhatHolds) {
        to.machine(machine).collection = Collection::default();
        return;
    }
    let (before, emptied) = to.horizon(it.head);
    let least = if space.keeps(RulePart::HorizonForward) { before } else { 0 };
    let horizon = it.collection.r.max(least);
    let awaits = space.keeps(RulePart::Receipt);
    to.machine(machine).collection.stage =
        if awaits { RunStage::Awaited } else { RunStage::Deleting };
    send(to, machine, LoggedChange::Horizon(horizon, emptied), space);
}

/// The kinds of objects, as bits.
const KINDS: [(&str, u8); 4] =
    [("deletes packs", 1), ("deletes pages", 2), ("deletes manifests", 4), ("deletes commits", 8)];
const LATE_KINDS: [(&str, u8); 4] = [
    ("(late) deletes packs", 1),
    ("(late) deletes pages", 2),
    ("(late) deletes manifests", 4),
    ("(late) deletes commits", 8),
];

fn has(doomed: &Doomed, kind: u8) -> bool {
    match kind {
        1 => doomed.packs != 0,
        2 => doomed.pages != 0,
        4 => doomed.manifests != 0,
        _ => doomed.commits != 0,
    }
}

/// Deletes one kind from the bucket, and returns what is left of the set.
fn delete(to: &mut VaultMoment, doomed: Doomed, kind: u8) -> Doomed {
    let mut rest = doomed;
    for at in 0..NUMBERS {
        match kind {
            1 if at < PACKS && doomed.packs & 1 << at != 0 => to.packs[at] = NEVER,
            2 => {
                for half in (0..2).filter(|half| doomed.pages & page_bit(at as u8, *half) != 0) {
                    to.pages[at][half] = NEVER;
                }
            }
            4 if doomed.manifests & 1 << at != 0 => to.manifests[at].put = NEVER,
            8 if doomed.commits & 1 << at != 0 => to.chain[at].object = LogObject::Absent,
            _ => {}
        }
    }
    match kind {
        1 => rest.packs = 0,
        2 => rest.pages = 0,
        4 => rest.manifests = 0,
        _ => rest.commits = 0,
    }
    rest
}

/// K5 (5) for one kind.
fn delete_kind(to: &mut VaultMoment, machine: u8, kind: u8) {
    let doomed = to.machines[usize::from(machine)].collection.doomed;
    to.machine(machine).collection.doomed = delete(to, doomed, kind);
}

/// K5 (5) for all kinds.
pub(super) fn delete_set(to: &mut VaultMoment, machine: u8) {
    KINDS.iter().for_each(|(_, kind)| delete_kind(to, machine, *kind));
}

fn give_up(to: &mut VaultMoment, machine: u8) {
    let it = to.machine(machine);
    if it.collection.stage == RunStage::Deleting {
        it.late.doomed = it.collection.doomed;
    }
    it.collection = Collection::default();
}

pub(super) fn steps(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    for (what, kind) in LATE_KINDS {
        if has(&it.late.doomed, kind) {
            all.may(NOBODY, what, machine, |next| {
                next.machine(machine).late.doomed = delete(next, it.late.doomed, kind);
            });
        }
    }
    if it.power != Power::Up {
        return;
    }
    let (run, space) = (it.collection, all.space);
    match run.stage {
        RunStage::Idle => begin(all, machine),
        RunStage::Begun => {
            let n = all.from.newest_manifest();
            let waited = !run.waits || !space.keeps(RulePart::WaitsForAppended);
            if waited && (n >= it.claim || !space.keeps(RulePart::OwnCheckpoint)) {
                all.may(machine, "lists manifests, N is", n, |next| {
                    list_manifests(next, machine, space);
                });
            }
        }
        RunStage::ManifestsListed | RunStage::HalfJudged => judge(all, machine),
        RunStage::Judged => all.may(machine, "freezes", 0, |next| freeze(next, machine, space)),
        RunStage::Frozen if may_put_horizon(all, machine) => {
            all.may(machine, "puts the horizon as commit", it.head + 1, |next| {
                put_horizon(next, machine, space);
            });
        }
        RunStage::ToList => all.may(machine, "lists packs after the receipt", 0, |next| {
            let (packs, referred) =
                (doomed_packs(next, machine, space), referred(next, run.n, it.head));
            let run = &mut next.machine(machine).collection;
            (run.doomed.packs, run.referred, run.stage) = (packs, referred, RunStage::Deleting);
            spare(next, machine, space);
        }),
        RunStage::Deleting => go_on(all, machine),
        _ => {}
    }
}

fn may_put_horizon(all: &Steps<'_>, machine: u8) -> bool {
    let it = all.from.machines[usize::from(machine)];
    let is_next = it.journal.is_none() || !all.space.keeps(RulePart::HorizonInOrder);
    it.answer.is_none() && it.head < all.space.bounds.commits && is_next
}

/// K5 (2), after the manifests.
fn judge(all: &mut Steps<'_>, machine: u8) {
    let (run, space) = (all.from.machines[usize::from(machine)].collection, all.space);
    let lists = run.stage == RunStage::ManifestsListed;
    if lists == space.keeps(RulePart::LogAfterListing) {
        all.may(machine, "lists pages, commits, packs; R is", run.r, |next| {
            list_rest(next, machine, space);
        });
    } else {
        all.may(machine, "reads the commits after N to", all.from.last, |next| {
            read_log(next, machine, space);
        });
    }
}

fn begin(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    if all.from.left.collections == 0 {
        return;
    }
    all.may(machine, "begins gc", 0, |next| {
        next.left.collections -= 1;
        next.machine(machine).collection = Collection {
            stage: RunStage::Begun,
            waits: it.journal.is_some(),
            ..Collection::default()
        };
    });
}

fn go_on(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    let (run, space) = (it.collection, all.space);
    if !space.bounds.interrupted && run.doomed != Doomed::default() {
        all.may(machine, "deletes the set", 0, |next| delete_set(next, machine));
        return;
    }
    for (what, kind) in KINDS {
        if has(&run.doomed, kind) {
            all.may(machine, what, 0, |next| delete_kind(next, machine, kind));
        }
    }
    if space.bounds.interrupted {
        all.may(machine, "gives its gc up", 0, |next| give_up(next, machine));
    }
    if run.doomed != Doomed::default() {
        return;
    }
    if all.from.left.batches > 0 {
        // The next batch is judged by the promises, log and mentions from before; only the listing goes
        // on.
        all.may(machine, "lists the next batch", 0, |next| {
            next.left.batches -= 1;
            next.machine(machine).collection.stage = RunStage::HalfJudged;
            list_rest(next, machine, space);
        });
    }
    if !all.space.bounds.emptied {
        all.may(machine, "ends its gc", 0, |next| {
            next.machine(machine).collection = Collection::default();
        });
    } else if it.answer.is_none() && it.head < all.space.bounds.commits {
        all.may(machine, "puts `emptied` as commit", it.head + 1, |next| {
            let (to, before) = next.horizon(it.head);
            next.machine(machine).collection = Collection::default();
            send(next, machine, LoggedChange::Horizon(to, run.r.max(before)), space);
        });
    }
}
