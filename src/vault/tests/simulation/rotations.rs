//! A rotation, with the sealing anew that it asks for, is ended at each of its requests (K6, K7, K8): whatever the next life
//! finds, one of the two keys opens the vault, all of it is there, and what was begun is finished.

use super::must_hold;
use super::step::{LIES, Step};
use crate::store::Verb;

/// What happens to the last request (`run::fault`): it is not carried out, it is, or half of a put is kept.
const BREAKS: u8 = 0;
const LOSES_REPLY: u8 = 1;
const KEEPS_HALF: u8 = 7;

/// The requests of a rotation, and some more.
const FIRST: u32 = 40;

fn steps(ends: Step, taken_over: bool) -> Vec<Step> {
    let write = |path, length| Step::Write { path, seed: path.into(), length, fsync: false };
    let mut steps = vec![
        write(0, 2000),
        write(1, 100_000),
        Step::MakeDir(0),
        write(6, 20_000),
        Step::Sync,
        Step::Checkpoint,
        write(2, 3000),
        Step::Follow { seed: 1 },
        ends,
        Step::Rotate { rewrite: true },
        Step::Renew,
        Step::StoreHeals,
    ];
    if taken_over {
        steps.push(Step::TakeOver { seed: 3 });
    }
    steps.extend([write(3, 5000), Step::CatchUp, Step::LookFromBucket]);
    steps.extend([Step::Gc, Step::DaysOff, Step::Gc, Step::Renew, Step::CatchUp]);
    steps
}

/// Repeats until no request ends the process any more; returns how many did.
fn each(verb: Option<Verb>, what: &'static str, kind: u8, stride: usize) -> u32 {
    let calm = must_hold(1, steps(Step::StoreHeals, false)).kills;
    let mut ended = 0;
    // At each of the first requests, which are the rotation's; at some of the hundreds of commits of a renewal.
    let far = 17 * stride;
    for skip in (0..FIRST).step_by(stride).chain((FIRST..).step_by(far)) {
        let taken_over = skip % 2 == 1;
        let ends = Step::EndAtRequest { verb, what, kind, skip };
        if must_hold(1, steps(ends, taken_over)).kills == calm {
            break;
        }
        ended += 1;
    }
    ended
}

#[test]
fn k7_a_rotation_that_ends_at_any_request_is_finished_or_was_none() {
    let (before, after) = (each(None, "", BREAKS, 3), each(None, "", LOSES_REPLY, 1));
    assert!(before > 14 && after > 40, "{before} {after}");
}

/// If the store cuts a superblock short just then, nobody is shut out and nothing is lost.
#[test]
fn k7_a_superblock_that_is_cut_short_as_the_process_ends_is_passed_over() {
    for kind in [KEEPS_HALF, LIES] {
        let ended = each(Some(Verb::Put), "superblock/", kind, 1);
        assert!(ended >= 2, "{kind}: {ended}");
    }
}
