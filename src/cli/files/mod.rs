//! Files without a mount: the protocol between the commands and the daemon over the control socket, and what both need.
//!
//! After [`super::control::ControlRequest::Files`] a connection carries frames: a type byte, the length, the payload.
//! Messages are JSON; content and extended attributes are raw bytes. A connection carries one request at a time, which
//! ends with the reply [`wire::FilesReply::Done`] or [`wire::FilesReply::Failed`]; a command may open several
//! connections. Frames are bounded, and a slow reader makes the sender wait.

mod connection;
mod glob;
mod shown;
pub(super) mod wire;

pub(super) use connection::{FilesConnection, FromDaemon};
pub(super) use glob::{has_wildcards, matches};
pub(super) use shown::{mode_text, quoted};
