//! Commands on files that join the daemon of another command, which ends during their work. The test listens at the
//! daemon's socket, so that it controls when that happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use rustix::process::Signal;

use crate::support::home::{Home, runs, signal, wait_until};

/// A command whose daemon others join, and the thread that listens at its socket.
struct Joined {
    put: Child,
    pid: u32,
    host: JoinHandle<()>,
}

impl Joined {
    /// Accepts the next connection for files; after its first request, sends the signal `how` to the daemon and closes
    /// it.
    fn begin(home: &Home, how: Signal) -> Self {
        let mut put = home.command(["put", "-", "unfinished"]);
        let mut put = put.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // More than a pipe holds, so the command has its own connection by then and does not use the one below.
        put.stdin.as_mut().unwrap().write_all(&vec![b'x'; 256 << 10]).unwrap();
        wait_until("the daemon answers", || home.only_status()["pid"].as_u64().is_some());
        let pid = u32::try_from(home.only_status()["pid"].as_u64().unwrap()).unwrap();
        let mut vaults = fs::read_dir(home.state()).unwrap().flatten().map(|entry| entry.path());
        let dir = vaults.find(|path| path.join("control.sock").exists()).unwrap();
        fs::rename(dir.join("control.sock"), dir.join("true.sock")).unwrap();
        let handle = File::open(&dir).unwrap();
        let short = format!("/proc/self/fd/{}/control.sock", handle.as_raw_fd());
        let listener = UnixListener::bind(short).unwrap();
        let host = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if takes_files(stream) {
                    break;
                }
            }
            signal(pid, how);
            drop(listener);
            if how != Signal::KILL {
                wait_until("the daemon ends", || !runs(pid));
            }
        });
        Self { put, pid, host }
    }

    fn end(mut self) {
        self.host.join().unwrap();
        wait_until("the daemon is gone", || !runs(self.pid));
        drop(self.put.stdin.take());
        assert!(!self.put.wait().unwrap().success());
    }
}

/// Whether the connection asked for files of the vault.
fn takes_files(mut stream: UnixStream) -> bool {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    if !line.contains("files") {
        return false;
    }
    stream.write_all(b"{\"reply\":\"go\"}\n").unwrap();
    stream.read(&mut [0; 4]).unwrap() > 0
}

fn with_file() -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    fs::write(home.path("here"), "content").unwrap();
    home.type_in("put here there").exits(0);
    home
}

#[test]
fn what_did_nothing_yet_begins_again_by_itself() {
    let home = with_file();
    for (line, says) in [
        ("ls", "there"),
        ("cat there", "content"),
        ("get there brought", ""),
        ("put here again", ""),
        ("put - again", ""),
        ("rm -f again", ""),
    ] {
        for how in [Signal::KILL, Signal::TERM] {
            let joined = Joined::begin(&home, how);
            let done = home.type_in(line).exits(0).says(says);
            assert_eq!(done.err, "", "{line}");
            joined.end();
        }
    }
    assert_eq!(fs::read(home.path("brought")).unwrap(), b"content");
    assert_eq!(home.type_in("ls").exits(0).out, "there\n");
}

#[test]
fn what_may_be_done_is_not_done_again_and_that_is_said() {
    let home = with_file();
    for (line, says) in [
        ("rm there", "is not known; look, and say it again where it is not"),
        ("mv there elsewhere", "is not known; look, and say it again where it is not"),
        ("mkdir new", "is not known; look, and say it again where it is not"),
    ] {
        for how in [Signal::KILL, Signal::TERM] {
            let joined = Joined::begin(&home, how);
            home.type_in(line).exits(1).says("ended meanwhile").says(says);
            joined.end();
        }
    }
    // The request was not carried out.
    assert_eq!(home.type_in("ls").exits(0).out, "there\n");
}
