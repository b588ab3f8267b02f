//! The memory budget is meant as resident size: what malloc keeps beside what is in use counts too.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::os;

/// How often to look, and how often while more than half of the budget is in use.
const TICK: Duration = Duration::from_secs(1);
const SHORT_TICK: Duration = Duration::from_millis(100);

/// Hears how much is resident; gives back what it can do without, and says whether that was anything.
type GivesWay = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// Who may have to give memory back, once there is somebody.
#[derive(Clone, Default)]
pub(crate) struct Pressed(Arc<OnceLock<GivesWay>>);

impl Pressed {
    /// From now on it hears of it: several times a second while there is much in use.
    pub(crate) fn tell(&self, gives_way: impl Fn(u64) -> bool + Send + Sync + 'static) {
        drop(self.0.set(Box::new(gives_way)));
    }
}

/// Has malloc give free pages inside its heaps back whenever the process nears `budget` bytes: among cached blocks of a
/// few KiB that come and go, a third of the heap is free and resident.
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

/// When a trim pays.
#[derive(Debug)]
struct Trims {
    budget: u64,
    /// Of what was resident since the last one, the least: so much is in use.
    least: u64,
}

impl Trims {
    fn within(budget: u64) -> Self {
        Self { budget, least: 0 }
    }

    /// Whether one pays with so much resident. What was in use in a large moment is no measure for what comes after it:
    /// with less in use the heap would grow back to that, free and resident.
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
