//! What a process does to become a daemon (daemon(7)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, geteuid, getrlimit, set_dumpable_behavior, setrlimit,
    setsid, umask,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::thread::set_no_new_privs;

use super::syscalls;

/// Leaves the caller's session, its open files and its directory. Call it first of all, while there is one thread and only
/// the three standard descriptors are needed.
pub fn become_daemon() -> io::Result<()> {
    // What the caller's shell left open (such as another program's pipe) would stay open in the daemon.
    syscalls::close_inherited();
    let _ = setsid(); // fails only if this process leads a group already; a session is only a courtesy
    umask(Mode::RWXG | Mode::RWXO);
    syscalls::ignore(libc::SIGHUP);
    raise_limits();
    std::env::set_current_dir("/")
}

/// Prevents core dumps, which would put keys and plaintext on the disk, and hides this process's memory from other
/// processes of this user (`PR_SET_DUMPABLE`, prctl(2)). A program started from here is dumpable again (execve(2)); only
/// its soft core limit stays 0.
pub fn keep_secrets() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let limit = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
}

/// Keeps this process, and all that it starts, from gaining privileges by a setuid program (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
/// A user who `mounts` needs one, fusermount3; root does not. Call it while there is one thread.
pub fn gain_no_privileges(mounts: bool) {
    if !mounts || geteuid().is_root() {
        let _ = set_no_new_privs(true); // only a kernel older than 3.5 refuses
    }
}

/// Makes standard input come from `from`, also after execve(2).
pub fn put_stdin(from: &impl AsFd) -> io::Result<()> {
    Ok(dup2_stdin(from)?)
}

/// Leaves a file open across execve(2).
pub fn leave_open(file: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfd(file, FdFlags::empty())?)
}

/// Makes a write beyond `ulimit -f` fail instead of killing the process.
pub fn survive_file_limit() {
    syscalls::ignore(libc::SIGXFSZ);
}

/// Raises the limits. Packs, cache files and connections need descriptors: as many as this user may have. Files may have
/// any length, or else the longest that this user may make.
fn raise_limits() {
    let limit = getrlimit(Resource::Fsize);
    if setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).is_err() {
        let _ = setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, ..limit });
    }
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The most bytes that a file of this process may have (`ulimit -f`); `None`: unlimited.
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

/// Redirects standard error to `new` if it goes to `old` now. Does nothing if it is closed.
pub fn move_stderr(old: &File, new: &File) {
    let is_same = |a: BorrowedFd<'_>, b: BorrowedFd<'_>| {
        let file = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        file(a).is_some_and(|a| file(b) == Some(a))
    };
    if fcntl_getfd(stderr()).is_ok() && is_same(old.as_fd(), stderr()) {
        let _ = dup2_stderr(new); // on failure it stays with the old file
    }
}

/// A copy with a number above the standard descriptors.
fn copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}
