//! The command line of `history`, `restore` and `recover`.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::path::PathBuf;

use clap::Args;

use super::looking_back::state_at;
use crate::types::StateAt;

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// A path in a mount; it need not be there any more
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A path in a mount; it need not be there any more
    pub path: PathBuf,
    /// From which state: a time (RFC 3339, '2026-11-28 14:00', '3h ago'), or a snapshot's name [default: the newest
    /// in which it was another than now, or, if it is gone, the last in which it was there]
    #[arg(long, value_name = "TIME|NAME", value_parser = state_at)]
    pub at: Option<StateAt>,
    /// To where in the same mount [default: to where it was; a file that is there is replaced]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// A directory in a mount: what is recovered comes into a new directory in it, `recovered-DATE`
    pub directory: PathBuf,
    /// Only show what is set aside
    #[arg(long)]
    pub list: bool,
    /// Remove what is set aside once all of it is recovered and in the bucket
    #[arg(long, conflicts_with = "list")]
    pub remove: bool,
}
