//! What must hold after each step.

use super::rules::{RulePart, SearchSpace};
use super::state::{LogObject, LoggedChange, NEVER, PACKS, VaultMoment};

/// The first invariant that does not hold.
pub(super) fn broken(at: &VaultMoment, space: &SearchSpace) -> Option<&'static str> {
    if at.broken.is_some() {
        return at.broken;
    }
    let pin = at.pin(at.last);
    if !is_whole(at, at.last, at.newest_manifest()) {
        return Some("now cannot be opened");
    }
    let (horizon, _) = at.horizon(at.last);
    for state in horizon.max(1)..=at.last {
        let usable = |base: &u8| at.has_manifest(*base) && !at.is_late(*base, pin, space);
        let base = (1..=state).rev().find(usable).unwrap_or(0);
        if !is_whole(at, state, base) {
            return Some("a state from the horizon on cannot be opened");
        }
    }
    if retained(at, space) < horizon {
        return Some("the horizon refuses a state that the retention promises");
    }
    if pin.is_some_and(|pin| !is_whole(at, pin, pin)) {
        return Some("a pin cannot be opened");
    }
    for machine in 0..2 {
        let base = at.machines[usize::from(machine)].base;
        if at.is_writer(machine) && !has_pages(at, base) {
            return Some("the writer's base has lost pages");
        }
    }
    None
}

fn has_pages(at: &VaultMoment, manifest: u8) -> bool {
    let pages = at.manifests[usize::from(manifest)].pages;
    (0..2).all(|half| at.pages[usize::from(pages[half])][half] != NEVER)
}

/// Whether a state can be opened from a manifest.
fn is_whole(at: &VaultMoment, state: u8, base: u8) -> bool {
    let log = usize::from(base) + 1..=usize::from(state);
    // Without a manifest, opening begins with an empty map.
    (base == 0 || at.has_manifest(base) && has_pages(at, base))
        && at.chain[log].iter().all(|link| link.object == LogObject::Winner)
        && (0..PACKS).all(|pack| at.alive(state) & 1 << pack == 0 || at.packs[pack] != NEVER)
}

/// The first state that the retention promises: the vault was in it at a moment within the retention. A longer
/// retention does not bring back what the horizon refused when it was set.
fn retained(at: &VaultMoment, space: &SearchSpace) -> u8 {
    let retention = at.retention(at.last, &space.bounds);
    let inside = |state: &u8| {
        *state == at.last || at.chain[usize::from(*state) + 1].put + retention >= at.now
    };
    let first = (1..=at.last).find(inside).unwrap_or(at.last);
    let is_set =
        |number: &u8| matches!(at.chain[usize::from(*number)].change, LoggedChange::Retention(_));
    let set = (1..=at.last).rev().find(is_set);
    first.max(set.map_or(0, |set| at.horizon(set).0))
}

/// A reader that follows asks for the next commit, or opens again.
pub(super) fn follow(at: &mut VaultMoment, space: &SearchSpace) {
    let (shown, asked) = at.reader;
    let is_fresh = at.now - asked <= 1 || !space.keeps(RulePart::DateOfReader);
    let next = at.chain[usize::from(shown) + 1].object;
    at.reader = match next {
        LogObject::Stranger if is_fresh => {
            at.broken = Some("a reader shows a state that the vault never had");
            return;
        }
        LogObject::Winner if is_fresh => (shown + 1, at.now),
        _ if !is_fresh || at.newest_manifest() > shown => (at.last, at.now),
        _ => (shown, at.now),
    };
}
