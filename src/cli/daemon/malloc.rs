//! Keeps the memory budget as a bound on resident size, which includes free memory that malloc retains.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::os;

/// How often memory is checked, and how often while more than half of the budget is resident.
const TICK: Duration = Duration::from_secs(1);
const SHORT_TICK: Duration = Duration::from_millis(100);

/// Is called with the resident size; frees what it can spare, and returns whether it freed anything.
type GivesWay = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// The callback that may have to free memory, once it is set.
#[derive(Clone, Default)]
pub(crate) struct Pressed(Arc<OnceLock<GivesWay>>);

impl Pressed {
    /// Sets the callback. It is called several times a second while much memory is resident.
    pub(crate) fn tell(&self, gives_way: impl Fn(u64) -> bool + Send + Sync + 'static) {
        drop(self.0.set(Box::new(gives_way)));
    }
}

/// Makes malloc return free pages inside its heaps to the system whenever the process nears `budget` bytes. When cached
/// blocks of a few KiB come and go, a third of the heap is free but still resident.
pub(crate) fn keep_within(budget: u64) -> std::io::Result<Pressed> {
    let pressed = Pressed::default();
    let told = pressed.clone();
    let watch = move || {
        let (mut trims, mut now) = (Trims::within(budget), 0);
        loop {
            std::thread::sleep(if now > budget / 2 { SHORT_TICK } else { TICK });
            now = os::resident_memory();
            let gave = told.0.get().is_some_and(|gives_way| gives_way(now));
            if trims.is_due(now) || gave {
                os::trim_malloc();
                trims.least = os::resident_memory();
            }
        }
    };
    let work = move || os::restarted_here("giving memory back", watch);
    std::thread::Builder::new().name("memory".into()).stack_size(64 << 10).spawn(work)?;
    Ok(pressed)
}

/// Decides when a trim pays.
#[derive(Debug)]
struct Trims {
    budget: u64,
    /// The smallest resident size since the last trim: an estimate of what is in use.
    least: u64,
}

impl Trims {
    fn within(budget: u64) -> Self {
        Self { budget, least: 0 }
    }

    /// Whether a trim pays at this resident size. The estimate follows the resident size down: if it stayed at a past
    /// peak, the heap could grow back to that peak with free memory.
    fn is_due(&mut self, resident: u64) -> bool {
        self.least = self.least.min(resident);
        resident > (self.budget / 4 * 3).max(self.least + self.budget / 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_moment_is_no_measure_for_what_comes_after_it() {
        let mut trims = Trims::within(64);
        assert!(!trims.is_due(48), "there is enough");
        assert!(trims.is_due(120));
        trims.least = 118;
        assert!(!trims.is_due(121), "what it left is in use");
        assert!(!trims.is_due(70));
        assert!(trims.is_due(80), "this may be free");
    }
}
