//! The identity of this machine, and the lock that lets it mount a vault only once (W2).

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, Result};
use crate::crypto;
use crate::os::{self, FileLock};
use crate::types::VaultId;

/// The file in a vault's state directory that its daemon locks.
const LOCK: &str = "lock";
/// How long to wait for a lock whose holder may just be ending, or only looking.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How long the holder of a vault may take to say where it is mounted.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// A mountpoint has 4,095 bytes at most.
const ANSWER_MAX: u64 = 4096;

/// This machine, as a vault's claims name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Equal ids mean the same machine.
    pub id: String,
    /// Its host name; for messages.
    pub host: String,
    /// The running boot ([`os::boot_id`]): after another one, what was not fsynced may be gone (J3).
    pub boot: String,
    /// The user's data directory: what was last seen of each vault lies there (O2), never in the state directory.
    pub data_dir: PathBuf,
    /// What the user should know about the id.
    pub warning: Option<String>,
}

impl Machine {
    /// The id is `named` (`S3VAULT_MACHINE_ID`), or else `/etc/machine-id` hashed with the user's id, or else a random
    /// id kept in the data directory.
    pub fn identify(named: Option<String>, data_dir: &Path) -> Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "an unnamed machine".to_owned(),
            name => name.to_owned(),
        };
        make_private(data_dir)?;
        let (id, warning) = match named {
            Some(id) => (id, None),
            None => match fs::read_to_string("/etc/machine-id") {
                Ok(id) if !id.trim().is_empty() => (hashed(id.trim()), None),
                _ => remembered(&data_dir.join("machine-id"))?,
            },
        };
        let boot = os::boot_id();
        Ok(Self { id, host, boot, data_dir: data_dir.to_owned(), warning })
    }

    /// Locks a vault's state directory for this process, and unless `read_only` the vault for writing on this machine,
    /// until the returned value is dropped.
    ///
    /// # Errors
    /// [`Error::MountedHere`], with the mountpoint of the process that holds it.
    pub fn lock(
        &self,
        vault: VaultId,
        state_dir: &Path,
        mountpoint: &str,
        read_only: bool,
    ) -> Result<MachineLock> {
        let failed = || Error::io("the vault cannot be locked on this machine");
        let begun = Instant::now();
        let path = state_dir.join(LOCK);
        let directory = loop {
            match os::try_lock(&path).map_err(failed())? {
                Some(lock) => break lock,
                None if begun.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                None => {
                    let mountpoint =
                        shown(os::read_small(&path, ANSWER_MAX).ok().flatten().as_deref());
                    return Err(Error::MountedHere { mountpoint });
                }
            }
        };
        // Only for the error of a second mount, which can do without it.
        let _ = directory.note(mountpoint.as_bytes());
        let socket = if read_only { None } else { self.take_name(vault, mountpoint, begun)? };
        Ok(MachineLock { _socket: socket, _directory: directory })
    }

    /// Takes the abstract socket of a writer, by which a second one with another state directory finds it. Only a
    /// process of our own user is believed: anybody can take the name.
    fn take_name(
        &self,
        vault: VaultId,
        mountpoint: &str,
        begun: Instant,
    ) -> Result<Option<HolderSocket>> {
        let failed = || Error::io("the vault cannot be locked on this machine");
        let name = crypto::sha256(format!("s3vault {} {vault}", self.id).as_bytes()).to_string();
        let address = SocketAddr::from_abstract_name(&name).map_err(failed())?;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => {
                    return HolderSocket::serve(listener, mountpoint.to_owned())
                        .map(Some)
                        .map_err(failed());
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed()(error)),
            }
            match ask(&name) {
                Ok(mountpoint) => return Err(Error::MountedHere { mountpoint }),
                // The holder is just ending.
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        && begun.elapsed() < LOCK_WAIT =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => {
                    tracing::warn!(%error, "this vault's name on this machine is taken by somebody who is not believed");
                    return Ok(None);
                }
            }
        }
    }
}

/// Whether a daemon, in whatever container, holds the vault of this state directory.
pub fn is_held(state_dir: &Path) -> bool {
    matches!(os::try_lock(&state_dir.join(LOCK)), Ok(None))
}

/// Hashes a machine-id(5) with the user's id, so that it is not disclosed itself.
fn hashed(machine_id: &str) -> String {
    let (uid, _) = os::real_ids();
    crypto::sha256(format!("s3vault machine {machine_id} {uid}").as_bytes()).to_string()[..32]
        .into()
}

/// The random id in the data directory. A damaged one is replaced: this is then another machine than the one that may
/// still have the vault, and W2 asks. An empty id would make all machines one.
fn remembered(path: &Path) -> Result<(String, Option<String>)> {
    let failed = |what: &str| Error::io(format!("{} cannot be {what}", path.display()));
    let dir = path.parent().unwrap_or(Path::new("/"));
    let _one_at_a_time = os::lock(dir).map_err(failed("locked"))?;
    let found = match os::read_small(path, ANSWER_MAX) {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
            return Err(failed("read")(error));
        }
        Err(_) => Some(Vec::new()),
        Ok(found) => found,
    };
    let text = found.as_ref().map(|found| String::from_utf8_lossy(found).trim().to_owned());
    let is_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(id) = text.filter(is_id) {
        return Ok((id, None));
    }
    let warning = found.map(|_| {
        format!(
            "{} was damaged, and this machine has a new id: to vaults that it did not release it is another machine",
            path.display()
        )
    });
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    let id = crypto::sha256(&crypto::random::<32>()).to_string()[..32].to_owned();
    os::replace(path, id.as_bytes()).map_err(failed("written"))?;
    Ok((id, warning))
}

/// Makes a directory that only its owner can enter or list.
pub(super) fn make_private(dir: &Path) -> Result<()> {
    crate::os::make_private(dir).map_err(Error::io(format!("{} cannot be made", dir.display())))
}

/// Holds a vault on this machine.
#[derive(Debug)]
pub struct MachineLock {
    /// Declared first, so dropped before the lock: once the lock is free, nothing answers for the vault.
    _socket: Option<HolderSocket>,
    _directory: FileLock,
}

/// Tells a second mount where the vault is mounted.
#[derive(Debug)]
struct HolderSocket {
    listener: OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HolderSocket {
    fn serve(listener: UnixListener, mountpoint: String) -> io::Result<Self> {
        let own = listener.as_fd().try_clone_to_owned()?;
        let answer = move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = stream.write_all(mountpoint.as_bytes());
            }
        };
        let work = move || os::restarted_here("saying where the vault is mounted", answer);
        let thread = std::thread::Builder::new().name("machine-lock".into()).spawn(work)?;
        Ok(Self { listener: own, thread: Some(thread) })
    }
}

impl Drop for HolderSocket {
    fn drop(&mut self) {
        // Ends accept(2) in the thread, which then closes its descriptor. The name is free when ours is closed too,
        // right after this.
        os::end_accepting(&self.listener);
        if let Some(thread) = self.thread.take() {
            // The thread neither panics nor waits for anyone longer than a second.
            let _ = thread.join();
        }
    }
}

/// Asks the holder of the name for its mountpoint, if it belongs to this user. The answer is bounded in length and time.
fn ask(name: &str) -> io::Result<String> {
    let mut stream = os::connect_abstract(name, ANSWER_WAIT)?;
    let peer = os::peer_user(&stream)?;
    if peer != os::effective_ids().0 {
        return Err(io::Error::other(format!("it is of user {peer}")));
    }
    let begun = Instant::now();
    let mut said = Vec::new();
    while said.len() < ANSWER_MAX as usize {
        let left = ANSWER_WAIT.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => said.extend_from_slice(&piece[..count]),
        }
        if begun.elapsed() >= ANSWER_WAIT {
            break;
        }
    }
    Ok(shown(Some(&said)))
}

/// Text from another process, made fit for a terminal: one line, without control characters.
fn shown(said: Option<&[u8]>) -> String {
    let text = said.map(String::from_utf8_lossy).unwrap_or_default();
    let clean: String =
        text.chars().filter(|c| !c.is_control()).take(ANSWER_MAX as usize).collect();
    if clean.trim().is_empty() { "an unknown place".into() } else { clean }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_id_that_is_damaged_is_made_anew_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        let (id, warning) = remembered(&path).unwrap();
        assert!(id.len() == 32 && warning.is_none());
        assert_eq!(remembered(&path).unwrap(), (id.clone(), None));
        for damaged in [&b""[..], b"\0\0\0", &[b'a'; 5000], b"\xff\xfe"] {
            fs::write(&path, damaged).unwrap();
            let (new, warning) = remembered(&path).unwrap();
            assert!(new.len() == 32 && new != id && warning.is_some());
            assert_eq!(remembered(&path).unwrap(), (new, None));
        }
    }

    #[test]
    fn w2_whoever_comes_second_hears_a_bounded_clean_word_and_a_stranger_is_not_believed() {
        let data = tempfile::tempdir().unwrap();
        let id = Some(format!("test {}", data.path().display()));
        let machine = Machine::identify(id, data.path()).unwrap();
        let vault = VaultId(crypto::random());
        let (one, two) = (data.path().join("one"), data.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let place = |lock: Result<MachineLock>| match lock {
            Err(Error::MountedHere { mountpoint }) => mountpoint,
            other => panic!("{other:?}"),
        };
        let long = format!("/m\x1b[2J{}", "x".repeat(10_000));
        let held = machine.lock(vault, &one, &long, false).unwrap();
        // Another writer or reader is refused in the same directory by its lock, and a writer in another directory by
        // the name.
        for (dir, read_only) in [(&one, false), (&one, true), (&two, false)] {
            let said = place(machine.lock(vault, dir, "", read_only));
            assert!(said.len() <= 4096 && !said.contains('\x1b'), "{said}");
            assert!(said.starts_with("/m[2J") || said == "an unknown place", "{said}");
        }
        drop(machine.lock(vault, &two, "", true).unwrap());
        drop(held);
        let reader = machine.lock(vault, &one, "/reader", true).unwrap();
        assert_eq!(place(machine.lock(vault, &one, "", false)), "/reader");
        drop(reader);
        // A process of another user has taken the name: the vault is ours all the same.
        let name = crypto::sha256(format!("s3vault {} {vault}", machine.id).as_bytes()).to_string();
        if os::real_ids().0 != 0 {
            return;
        }
        // One that listens; and one whose queue is full, where a connection would wait for ever.
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        for full in [false, true] {
            let stranger = os::listen_as(65534, &address);
            let _waits = full.then(|| UnixStream::connect_addr(&address).unwrap());
            let taken = machine.lock(vault, &one, "/mine", false);
            drop(stranger);
            drop(taken.unwrap());
        }
    }
}
