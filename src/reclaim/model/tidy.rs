//! What nobody needs is deleted in the end: from any moment, once all is at rest, one run leaves nothing of it.

use super::rules::SearchSpace;
use super::state::{
    Collection, LogObject, LoggedChange, ModelMachine, NEVER, NUMBERS, PACKS, Power, RunStage,
    VaultMoment,
};
use super::{checkpoint, collection, writer};

/// One in this many moments is brought to rest.
const ONE_OF: u64 = 8;

/// Brings a moment to rest, and returns what garbage remains.
pub(super) fn left(from: &VaultMoment, print: u64, space: &SearchSpace) -> Option<&'static str> {
    if space.off.is_some() || !print.is_multiple_of(ONE_OF) {
        return None;
    }
    let mut at = *from;
    let number = at.last + 1;
    at.machines = [ModelMachine::default(); 2];
    let base = at.newest_manifest();
    let it = ModelMachine {
        power: Power::Up,
        claim: number,
        head: number,
        base,
        ..ModelMachine::default()
    };
    at.machines[0] = it;
    writer::put_commit(&mut at, 0, number, LoggedChange::Claim);
    checkpoint::begin(&mut at, 0, 0, false);
    checkpoint::finish(&mut at, 0, space);
    at.now += 20;
    at.machines[0].collection = Collection { stage: RunStage::Begun, ..Collection::default() };
    collection::list_manifests(&mut at, 0, space);
    collection::list_rest(&mut at, 0, space);
    collection::read_log(&mut at, 0, space);
    collection::freeze(&mut at, 0, space);
    collection::put_horizon(&mut at, 0, space);
    if !space.bounds.prompt {
        writer::learn(&mut at, 0, true, space);
    }
    collection::delete_set(&mut at, 0);
    garbage(&at, number)
}

fn garbage(at: &VaultMoment, newest: u8) -> Option<&'static str> {
    let pin = at.pin(at.last);
    let needed = [Some(newest), pin];
    for number in 1..NUMBERS as u8 {
        let slot = usize::from(number);
        if at.has_manifest(number) && !needed.contains(&Some(number)) {
            return Some("a manifest stays that nobody needs");
        }
        for half in 0..2 {
            let names = |base: &u8| at.manifests[usize::from(*base)].pages[half] == number;
            if at.pages[slot][half] != NEVER && !needed.iter().flatten().any(names) {
                return Some("a page stays that nobody needs");
            }
        }
        if number <= newest && at.chain[slot].object != LogObject::Absent {
            return Some("a commit stays that nobody needs");
        }
    }
    // A pack that was dead at the pin's commit and came back later is held, too: its row does not tell.
    let held = |pack: &usize| at.pin_holds(pin, *pack as u8, at.last);
    let held = (0..PACKS).filter(held).fold(0, |all, pack| all | 1_u8 << pack);
    let alive = at.alive(at.last) | pin.map_or(0, |pin| at.alive(pin)) | held;
    let stays = (0..PACKS).any(|pack| at.packs[pack] != NEVER && alive & 1 << pack == 0);
    stays.then_some("a pack stays that nobody needs")
}
