//! Finds the installed tools.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A tool's path: from this variable, or else where `scripts/test` installs it.
pub fn tool(variable: &str, name: &str) -> PathBuf {
    let directory = |variable| std::env::var_os(variable).map(PathBuf::from);
    let path = directory(variable).unwrap_or_else(|| {
        let cache = directory("XDG_CACHE_HOME")
            .or_else(|| Some(directory("HOME")?.join(".cache")))
            .expect("HOME is set");
        cache.join("s3vault-tools").join(name)
    });
    assert!(
        path.exists(),
        "{} is not there: run scripts/test once, it installs it",
        path.display()
    );
    path
}

/// A port that is free now, together with the ports at these offsets from it.
pub fn free_ports(offsets: &[u16]) -> u16 {
    for _ in 0..1000 {
        // Below the range of ephemeral ports.
        let base = rand::random_range(10_000..30_000);
        let free = |offset: &u16| TcpListener::bind(("127.0.0.1", base + offset)).is_ok();
        if offsets.iter().all(free) {
            return base;
        }
    }
    panic!("no free ports");
}

/// Whether something listens on the port.
pub fn listens(port: u16) -> bool {
    let address = ([127, 0, 0, 1], port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Waits until something holds, for at most this many seconds.
pub fn wait_for(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}
