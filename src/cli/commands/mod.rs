//! What each command does, one file each.

mod ask;
mod check;
mod completions;
mod config;
mod credentials;
mod doctor;
mod history;
mod init;
mod key;
mod man;
mod mount;
mod old_states;
mod restore;
mod rotate;
mod serve;
mod status;
mod sync;
mod token;
mod umount;

pub(super) use check::check;
pub(super) use completions::completions;
pub(super) use config::config;
pub(super) use credentials::credentials;
pub(super) use doctor::doctor;
pub(super) use history::history;
pub(super) use init::init;
pub(super) use key::key;
pub(super) use man::man;
pub(super) use mount::mount;
pub(super) use old_states::{gc, retention, snapshot};
pub(super) use restore::restore;
pub(super) use serve::serve;
pub(super) use status::status;
pub(super) use sync::sync;
pub(super) use umount::umount;
