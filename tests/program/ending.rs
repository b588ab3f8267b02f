//! How a mount ends if the store is slow or gone, and what protects its directory while nothing is mounted there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::home::{Done, Home, mounts_below, runs, signal, wait_until};
use crate::support::{Proxy, TestBucket, noise, weed};

/// A vault, and a proxy to its store that can be slow or cut.
struct Far {
    home: Home,
    store: Proxy,
    bucket: TestBucket,
}

impl Far {
    fn new(round_trip: Duration) -> Self {
        let bucket = weed().bucket();
        let store = Proxy::start(weed().port(), round_trip);
        let home = Home::for_bucket(&bucket).with("S3VAULT_PASSPHRASE", "correct horse");
        let init = format!("init --bucket {} --endpoint-url {}", bucket.url(), bucket.endpoint());
        home.type_in(&init).exits(0);
        Self { home, store, bucket }
    }

    /// The command that mounts it.
    fn mount(&self) -> String {
        let (url, endpoint) = (self.bucket.url(), self.store.endpoint());
        format!("mount vault --bucket {url} --endpoint-url {endpoint}")
    }

    fn vault(&self) -> PathBuf {
        self.home.path("vault")
    }

    /// The next mount has the file, and ends well.
    fn nothing_is_lost(&self) {
        self.store.heal();
        self.home.type_in(&self.mount()).exits(0);
        assert!(fs::read(self.vault().join("file")).unwrap() == noise(1, 300_000));
        self.home.type_in("umount vault --timeout 1m").exits(0).says("everything is in the bucket");
    }
}

#[test]
fn umount_with_a_timeout_shows_progress_and_says_what_is_missing_on_a_dead_store() {
    let far = Far::new(Duration::ZERO);
    far.home.type_in(&far.mount()).exits(0);
    let daemon = far.home.daemon(&far.vault());
    far.store.cut();
    fs::write(far.vault().join("file"), noise(1, 300_000)).unwrap();
    let begun = Instant::now();
    let done = far.home.type_in("umount vault --timeout 7s").exits(14);
    let took = begun.elapsed().as_secs();
    assert!((7..30).contains(&took), "{took} s");
    // Once in the progress, and once in the final message.
    assert!(done.err.matches("not in the bucket yet").count() >= 2, "{}", done.err);
    assert!(
        done.err.contains("goes on trying to send") && done.err.contains("--timeout"),
        "{}",
        done.err
    );
    // Unmounted, and still being sent.
    assert!(mounts_below(&far.vault()).is_empty() && runs(daemon));
    far.home.type_in("umount vault --timeout 0").exits(14);
    far.store.heal();
    far.home.type_in("umount vault --timeout 5m").exits(0).says("everything is in the bucket");
    assert!(!runs(daemon));
    far.nothing_is_lost();
}

#[test]
fn umount_with_a_timeout_waits_no_longer_for_a_slow_store() {
    let far = Far::new(Duration::from_millis(700));
    far.home.type_in(&far.mount()).exits(0);
    fs::write(far.vault().join("file"), noise(1, 300_000)).unwrap();
    // A pack, a commit and the release take at least three round trips.
    far.home.type_in("umount vault --timeout 0").exits(14).says("goes on trying to send");
    far.home.type_in("umount vault --timeout 5m").exits(0).says("everything is in the bucket");
    far.nothing_is_lost();
}

#[test]
fn sigterm_gives_up_in_time_says_what_is_missing_and_the_next_mount_sends_it() {
    let far = Far::new(Duration::ZERO);
    let mut command = far.home.command(far.mount().split(' '));
    command.args(["--foreground", "--stop-timeout", "6s"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let front = command.spawn().unwrap();
    wait_until("it is mounted", || !mounts_below(&far.vault()).is_empty());
    wait_until("it is noted", || far.home.type_in("status vault").code == 0);
    let daemon = far.home.daemon(&far.vault());
    far.store.cut();
    fs::write(far.vault().join("file"), noise(1, 300_000)).unwrap();
    let begun = Instant::now();
    // systemd's KillMode=control-group: each process gets the signal, and the front process passes its own on.
    signal(front.id(), Signal::TERM);
    signal(daemon, Signal::TERM);
    let done = Done::from(front.wait_with_output().unwrap()).exits(14);
    let took = begun.elapsed().as_secs();
    assert!((6..30).contains(&took), "{took} s");
    assert!(done.err.contains("Got SIGTERM") && done.err.contains("next mount"), "{}", done.err);
    assert!(done.err.contains("given up 6 s after SIGTERM"), "{}", done.err);
    assert!(!runs(daemon) && mounts_below(&far.vault()).is_empty());
    far.nothing_is_lost();
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr")
        .arg(flag)
        .arg(path)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Clears the immutable flag before the test's directory is removed.
struct Protected(PathBuf);

impl Drop for Protected {
    fn drop(&mut self) {
        let _ = chattr("-i", &self.0);
    }
}

#[test]
fn what_is_protected_takes_no_files_while_nothing_is_mounted() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    let vault = home.path("vault");
    let write = || fs::write(vault.join("file"), "x");
    fs::create_dir(&vault).unwrap();
    write().unwrap();
    home.type_in("mount vault --protect").exits(10).says("not empty");
    fs::remove_file(vault.join("file")).unwrap();

    let _protected = Protected(vault.clone());
    home.type_in("mount vault --protect").exits(0).says("chattr -i");
    write().unwrap();
    home.type_in("umount vault").exits(0);
    assert_eq!(write().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    assert!(
        fs::create_dir(vault.join("directory")).is_err()
            && fs::read_dir(&vault).unwrap().next().is_none()
    );
    // The directory stays immutable, which does not hinder the next mount, with or without --protect.
    for line in ["mount vault --protect", "mount vault"] {
        home.type_in(line).exits(0);
        assert_eq!(fs::read_to_string(vault.join("file")).unwrap(), "x");
        home.type_in("umount vault").exits(0);
        assert!(write().is_err());
    }
    // A daemon that is killed leaves no gap either.
    home.type_in("mount vault").exits(0);
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("the daemon is gone", || !runs(daemon));
    assert!(write().is_err());
    home.type_in("umount vault").exits(14).says("dead mount");
    assert!(write().is_err());
    assert!(chattr("-i", &vault));
    write().unwrap();
}

#[test]
fn what_cannot_be_protected_is_not_mounted_and_the_way_out_is_said() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    // A mountpoint in /proc, which has no such flag, is refused earlier. ramfs has none either.
    let other = home.path("other");
    fs::create_dir(&other).unwrap();
    let mounted = Command::new("mount").args(["-t", "ramfs", "none"]).arg(&other).status().unwrap();
    assert!(mounted.success(), "these tests run as root");
    let done = home.type_in("mount other/vault --protect");
    let without = home.type_in("mount other/vault").code;
    home.type_in("umount other/vault").exits(0);
    crate::support::home::detach(&other);
    done.exits(10).says("cannot be protected").says("mount without --protect");
    assert_eq!(without, 0);
    // Root without the capability, as in a container.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-linux_immutable"]).arg(env!("CARGO_BIN_EXE_s3vault"));
    command.args(["mount", "vault", "--protect"]).current_dir(home.path(""));
    command
        .env("HOME", home.path(""))
        .env("S3VAULT_PASSPHRASE", "correct horse")
        .stdin(Stdio::null());
    command.env("S3VAULT_MACHINE_ID", home.path("").display().to_string().trim_end_matches('/'));
    Done::from(command.output().unwrap()).exits(10).says("CAP_LINUX_IMMUTABLE");
}
