//! The background process of a mount, of a service, or of both. The front process (`mount`, `serve`) finds and unlocks
//! the vault, then starts this program again as the hidden command `daemon` and tells it over a pipe what to do
//! ([`spec`]). The daemon reports over another pipe ([`spec::DaemonMessage`]). So the key is never in an argument or
//! the environment, and the daemon never needs the 256 MiB that Argon2 takes.

mod environment;
mod files_host;
pub(super) mod front_link;
pub(super) mod launch;
pub(super) mod lifecycle;
mod log_json;
mod log_quota;
pub(super) mod logfile;
pub(super) mod malloc;
mod past_host;
mod past_source;
mod recover_host;
pub(super) mod run;
pub(super) mod spec;
pub(super) mod vault_host;
