//! What makes a process a daemon: session, descriptors, limits, environment.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::memory;
use super::spec::{Spec, Word};

/// What the front process takes out of the daemon's environment.
pub(crate) const SECRET_VARIABLES: [&str; 4] = [
    "S3VAULT_PASSPHRASE",
    "AWS_SECRET_ACCESS_KEY",
    "SECRET_ACCESS_KEY", // the SDK takes it in the place of the one before
    "AWS_SESSION_TOKEN",
];

/// The daemon's end of its link with the front process.
pub(crate) struct Link {
    /// What to do.
    pub spec: Spec,
    /// What the front process hears.
    pub voice: Voice,
    /// Whether it is there.
    pub front: Presence,
}

/// Closes when the front process is gone; brings nothing before that.
pub(crate) type Presence = mpsc::Receiver<()>;

/// Speaks to the front process while it listens. Never waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Voice(Arc<File>);

impl Voice {
    /// Says one word; one that finds the pipe full or closed is lost.
    pub(crate) fn say(&self, word: &Word) {
        let Ok(mut line) = serde_json::to_vec(word) else { return };
        line.push(b'\n');
        // One write: up to 4096 bytes go whole or not at all, and a longer one (`Ready`)
        // finds the pipe empty.
        drop((&*self.0).write(&line));
    }

    /// Speaks to nobody.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self(Arc::new(OpenOptions::new().write(true).open("/dev/null").unwrap()))
    }

    /// Says a line for people, and logs it.
    pub(crate) fn tell(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.say(&Word::Said(text));
    }
}

/// Becomes a daemon. Called at once, while there is one thread: standard input brings the
/// spec, standard output takes words, standard error is the log already.
pub(crate) fn become_daemon() -> io::Result<Link> {
    memory::tune_malloc();
    // What the caller's shell left open (another's pipe, say) would stay open with the daemon.
    // SAFETY: nothing of this process is open yet but the three standard descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // SAFETY: these take integers alone, and no other thread runs that could mind.
    unsafe {
        libc::setsid(); // fails only when it leads a group already: a session is a courtesy
        libc::umask(0o077);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        // A core dump would put the key and plaintext on the disk.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
    raise_limits();
    std::env::set_current_dir("/")?;
    let (input, output) = (move_away(0)?, move_away(1)?);
    // SAFETY: fcntl on a descriptor that we own.
    unsafe { libc::fcntl(output.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mut input = BufReader::new(File::from(input));
    let spec = Spec::receive(&mut input)?;
    Ok(Link { spec, voice: Voice(Arc::new(File::from(output))), front: watch(input)? })
}

/// Moves a standard descriptor to another number and puts /dev/null in its place.
fn move_away(fd: i32) -> io::Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: fcntl and dup2 on open descriptors; the copy is ours alone.
    unsafe {
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3);
        if copy < 0 || libc::dup2(null.as_raw_fd(), fd) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(copy))
    }
}

/// The channel closes when the front process's end of the pipe does. A thread of its own:
/// it sleeps in read(2) for as long as the front process lives.
fn watch(mut input: impl BufRead + Send + 'static) -> io::Result<Presence> {
    let (alive, front) = mpsc::channel(1);
    std::thread::Builder::new().name("front".into()).stack_size(64 << 10).spawn(move || {
        let mut byte = [0];
        while input.read(&mut byte).is_ok_and(|count| count > 0) {}
        drop(alive);
    })?;
    Ok(front)
}

/// SIGINT and SIGTERM, as they come. At least two fit, the second of which counts.
pub(crate) fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let (sender, receiver) = mpsc::channel(4);
    for (kind, name) in [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM")]
    {
        let mut signal = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                // Full: more than two are waiting, which is as good as any number.
                let _ = sender.try_send(name);
            }
        });
    }
    Ok(receiver)
}

/// Packs, cache files and connections are descriptors: as many as this user may have. Files may be of any length, or of
/// the longest that this user may make.
fn raise_limits() {
    for (resource, wanted) in
        [(libc::RLIMIT_NOFILE, None), (libc::RLIMIT_FSIZE, Some(libc::RLIM_INFINITY))]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointers are to `limit`, which lives across the calls.
        unsafe {
            if libc::getrlimit(resource, &raw mut limit) != 0 {
                continue;
            }
            if let Some(all) = wanted {
                let limit = libc::rlimit { rlim_cur: all, rlim_max: all };
                if libc::setrlimit(resource, &raw const limit) == 0 {
                    continue;
                }
            }
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(resource, &raw const limit);
        }
    }
}

/// Bytes that a file of this process may have (`ulimit -f`); `None`: any number.
pub(crate) fn file_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to `limit`, which lives across the call.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    (asked == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
