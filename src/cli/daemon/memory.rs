//! The memory budget is meant as resident size: what malloc keeps beside what is in use counts too.

use std::time::Duration;

use crate::types::KIB;

/// How often to look, and how often while more than half of the budget is in use.
const TICK: Duration = Duration::from_secs(1);
const SHORT_TICK: Duration = Duration::from_millis(100);

/// glibc keeps freed memory per thread (arenas) and grows its mmap threshold to 32 MiB with
/// the first large block freed, so that buffers of 16 MiB fragment the heap: few arenas, and
/// large blocks back to the kernel.
pub(crate) fn tune_malloc() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes integers and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Has malloc give free pages inside its heaps back whenever the process nears `budget` bytes: among cached blocks of a
/// few KiB that come and go, a third of the heap is free and resident.
pub(crate) fn keep_within(budget: u64) -> std::io::Result<()> {
    let watch = move || {
        // What a trim leaves is in use: it pays again when there is more.
        let (mut left, mut now) = (0, 0);
        loop {
            std::thread::sleep(if now > budget / 2 { SHORT_TICK } else { TICK });
            now = resident();
            if now > (budget / 4 * 3).max(left + budget / 16) {
                give_back();
                left = resident();
            }
        }
    };
    std::thread::Builder::new().name("memory".into()).stack_size(64 << 10).spawn(watch).map(drop)
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes an integer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes of memory that this process has in use (`VmRSS`); 0 where /proc does not tell.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * KIB
}
