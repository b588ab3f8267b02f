//! What a process does to become a daemon (daemon(7)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, setsid, umask,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use super::syscalls;

/// Leaves the caller's session, its open files and its directory. To be called first of all, while there is one thread
/// and nothing is open but the three standard descriptors.
pub fn become_daemon() -> io::Result<()> {
    // What the caller's shell left open (another's pipe, say) would stay open with the daemon.
    syscalls::close_inherited();
    let _ = setsid(); // fails only when this process leads a group already: a session is a courtesy
    umask(Mode::RWXG | Mode::RWXO);
    syscalls::ignore(libc::SIGHUP);
    raise_limits();
    std::env::set_current_dir("/")
}

/// No core dump, which would put keys and plaintext on the disk, and no look at its memory for other processes of this user
/// (`PR_SET_DUMPABLE`, prctl(2)). A program that is started from here is what it was.
pub fn keep_secrets() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let limit = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
}

/// Has standard input come from `from`, in the program that takes this one's place, too.
pub fn put_stdin(from: &impl AsFd) -> io::Result<()> {
    Ok(dup2_stdin(from)?)
}

/// Leaves it open in the program that takes this one's place.
pub fn leave_open(file: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfd(file, FdFlags::empty())?)
}

/// Beyond `ulimit -f` a write is to fail, not to kill.
pub fn survive_file_limit() {
    syscalls::ignore(libc::SIGXFSZ);
}

/// Packs, cache files and connections are descriptors: as many as this user may have. Files may be of any length, or of
/// the longest that this user may make.
fn raise_limits() {
    let limit = getrlimit(Resource::Fsize);
    if setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).is_err() {
        let _ = setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, ..limit });
    }
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Bytes that a file of this process may have (`ulimit -f`); `None`: any number.
pub fn file_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Moves standard input to another descriptor, and puts /dev/null in its place.
pub fn take_stdin() -> io::Result<File> {
    let taken = copy(stdin())?;
    dup2_stdin(null()?)?;
    Ok(taken.into())
}

/// Moves standard output to another descriptor that never blocks, and puts /dev/null in its place.
pub fn take_stdout() -> io::Result<File> {
    let taken = copy(stdout())?;
    dup2_stdout(null()?)?;
    fcntl_setfl(&taken, OFlags::NONBLOCK)?;
    Ok(taken.into())
}

/// Has standard error go to `new`, if it goes to `old` now. Where the process has none, nothing happens.
pub fn move_stderr(old: &File, new: &File) {
    let is_same = |a: BorrowedFd<'_>, b: BorrowedFd<'_>| {
        let file = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        file(a).is_some_and(|a| file(b) == Some(a))
    };
    if fcntl_getfd(stderr()).is_ok() && is_same(old.as_fd(), stderr()) {
        let _ = dup2_stderr(new); // it goes on to the old file
    }
}

/// A copy beyond the standard descriptors.
fn copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}
