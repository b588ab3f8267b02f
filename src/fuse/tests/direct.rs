//! Asynchronous direct I/O (libaio), as QEMU and databases use it, with concurrent readers through the page cache.

use super::*;
use crate::os::Aio;

const PAGE: usize = 4096;
const PAGES: usize = 64;
/// How many writes are in flight at a time.
const DEPTH: usize = 16;
const ROUNDS: u8 = 200;

#[repr(align(4096))]
#[derive(Clone, Copy)]
struct AlignedPage([u8; PAGE]);

#[test]
fn what_is_written_directly_is_what_a_reader_through_the_page_cache_sees() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("disk");
    fs::write(&path, vec![0; PAGES * PAGE]).unwrap();
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let (aio, is_over) = (Aio::<DEPTH>::new(), AtomicBool::new(false));
    let reader = File::open(&path).unwrap();
    let mut stale = 0;
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        for first in 0..2 {
            let (reader, is_over) = (&reader, &is_over);
            scope.spawn(move || {
                let mut page = [0; PAGE];
                for at in (first..).step_by(2) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    reader.read_exact_at(&mut page, (at % PAGES * PAGE) as u64).unwrap();
                }
            });
        }
        for round in 1..=ROUNDS {
            let first = usize::from(round) * DEPTH;
            let pages: [_; DEPTH] =
                std::array::from_fn(|i| ((first + i) % PAGES, AlignedPage([round; PAGE])));
            let pieces = pages.each_ref().map(|(at, page)| (at * PAGE, &page.0[..]));
            aio.write(&direct, &pieces);
            let mut seen = [0; PAGE];
            for (at, page) in &pages {
                reader.read_exact_at(&mut seen, (at * PAGE) as u64).unwrap();
                stale += usize::from(seen != page.0);
            }
        }
        drop(over);
    });
    assert_eq!(stale, 0, "of {} pages", usize::from(ROUNDS) * DEPTH);
}
