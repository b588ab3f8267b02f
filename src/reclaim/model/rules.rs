//! What can be switched off, and how far the search goes.

/// A part of a rule of PROTOCOL. The search runs with all of them, or with one switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RulePart {
    /// K5 (1): everything appended before is confirmed.
    WaitsForAppended,
    /// K5 (2): what a commit after N refers to stays.
    CommitsAfterN,
    /// K5 (2): the log is read after the listing.
    LogAfterListing,
    /// K5 (2): the listing comes before the receipt.
    ListedBeforeReceipt,
    /// K5 (3): packs in staging stay.
    StagingStays,
    /// K5 (3): what an append referred to since (1) stays.
    MentionedStays,
    /// K5 (4): the receipt of the horizon's commit is awaited.
    Receipt,
    /// K5: a checkpoint of this claim comes first.
    OwnCheckpoint,
    /// K5 (4): the horizon is put only while pins and retention are those that it was judged by.
    JudgedByWhatHolds,
    /// K5 (4): the horizon is a transaction, in the journal's order: behind what it was judged by.
    HorizonInOrder,
    /// K4: a pin is put only while the horizon has not passed its commit.
    PinBeyondHorizon,
    /// K5: whoever claims looks for the newest manifest once more.
    LooksAgain,
    /// K4: what is younger than the retention stays.
    Retention,
    /// K4: commits stay for three days.
    CommitsStay,
    /// K4: a manifest put no earlier than one of a higher number is passed over.
    LateManifest,
    /// K4: but, for the writer that deletes, none that was made since its claim.
    OwnIsNotLate,
    /// K4: nor one that a pin names.
    PinnedManifest,
    /// K4: the horizon never goes back.
    HorizonForward,
    /// K4: what a pin holds stays.
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
    /// V4: beside the current map, a reference is copied from a state that the horizon, as appended, has not passed ...
    PromisedState,
    /// ... or from one that a pin names, as long as it does ...
    PinThatIs,
    /// ... and by an append that is refused when the pack is frozen (then bytes are copied).
    FrozenIsCopied,
    /// C2: a 200 is believed within a day of the last sight of the head only.
    DateOfReply,
    /// W5: so is a commit that a reader finds.
    DateOfReader,
}

/// How far the search goes: how often each thing happens at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) name: &'static str,
    /// Highest number of a commit.
    pub(super) commits: u8,
    /// Last tick of the store's clock.
    pub(super) ticks: u8,
    /// Packs beside the one that is there.
    pub(super) packs: u8,
    /// Unpublished writes that share a new pack.
    pub(super) pieces: u8,
    /// Packs that may lose their last reference, as bits. Pack 0 is there from the beginning.
    pub(super) unlinks: u8,
    /// Changes that touch no pack.
    pub(super) touches: u8,
    pub(super) builds: u8,
    /// A checkpoint may write either half anew, not only the first.
    pub(super) halves: bool,
    pub(super) collections: u8,
    /// Further batches of a run: each is listed, frozen, proven and deleted by the same judgement, after the one before.
    pub(super) batches: u8,
    pub(super) kills: u8,
    pub(super) opens: u8,
    pub(super) pins: u8,
    /// References that are copied from old states.
    pub(super) restores: u8,
    /// Retention in ticks, and another that it may be set to.
    pub(super) retention: u8,
    pub(super) set_retention: Option<u8>,
    /// What was sent is carried out after its sender's end.
    pub(super) late: bool,
    /// A run of K5 is given up between two kinds of objects, in any order; its deletions may be carried out later.
    /// Without this the set goes in one step: what is deleted in part only has more.
    pub(super) interrupted: bool,
    /// `emptied` is put.
    pub(super) emptied: bool,
    /// Packs are uploaded, and puts of commits answered, at once: for one machine alone.
    pub(super) prompt: bool,
    /// A reader follows the log.
    pub(super) follows: bool,
}

/// A space to be searched: its bounds, and what is switched off.
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
