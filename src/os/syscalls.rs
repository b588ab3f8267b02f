//! Calls of the system and of the C library for which neither std nor `rustix` has a safe word. All that is unsafe in
//! this program is here.
#![allow(unsafe_code, reason = "this is where it may be; Cargo.toml denies it elsewhere")]

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Closes every descriptor but the three standard ones. To be called first of all: what this process opened would go too.
pub(super) fn close_inherited() {
    // SAFETY: the caller has nothing open yet; so nobody relies on any of these.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Has a signal do nothing to this process.
pub(super) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is no handler: no code of ours runs.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Whether SIGINT and SIGTERM wait, in this thread and in the program that takes this process's place (execve(2)), instead
/// of being delivered.
pub fn hold_signals(held: bool) {
    let how = if held { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset(3) makes the set whole; the others read it and change this thread's mask alone.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

/// How large a page for keys is.
const SECRET_PAGE: usize = 4096;

/// A page of zeros for keys alone: locked, where the limits allow that, and in no core dump. It is never given back.
pub(super) fn secret_page() -> &'static mut [[u8; 32]] {
    let (rights, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at an address that the kernel chooses, is nobody else's.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), SECRET_PAGE, rights, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        tracing::warn!("no page for keys: they lie in common memory");
        return Box::leak(Box::new([[0; 32]; SECRET_PAGE / 32]));
    }
    // SAFETY: both change what the kernel does with this page, which is ours.
    let locked = unsafe {
        libc::madvise(page, SECRET_PAGE, libc::MADV_DONTDUMP);
        libc::mlock(page, SECRET_PAGE) == 0
    };
    if !locked {
        tracing::warn!("keys cannot be locked in memory (ulimit -l): they may be swapped out");
    }
    // SAFETY: page-aligned, zeroed, of this length, and never unmapped nor given out twice.
    unsafe { std::slice::from_raw_parts_mut(page.cast(), SECRET_PAGE / 32) }
}

/// Whether this process was started without a standard output.
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Rust puts /dev/null in the place of a standard descriptor that is closed, before `main`: after that, nobody can tell.
/// So the loader calls this before.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: fcntl(2) with F_GETFD takes two integers and changes nothing.
        if unsafe { libc::fcntl(1, libc::F_GETFD) } < 0 {
            STDOUT_CLOSED.store(true, Relaxed);
        }
    }
    look
};

/// Whether standard output was closed when this process began. What is written there now is lost.
pub fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Relaxed)
}

/// glibc keeps freed memory for each thread (arenas), and raises its mmap threshold to 32 MiB with the first large block
/// that is freed, so that buffers of 16 MiB fragment the heap. This asks for few arenas, and gives large blocks back to
/// the kernel.
pub fn tune_malloc() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) takes integers and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Has malloc give the free pages inside its heaps back to the kernel.
pub fn trim_malloc() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) takes an integer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The moment at which this machine's clock shows a date and time (year, month, day, hour, minute, second), by its time
/// zone; `None` if there is none such.
pub fn local_time([year, month, day, hour, minute, second]: [i32; 6]) -> Option<SystemTime> {
    let mut shown = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: plain numbers, and a pointer that may be null: of each all zeroes are a value.
    let shown = unsafe { shown.assume_init_mut() };
    (shown.tm_year, shown.tm_mon, shown.tm_mday) = (year.checked_sub(1900)?, month - 1, day);
    (shown.tm_hour, shown.tm_min, shown.tm_sec) = (hour, minute, second);
    shown.tm_isdst = -1; // whichever it was then
    // SAFETY: mktime(3) reads and writes the struct alone, and the time zone's file.
    let seconds = unsafe { libc::mktime(shown) };
    let after = u64::try_from(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(after))
}

/// The second of the day that this machine's clock shows now, by its time zone.
pub fn second_of_day() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = libc::time_t::try_from(now.as_secs()).unwrap_or_default();
    let mut shown = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: localtime_r(3) reads the number, and writes the struct that it is given, or nothing.
    let shown = unsafe {
        libc::localtime_r(&raw const now, shown.as_mut_ptr());
        shown.assume_init()
    };
    u32::try_from(shown.tm_hour * 3600 + shown.tm_min * 60 + shown.tm_sec).unwrap_or_default()
}

/// Asks something of a descriptor that somebody else in this process owns, and may have closed meanwhile.
pub(super) fn of_descriptor<T>(raw: RawFd, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    // SAFETY: it is neither closed nor kept here. Whatever has this number now, or nothing, `ask` only asks of it: for
    // what is no such thing the kernel returns an error. -1 alone is no number of a descriptor.
    (raw >= 0).then(|| ask(unsafe { BorrowedFd::borrow_raw(raw) }))
}

/// Bytes of all that was ever written to a TCP connection that the other end has acknowledged (tcp(7), `TCP_INFO`).
pub(super) fn acknowledged(raw: RawFd) -> std::io::Result<u64> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which are the struct's.
    let done = unsafe {
        let into = info.as_mut_ptr().cast();
        libc::getsockopt(raw, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: plain numbers, of which every bit pattern is one; those that an older kernel leaves out are zero.
    Ok(unsafe { info.assume_init() }.tcpi_bytes_acked)
}
