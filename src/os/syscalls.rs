//! Calls of the kernel and the C library for which neither std nor `rustix` has a safe wrapper. All unsafe code of this
//! program is here.
#![allow(unsafe_code, reason = "this is where it may be; Cargo.toml denies it elsewhere")]

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Closes every descriptor except the three standard ones. Call it first of all: it would also close what this process
/// opened.
pub(super) fn close_inherited() {
    // SAFETY: the caller has nothing open yet, so nobody relies on any of these descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Makes this process ignore a signal.
pub(super) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is not a handler, so none of our code runs.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Holds back SIGINT and SIGTERM, or lets them through again: in this thread, and in a program that replaces this process
/// (execve(2)).
pub fn hold_signals(held: bool) {
    let how = if held { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset(3) initializes the set; the others read it, and change only this thread's mask.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

/// The size of a page for keys.
const SECRET_PAGE: usize = 4096;

/// A page of zeros for keys only: locked, if the limits allow that, and excluded from core dumps. It is never freed.
pub(super) fn secret_page() -> &'static mut [[u8; 32]] {
    let (rights, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: this is a new mapping at an address that the kernel chooses, so nothing else uses it.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), SECRET_PAGE, rights, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        tracing::warn!("no page for keys: they lie in common memory");
        return Box::leak(Box::new([[0; 32]; SECRET_PAGE / 32]));
    }
    // SAFETY: both only change how the kernel treats this page, which is ours.
    let locked = unsafe {
        libc::madvise(page, SECRET_PAGE, libc::MADV_DONTDUMP);
        libc::mlock(page, SECRET_PAGE) == 0
    };
    if !locked {
        tracing::warn!("keys cannot be locked in memory (ulimit -l): they may be swapped out");
    }
    // SAFETY: page-aligned, zeroed, of this length, never unmapped, and given out only once.
    unsafe { std::slice::from_raw_parts_mut(page.cast(), SECRET_PAGE / 32) }
}

/// Whether this process was started without a standard output.
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);
/// Whether it was started without a standard input.
static STDIN_CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main`, Rust replaces closed standard descriptors by /dev/null, and then nobody can tell. So the loader calls
/// this earlier.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_DESCRIPTORS: extern "C" fn() = {
    extern "C" fn look() {
        for (descriptor, closed) in [(0, &STDIN_CLOSED), (1, &STDOUT_CLOSED)] {
            // SAFETY: fcntl(2) with F_GETFD takes two integers and changes nothing.
            if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
                closed.store(true, Relaxed);
            }
        }
    }
    look
};

/// Whether standard input was closed when this process began. What is read from it is then empty, and means nothing.
pub fn stdin_was_closed() -> bool {
    STDIN_CLOSED.load(Relaxed)
}

/// Whether standard output was closed when this process began. Anything written to it is lost.
pub fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Relaxed)
}

/// glibc keeps freed memory for each thread (arenas), and raises its mmap threshold up to 32 MiB when a large block is
/// freed, so that buffers of 16 MiB fragment the heap. This asks for few arenas, and has large blocks returned to the
/// kernel.
pub fn tune_malloc() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) takes integers and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Makes malloc return the free pages inside its heaps to the kernel.
pub fn trim_malloc() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) takes an integer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The moment at which a clock in this machine's time zone shows a date and time (year, month, day, hour, minute, second);
/// `None` if there is none.
pub fn local_time([year, month, day, hour, minute, second]: [i32; 6]) -> Option<SystemTime> {
    let mut shown = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: integers and a pointer that may be null, for which all zeroes are valid values.
    let shown = unsafe { shown.assume_init_mut() };
    (shown.tm_year, shown.tm_mon, shown.tm_mday) = (year.checked_sub(1900)?, month - 1, day);
    (shown.tm_hour, shown.tm_min, shown.tm_sec) = (hour, minute, second);
    shown.tm_isdst = -1; // whichever applied then
    // SAFETY: mktime(3) reads and writes only the struct, and reads the time zone's file.
    let seconds = unsafe { libc::mktime(shown) };
    let after = u64::try_from(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(after))
}

/// The current second of the day, in this machine's time zone.
pub fn second_of_day() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = libc::time_t::try_from(now.as_secs()).unwrap_or_default();
    let mut shown = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: localtime_r(3) reads the number, and writes the given struct or nothing.
    let shown = unsafe {
        libc::localtime_r(&raw const now, shown.as_mut_ptr());
        shown.assume_init()
    };
    u32::try_from(shown.tm_hour * 3600 + shown.tm_min * 60 + shown.tm_sec).unwrap_or_default()
}

/// Queries a descriptor that other code in this process owns, and may have closed meanwhile.
pub(super) fn of_descriptor<T>(raw: RawFd, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    // SAFETY: the descriptor is neither closed nor kept here. Whatever has this number now, if anything, `ask` only
    // queries it; the kernel returns an error if it is the wrong kind. Only -1 is an invalid descriptor number.
    (raw >= 0).then(|| ask(unsafe { BorrowedFd::borrow_raw(raw) }))
}

/// How many bytes the other end has acknowledged of all that was ever written to a TCP connection (tcp(7), `TCP_INFO`).
pub(super) fn acknowledged(raw: RawFd) -> std::io::Result<u64> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of the struct.
    let done = unsafe {
        let into = info.as_mut_ptr().cast();
        libc::getsockopt(raw, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: all fields are integers, for which every bit pattern is valid; those that an older kernel does not fill are
    // zero.
    Ok(unsafe { info.assume_init() }.tcpi_bytes_acked)
}
