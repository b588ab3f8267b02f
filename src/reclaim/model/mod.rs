//! The explicit-state model of deletion (K4, K5; issue 12). It tries every order in which machines, store and faults can take
//! their turns, within bounds, and checks after each step whether anything promised is gone. Tests only, std only.
//!
//! **The bucket** has a log, manifests, pages and packs, each with the tick of the store's clock at which it was put. The map is
//! just the set of packs it refers to; a checkpoint writes one of two pages anew and shares the other with its base. **Two
//! machines** write: packs (with one or two unpublished writes), transactions, commits by C2, checkpoints (pages, then the
//! manifest, interleaved with everything else), pins, the retention, and runs of K5 step by step. A machine sleeps while its step
//! does not come. A step may come at any time, so every sleep, take-over and lost reply is among the orders. A process that ends
//! (killed, or fenced) leaves puts and deletions that may still happen at any later time. A **reader** follows the log; openers
//! look at every state at every moment.
//!
//! After each step (`check`): the current state opens; so does every state from the horizon on, from the newest manifest at or
//! below it that K4 does not pass over; the horizon refuses nothing that the retention promises; the pin opens; the writer's base
//! has its pages; no 200 is believed, and no commit shown, that is not in the chain; no append meets a frozen pack. From one
//! moment in eight all activity ends, and then one run of K5 must leave nothing that nobody needs (`tidy`).
//!
//! Each part of a rule (`rules::RulePart`) can be switched off. `tests` say for each what the search then finds (the trace is in
//! the output: `--nocapture`), or that it finds nothing.
//!
//! **Bounds** (`tests`): 6 commits, 3 ticks, 2 packs (one of them reborn), 3 manifests, 2 runs, a pin, a kill, a take-over. Each
//! subject has a space of its own, which is searched to its end (`k5_wider_bounds_hold_too` goes further, by hand). A tick is the
//! retention's unit and C2's day; commits stay for one tick more than a 200 is believed. One transaction is unconfirmed at a
//! time.
//!
//! **Left out**: what is inside objects; `history` (assumed to have every commit up to N); superblocks and probes (K6); packs
//! that are dropped (J3) or rewritten (a reference and an unlink); what is copied instead of shared (V4); `recover`; a pin's end
//! by time (like its delete); pages that come late (their manifest comes later still); a listing as more than three moments
//! (manifests; the rest; the log); damage.

mod check;
mod checkpoint;
mod collection;
mod rules;
mod search;
mod state;
mod steps;
mod tests;
mod tidy;
mod writer;
