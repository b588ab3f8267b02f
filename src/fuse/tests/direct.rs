//! Asynchronous direct I/O (libaio), as QEMU and databases use it, beside readers through the page cache.

use super::*;
use std::os::fd::AsRawFd;

const PAGE: usize = 4096;
const PAGES: usize = 64;
/// Writes that are in flight at a time.
const DEPTH: usize = 16;
const ROUNDS: u8 = 200;

/// `struct iocb` of `linux/aio_abi.h`, for little-endian machines.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

const PWRITE: u16 = 1;

#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; PAGE]);

/// A context of the kernel's asynchronous I/O.
struct Aio(u64);

impl Aio {
    fn new() -> Self {
        let mut context = 0_u64;
        // SAFETY: the pointer is to a value that lives across the call.
        let done = unsafe { libc::syscall(libc::SYS_io_setup, DEPTH, &raw mut context) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        Self(context)
    }

    /// Writes pages, each to its place, all at the same time.
    fn write(&self, file: &File, pages: &[(usize, Page)]) {
        let requests: Vec<Iocb> = pages
            .iter()
            .map(|(at, page)| Iocb {
                opcode: PWRITE,
                fd: file.as_raw_fd().cast_unsigned(),
                buffer: page.0.as_ptr() as u64,
                bytes: PAGE as u64,
                offset: i64::try_from(at * PAGE).unwrap(),
                ..Iocb::default()
            })
            .collect();
        let mut pointers: Vec<*const Iocb> = requests.iter().map(std::ptr::from_ref).collect();
        let count = requests.len();
        let mut events = [Event::default(); DEPTH];
        // SAFETY: requests, buffers and events live until all of them are back, which is before this returns.
        let (sent, back) = unsafe {
            let sent = libc::syscall(libc::SYS_io_submit, self.0, count, pointers.as_mut_ptr());
            let none = std::ptr::null_mut::<libc::timespec>();
            let events = events.as_mut_ptr();
            (sent, libc::syscall(libc::SYS_io_getevents, self.0, count, count, events, none))
        };
        assert_eq!((usize::try_from(sent), usize::try_from(back)), (Ok(count), Ok(count)));
        assert!(events[..count].iter().all(|event| event.result == 4096));
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and nothing of it is in flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

#[test]
fn what_is_written_directly_is_what_a_reader_through_the_page_cache_sees() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("disk");
    fs::write(&path, vec![0; PAGES * PAGE]).unwrap();
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let (aio, is_over) = (Aio::new(), AtomicBool::new(false));
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
                std::array::from_fn(|i| ((first + i) % PAGES, Page([round; PAGE])));
            aio.write(&direct, &pages);
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
