//! Which machine this is, and that it mounts a vault once (W2).

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, Result};
use crate::crypto;
use crate::types::VaultId;

/// This machine, as a vault's claims name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Who is the same machine.
    pub id: String,
    /// What people call it; for messages.
    pub host: String,
    /// The user's data directory: what was last seen of each vault lies there (O2), never in
    /// the state directory.
    pub data_dir: PathBuf,
}

impl Machine {
    /// `named` (`S3VAULT_MACHINE_ID`), else `/etc/machine-id` hashed with the user's id, else a
    /// random id that is kept in the data directory.
    pub fn identify(named: Option<String>, data_dir: &Path) -> Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "an unnamed machine".to_owned(),
            name => name.to_owned(),
        };
        make_private(data_dir)?;
        let id = match named {
            Some(id) => id,
            None => match fs::read_to_string("/etc/machine-id") {
                Ok(id) if !id.trim().is_empty() => hashed(id.trim()),
                _ => remembered(&data_dir.join("machine-id"))?,
            },
        };
        Ok(Self { id, host, data_dir: data_dir.to_owned() })
    }

    /// Takes the vault for this process on this machine, until the value is dropped.
    ///
    /// # Errors
    /// [`Error::MountedHere`] names the first one's mountpoint.
    pub fn lock(&self, vault: VaultId, mountpoint: &str) -> Result<MachineLock> {
        let name = crypto::sha256(format!("s3vault {} {vault}", self.id).as_bytes()).to_string();
        let failed = || Error::io("the vault cannot be locked on this machine");
        let address = SocketAddr::from_abstract_name(name).map_err(failed())?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => MachineLock::serve(listener, mountpoint.to_owned()).map_err(failed()),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                Err(Error::MountedHere { mountpoint: ask(&address) })
            }
            Err(error) => Err(failed()(error)),
        }
    }
}

/// What a machine-id(5) is hashed with, so that it does not itself become known.
fn hashed(machine_id: &str) -> String {
    // SAFETY: getuid(2) has no preconditions and cannot fail.
    let uid = unsafe { libc::getuid() };
    crypto::sha256(format!("s3vault machine {machine_id} {uid}").as_bytes()).to_string()[..32]
        .into()
}

fn remembered(path: &Path) -> Result<String> {
    if let Ok(id) = fs::read_to_string(path) {
        return Ok(id.trim().to_owned());
    }
    let id = crypto::sha256(&crypto::random::<32>()).to_string()[..32].to_owned();
    let mut options = fs::OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    match created.and_then(|mut file| file.write_all(id.as_bytes())) {
        Ok(()) => Ok(id),
        Err(source) => {
            Err(Error::Io { what: format!("{} cannot be written", path.display()), source })
        }
    }
}

/// Makes a directory that only its owner can look into.
pub(super) fn make_private(dir: &Path) -> Result<()> {
    crate::os::make_private(dir).map_err(Error::io(format!("{} cannot be made", dir.display())))
}

/// Holds a vault on this machine; tells whoever comes second where it is mounted.
#[derive(Debug)]
pub struct MachineLock {
    listener: std::os::fd::OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl MachineLock {
    fn serve(listener: UnixListener, mountpoint: String) -> std::io::Result<Self> {
        let own = listener.as_fd().try_clone_to_owned()?;
        let thread = std::thread::Builder::new().name("machine-lock".into()).spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = stream.write_all(mountpoint.as_bytes());
            }
        })?;
        Ok(Self { listener: own, thread: Some(thread) })
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        // Ends accept(2) in the thread, which then closes its descriptor: the name is free when
        // ours is closed too, right after this.
        // SAFETY: the descriptor is open; shutdown(2) takes no memory.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            // It neither panics nor waits for anyone longer than a second.
            let _ = thread.join();
        }
    }
}

fn ask(address: &SocketAddr) -> String {
    let answer = || -> std::io::Result<String> {
        let stream = UnixStream::connect_addr(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        std::io::read_to_string(stream)
    };
    answer()
        .ok()
        .filter(|mountpoint| !mountpoint.is_empty())
        .unwrap_or_else(|| "an unknown place".into())
}
