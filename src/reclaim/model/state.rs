//! One moment of the model: what lies in the bucket, and what each machine knows.

use super::rules::{Bounds, RulePart, SearchSpace};

/// Numbers of commits, with room for what the quiet end adds (`tidy`).
pub(super) const NUMBERS: usize = 10;
pub(super) const PACKS: usize = 3;
/// Not there.
pub(super) const NEVER: u8 = u8::MAX;

/// What a transaction, or the header of a commit, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum LoggedChange {
    #[default]
    Nothing,
    Claim,
    /// A pack gets its first reference, or one again.
    Refer(u8),
    /// A pack loses its last one.
    Unlink(u8),
    Pin(u8),
    Unpin,
    Retention(u8),
    /// Horizon and `emptied`.
    Horizon(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum LogObject {
    #[default]
    Absent,
    /// The winner of its number.
    Winner,
    /// Another, put where the winner was deleted.
    Stranger,
}

/// A commit of the chain: it stays here when its object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct ChainLink {
    pub(super) by: u8,
    pub(super) change: LoggedChange,
    /// The packs that the map refers to after it.
    pub(super) alive: u8,
    pub(super) put: u8,
    pub(super) object: LogObject,
}

/// A manifest names two pages, each by the number of the checkpoint that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ManifestObject {
    pub(super) put: u8,
    pub(super) pages: [u8; 2],
}

/// Objects that are to be deleted: bits by pack; number and half; number; number.
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
    /// K5 (4): its commit is under way.
    Awaited,
    /// K5 (4), only with the order reversed.
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
    /// Pin and retention by which it judges.
    pub(super) by: (u8, u8),
    /// Manifests that stay.
    pub(super) keep: u16,
    pub(super) mentioned: u8,
    /// Packs that commits after N refer to.
    pub(super) referred: u8,
    /// Something that was appended before it began is unconfirmed.
    pub(super) waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) enum Power {
    #[default]
    Down,
    /// It has the newest manifest.
    Surveyed,
    /// It has read the log, and claims.
    Claiming,
    /// Its claim is confirmed.
    Claimed,
    Up,
}

/// A checkpoint under way: its pages are there, its manifest is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Build {
    pub(super) number: u8,
    pub(super) pages: [u8; 2],
    pub(super) to_pin: bool,
}

/// A put of a commit that the store has answered; the machine does not know it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) change: LoggedChange,
    pub(super) is_200: bool,
    /// It is the winner of its number.
    pub(super) has_won: bool,
    pub(super) date: u8,
}

/// What was sent by a process that is gone, and may be carried out at any time.
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
    /// The last commit that it knows confirmed.
    pub(super) head: u8,
    /// When it saw the head last (C2).
    pub(super) sight: u8,
    /// The transaction that is appended and unconfirmed.
    pub(super) journal: Option<LoggedChange>,
    pub(super) answer: Option<Answer>,
    pub(super) staging: u8,
    pub(super) uploaded: u8,
    pub(super) unpublished: [u8; PACKS],
    pub(super) build: Build,
    /// The verified manifest for which a pin is about to be put.
    pub(super) pinning: u8,
    pub(super) collection: Collection,
    pub(super) late: Late,
}

/// How often things may still happen.
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
    /// A reader that follows: the commit it shows, and when it asked last.
    pub(super) reader: (u8, u8),
    pub(super) left: Left,
    /// What went wrong in the step itself.
    pub(super) broken: Option<&'static str>,
}

impl VaultMoment {
    /// Machine 0 has claimed, and made a checkpoint; the map refers to pack 0.
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

    /// The pin that the map after a commit has.
    pub(super) fn pin(&self, number: u8) -> Option<u8> {
        let last = self.changes_up_to(number).find_map(|(_, change)| match change {
            LoggedChange::Pin(to) => Some(Some(to)),
            LoggedChange::Unpin => Some(None),
            _ => None,
        });
        last.flatten()
    }

    /// Pin (0: none) and retention in the map, with what is unconfirmed.
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

    /// The commit at which the last reference was gone, as the table of the map after a commit has it.
    pub(super) fn death(&self, pack: u8, number: u8) -> Option<u8> {
        if self.alive(number) & 1 << pack != 0 {
            return None;
        }
        (1..=number).rev().find(|at| self.alive(*at) & 1 << pack != 0).map(|at| at + 1)
    }

    /// A pin's state refers to the pack.
    pub(super) fn pin_holds(&self, pin: Option<u8>, pack: u8, number: u8) -> bool {
        let Some(pin) = pin else { return false };
        self.birth(pack).is_some_and(|birth| birth <= pin)
            && self.death(pack, number).is_none_or(|death| death > pin)
    }

    /// The table of a checkpoint has a row for the pack.
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

    /// Put no earlier than one of a higher number: its writer had slept, and its pages may be gone.
    pub(super) fn is_late(&self, number: u8, pin: Option<u8>, space: &SearchSpace) -> bool {
        if space.keeps(RulePart::PinnedManifest) && pin == Some(number) {
            return false;
        }
        let put = self.manifests[usize::from(number)].put;
        space.keeps(RulePart::LateManifest)
            && self.manifests[usize::from(number) + 1..].iter().any(|other| other.put <= put)
    }

    /// Whether this machine is the writer, as the log says.
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
