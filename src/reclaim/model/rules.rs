//! What can be switched off, and how far the search goes.

/// A part of a rule in PROTOCOL.md. The search runs with all parts, or with one switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RulePart {
    /// K5 (1): everything appended before is confirmed.
    WaitsForAppended,
    /// K5 (2): packs that a commit after N refers to stay.
    CommitsAfterN,
    /// K5 (2): the log is read after the listing.
    LogAfterListing,
    /// K5 (2): the listing comes before the receipt.
    ListedBeforeReceipt,
    /// K5 (3): packs in staging stay.
    StagingStays,
    /// K5 (3): packs that an append referred to since (1) stay.
    MentionedStays,
    /// K5 (4): the receipt of the horizon's commit is awaited.
    Receipt,
    /// K5: the run first makes a checkpoint under its own claim.
    OwnCheckpoint,
    /// K5 (4): the horizon is put only while pins and retention are those that the run judged by.
    JudgedByWhatHolds,
    /// K5 (4): the horizon is a transaction in the journal's order, behind what the run judged by.
    HorizonInOrder,
    /// K4: a pin is put only while the horizon has not passed its commit.
    PinBeyondHorizon,
    /// K5: after its claim, a writer looks for the newest manifest once more.
    LooksAgain,
    /// K4: objects younger than the retention stay.
    Retention,
    /// K4: commits stay for three days.
    CommitsStay,
    /// K4: a manifest put no earlier than one with a higher number is passed over.
    LateManifest,
    /// K4: except, for the writer that deletes, one made since its claim.
    OwnIsNotLate,
    /// K4: and except one that a pin names.
    PinnedManifest,
    /// K4: the horizon never goes back.
    HorizonForward,
    /// K4: packs that a pin holds stay.
    Pins,
    /// K4: a pin is put after its manifest was verified.
    PinAfterManifest,
    /// K5: rows of packs that a pin holds stay in the table.
    PinnedRows,
    /// K4: pages above N's number stay.
    PagesUpToN,
    /// K4: pages younger than the retention stay.
    PagesOld,
    /// K4: packs without a row stay while they are younger than the retention.
    StraysOld,
    /// The medium: a listing's time is no earlier than the moment from which the object is there.
    StampedWhenThere,
    /// V4: besides the current map, a reference may be copied from a state that the horizon, as appended, has not passed
    /// ...
    PromisedState,
    /// ... or from one that a pin names, while it does ...
    PinThatIs,
    /// ... and its append is refused if the pack is frozen (then bytes are copied).
    FrozenIsCopied,
    /// C2: a 200 is believed only within a day of the last sight of the head.
    DateOfReply,
    /// W5: the same for a commit that a reader finds.
    DateOfReader,
}

/// How far the search goes: how often each thing may happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) name: &'static str,
    /// Highest number of a commit.
    pub(super) commits: u8,
    /// Last tick of the store's clock.
    pub(super) ticks: u8,
    /// Packs besides the one that exists from the start.
    pub(super) packs: u8,
    /// How many unpublished writes share a new pack.
    pub(super) pieces: u8,
    /// Bits of the packs that may lose their last reference. Pack 0 exists from the start.
    pub(super) unlinks: u8,
    /// Changes that touch no pack.
    pub(super) touches: u8,
    pub(super) builds: u8,
    /// A checkpoint may write either half anew, not only the first.
    pub(super) halves: bool,
    pub(super) collections: u8,
    /// Further batches of a run. Each is listed, frozen, proven and deleted by the same judgement, after the one before.
    pub(super) batches: u8,
    pub(super) kills: u8,
    pub(super) opens: u8,
    pub(super) pins: u8,
    /// References copied from old states.
    pub(super) restores: u8,
    /// The retention in ticks, and another value that it may be set to.
    pub(super) retention: u8,
    pub(super) set_retention: Option<u8>,
    /// Requests may be carried out after their sender has ended.
    pub(super) late: bool,
    /// A run of K5 may be given up between two kinds of objects, in any order, and its deletions carried out later.
    /// Without this the set goes in one step: a partial deletion only leaves more.
    pub(super) interrupted: bool,
    /// `emptied` is put.
    pub(super) emptied: bool,
    /// Packs are uploaded, and puts of commits answered, at once: for one machine only.
    pub(super) prompt: bool,
    /// A reader follows the log.
    pub(super) follows: bool,
}

/// A space to search: its bounds, and the rule part that is switched off.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchSpace {
    pub(super) bounds: Bounds,
    pub(super) off: Option<RulePart>,
}

impl SearchSpace {
    pub(super) fn keeps(&self, part: RulePart) -> bool {
        self.off != Some(part)
    }
}
