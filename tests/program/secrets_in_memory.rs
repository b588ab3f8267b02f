//! Whoever can read the memory of a mount's processes (root, a deliberate core dump, a swap file) finds no passphrase
//! there. The process that waits in the foreground holds no secret at all, and the master key is only in a locked page.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::support::home::{Home, mounts_below, signal, wait_until};
use crate::support::{block_on, weed};
use rustix::process::Signal;
use s3vault::testing::types::Hash;
use s3vault::testing::vault::{Passphrase, open_by};

const PASSPHRASE: &str = "a passphrase like no other text";

/// A region of written memory in a process, and whether it is locked and excluded from core dumps.
struct Region {
    begin: u64,
    end: u64,
    is_guarded: bool,
}

fn regions(pid: u32) -> Vec<Region> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut regions = Vec::new();
    let mut is_written = false;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if let Some((begin, end)) = first.split_once('-') {
            let at = |text| u64::from_str_radix(text, 16).unwrap();
            is_written = line.contains(" rw") && !line.contains("[vvar");
            regions.push(Region { begin: at(begin), end: at(end), is_guarded: false });
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let last = regions.last_mut().unwrap();
            let flags: BTreeSet<_> = flags.split_whitespace().collect();
            last.is_guarded = flags.contains("lo") && flags.contains("dd");
            if !is_written {
                regions.pop();
            }
        }
    }
    regions
}

/// Whether `bytes` contains `what`.
fn has(bytes: &[u8], what: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == what[0]) {
        if bytes[from + at..].starts_with(what) {
            return true;
        }
        from += at + 1;
    }
    false
}

/// The number of bytes read at a time.
const STEP: u64 = 1 << 16;

/// How often these bytes occur in a process: in guarded memory, and elsewhere.
fn places(pid: u32, what: &[u8]) -> (usize, usize) {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = (0, 0);
    for region in regions(pid) {
        let mut at = region.begin;
        let mut piece = vec![0; STEP as usize + what.len()];
        while at < region.end {
            let length = (region.end - at).min(piece.len() as u64) as usize;
            let read = memory.read_at(&mut piece[..length], at).unwrap_or(0);
            let is_empty = piece[..read].iter().all(|byte| *byte == 0);
            if !is_empty && has(&piece[..read], what) {
                if region.is_guarded { found.0 += 1 } else { found.1 += 1 }
            }
            at += STEP;
        }
    }
    found
}

#[test]
fn secrets_lie_nowhere_but_in_a_locked_page() {
    let bucket = weed().bucket();
    let home = Home::for_bucket(&bucket).with("S3VAULT_PASSPHRASE", PASSPHRASE);
    let environment = bucket.environment();
    let secret_key =
        environment.iter().find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY").unwrap().1.clone();
    let place = format!("--bucket {} --endpoint-url {}", bucket.url(), bucket.endpoint());
    home.type_in(&format!("init {place}")).exits(0);
    let master = block_on(async {
        let secret = Passphrase::from_bytes(PASSPHRASE.into());
        *open_by(&bucket.open().await, None, &secret).await.unwrap().unlocked.master.expose()
    });

    let mut front = home.spawn("mount vault --foreground");
    let vault = home.path("vault");
    wait_until("it is mounted", || !mounts_below(&vault).is_empty());
    let attends = || {
        fs::read(format!("/proc/{}/cmdline", front.id()))
            .is_ok_and(|line| line.starts_with(b"s3vault\0attend\0"))
    };
    wait_until("the front process waits", attends);
    let daemon = home.daemon(&vault);
    fs::write(vault.join("file"), "content").unwrap();
    home.type_in("sync vault").exits(0);

    for pid in [front.id(), daemon] {
        look_for_secrets(pid, &master, pid == daemon);
    }
    // The daemon needs this key to sign requests.
    assert_eq!(places(front.id(), secret_key.as_bytes()), (0, 0));
    assert!(places(daemon, secret_key.as_bytes()).1 > 0, "the search finds what is there");
    assert!(status_of(daemon, "NoNewPrivs").contains('1'), "root needs no fusermount3");
    signal(front.id(), Signal::TERM);
    assert!(front.wait().unwrap().success());

    // A service without a mount, and the daemon of a single command.
    home.type_in("serve --listen 127.0.0.1:0 --open").exits(0);
    let daemon = home.daemons()[0];
    look_for_secrets(daemon, &master, true);
    assert!(status_of(daemon, "NoNewPrivs").contains('1'));
    home.type_in("serve --stop").exits(0);
    let mut put = home.command(["put", "-", "from a pipe"]).stdin(Stdio::piped()).spawn().unwrap();
    wait_until("it has a daemon", || !home.daemons().is_empty());
    // What it reads from the pipe is there once it is read, so by then it has unlocked the vault.
    put.stdin.as_mut().unwrap().write_all(&vec![1; 1 << 20]).unwrap();
    look_for_secrets(home.daemons()[0], &master, true);
    drop(put.stdin.take());
    assert!(put.wait().unwrap().success());
}

/// Checks that a process has the master key in its locked page, if it `has_key`, and no secret anywhere else.
#[track_caller]
fn look_for_secrets(pid: u32, master: &[u8; 32], has_key: bool) {
    assert_eq!(places(pid, PASSPHRASE.as_bytes()), (0, 0), "{pid}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(places(pid, Hash(*master).to_string().as_bytes()), (0, 0), "{pid}: as text");
    let (guarded, elsewhere) = places(pid, master);
    assert_eq!(elsewhere, 0, "{pid}: the master key in common memory");
    assert_eq!(guarded > 0, has_key, "{pid}");
}

/// A field of `/proc/PID/status`.
fn status_of(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with(field)).unwrap().to_owned()
}
