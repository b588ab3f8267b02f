//! The running daemons of this user: a small file per daemon in the data directory, so that they are found whatever
//! their state directory. A file is ignored and removed if its process is gone or its pid belongs to another process,
//! or if it is damaged. A daemon in another container or on another machine that shares this home cannot be seen from
//! here, so its file is left alone.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::os::{
    ProcessHandle, boot_id, make_private, pid_namespace, read_small, replace, started,
};
use crate::types::path_text;
use crate::vault;

/// The most bytes of a note; it has a few paths.
const NOTE_MAX: u64 = 64 << 10;

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunningDaemon {
    /// Its process.
    pub pid: u32,
    /// When the process began, in clock ticks since boot; tells it from a later process with the same pid.
    pub started: u64,
    /// The pid namespace (`pid_namespaces(7)`): in another one the pid means another process.
    #[serde(default)]
    pub namespace: u64,
    /// The boot id of its machine.
    #[serde(default)]
    pub boot: String,
    /// Its mountpoint; `None` if it only serves.
    #[serde(default, with = "path_text::option")]
    pub mountpoint: Option<PathBuf>,
    /// The vault's id.
    pub vault: String,
    /// The bucket, for messages.
    pub bucket: String,
    /// The vault's state directory, which holds the control socket.
    #[serde(with = "path_text")]
    pub dir: PathBuf,
    /// Its log.
    #[serde(with = "path_text")]
    pub log: PathBuf,
    /// Whether it only reads.
    pub read_only: bool,
    /// Whether it shows a past state, beside the daemon that has the vault.
    #[serde(default)]
    pub past: bool,
    /// Whether it was started for one command, and ends with it.
    #[serde(default)]
    pub for_command: bool,
}

impl RunningDaemon {
    /// Writes a note about this process.
    pub(super) fn note(&self, directory: &Path) -> io::Result<Noted> {
        self.renote(directory).map(Noted)
    }

    /// Replaces the note after a change.
    pub(super) fn renote(&self, directory: &Path) -> io::Result<PathBuf> {
        make_private(directory)?;
        let path = directory.join(format!("{}-{}.json", self.namespace, self.pid));
        replace(&path, &serde_json::to_vec(self)?)?;
        Ok(path)
    }

    /// For messages: the mountpoint, or what it serves.
    pub(super) fn name(&self) -> String {
        match &self.mountpoint {
            Some(path) => path.display().to_string(),
            None => format!("the service of {}", self.bucket),
        }
    }

    /// All running daemons, sorted by mountpoint.
    pub(super) fn all(directory: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let mut found = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(Some(text)) = read_small(&path, NOTE_MAX) else { continue };
            match serde_json::from_slice::<Self>(&text) {
                Ok(running) if running.is_alive() => found.push(running),
                Ok(running) if running.is_elsewhere() => {}
                // The process is gone, or the note damaged. Notes are replaced atomically, so no living daemon wrote a
                // damaged one.
                _ => drop(std::fs::remove_file(path)), // if that fails, the next run tries again
            }
        }
        found.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        found
    }

    /// The daemon mounted at `path`. Of several, the one that is still mounted, not one that only sends.
    pub(super) fn at(directory: &Path, path: &Path) -> Option<Self> {
        Self::all(directory)
            .into_iter()
            .rfind(|running| running.mountpoint.as_deref() == Some(path))
    }

    /// The daemon whose mount contains `path`; of nested mounts, the innermost.
    pub(super) fn around(directory: &Path, path: &Path) -> Option<Self> {
        Self::all(directory)
            .into_iter()
            .filter(|running| running.mountpoint.as_ref().is_some_and(|at| path.starts_with(at)))
            .max_by_key(|running| running.mountpoint.as_ref().map(|at| at.as_os_str().len()))
    }

    fn is_alive(&self) -> bool {
        (self.namespace == 0 || self.namespace == pid_namespace())
            && started(self.pid).is_some_and(|started| started == self.started)
    }

    /// Whether it may live where this process cannot see it, in another container or on another machine. That is so if
    /// its vault's directory is locked; or if that directory is not visible either, and this machine has not rebooted
    /// since.
    fn is_elsewhere(&self) -> bool {
        if self.dir.is_dir() {
            return vault::is_held(&self.dir);
        }
        self.namespace != pid_namespace() && self.boot == boot_id()
    }

    /// A handle on this very process; `None` if it is gone.
    pub(super) fn process(&self) -> io::Result<Option<ProcessHandle>> {
        let Some(process) = ProcessHandle::open(self.pid)? else { return Ok(None) };
        // Checked after the handle is open: if the process is the right one now, the handle refers to it for good.
        Ok(self.is_alive().then_some(process))
    }
}

/// Removes the note when dropped.
#[derive(Debug)]
pub(super) struct Noted(PathBuf);

impl Drop for Noted {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0)); // a note that stays is recognised as dead
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    fn running(pid: u32, mountpoint: &str) -> RunningDaemon {
        RunningDaemon {
            pid,
            started: started(pid).unwrap_or(0),
            namespace: pid_namespace(),
            boot: boot_id(),
            mountpoint: Some(mountpoint.into()),
            vault: "v".into(),
            bucket: "file:///x".into(),
            dir: "/s/v".into(),
            log: "/s/v/daemon.log".into(),
            read_only: false,
            past: false,
            for_command: false,
        }
    }

    #[test]
    fn what_runs_is_found_and_what_is_gone_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let noted = running(child.id(), "/m").note(dir.path()).unwrap();
        let mut later = RunningDaemon { mountpoint: None, ..running(std::process::id(), "") };
        let other = later.note(dir.path()).unwrap();
        assert!(RunningDaemon::around(dir.path(), Path::new("/elsewhere")).is_none());
        later.mountpoint = Some("/m/inner".into());
        later.renote(dir.path()).unwrap();
        assert_eq!(RunningDaemon::all(dir.path()).len(), 2);
        assert_eq!(
            RunningDaemon::around(dir.path(), Path::new("/m/inner/x")).unwrap().pid,
            std::process::id()
        );
        assert_eq!(
            RunningDaemon::around(dir.path(), Path::new("/m/innerx")).unwrap().pid,
            child.id()
        );
        drop(other);
        let found = RunningDaemon::at(dir.path(), Path::new("/m")).unwrap();
        let process = found.process().unwrap().unwrap();
        assert!(!process.wait(Duration::ZERO));
        process.kill().unwrap();
        assert!(process.wait(Duration::from_secs(10)));
        child.wait().unwrap();
        assert!(found.process().unwrap().is_none());
        assert!(RunningDaemon::all(dir.path()).is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the stale note goes");
        drop(noted);
    }

    #[test]
    fn a_note_that_is_damaged_goes_and_one_of_another_container_stays_while_its_vault_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, state) = (dir.path().join("running"), dir.path().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let mut other = running(std::process::id(), "/m");
        (other.namespace, other.dir) = (1, state.clone());
        let _noted = other.note(&notes).unwrap();
        std::fs::write(notes.join("7-7.json"), "").unwrap();
        let count = || std::fs::read_dir(&notes).unwrap().count();
        let held = crate::os::try_lock(&state.join("lock")).unwrap();
        assert!(RunningDaemon::all(&notes).is_empty());
        assert_eq!(count(), 1);
        drop(held);
        assert!(RunningDaemon::all(&notes).is_empty());
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_note_stays_that_another_machine_or_a_container_with_its_own_state_may_need() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, state) = (dir.path().join("running"), dir.path().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let stays = |note: RunningDaemon| {
            let noted = note.note(&notes).unwrap();
            assert!(RunningDaemon::all(&notes).is_empty());
            noted.0.exists()
        };
        let here = running(std::process::id(), "/m");
        // Another machine that shares this home has processes with the same pids.
        let held = crate::os::try_lock(&state.join("lock")).unwrap();
        assert!(stays(RunningDaemon { started: 1, dir: state.clone(), ..here.clone() }));
        drop(held);
        assert!(!stays(RunningDaemon { started: 1, dir: state, ..here.clone() }));
        // A container whose state directory is not visible here: its note stays until this machine reboots.
        assert!(stays(RunningDaemon { namespace: 1, ..here.clone() }));
        assert!(!stays(RunningDaemon { namespace: 1, boot: "before".into(), ..here.clone() }));
        assert!(!stays(RunningDaemon { started: 1, ..here }));
    }

    #[test]
    fn another_process_with_the_same_number_is_not_ours() {
        let mut stale = running(std::process::id(), "/m");
        stale.started += 1;
        assert!(stale.process().unwrap().is_none());
    }
}
