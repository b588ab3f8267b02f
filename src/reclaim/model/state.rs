//! One moment of the model: what is in the bucket, and what each machine knows.

use super::rules::{Bounds, RulePart, SearchSpace};

/// How many commit numbers there are, with room for those that `tidy` adds.
pub(super) const NUMBERS: usize = 10;
pub(super) const PACKS: usize = 3;
/// Marks an object that is not there.
pub(super) const NEVER: u8 = u8::MAX;

/// What a transaction, or the header of a commit, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum LoggedChange {
    #[default]
    Nothing,
    Claim,
    /// A pack gets its first reference, or gets one again.
    Refer(u8),
    /// A pack loses its last reference.
    Unlink(u8),
    Pin(u8),
    Unpin,
    Retention(u8),
    /// The horizon, and `emptied`.
    Horizon(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum LogObject {
    #[default]
    Absent,
    /// The commit that won this number.
    Winner,
    /// Another commit, put after the winner was deleted.
    Stranger,
}

/// A commit of the chain; it stays here when its object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct ChainLink {
    pub(super) by: u8,
    pub(super) change: LoggedChange,
    /// Bits of the packs that the map refers to after it.
    pub(super) alive: u8,
    pub(super) put: u8,
    pub(super) object: LogObject,
}

/// A manifest. It names two pages, each by the number of the checkpoint that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ManifestObject {
    pub(super) put: u8,
    pub(super) pages: [u8; 2],
}

/// Objects that are to be deleted, as bits: by pack; by number and half; by number; by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Doomed {
    pub(super) packs: u8,
    pub(super) pages: u32,
    pub(super) manifests: u16,
    pub(super) commits: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum RunStage {
    #[default]
    Idle,
    /// K5 (1).
    Begun,
    /// K5 (2), in three steps: listings, then the log.
    ManifestsListed,
    HalfJudged,
    Judged,
    /// K5 (3).
    Frozen,
    /// K5 (4): the horizon's commit is under way.
    Awaited,
    /// K5 (4): only if the order is reversed.
    ToList,
    /// K5 (5).
    Deleting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Collection {
    pub(super) stage: RunStage,
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) doomed: Doomed,
    /// The pin and the retention that it judges by.
    pub(super) by: (u8, u8),
    /// Manifests that stay.
    pub(super) keep: u16,
    pub(super) mentioned: u8,
    /// Packs that commits after N refer to.
    pub(super) referred: u8,
    /// Something appended before it began is unconfirmed.
    pub(super) waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum Power {
    #[default]
    Down,
    /// It has chosen the newest manifest.
    Surveyed,
    /// It has read the log, and claims.
    Claiming,
    /// Its claim is confirmed.
    Claimed,
    Up,
}

/// A checkpoint under way: its pages are put, its manifest is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Build {
    pub(super) number: u8,
    pub(super) pages: [u8; 2],
    pub(super) to_pin: bool,
}

/// The store's answer to the put of a commit, which the machine has not seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) change: LoggedChange,
    pub(super) is_200: bool,
    /// Whether the commit won its number.
    pub(super) has_won: bool,
    pub(super) date: u8,
}

/// Requests of an ended process, which may be carried out at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Late {
    pub(super) commit: Option<(u8, LoggedChange)>,
    pub(super) build: Build,
    pub(super) packs: u8,
    pub(super) doomed: Doomed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct ModelMachine {
    pub(super) power: Power,
    pub(super) claim: u8,
    pub(super) base: u8,
    /// The last commit that it knows to be confirmed.
    pub(super) head: u8,
    /// When it last saw the head (C2).
    pub(super) sight: u8,
    /// A transaction that is appended and unconfirmed.
    pub(super) journal: Option<LoggedChange>,
    pub(super) answer: Option<Answer>,
    pub(super) staging: u8,
    pub(super) uploaded: u8,
    pub(super) unpublished: [u8; PACKS],
    pub(super) build: Build,
    /// A verified manifest for which a pin is about to be put.
    pub(super) pinning: u8,
    pub(super) collection: Collection,
    pub(super) late: Late,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) packs: u8,
    pub(super) touches: u8,
    pub(super) builds: u8,
    pub(super) collections: u8,
    pub(super) batches: u8,
    pub(super) kills: u8,
    pub(super) opens: u8,
    pub(super) pins: u8,
    pub(super) restores: u8,
    pub(super) settings: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct VaultMoment {
    pub(super) now: u8,
    pub(super) last: u8,
    pub(super) chain: [ChainLink; NUMBERS],
    pub(super) manifests: [ManifestObject; NUMBERS],
    pub(super) pages: [[u8; 2]; NUMBERS],
    pub(super) packs: [u8; PACKS],
    pub(super) machines: [ModelMachine; 2],
    /// The reader that follows: the commit it shows, and when it last asked.
    pub(super) reader: (u8, u8),
    pub(super) left: Left,
    /// What went wrong in the step itself.
    pub(super) broken: Option<&'static str>,
}

impl VaultMoment {
    /// The start: machine 0 has claimed and made a checkpoint; the map refers to pack 0.
    pub(super) fn first(bounds: &Bounds) -> Self {
        let none = ManifestObject { put: NEVER, pages: [0; 2] };
        let mut first = Self {
            now: 0,
            last: 1,
            chain: [ChainLink::default(); NUMBERS],
            manifests: [none; NUMBERS],
            pages: [[NEVER; 2]; NUMBERS],
            packs: [NEVER; PACKS],
            machines: [ModelMachine::default(); 2],
            reader: (1, 0),
            left: Left {
                packs: bounds.packs,
                touches: bounds.touches,
                builds: bounds.builds,
                collections: bounds.collections,
                batches: bounds.batches,
                kills: bounds.kills,
                opens: bounds.opens,
                pins: bounds.pins,
                restores: bounds.restores,
                settings: u8::from(bounds.set_retention.is_some()),
            },
            broken: None,
        };
        let object = LogObject::Winner;
        first.chain[1] = ChainLink { by: 0, change: LoggedChange::Claim, alive: 1, put: 0, object };
        first.manifests[1] = ManifestObject { put: 0, pages: [1; 2] };
        first.pages[1] = [0; 2];
        first.packs[0] = 0;
        first.machines[0].power = Power::Up;
        (first.machines[0].claim, first.machines[0].base, first.machines[0].head) = (1, 1, 1);
        first
    }

    fn changes_up_to(&self, number: u8) -> impl Iterator<Item = (u8, LoggedChange)> {
        (1..=number).rev().map(|at| (at, self.chain[usize::from(at)].change))
    }

    pub(super) fn alive(&self, number: u8) -> u8 {
        self.chain[usize::from(number)].alive
    }

    pub(super) fn retention(&self, number: u8, bounds: &Bounds) -> u8 {
        let set = self.changes_up_to(number).find_map(|(_, change)| match change {
            LoggedChange::Retention(ticks) => Some(ticks),
            _ => None,
        });
        set.unwrap_or(bounds.retention)
    }

    /// The pin in the map after a commit.
    pub(super) fn pin(&self, number: u8) -> Option<u8> {
        let last = self.changes_up_to(number).find_map(|(_, change)| match change {
            LoggedChange::Pin(to) => Some(Some(to)),
            LoggedChange::Unpin => Some(None),
            _ => None,
        });
        last.flatten()
    }

    /// The pin (0: none) and the retention in a machine's map, with what is unconfirmed.
    pub(super) fn holds(&self, machine: u8, space: &SearchSpace) -> (u8, u8) {
        let it = self.machines[usize::from(machine)];
        let before = (self.pin(it.head).unwrap_or(0), self.retention(it.head, &space.bounds));
        match it.journal {
            Some(LoggedChange::Pin(pin)) => (pin, before.1),
            Some(LoggedChange::Unpin) => (0, before.1),
            Some(LoggedChange::Retention(ticks)) => (before.0, ticks),
            _ => before,
        }
    }

    /// Horizon and `emptied` in the map after a commit.
    pub(super) fn horizon(&self, number: u8) -> (u8, u8) {
        let last = self.changes_up_to(number).find_map(|(_, change)| match change {
            LoggedChange::Horizon(to, emptied) => Some((to, emptied)),
            _ => None,
        });
        last.unwrap_or((0, 0))
    }

    pub(super) fn birth(&self, pack: u8) -> Option<u8> {
        (1..=self.last).find(|at| self.alive(*at) & 1 << pack != 0)
    }

    /// The commit at which the last reference was gone, by the table of the map after `number`.
    pub(super) fn death(&self, pack: u8, number: u8) -> Option<u8> {
        if self.alive(number) & 1 << pack != 0 {
            return None;
        }
        (1..=number).rev().find(|at| self.alive(*at) & 1 << pack != 0).map(|at| at + 1)
    }

    /// Whether the pin's state refers to the pack.
    pub(super) fn pin_holds(&self, pin: Option<u8>, pack: u8, number: u8) -> bool {
        let Some(pin) = pin else { return false };
        self.birth(pack).is_some_and(|birth| birth <= pin)
            && self.death(pack, number).is_none_or(|death| death > pin)
    }

    /// Whether the table of a checkpoint has a row for the pack.
    pub(super) fn has_row(&self, pack: u8, number: u8, space: &SearchSpace) -> bool {
        if self.birth(pack).is_none_or(|birth| birth > number) {
            return false;
        }
        let (_, emptied) = self.horizon(number);
        let held =
            space.keeps(RulePart::PinnedRows) && self.pin_holds(self.pin(number), pack, number);
        held || self.death(pack, number).is_none_or(|death| death > emptied)
    }

    pub(super) fn has_manifest(&self, number: u8) -> bool {
        self.manifests[usize::from(number)].put != NEVER
    }

    pub(super) fn newest_manifest(&self) -> u8 {
        (1..NUMBERS as u8).rev().find(|number| self.has_manifest(*number)).unwrap_or(0)
    }

    /// Whether it was put no earlier than one with a higher number: its writer had slept, and its
    /// pages may be gone.
    pub(super) fn is_late(&self, number: u8, pin: Option<u8>, space: &SearchSpace) -> bool {
        if space.keeps(RulePart::PinnedManifest) && pin == Some(number) {
            return false;
        }
        let put = self.manifests[usize::from(number)].put;
        space.keeps(RulePart::LateManifest)
            && self.manifests[usize::from(number) + 1..].iter().any(|other| other.put <= put)
    }

    /// Whether this machine is the writer, by the log.
    pub(super) fn is_writer(&self, machine: u8) -> bool {
        let claim =
            self.changes_up_to(self.last).find(|(_, change)| *change == LoggedChange::Claim);
        claim.is_some_and(|(number, _)| number == self.machines[usize::from(machine)].claim)
            && self.machines[usize::from(machine)].power == Power::Up
    }

    pub(super) fn machine(&mut self, machine: u8) -> &mut ModelMachine {
        &mut self.machines[usize::from(machine)]
    }
}

/// The bit of a page.
pub(super) fn page_bit(number: u8, half: usize) -> u32 {
    1 << (usize::from(number) * 2 + half)
}
