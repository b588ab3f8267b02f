//! Runs fusermount3, which mounts and unmounts for users other than root, with a time limit, and kills it if it does
//! not return.

use std::io::{self, Read};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::os::{self, ProcessStat, Signal};

/// How long the helper, or mount(2), may take. Normally it takes milliseconds.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for a killed helper to be gone.
const KILLED: Duration = Duration::from_secs(5);
/// The names that fuser knows the helper by.
const NAMES: [&str; 3] = ["fusermount3", "fusermount", "mount_fusefs"];

/// Runs the helper to its end. Its output is a line or two.
pub(super) fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            end_helpers(child.id());
            let _ = child.kill();
            child.wait()?;
            return Err(late(limit));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut stderr = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        pipe.take(64 << 10).read_to_end(&mut stderr)?;
    }
    Ok(Output { status, stdout: Vec::new(), stderr })
}

/// Runs `work`, which starts a helper and waits for it. If that takes longer than `limit`, kills the helper, which as a
/// rule ends the work too. If the work then succeeds after all, that result counts.
pub(super) fn bounded<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = mpsc::channel();
    std::thread::Builder::new().name("mount".into()).spawn(move || drop(sender.send(work())))?;
    match result.recv_timeout(limit) {
        Ok(done) => return done,
        // `work` panicked.
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            return Err(io::Error::other("mounting ended without a result"));
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {}
    }
    let deadline = Instant::now() + KILLED;
    // fuser tries several names one after the other, and first asks each whether it is there.
    while Instant::now() < deadline {
        end_helpers(std::process::id());
        match result.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(_)) => break,
            Err(_) => {}
        }
    }
    Err(late(limit))
}

fn late(limit: Duration) -> io::Error {
    let text = format!("fusermount3 did not return within {} s, and was ended", limit.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Kills the helpers among the children of a process, or the process itself if it is one, with all their descendants.
fn end_helpers(root: u32) {
    let all = ProcessStat::all();
    let is_helper = |process: &ProcessStat| {
        NAMES.contains(&process.name.as_str()) && (process.parent == root || process.pid == root)
    };
    let mut doomed: Vec<u32> = all.iter().filter(|p| is_helper(p)).map(|p| p.pid).collect();
    let mut at = 0;
    while at < doomed.len() {
        let parent = doomed[at];
        let below = all.iter().filter(|p| p.parent == parent && !doomed.contains(&p.pid));
        let below: Vec<u32> = below.map(|process| process.pid).collect();
        doomed.extend(below);
        at += 1;
    }
    for pid in doomed {
        // A child that nobody has waited for keeps its number, so this hits no other process.
        os::signal_child(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that never returns: a shell script with a child of its own.
    fn stuck(dir: &std::path::Path) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("fusermount3");
        std::fs::write(&path, "#!/bin/sh\nsleep 1000\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    fn helpers() -> usize {
        let ours = |p: &&ProcessStat| p.parent == std::process::id() && p.name == NAMES[0];
        ProcessStat::all().iter().filter(ours).count()
    }

    #[test]
    fn a_helper_that_never_returns_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = stuck(dir.path());
        let limit = Duration::from_millis(300);
        let begun = Instant::now();
        let own = path.clone();
        // As fuser does: it reads the output to its end, which the script's child holds open, and treats a failed
        // helper as an error.
        let work = move || match Command::new(own).output()?.status.success() {
            true => Ok(()),
            false => Err(io::Error::other("it failed")),
        };
        let error = bounded(limit, work).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        let error = run(&mut Command::new(&path), limit).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(helpers(), 0);
    }

    #[test]
    fn one_that_returns_is_heard() {
        let said = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"]), LIMIT).unwrap();
        assert_eq!((said.status.code(), &said.stderr[..]), (Some(3), &b"no\n"[..]));
        assert_eq!(bounded(LIMIT, || Ok(7)).unwrap(), 7);
        assert!(bounded(LIMIT, || Err::<(), _>(io::Error::other("no"))).is_err());
    }
}
