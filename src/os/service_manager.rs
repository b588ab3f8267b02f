//! What a service reports to systemd: `sd_notify(3)`. If nobody listens, nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long one message may take: the other end should read it at once.
const PATIENCE: Duration = Duration::from_millis(200);

/// The socket of the service manager.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The service manager that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub fn of_environment() -> Option<Self> {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let period = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let period = period.filter(|period| *period > 0).map(Duration::from_micros);
        match Self::at(&address, period) {
            Ok(manager) => Some(manager),
            Err(error) => {
                tracing::warn!(%error, "the service manager's socket cannot be used; it is told nothing");
                None
            }
        }
    }

    /// `@` begins an abstract name.
    fn at(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address, watchdog })
    }

    /// How often it wants a sign of life from this process, if it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service is ready.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// The service is stopping.
    pub fn stopping(&self, status: &str) {
        self.say(&format!("STOPPING=1\nSTATUS={}", line(status)));
    }

    /// The service makes progress, and needs this much more time.
    pub fn extend(&self, time: Duration, status: &str) {
        self.say(&format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={}", time.as_micros(), line(status)));
    }

    /// The service is alive.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, text: &str) {
        if let Err(error) = self.socket.send_to_addr(text.as_bytes(), &self.address) {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}

/// A newline would end the field.
fn line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_what_happens_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("s3vault-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}")),
        ] {
            let period = Some(Duration::from_secs(3));
            let manager = ServiceManager::at(OsStr::new(&address), period).unwrap();
            assert_eq!(manager.watchdog(), period);
            let heard = || {
                let mut buffer = [0; 256];
                let length = listener.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            };
            manager.ready("mounted at\n/m");
            assert_eq!(heard(), "READY=1\nSTATUS=mounted at /m");
            manager.extend(Duration::from_secs(2), "x");
            assert_eq!(heard(), "EXTEND_TIMEOUT_USEC=2000000\nSTATUS=x");
            drop(listener);
            manager.alive(); // nobody is there: nothing happens
        }
        assert!(ServiceManager::at(OsStr::new("@"), None).is_ok());
    }
}
