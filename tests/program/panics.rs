//! Each background task panics once (`src/os/planted.rs`), on a real mount. The panic is reported; then either the work
//! is done all the same, or no more changes are accepted and the reason is reported. No caller waits for long, and the
//! next mount has everything that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::XattrFlags;
use rustix::process::Signal;

use crate::support::home::{Home, runs, signal, wait_until};
use crate::support::http::Place;
use crate::support::noise;

/// Tasks that go on after a panic; only the log and `status` tell.
const GO_ON: &[(&str, &str)] = &[
    ("closing packs", "1"),
    ("deleting what is old", "1"),
    ("giving memory back", "1"),
    ("hearing signals", "1"),
    ("housekeeping", "2"),
    ("making checkpoints", "2"),
    ("measuring the index", "2"),
    ("moving to a newer base", "1"),
    ("publishing in time", "3"),
    ("publishing what is old", "1"),
    ("remembering the head", "1"),
    ("sealing anew", "1"),
    ("saying where the vault is mounted", "1"),
    ("sending a pack", "2"),
    ("trimming the journal", "1,after"),
];
/// Tasks whose panic ends one request: the client gets an error, and repeats it.
const END_A_REQUEST: &[(&str, &str)] = &[
    ("a client's files", "1"),
    ("a reply", "40"),
    ("a request", "60"),
    ("accepting connections by HTTP", "2"),
    ("answering at the control socket", "2"),
    ("closing a file", "1"),
    ("fetching", "1"),
    ("serving a client", "3"),
    ("serving a connection", "1"),
    ("telling the kernel of changes", "1"),
    ("what a client asked for", "4"),
    ("what no caller waits for", "3"),
    ("writing to the cache", "1"),
];
/// Tasks without which nothing can be promised; they panic at different moments, each in a mount of its own.
const END_CHANGES: &[(&str, &[&str])] = &[
    ("giving packs to the cache", &["1", "1,after"]),
    ("making changes durable", &["2"]),
    ("the barrier", &["1", "1,after"]),
    ("writing what waited for room", &["1"]),
    ("sealing a commit", &["2", "1,after"]),
    ("sending packs", &["3"]),
    ("writing commits", &["3"]),
    ("taking in a change", &["5", "9,after"]),
    ("writing the index", &["2", "2,after"]), // the first one is at the mount, which begins with an empty index
];
/// How many of these write to this disk, and how many to the bucket; the disk's come first.
const DISK: usize = 4;
const BUCKET: usize = 3;
/// Tasks that are tested elsewhere, and where.
const ELSEWHERE: &[(&str, &str)] = &[
    ("answering by HTTP/2", "src/gateway/connections/tests.rs"),
    ("following the log", "tests/program/following.rs"),
    ("looking for credentials", "src/store/s3/credentials/tests.rs"),
    ("changing the past for the page", "src/gateway/tests/past.rs: a restoring that panics"),
    ("removing a file", "src/vfs/tests/known_to_kernel.rs: a lookup whose caller has gone"),
    ("serving by HTTP", "a_service_that_panicked_is_over_and_can_be_begun_again"),
    ("taking in a commit", "tests/program/following.rs"),
    ("telling the service manager", "tests/program/service.rs"),
    ("the daemon's life", "after_a_panic_of_all_of_it_the_next_mount_has_everything"),
];
/// How long a request may take, plus an allowance for a busy machine.
const LONGEST: Duration = Duration::from_secs(50);

#[test]
fn every_watched_task_is_among_those_that_panic() {
    let mut watched = BTreeSet::new();
    let calls = ["watched(", "watched_here(", "restarted(", "restarted_here(", ".whole("];
    for file in walkdir::WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")) {
        let file = file.unwrap();
        if file.path().extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let text = fs::read_to_string(file.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let of_tests = |part: &Path| part.file_stem().is_some_and(|name| name == "tests");
        if file.path().ancestors().any(of_tests) {
            continue;
        }
        for call in calls {
            for (at, _) in code.match_indices(call) {
                let after = code[at + call.len()..].trim_start();
                if let Some(name) = after.strip_prefix('"') {
                    watched.insert(name.split('"').next().unwrap().to_owned());
                }
            }
        }
        let names = code.lines().filter_map(|line| line.strip_prefix("const TASK: &str = \""));
        watched.extend(names.filter_map(|name| Some(name.split_once('"')?.0.to_owned())));
    }
    let here = GO_ON.iter().chain(END_A_REQUEST).chain(ELSEWHERE).map(|(name, _)| *name);
    let here: BTreeSet<_> =
        here.chain(END_CHANGES.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    assert_eq!(watched, here);
}

/// A mount, and the files acknowledged on it.
struct Mounted {
    home: Home,
    vault: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    number: usize,
}

fn planted(tasks: &[(&str, &str)]) -> String {
    tasks.iter().map(|(name, times)| format!("{name},{times}")).collect::<Vec<_>>().join(";")
}

impl Mounted {
    /// A mount with these panics; `options` are those of `mount`.
    fn new(panics: &str, options: &str) -> Self {
        Self::with(panics, options, &[])
    }

    fn with(panics: &str, options: &str, environment: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let vault = home.path("vault");
        let line = format!("mount vault --cache-size 64M {options}");
        let mut mount = home.command(line.split_whitespace());
        mount.env("S3VAULT_PANIC", panics).envs(environment.iter().copied());
        let done = mount.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self { home, vault, files: BTreeMap::new(), number: 0 }
    }

    /// The output of `status`. A client whose task panics gets none, and asks again.
    fn status(&self) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let done = self.home.type_in("status --json vault");
            let said: serde_json::Value = serde_json::from_str(&done.out).unwrap_or_default();
            if done.code == 0 && said["mounts"][0]["pid"].is_u64() {
                return said["mounts"][0].clone();
            }
            assert!(begun.elapsed() < LONGEST, "no status: {done:?}");
        }
    }

    fn daemon(&self) -> u32 {
        self.status()["pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// Whether `status` reports a panic of this task.
    fn says(&self, task: &str) -> bool {
        let line = format!("{task}: panicked");
        let said = self.status()["warnings"].as_array().unwrap().clone();
        said.iter().any(|said| said.as_str().unwrap().starts_with(&line))
    }

    /// Makes a file, in time, and remembers it if that is acknowledged. (Rust does not return the result of `close`.)
    fn write(&mut self, size: usize) -> io::Result<()> {
        let (name, bytes) = (format!("file-{}", self.number), noise(self.number as u64, size));
        self.number += 1;
        in_time(&name, || {
            let mut file = fs::File::create_new(self.vault.join(&name))?;
            file.write_all(&bytes)?;
            file.sync_all()
        })?;
        self.files.insert(name, bytes);
        Ok(())
    }

    fn sync_last(&self) -> io::Result<()> {
        let Some((name, _)) = self.files.last_key_value() else { return Ok(()) };
        in_time("fsync", || fs::File::open(self.vault.join(name))?.sync_all())
    }

    /// Checks that everything acknowledged is there.
    #[track_caller]
    fn has_everything(&self) {
        for (name, bytes) in &self.files {
            let found = in_time(name, || fs::read(self.vault.join(name)));
            assert!(
                found.as_ref().is_ok_and(|found| found == bytes),
                "{name}: {:?}",
                found.map(|f| f.len())
            );
        }
    }

    /// Checks that the mount ends well and that the next one has everything.
    fn ends_well(self) {
        self.home.type_in("sync vault").exits(0);
        self.home.type_in("umount vault").exits(0);
        self.mounts_again();
    }

    fn mounts_again(self) {
        self.home.type_in("mount vault").exits(0);
        self.has_everything();
        assert_eq!(self.status()["warnings"].to_string(), "[]");
        fs::write(self.vault.join("goes on"), "x").unwrap();
        self.home.type_in("sync vault").exits(0);
        self.home.type_in("umount vault").exits(0);
    }
}

/// Checks that the call does not take longer than its deadline.
#[track_caller]
fn in_time<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = call();
    assert!(begun.elapsed() < LONGEST, "{what} took {:?}", begun.elapsed());
    done
}

/// Writes 16 attributes of 60 KB; after nine calls a checkpoint is due.
fn lengthen_log(file: &Path, seed: u32) -> io::Result<()> {
    for number in 0..16 {
        let value = noise(u64::from(seed) * 16 + number, 60_000);
        let name = format!("user.{number}");
        rustix::fs::setxattr(file, &name, &value, XattrFlags::empty())?;
    }
    Ok(())
}

#[test]
fn tasks_that_begin_again_do_their_work_after_a_panic() {
    let mut mounted = Mounted::new(&planted(GO_ON), "");
    for _ in 0..20 {
        mounted.write(20_000).unwrap();
    }
    mounted.write(2_000_000).unwrap();
    fs::write(mounted.vault.join("attributes"), "").unwrap();
    for seed in 0..12 {
        lengthen_log(&mounted.vault.join("attributes"), seed).unwrap();
        mounted.write(1000).unwrap();
    }
    mounted.sync_last().unwrap();
    mounted.home.type_in("sync vault").exits(0);
    // A process of its own holds the file open: children that we start have our files open for a moment, and would
    // publish them by closing them.
    let script = "exec > vault/old; printf 'published by no close'; exec sleep 100";
    let mut shell = Command::new("sh");
    let mut holder = shell.args(["-c", script]).current_dir(mounted.home.path("")).spawn().unwrap();
    for (task, _) in GO_ON {
        wait_until(task, || mounted.says(task));
    }
    assert!(mounted.status()["read_only_reason"].is_null());
    mounted.write(5_000).unwrap();
    wait_until("published", || mounted.status()["open_files"] == 0);
    holder.kill().unwrap();
    holder.wait().unwrap();
    mounted.files.insert("old".into(), b"published by no close".to_vec());
    // The task that hears signals hears the next one.
    let daemon = mounted.daemon();
    signal(daemon, Signal::TERM);
    wait_until("the daemon ends", || !runs(daemon));
    mounted.mounts_again();
}

#[test]
fn a_request_that_panics_is_made_again() {
    let mut mounted = Mounted::new(&planted(END_A_REQUEST), "");
    for _ in 0..40 {
        drop(mounted.write(20_000)); // some of them fail
    }
    for name in ["file-30", "file-31", "file-32", "file-33", "file-34"] {
        if fs::remove_file(mounted.vault.join(name)).is_ok() {
            mounted.files.remove(name);
        }
    }
    // Some of these fail, for one reason or another.
    wait_until("listed", || mounted.home.type_in("ls").out.contains("file-"));
    wait_until("served", || mounted.home.type_in("serve --listen 127.0.0.1:0 --open").code == 0);
    let place = Place::of(mounted.status()["service"]["url"].as_str().unwrap());
    let put = |name: &str, bytes: &[u8]| {
        wait_until(name, || {
            let Ok(mut stream) = std::net::TcpStream::connect(&place.0) else { return false };
            let length = format!("Content-Length: {}", bytes.len());
            let head = place.head(&format!("PUT /files/{name}"), &[&length]);
            let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes));
            let answer = crate::support::http::Answer::read(&mut stream);
            sent.is_ok() && answer.is_some_and(|answer| answer.status < 300)
        });
    };
    for _ in 0..4 {
        mounted.home.type_in("sync vault"); // one of them fails
    }
    put("by-http", b"first");
    assert_eq!(fs::read(mounted.vault.join("by-http")).unwrap(), b"first");
    put("by-http", b"second!");
    assert_eq!(fs::read(mounted.vault.join("by-http")).unwrap(), b"second!", "the kernel was told");
    mounted.files.insert("by-http".into(), b"second!".to_vec());
    // A client that goes away in the middle of an upload.
    let mut stream = place.connect();
    let head = place.head("PUT /files/half", &["Content-Length: 1000000"]);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&noise(1, 300_000)).unwrap();
    drop(stream);
    for (task, _) in END_A_REQUEST
        .iter()
        .filter(|(task, _)| !["fetching", "writing to the cache"].contains(task))
    {
        wait_until(task, || mounted.says(task));
    }
    mounted.home.type_in("serve --stop").exits(0);
    assert!(mounted.status()["read_only_reason"].is_null());
    mounted.home.type_in("umount vault").exits(0);
    // Without the state directory, reads fetch from the bucket.
    fs::remove_dir_all(mounted.home.state()).unwrap();
    let mut mount = mounted.home.command(["mount", "vault"]);
    mount.env("S3VAULT_PANIC", "fetching,1;writing to the cache,1");
    assert!(mount.output().unwrap().status.success());
    for name in mounted.files.keys() {
        in_time(name, || while fs::read(mounted.vault.join(name)).is_err() {});
    }
    for task in ["fetching", "writing to the cache"] {
        wait_until(task, || mounted.says(task));
    }
    mounted.has_everything();
    mounted.ends_well();
}

#[test]
fn without_a_task_that_writes_to_the_disk_nothing_is_changed_and_nothing_is_lost() {
    changes_end(&END_CHANGES[..DISK]);
}

#[test]
fn without_a_task_that_writes_to_the_bucket_nothing_is_changed_and_nothing_is_lost() {
    changes_end(&END_CHANGES[DISK..DISK + BUCKET]);
}

#[test]
fn without_a_task_that_writes_the_map_nothing_is_changed_and_nothing_is_lost() {
    changes_end(&END_CHANGES[DISK + BUCKET..]);
}

fn changes_end(tasks: &[(&str, &[&str])]) {
    for (task, moments) in tasks {
        for moment in *moments {
            changes_end_after(task, moment);
        }
    }
}

fn changes_end_after(task: &str, moment: &str) {
    let panic = planted(&[(task, moment)]);
    let full = [("S3VAULT_FAILPOINT", "before writing to a pack,3,ENOSPC")];
    let environment = if task == "writing what waited for room" { &full[..] } else { &[] };
    let mut mounted = Mounted::with(&panic, "", environment);
    let begun = Instant::now();
    while mounted.status()["read_only_reason"].is_null() {
        assert!(begun.elapsed() < LONGEST, "{panic}: nothing happens");
        drop(mounted.write(30_000));
        if task == "writing the index" {
            // As often as it takes: a checkpoint waits for 2 MiB of changes.
            let file = mounted.vault.join(format!("file-{}", mounted.number - 1));
            drop(lengthen_log(&file, 1));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = mounted.status();
    let reason = status["read_only_reason"].as_str().unwrap();
    assert!(reason.contains(task) && mounted.says(task), "{panic}: {status}");
    let refused = in_time("mkdir", || fs::create_dir(mounted.vault.join("refused")));
    let refused = refused.expect_err(&panic);
    let refused = refused.raw_os_error();
    assert!([Some(libc::EROFS), Some(libc::EIO)].contains(&refused), "{panic}: {refused:?}");
    drop(mounted.sync_last()); // durable or not, it returns in time
    let sync = in_time("sync", || mounted.home.type_in("sync vault"));
    // A task that writes to this disk may have died when the bucket had everything already; then sync may succeed.
    let is_sent = mounted.status()["unsent_changes"] == 0;
    assert!(sync.code != 0 || is_sent, "{panic}: {sync:?}");
    mounted.has_everything();
    let daemon = mounted.daemon();
    let umount = in_time("umount", || mounted.home.type_in("umount vault"));
    assert!(umount.code != 0 || is_sent, "{panic}: {umount:?}");
    wait_until("the daemon ends", || !runs(daemon));
    mounted.mounts_again();
}

#[test]
fn a_service_that_panicked_is_over_and_can_be_begun_again() {
    let mounted = Mounted::new("serving by HTTP,1", "");
    let serve = || mounted.home.type_in("serve --listen 127.0.0.1:0 --open");
    serve();
    wait_until("said", || mounted.says("serving by HTTP"));
    mounted.home.type_in("serve --stop");
    serve().exits(0);
    let place = Place::of(mounted.status()["service"]["url"].as_str().unwrap());
    assert_eq!(place.get("/healthz").status, 200);
    mounted.ends_well();
}

#[test]
fn after_a_panic_of_all_of_it_the_next_mount_has_everything() {
    let home = Home::new();
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/kept"), "kept").unwrap();
    home.type_in("umount vault").exits(0);
    // Panics while it is mounted, or during its end.
    for times in 2..10 {
        let mut mount = home.command(["mount", "vault"]);
        mount.env("S3VAULT_PANIC", format!("the daemon's life,{times}"));
        if mount.output().unwrap().status.success() {
            let daemon = home.daemon(&home.path("vault"));
            let file = fs::File::create(home.path("vault").join(format!("{times}"))).unwrap();
            file.sync_all().unwrap();
            drop(file);
            // umount is refused as long as a child of another test, just started, holds copies of our descriptors.
            wait_until("the daemon ends", || {
                in_time("umount", || home.type_in("umount vault"));
                !runs(daemon)
            });
        }
        home.type_in("mount vault").exits(0);
        assert_eq!(fs::read(home.path("vault/kept")).unwrap(), b"kept");
        home.type_in("umount vault").exits(0);
    }
}
