//! What the integration tests stand on: a real S3 server that they share, a proxy before it that adds a
//! round trip, counts and breaks things, and a server that ignores conditional puts.
//!
//! [`weed`] is the server; `scripts/test` installs what is started here.

mod bucket;
mod giver;
pub mod home;
pub mod http;
mod network;
mod proxy;
mod rclone;
mod strange;
mod supervised;
mod tools;
mod weed;

pub use bucket::{TestBucket, block_on};
pub use giver::Giver;
pub use network::{ForwardProxy, TlsFront};
pub use proxy::{Exchange, Proxy, Trouble};
pub use rclone::Rclone;
pub use strange::{Manners, Strange, Uplink};
pub use weed::weed;

/// Bytes that do not repeat; different for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed << 32;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
