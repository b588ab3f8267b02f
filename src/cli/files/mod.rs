//! Files without a mount: what the commands and the daemon say to each other over the control socket, and what both need.
//!
//! After [`super::control::ControlRequest::Files`] a connection carries frames: a byte that says what it is, the length,
//! the payload. Messages are JSON; content and extended attributes go as they are. One thing is asked at a time, and its
//! last reply is [`wire::FilesReply::Done`] or [`wire::FilesReply::Failed`]; commands have several connections. A
//! frame is bounded, and who is slow to take it makes the other wait.

mod connection;
mod glob;
mod shown;
pub(super) mod wire;

pub(super) use connection::{FilesConnection, FromDaemon};
pub(super) use glob::{has_wildcards, matches};
pub(super) use shown::{mode_text, quoted};
