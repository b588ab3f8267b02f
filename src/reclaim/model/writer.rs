//! A writing machine: packs, transactions, commits (C1-C5), and how it opens (W1).

use super::rules::RulePart;
use super::rules::SearchSpace;
use super::state::{
    Answer, Build, ChainLink, Collection, LogObject, LoggedChange, ModelMachine, NEVER, PACKS,
    Power, RunStage, VaultMoment,
};
use super::steps::Steps;

/// What the store does with a conditional put of a commit.
pub(super) fn put_commit(to: &mut VaultMoment, by: u8, number: u8, change: LoggedChange) -> bool {
    let at = usize::from(number);
    if number <= to.last {
        let is_free = to.chain[at].object == LogObject::Absent;
        if is_free {
            to.chain[at].object = LogObject::Stranger;
        }
        return is_free;
    }
    let before = to.alive(to.last);
    let alive = match change {
        LoggedChange::Refer(pack) => before | 1 << pack,
        LoggedChange::Unlink(pack) => before & !(1 << pack),
        _ => before,
    };
    to.chain[at] = ChainLink { by, change, alive, put: to.now, object: LogObject::Winner };
    to.last = number;
    true
}

/// Sends a machine's next commit, and stores the answer.
pub(super) fn send(to: &mut VaultMoment, by: u8, change: LoggedChange, space: &SearchSpace) {
    let number = to.machines[usize::from(by)].head + 1;
    let before = to.last;
    let is_200 = put_commit(to, by, number, change);
    let has_won = to.last > before;
    let date = to.now;
    to.machine(by).answer = Some(Answer { change, is_200, has_won, date });
    if space.bounds.prompt {
        learn(to, by, true, space);
    }
}

/// Ends the machine's process. What it had sent may be carried out later.
pub(super) fn end(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let it = to.machine(machine);
    if space.bounds.late {
        if it.build.number != 0 {
            it.late.build = it.build;
        }
        let waiting = it.staging & !it.uploaded;
        it.late.packs |= waiting;
        if let (Some(change), None, Power::Up) = (it.journal, it.answer, it.power) {
            let lacks = matches!(change, LoggedChange::Refer(pack) if waiting & 1 << pack != 0);
            if !lacks {
                it.late.commit = Some((it.head + 1, change));
            }
        }
        if it.collection.stage == RunStage::Deleting {
            it.late.doomed = it.collection.doomed;
        }
    }
    let staged = match it.journal {
        Some(LoggedChange::Refer(pack)) => it.staging & 1 << pack,
        _ => 0,
    };
    let (head, journal, late) = (it.head, it.journal, it.late);
    *it = ModelMachine { head, journal, late, staging: staged, ..ModelMachine::default() };
}

/// W3: another machine has written. What is unsent is set aside.
pub(super) fn fence(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    end(to, machine, space);
    let it = to.machine(machine);
    (it.journal, it.staging) = (None, 0);
}

fn is_believed(answer: Answer, sight: u8, space: &SearchSpace) -> bool {
    answer.is_200 && (answer.date - sight <= 1 || !space.keeps(RulePart::DateOfReply))
}

/// C2: what a machine concludes from the answer, or from the list if it believes no answer.
pub(super) fn learn(to: &mut VaultMoment, machine: u8, by_list: bool, space: &SearchSpace) {
    let it = to.machine(machine);
    let Some(answer) = it.answer.take() else { return };
    let number = it.head + 1;
    if !by_list {
        if !answer.has_won {
            to.broken = Some("a 200 was believed for a commit that is not in the chain");
            return;
        }
        if space.bounds.opens > 0 {
            to.machine(machine).sight = answer.date;
        }
    } else if to.last > number || !answer.has_won {
        if answer.change == LoggedChange::Claim {
            let it = to.machine(machine);
            (it.power, it.base, it.sight) = (Power::Down, 0, 0);
        } else {
            fence(to, machine, space);
        }
        return;
    }
    confirmed(to.machine(machine), number, answer.change, space);
}

fn confirmed(it: &mut ModelMachine, number: u8, change: LoggedChange, space: &SearchSpace) {
    it.head = number;
    match change {
        LoggedChange::Claim => {
            it.claim = number;
            it.power = if space.keeps(RulePart::LooksAgain) { Power::Claimed } else { Power::Up };
        }
        LoggedChange::Horizon(..) => {
            if it.collection.stage == RunStage::Awaited {
                let listed = space.keeps(RulePart::ListedBeforeReceipt);
                it.collection.stage = if listed { RunStage::Deleting } else { RunStage::ToList };
            }
        }
        _ => {
            it.journal = None;
            it.collection.waits = false;
            if let LoggedChange::Refer(pack) = change
                && it.unpublished[usize::from(pack)] == 0
            {
                it.staging &= !(1 << pack);
                it.uploaded &= !(1 << pack);
            }
        }
    }
}

/// Steps of a writing machine, except checkpoints and deletion.
pub(super) fn steps(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    let space = all.space;
    if it.power != Power::Down && all.from.left.kills > 0 {
        all.may(machine, "is killed", 0, |next| {
            next.left.kills -= 1;
            end(next, machine, space);
        });
    }
    if let Some(answer) = it.answer {
        let believed = is_believed(answer, it.sight, space);
        if believed {
            all.may(machine, "believes the 200 for its commit", it.head + 1, |next| {
                learn(next, machine, false, space);
            });
        }
        if !believed || all.from.last > it.head + 1 {
            all.may(machine, "lists the log after its put of commit", it.head + 1, |next| {
                learn(next, machine, true, space);
            });
        }
    }
    match it.power {
        Power::Up => {
            write(all, machine);
            change(all, machine);
        }
        _ => open(all, machine),
    }
}

fn write(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    let space = all.space;
    let bounds = space.bounds;
    if all.from.left.packs > 0 {
        let pack = 1 + bounds.packs - all.from.left.packs;
        all.may(machine, "writes into new pack", pack, |next| {
            next.left.packs -= 1;
            next.machine(machine).staging |= 1 << pack;
            if bounds.prompt {
                put_pack(next, pack);
                next.machine(machine).uploaded |= 1 << pack;
            }
            next.machine(machine).unpublished[usize::from(pack)] = bounds.pieces;
        });
    }
    for pack in 1..PACKS as u8 {
        if it.staging & !it.uploaded & 1 << pack != 0 {
            all.may(machine, "uploads pack", pack, |next| {
                put_pack(next, pack);
                next.machine(machine).uploaded |= 1 << pack;
            });
        }
    }
    let ready = match it.journal {
        Some(LoggedChange::Refer(pack)) => it.staging & !it.uploaded & 1 << pack == 0,
        Some(_) => true,
        None => false,
    };
    if let (Some(change), true, None) = (it.journal, ready, it.answer)
        && it.head < bounds.commits
    {
        all.may(machine, "puts commit", it.head + 1, |next| send(next, machine, change, space));
    }
}

fn put_pack(to: &mut VaultMoment, pack: u8) {
    let put = &mut to.packs[usize::from(pack)];
    if *put == NEVER {
        *put = to.now;
    }
}

/// Appends a transaction.
pub(super) fn append(to: &mut VaultMoment, machine: u8, change: LoggedChange) {
    let it = to.machine(machine);
    it.journal = Some(change);
    let run = &mut it.collection;
    if let LoggedChange::Refer(pack) = change {
        match run.stage {
            RunStage::Idle => {}
            RunStage::Begun
            | RunStage::ManifestsListed
            | RunStage::HalfJudged
            | RunStage::Judged => {
                run.mentioned |= 1 << pack;
            }
            RunStage::Frozen | RunStage::Awaited | RunStage::ToList | RunStage::Deleting => {
                // If the listing comes after the receipt, nothing is frozen before it.
                run.mentioned |= if run.n == 0 { 0 } else { 1 << pack };
                if run.doomed.packs & 1 << pack != 0 {
                    to.broken = Some("an append had to refer to a frozen pack");
                }
            }
        }
    }
}

fn change(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    if it.journal.is_some() {
        return;
    }
    let alive = all.from.alive(it.head);
    for pack in 0..PACKS as u8 {
        if it.unpublished[usize::from(pack)] > 0 {
            all.may(machine, "publishes what lies in pack", pack, |next| {
                next.machine(machine).unpublished[usize::from(pack)] -= 1;
                append(next, machine, LoggedChange::Refer(pack));
            });
        }
        if all.space.bounds.unlinks & alive & 1 << pack != 0 {
            all.may(machine, "removes the last reference to pack", pack, |next| {
                append(next, machine, LoggedChange::Unlink(pack));
            });
        }
        if all.from.left.restores > 0 && alive & 1 << pack == 0 && may_share(all, machine, pack) {
            all.may(machine, "copies from an old state a reference to pack", pack, |next| {
                next.left.restores -= 1;
                append(next, machine, LoggedChange::Refer(pack));
            });
        }
    }
    if all.from.left.touches > 0 {
        all.may(machine, "changes something", 0, |next| {
            next.left.touches -= 1;
            append(next, machine, LoggedChange::Nothing);
        });
    }
}

/// V4: whether a state that had the pack may be brought back by reference.
fn may_share(all: &Steps<'_>, machine: u8, pack: u8) -> bool {
    let it = all.from.machines[usize::from(machine)];
    let frozen = it.collection.doomed.packs & 1 << pack != 0
        && matches!(
            it.collection.stage,
            RunStage::Frozen | RunStage::Awaited | RunStage::ToList | RunStage::Deleting
        );
    if frozen && all.space.keeps(RulePart::FrozenIsCopied) {
        return false;
    }
    let horizon = match it.answer {
        Some(Answer { change: LoggedChange::Horizon(to, _), .. }) => to,
        _ => all.from.horizon(it.head).0,
    };
    let (pin, _) = all.from.holds(machine, all.space);
    let was_pinned = |state: u8| {
        (1..=it.head).any(|at| all.from.chain[usize::from(at)].change == LoggedChange::Pin(state))
    };
    let is_there = |state: u8| {
        state >= horizon
            || pin == state
            || !all.space.keeps(RulePart::PromisedState)
            || !all.space.keeps(RulePart::PinThatIs) && was_pinned(state)
    };
    (1..=it.head).any(|state| all.from.alive(state) & 1 << pack != 0 && is_there(state))
}

/// W1, step by step.
fn open(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    let space = all.space;
    match it.power {
        Power::Down if all.from.left.opens > 0 => {
            all.may(machine, "opens: the newest manifest is", all.from.newest_manifest(), |next| {
                next.left.opens -= 1;
                let base = next.newest_manifest();
                let it = next.machine(machine);
                (it.power, it.base) = (Power::Surveyed, base);
            });
        }
        Power::Surveyed => {
            all.may(machine, "reads the log to", all.from.last, |next| read_log(next, machine));
        }
        Power::Claiming if it.answer.is_none() && it.head < all.space.bounds.commits => {
            all.may(machine, "puts its claim as commit", it.head + 1, |next| {
                send(next, machine, LoggedChange::Claim, space);
            });
        }
        Power::Claimed => {
            all.may(
                machine,
                "looks again: the newest manifest is",
                all.from.newest_manifest(),
                |next| {
                    let base = next.newest_manifest();
                    let it = next.machine(machine);
                    (it.power, it.base) = (Power::Up, base);
                },
            );
        }
        _ => {}
    }
}

/// W1 (1) to (3).
fn read_log(to: &mut VaultMoment, machine: u8) {
    let (now, last) = (to.now, to.last);
    let it = to.machines[usize::from(machine)];
    let since = &to.chain[usize::from(it.head) + 1..=usize::from(last)];
    let goes_on = since.iter().all(|link| link.by == machine && link.object == LogObject::Winner);
    let is_found = since.iter().any(|link| Some(link.change) == it.journal);
    let it = to.machine(machine);
    if !goes_on || is_found {
        (it.journal, it.staging) = (None, 0);
    }
    (it.power, it.head, it.sight) = (Power::Claiming, last, now);
    (it.build, it.collection) = (Build::default(), Collection::default());
}

/// Carries out what an ended process had sent.
pub(super) fn late_steps(all: &mut Steps<'_>, machine: u8) {
    let late = all.from.machines[usize::from(machine)].late;
    if let Some((number, change)) = late.commit
        && number <= all.space.bounds.commits
    {
        all.may(machine, "(late) puts commit", number, |next| {
            put_commit(next, machine, number, change);
            next.machine(machine).late.commit = None;
        });
    }
    for pack in 1..PACKS as u8 {
        if late.packs & 1 << pack != 0 {
            all.may(machine, "(late) uploads pack", pack, |next| {
                put_pack(next, pack);
                next.machine(machine).late.packs &= !(1 << pack);
            });
        }
    }
}
