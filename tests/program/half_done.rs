//! A daemon that is killed in the middle of an operation of many steps leaves nothing half done.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::home::{Home, detach, runs, signal, wait_until};
use crate::support::http::Place;
use crate::support::noise;

struct Vault {
    home: Home,
    line: String,
}

impl Vault {
    fn new() -> Self {
        let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
        let line = format!("--bucket file://{}", home.path("bucket").display());
        home.type_in(&format!("init {line}")).exits(0);
        Self { home, line }
    }

    fn dir(&self) -> PathBuf {
        self.home.path("vault")
    }

    fn mount(&self) -> Place {
        self.home.type_in(&format!("mount vault {}", self.line)).exits(0);
        self.home.type_in(&format!("serve --open --listen 127.0.0.1:0 {}", self.line)).exits(0);
        Place::of(self.home.status(&self.dir())["service"]["url"].as_str().expect("it serves"))
    }

    fn kill(&self, daemon: u32) {
        signal(daemon, Signal::KILL);
        wait_until("the daemon has ended", || !runs(daemon));
        detach(&self.dir());
    }

    /// The entries and their entries, without the source of the copy.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        add(&self.dir(), &mut names);
        names.retain(|name| !name.starts_with("source/"));
        names.sort();
        names
    }

    fn files_used(&self) -> u64 {
        let seen = rustix::fs::statvfs(self.dir()).unwrap();
        seen.f_files - seen.f_ffree
    }
}

/// A directory that disappears meanwhile counts as empty.
fn add(dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && name != "source" {
            let mut below = Vec::new();
            add(&entry.path(), &mut below);
            names.extend(below.into_iter().map(|below| format!("{name}/{below}")));
        }
        names.push(name);
    }
}

/// Sends a request, and does not wait for the answer.
fn ask(place: &Place, line: &str, headers: &[&str]) -> TcpStream {
    let mut stream = place.connect();
    stream.write_all(place.head(line, headers).as_bytes()).unwrap();
    stream
}

#[test]
fn a_kill_in_the_middle_of_a_put_or_a_copy_leaves_nothing() {
    let vault = Vault::new();
    let mut place = vault.mount();
    let source = vault.dir().join("source");
    for dir in 0..20 {
        let dir = source.join(format!("{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            fs::write(dir.join(format!("{file}")), b"content").unwrap();
        }
    }
    place.send("MKCOL /dav/there", &[], b"").is(201);
    place.put("/dav/there/old", b"old").is(201);
    let used = vault.files_used();
    let is_new = || vault.names().iter().any(|name| name.starts_with(".s3vault-new-"));
    let mut killed_halfway = 0;
    for round in 0..12 {
        let to = ["/dav/new", "/dav/there"][round % 2];
        let daemon = vault.home.daemon(&vault.dir());
        let put = ask(&place, "PUT /dav/put", &["Content-Length: 1000000"]);
        (&put).write_all(&noise(1, 500_000)).unwrap();
        let destination = format!("Destination: http://{}{to}", place.0);
        let copy = ask(&place, "COPY /dav/source", &[&destination, "Content-Length: 0"]);
        wait_until("it has begun", is_new);
        std::thread::sleep(Duration::from_millis(10 * round as u64));
        vault.kill(daemon);
        drop((put, copy));
        place = vault.mount();
        wait_until("no workshop is left", || !is_new());
        let (new, there) = (vault.dir().join("new"), vault.dir().join("there"));
        let is_whole = |tree: &Path| (0..20).all(|dir| tree.join(format!("{dir}/99")).exists());
        // The copy may have been completed before the kill; then all of it must be there.
        if to == "/dav/new" && new.exists() {
            assert!(is_whole(&new));
            place.send("DELETE /dav/new", &[], b"").is(204);
        } else if !there.join("old").exists() {
            assert!(to == "/dav/there" && is_whole(&there));
            place.send("DELETE /dav/there", &[], b"").is(204);
            place.send("MKCOL /dav/there", &[], b"").is(201);
            place.put("/dav/there/old", b"old").is(201);
        } else {
            killed_halfway += 1;
        }
        assert_eq!(vault.names(), ["source", "there", "there/old"]);
        wait_until("no room is held", || vault.files_used() == used);
        if killed_halfway == 3 {
            break;
        }
    }
    assert!(killed_halfway > 0);
    vault.home.type_in("umount vault").exits(0);
    vault.home.type_in(&format!("check {}", vault.line)).exits(0);
}

#[test]
fn a_kill_after_a_move_onto_a_tree_brings_nothing_back() {
    let vault = Vault::new();
    let place = vault.mount();
    for file in 0..3000 {
        let dir = vault.dir().join("there").join(format!("{}", file % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{file}")), b"old").unwrap();
    }
    fs::create_dir(vault.dir().join("moving")).unwrap();
    fs::write(vault.dir().join("moving/file"), b"new").unwrap();
    let daemon = vault.home.daemon(&vault.dir());
    let destination = format!("Destination: http://{}/dav/there", place.0);
    let moving = ask(&place, "MOVE /dav/moving", &[&destination, "Content-Length: 0"]);
    wait_until("it has its place", || vault.dir().join("there/file").exists());
    vault.kill(daemon);
    drop(moving);
    vault.mount();
    wait_until("what was there goes", || vault.names() == ["there", "there/file"]);
    vault.home.type_in("umount vault").exits(0);
}
