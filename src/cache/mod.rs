//! What was fetched and may be needed again, in two tiers: decrypted blocks in memory, sealed bytes on disk.
//!
//! Nothing here is trusted, and nothing here is durable. Whoever reads sealed bytes opens them; what does not
//! open is dropped and fetched again. Plaintext is in memory only.

mod admission;
mod disk_tier;
mod doubts;
mod error;
mod fetcher;
mod memory_tier;
mod range_table;
mod single_flight;
#[cfg(test)]
mod tests;
mod tiers;

pub use error::{Error, Result};
pub use fetcher::FETCH_MAX;
pub use memory_tier::{BlockId, PagePart, Reuse};
pub use single_flight::Flight;
pub use tiers::{Budgets, Cache, Usage};
