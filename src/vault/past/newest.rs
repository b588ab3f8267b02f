//! The version that is brought back if none is named: the newest that differs from now. It is usually a recent one, so the
//! log is read from the newest checkpoint on, and from an older one only if that does not tell.

use std::ops::ControlFlow;

use super::copy::{OnRestore, Restored, refused};
use super::restore::{is_dir, look};
use super::version::{FileVersion, Happened, HistoryStep, Teller};
use crate::types::StateAt;
use crate::vault::open_vault::Vault;
use crate::vault::{Error, NoState, Result};
use crate::vfs::Attributes;

/// The end of a path's history.
#[derive(Default)]
struct HistoryEnding {
    /// The last two versions in which it was there.
    there: Vec<FileVersion>,
    last: Option<FileVersion>,
}

impl HistoryEnding {
    fn note(&mut self, version: FileVersion) {
        if version.is_there() {
            self.there.push(version.clone());
            self.there.drain(..self.there.len().saturating_sub(2));
        }
        self.last = Some(version);
    }

    /// The commit as of which it differs from `now`, if that is known yet. `whole`: the history is complete.
    fn newest_other(&self, now: Option<&Attributes>, whole: bool) -> Option<u64> {
        match (now, &self.last, &self.there[..]) {
            (None, Some(gone), _) if !gone.is_there() => Some(gone.commit.0 - 1),
            (None, _, [.., newest]) => Some(newest.commit.0),
            (Some(_), _, [before, _]) if whole || !is_part(before) => Some(before.commit.0),
            _ => None,
        }
    }
}

/// Whether the version may be one that was still being written: the state at a checkpoint does not tell.
fn is_part(version: &FileVersion) -> bool {
    matches!(version.what, Happened::Kept(_)) && version.kind == libc::S_IFREG && version.size == 0
}

impl Vault {
    /// The newest state in which the path was there and differed from now.
    pub(super) async fn newest_other(
        &self,
        path: &[Vec<u8>],
        tell: OnRestore<'_>,
    ) -> Result<StateAt> {
        let now = look(&self.vfs(), path).await?;
        if now.as_ref().is_some_and(is_dir) {
            return Err(refused(
                "it is a directory that is there; say from when it is to be brought back (--at), and to where (--to)",
            ));
        }
        let states = self.states().await?;
        let oldest = states.oldest().await?;
        for begin in states.beginnings(oldest.as_of.commit) {
            let begin = states.state(begin, None).await?;
            let mut ending = HistoryEnding::default();
            let mut note = |step| noted(&mut ending, step, tell);
            let mut teller = Teller::new(&mut note);
            if !self.tell_since(&states, &begin, (path, None), &mut teller).await? {
                return Err(Error::NotRestored(UNHEARD.to_owned()));
            }
            teller.end();
            if let Some(number) = ending.newest_other(now.as_ref(), false) {
                return Ok(StateAt::Commit(number));
            }
        }
        let mut ending = HistoryEnding::default();
        let mut is_heard = true;
        let mut note = |step| {
            let heard = noted(&mut ending, step, tell);
            is_heard = heard.is_continue();
            heard
        };
        self.history(path, &mut note).await?;
        if !is_heard {
            return Err(Error::NotRestored(UNHEARD.to_owned()));
        }
        let number = ending.newest_other(now.as_ref(), true);
        number.map(StateAt::Commit).ok_or(Error::NoState(NoState::NoOther))
    }
}

/// The error when nobody listens any more.
const UNHEARD: &str = "nobody waited for it any more; nothing was brought back";

fn noted(ending: &mut HistoryEnding, step: HistoryStep, tell: OnRestore<'_>) -> ControlFlow<()> {
    match step {
        HistoryStep::Version(version) => {
            ending.note(version);
            ControlFlow::Continue(())
        }
        HistoryStep::Read { commits, .. } => {
            tell(&Restored { looked: commits, ..Restored::default() })
        }
    }
}
