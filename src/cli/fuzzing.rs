//! The command line's parsers, for hostile bytes (`tests/fuzz`).

use super::config::Config;
use super::control::{ControlReply, ControlRequest};
use super::last::Last;
use super::registry::RunningDaemon;

/// Whether `bytes` are accepted as a `kind`; `None`: no parser of this kind is here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "control-request" => serde_json::from_slice::<ControlRequest>(bytes).is_ok(),
        "control-reply" => serde_json::from_slice::<ControlReply>(bytes).is_ok(),
        "registry" => serde_json::from_slice::<RunningDaemon>(bytes).is_ok(),
        "last" => serde_json::from_slice::<Last>(bytes).is_ok(),
        "config" => {
            std::str::from_utf8(bytes).is_ok_and(|text| toml::from_str::<Config>(text).is_ok())
        }
        _ => return None,
    })
}
