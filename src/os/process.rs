//! Processes: this one's identity, other processes, and how they end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

#[cfg(test)]
use super::testing::Simulated;
use rustix::process::{
    Pid, PidfdFlags, WaitOptions, getegid, geteuid, getgid, getuid, kill_process, pidfd_open,
    pidfd_send_signal, waitpid,
};

pub use rustix::process::Signal;

/// The user and group that started this process (getuid(2)).
pub fn real_ids() -> (u32, u32) {
    (getuid().as_raw(), getgid().as_raw())
}

/// The user and group with whose rights this process acts (geteuid(2)).
pub fn effective_ids() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Random bytes from the kernel, by one call of getrandom(2). Neither a fork nor a cloned machine repeats them.
///
/// # Panics
/// If the kernel has none to give, which never happens on supported ones: going on without them would cost secrecy.
pub fn random<const N: usize>() -> [u8; N] {
    const { assert!(N <= 256, "more may come in parts (getrandom(2))") };
    let mut bytes = [0; N];
    #[cfg(test)]
    if Simulated::fill(&mut bytes) {
        return bytes;
    }
    loop {
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) if count == N => return bytes,
            Err(Errno::INTR) => {}
            other => panic!("getrandom(2) failed: {other:?}"),
        }
    }
}

/// The PID namespace of this process (`pid_namespaces(7)`); 0 if the kernel does not tell it.
pub fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// Whether setuid and setgid bits survive what a thread changes: it has `CAP_FSETID` (capabilities(7)) in the initial user
/// namespace, which is what the kernel requires. False if the thread cannot be examined.
pub fn keeps_set_id(thread: u32) -> bool {
    /// `PROC_USER_INIT_INO` (`linux/proc_ns.h`).
    const FIRST_NAMESPACE: u64 = 0xEFFF_FFFD;
    const CAP_FSETID: u64 = 1 << 4;
    let namespace = std::fs::metadata(format!("/proc/{thread}/ns/user"));
    if thread == 0 || !namespace.is_ok_and(|namespace| namespace.ino() == FIRST_NAMESPACE) {
        return false;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|effective| effective & CAP_FSETID != 0)
}

/// Bytes of memory in use by this process (`VmRSS`); 0 if /proc does not tell.
pub fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What `/proc` tells of a process (`proc_pid_stat(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The process id.
    pub pid: u32,
    /// The program's name, at most 15 bytes of it.
    pub name: String,
    /// The parent's process id.
    pub parent: u32,
    /// When it started, in clock ticks since boot: distinguishes it from a later process with the same id.
    pub started: u64,
    /// Whether all of its threads are dead, and nobody has waited for it yet.
    pub is_dead: bool,
}

impl ProcessStat {
    /// The process of this id; `None` if there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses that may contain anything, so parsing starts at its end.
        let (begin, end) = (stat.find('(')? + 1, stat.rfind(')')?);
        let name = stat.get(begin..end)?.to_owned();
        let mut fields = stat.get(end + 1..)?.split_whitespace();
        let is_dead = is_dead(fields.next()?) && !any_thread_lives(pid);
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { pid, name, parent, started, is_dead })
    }

    /// All processes that this one sees.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Self::of).collect()
    }
}

fn is_dead(state: &str) -> bool {
    matches!(state, "Z" | "X")
}

/// The first thread of a killed process may be dead while others still hold its files, sockets and locks.
fn any_thread_lives(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        state.is_some_and(|state| !is_dead(state))
    })
}

/// When a living process started, in clock ticks since boot; `None` for a dead one.
pub fn started(pid: u32) -> Option<u64> {
    ProcessStat::of(pid).filter(|process| !process.is_dead).map(|process| process.started)
}

/// Signals a child that nobody has waited for, so its id is not reused. If the child is dead, nothing happens.
pub fn signal_child(pid: u32, signal: Signal) {
    if let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits for the end of a child that nobody else waits for.
pub fn wait_for_child(pid: u32) -> io::Result<ExitStatus> {
    let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) else {
        return Err(Errno::CHILD.into());
    };
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A process by its descriptor, which never refers to another one (`pidfd_open(2)`).
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Opens a process; `None` if there is none of this id.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it. If it is gone already, that is no error.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.0, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is gone; `false` if it is not gone within `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(1..) => return true,
                Ok(_) if left.is_zero() => return false,
                _ => {} // a signal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_seen_and_ended_by_its_handle_and_by_its_number() {
        for by_number in [false, true] {
            let mut child = Command::new("sleep").arg("100").spawn().unwrap();
            let handle = ProcessHandle::open(child.id()).unwrap().unwrap();
            let seen = ProcessStat::all().into_iter().find(|one| one.pid == child.id()).unwrap();
            assert_eq!(seen.parent, std::process::id());
            assert_eq!(started(child.id()), Some(seen.started));
            assert!(!handle.wait(Duration::ZERO));
            match by_number {
                true => signal_child(child.id(), Signal::KILL),
                false => handle.kill().unwrap(),
            }
            assert!(handle.wait(Duration::from_secs(10)));
            assert_eq!(started(child.id()), None, "dead, and not waited for");
            child.wait().unwrap();
            handle.kill().unwrap();
            assert!(ProcessHandle::open(child.id()).unwrap().is_none());
            assert_eq!(ProcessStat::of(child.id()), None);
        }
    }

    #[test]
    fn a_process_lives_as_long_as_any_of_its_threads() {
        // Its first thread ends by itself (`exit(2)`, not `exit_group`); another one waits for the end of its input.
        let number = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
        let script = format!(
            "import ctypes, sys, threading; threading.Thread(target=sys.stdin.read).start(); \
             ctypes.CDLL(None).syscall({number}, 0)"
        );
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let first = format!("/proc/{0}/task/{0}/stat", child.id());
        while !std::fs::read_to_string(&first).unwrap().contains(") Z ") {
            assert!(begun.elapsed() < Duration::from_secs(60), "its first thread does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(started(child.id()).is_some());
        child.kill().unwrap();
        let handle = ProcessHandle::open(child.id()).unwrap().unwrap();
        assert!(handle.wait(Duration::from_secs(60)));
        assert_eq!(started(child.id()), None);
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_told_of_itself() {
        assert!(resident_memory() > 1 << 20 && pid_namespace() != 0);
        assert_ne!(random::<32>(), random::<32>());
        assert_eq!(real_ids(), effective_ids());
        assert!(ProcessStat::of(std::process::id()).is_some_and(|own| !own.is_dead));
        assert!(ProcessHandle::open(0).unwrap().is_none());
    }
}
