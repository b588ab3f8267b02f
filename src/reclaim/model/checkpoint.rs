//! Checkpoints (K1, K2), and pins.

use super::rules::{RulePart, SearchSpace};
use super::state::{Build, LoggedChange, NEVER, Power, RunStage, VaultMoment};
use super::steps::Steps;
use super::writer::append;

/// Puts the pages of a checkpoint as of the head: one half is new, the other shared with the base.
pub(super) fn begin(to: &mut VaultMoment, machine: u8, half: usize, to_pin: bool) {
    let now = to.now;
    let it = to.machines[usize::from(machine)];
    let mut pages = to.manifests[usize::from(it.base)].pages;
    pages[half] = it.head;
    let put = &mut to.pages[usize::from(it.head)][half];
    if *put == NEVER {
        *put = now;
    }
    to.machine(machine).build = Build { number: it.head, pages, to_pin };
}

fn put_manifest(to: &mut VaultMoment, build: Build, space: &SearchSpace) -> bool {
    let begun = to.chain[usize::from(build.number)].put;
    let now = if space.keeps(RulePart::StampedWhenThere) { to.now } else { begun };
    let manifest = &mut to.manifests[usize::from(build.number)];
    let is_free = manifest.put == NEVER;
    if is_free {
        (manifest.put, manifest.pages) = (now, build.pages);
    }
    is_free
}

/// Puts the manifest, reads it back and verifies it; the base moves onto it.
pub(super) fn finish(to: &mut VaultMoment, machine: u8, space: &SearchSpace) {
    let build = to.machines[usize::from(machine)].build;
    let is_ours = put_manifest(to, build, space);
    let it = to.machine(machine);
    it.build = Build::default();
    if is_ours {
        it.base = build.number;
        it.pinning = if build.to_pin { build.number } else { it.pinning };
    }
}

pub(super) fn steps(all: &mut Steps<'_>, machine: u8) {
    let (it, space) = (all.from.machines[usize::from(machine)], all.space);
    if it.late.build.number != 0 {
        all.may(machine, "(late) puts manifest", it.late.build.number, |next| {
            put_manifest(next, it.late.build, space);
            next.machine(machine).late.build = Build::default();
        });
    }
    if it.power != Power::Up {
        return;
    }
    if it.build.number != 0 {
        all.may(machine, "puts and verifies manifest", it.build.number, |next| {
            finish(next, machine, space);
        });
    } else if all.from.left.builds > 0 && it.head > it.base {
        for half in 0..=usize::from(all.space.bounds.halves) {
            all.may(machine, "puts the pages of checkpoint", it.head, |next| {
                next.left.builds -= 1;
                begin(next, machine, half, false);
            });
        }
    }
    pin(all, machine);
}

/// Steps of pins and of the retention.
fn pin(all: &mut Steps<'_>, machine: u8) {
    let it = all.from.machines[usize::from(machine)];
    if it.journal.is_some() {
        return;
    }
    if it.pinning != 0 {
        let put = matches!(it.collection.stage, RunStage::Awaited | RunStage::Deleting);
        let (horizon, _) = all.from.horizon(it.head);
        let horizon = horizon.max(if put { it.collection.r } else { 0 });
        let may = it.pinning >= horizon || !all.space.keeps(RulePart::PinBeyondHorizon);
        let what = if may { "puts a pin of" } else { "gives up the pin of" };
        all.may(machine, what, it.pinning, |next| {
            next.machine(machine).pinning = 0;
            if may {
                append(next, machine, LoggedChange::Pin(it.pinning));
            }
        });
    }
    let pinned = all.from.pin(it.head);
    let is_free = it.build.number == 0 && it.pinning == 0 && pinned.is_none();
    let manifest_first = all.space.keeps(RulePart::PinAfterManifest);
    if all.from.left.pins > 0 && is_free {
        all.may(machine, "begins a pin of", it.head, |next| {
            begin_pin(next, machine, manifest_first);
        });
    }
    if pinned.is_some() {
        all.may(machine, "removes the pin of", pinned.unwrap_or(0), |next| {
            append(next, machine, LoggedChange::Unpin);
        });
    }
    if let (Some(ticks), true) = (all.space.bounds.set_retention, all.from.left.settings > 0) {
        all.may(machine, "sets the retention to", ticks, |next| {
            next.left.settings -= 1;
            append(next, machine, LoggedChange::Retention(ticks));
        });
    }
}

fn begin_pin(to: &mut VaultMoment, machine: u8, manifest_first: bool) {
    to.left.pins -= 1;
    let it = to.machines[usize::from(machine)];
    let has_manifest = it.base == it.head;
    if !has_manifest {
        begin(to, machine, 0, manifest_first);
    }
    if !manifest_first {
        append(to, machine, LoggedChange::Pin(it.head));
    } else if has_manifest {
        to.machine(machine).pinning = it.head;
    }
}
