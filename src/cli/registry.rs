//! Which daemons of this user run: a small file for each daemon in the data directory, so
//! that they are found whatever their state directory. A file whose process is gone, or is
//! another one by now, or that is damaged, counts for nothing and is removed. A daemon in another
//! container, or on another machine, that shares this home is not seen from here, and its file is left to it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::os::{
    ProcessHandle, boot_id, make_private, pid_namespace, read_small, replace, started,
};
use crate::types::path_text;
use crate::vault;

/// A note has a few paths.
const NOTE_MAX: u64 = 64 << 10;

/// One running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunningDaemon {
    /// Its process.
    pub pid: u32,
    /// When the process began, in clock ticks since boot: tells it from a later one.
    pub started: u64,
    /// The namespace of that number (`pid_namespaces(7)`): elsewhere it means another process.
    #[serde(default)]
    pub namespace: u64,
    /// The machine's boot that it lives in.
    #[serde(default)]
    pub boot: String,
    /// Where it mounted, if it did: one that only serves has no mount.
    #[serde(default, with = "path_text::option")]
    pub mountpoint: Option<PathBuf>,
    /// The vault's id.
    pub vault: String,
    /// The bucket, for messages.
    pub bucket: String,
    /// The vault's own directory, where the control socket lies.
    #[serde(with = "path_text")]
    pub dir: PathBuf,
    /// Its log.
    #[serde(with = "path_text")]
    pub log: PathBuf,
    /// Whether it only reads.
    pub read_only: bool,
    /// Whether it shows a state of the past, beside whoever has the vault.
    #[serde(default)]
    pub past: bool,
    /// Whether it was started for one command, and ends with it.
    #[serde(default)]
    pub for_command: bool,
}

impl RunningDaemon {
    /// Notes this process.
    pub(super) fn note(&self, directory: &Path) -> io::Result<Noted> {
        self.renote(directory).map(Noted)
    }

    /// Notes what has changed of it.
    pub(super) fn renote(&self, directory: &Path) -> io::Result<PathBuf> {
        make_private(directory)?;
        let path = directory.join(format!("{}-{}.json", self.namespace, self.pid));
        replace(&path, &serde_json::to_vec(self)?)?;
        Ok(path)
    }

    /// For messages: where it is mounted, or what it serves.
    pub(super) fn name(&self) -> String {
        match &self.mountpoint {
            Some(path) => path.display().to_string(),
            None => format!("the service of {}", self.bucket),
        }
    }

    /// All that run, in the order of their mountpoints.
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
                // Gone, or damaged: each is replaced whole, so no living one wrote that.
                _ => drop(std::fs::remove_file(path)), // the next one tries again
            }
        }
        found.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        found
    }

    /// The one mounted at `path`; of several, one that is mounted still, not one that only sends.
    pub(super) fn at(directory: &Path, path: &Path) -> Option<Self> {
        Self::all(directory)
            .into_iter()
            .rfind(|running| running.mountpoint.as_deref() == Some(path))
    }

    /// The one that `path` lies in: of mounts in mounts, the innermost.
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

    /// Whether it may live where this process does not see it, in another container or on another machine: its vault's
    /// directory is locked; or it is not to be seen from here either, and this machine has not been down since.
    fn is_elsewhere(&self) -> bool {
        if self.dir.is_dir() {
            return vault::is_held(&self.dir);
        }
        self.namespace != pid_namespace() && self.boot == boot_id()
    }

    /// A handle on the very process, or `None` when it is gone.
    pub(super) fn process(&self) -> io::Result<Option<ProcessHandle>> {
        let Some(process) = ProcessHandle::open(self.pid)? else { return Ok(None) };
        // Looked at after the handle is held: if it is ours now, the handle is ours for good.
        Ok(self.is_alive().then_some(process))
    }
}

/// Takes the note away when dropped.
#[derive(Debug)]
pub(super) struct Noted(PathBuf);

impl Drop for Noted {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0)); // one that stays is seen to be dead
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
        // Another machine with this home: its processes have numbers as ours.
        let held = crate::os::try_lock(&state.join("lock")).unwrap();
        assert!(stays(RunningDaemon { started: 1, dir: state.clone(), ..here.clone() }));
        drop(held);
        assert!(!stays(RunningDaemon { started: 1, dir: state, ..here.clone() }));
        // A container whose state directory is not here: until the machine begins anew.
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
