//! A thread without randomness: random bytes come from a seed, and work that would run on other threads runs on it. With
//! a single-threaded runtime and a stopped clock, the same seed gives the same run.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

thread_local! {
    static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// As long as this lives, this thread is simulated.
pub(crate) struct Simulated(());

impl Simulated {
    pub(crate) fn begin(seed: u64) -> Self {
        DICE.set(Some(StdRng::seed_from_u64(seed)));
        Self(())
    }

    pub(crate) fn is_here() -> bool {
        DICE.with_borrow(Option::is_some)
    }

    /// Fills the bytes and returns true, if this thread is simulated.
    pub(crate) fn fill(bytes: &mut [u8]) -> bool {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(|dice| dice.fill_bytes(bytes)).is_some())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        DICE.set(None);
    }
}
