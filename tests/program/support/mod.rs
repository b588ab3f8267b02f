//! The support of the integration tests: a real S3 server that they share, a proxy in front of it that adds a round
//! trip, counts requests and breaks things, and a server that ignores conditional puts.
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
pub mod terminal;
mod tools;
mod weed;

pub use bucket::{TestBucket, block_on, test_client};
pub use giver::Giver;
pub use network::{ForwardProxy, TlsFront};
pub use proxy::{Exchange, Proxy, Trouble};
pub use rclone::Rclone;
pub use s3vault::testing::types::noise;
pub use strange::{Manners, Strange, Uplink};
pub use weed::weed;
