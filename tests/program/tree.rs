//! A tree with all kinds of files: written with common tools, and read on another machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::home::{Home, runs, signal, wait_until};
use crate::support::{TestBucket, weed};

const MIB: usize = 1 << 20;
/// In every name and in every file that is long enough. Nothing that leaves this machine, or stays on its disk, may
/// contain them.
const NAME: &str = "secretname";
const TEXT: &[u8] = b"secret text of a file, in the clear";

fn s3_home(bucket: &TestBucket) -> Home {
    Home::for_bucket(bucket).with("S3VAULT_PASSPHRASE", "correct horse")
}

fn line(what: &str, bucket: &TestBucket) -> String {
    format!("{what} --bucket {} --endpoint-url {}", bucket.url(), bucket.endpoint())
}

/// Runs a tool, which must succeed; returns its output.
#[track_caller]
fn tool(program: &str, arguments: &[&OsStr]) -> String {
    let done = Command::new(program).args(arguments).output().expect(program);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {arguments:?}: {out}{err}");
    out.into_owned()
}

/// Checks that two trees are the same: content, modes, owners, times to the nanosecond, links, xattrs.
#[track_caller]
fn same(one: &Path, other: &Path) {
    let slashed = |path: &Path| [path.as_os_str(), OsStr::new("/")].join(OsStr::new(""));
    let options = ["-aHAXnic", "--delete", "--modify-window=-1"].map(OsStr::new);
    let (one, other) = (slashed(one), slashed(other));
    let differ = tool("rsync", &[&options[..], &[&one, &other]].concat());
    assert_eq!(differ, "", "{} and {}", one.display(), other.display());
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The text that is searched for, then noise.
    fn content(&mut self, length: usize) -> Vec<u8> {
        let mut content: Vec<u8> = TEXT.iter().copied().take(length).collect();
        while content.len() < length {
            content.extend_from_slice(&self.next().to_le_bytes());
        }
        content.truncate(length);
        content
    }
}

/// 3,000 files: small ones in directories, edge cases, a large one, sparse ones, odd names, links.
fn make_tree(root: &Path) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for dir in 0..30 {
        let dir = root.join(format!("{NAME}-dir-{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for n in 0..95 {
            let length = match n % 5 {
                0 => 0,
                1 => random.next() % 100,
                2 | 3 => random.next() % 9000,
                _ => random.next() % 40_000,
            };
            let path = dir.join(format!("{NAME}-{n}"));
            fs::write(&path, random.content(usize::try_from(length).unwrap())).unwrap();
            if n % 9 == 0 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o751)).unwrap();
            }
            if n % 11 == 0 {
                let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
                File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
            }
        }
    }
    let edges = root.join("edges");
    fs::create_dir(&edges).unwrap();
    for edge in [16 << 10, 16 * MIB] {
        for length in [edge - 1, edge, edge + 1] {
            fs::write(edges.join(format!("{NAME}-{length}")), random.content(length)).unwrap();
        }
    }
    let mut sparse = File::create(edges.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(300 << 20)).unwrap();
    sparse.write_all(TEXT).unwrap();
    sparse.set_len(500 << 20).unwrap();
    File::create(edges.join("only a hole")).unwrap().set_len(1 << 20).unwrap();
    odd(root, &mut random);
}

fn odd(root: &Path, random: &mut Random) {
    let odd = root.join("odd");
    fs::create_dir(&odd).unwrap();
    let long = format!("{NAME}{}", "x".repeat(255 - NAME.len()));
    fs::write(odd.join(long), random.content(100)).unwrap();
    fs::write(odd.join(OsStr::from_bytes(b"not\xff\xfeutf8\n")), random.content(100)).unwrap();
    let deep = (0..40).fold(odd.clone(), |path, n| path.join(format!("{NAME}-level-{n}")));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), random.content(100)).unwrap();
    symlink("../edges/sparse", odd.join("symlink")).unwrap();
    symlink(format!("{NAME}-nowhere"), odd.join("dangling")).unwrap();
    fs::hard_link(deep.join("bottom"), odd.join("hard link")).unwrap();
    let with_xattrs = odd.join("with xattrs");
    fs::write(&with_xattrs, random.content(50)).unwrap();
    for (name, value) in [("user.comment", "a comment"), ("user.empty", "")] {
        let arguments = ["-n", name, "-v", value].map(OsStr::new);
        tool("setfattr", &[&arguments[..], &[with_xattrs.as_os_str()]].concat());
    }
    let owned = odd.join("of others");
    fs::write(&owned, random.content(50)).unwrap();
    std::os::unix::fs::chown(&owned, Some(1234), Some(4321)).unwrap();
    tool("mkfifo", &[odd.join("fifo").as_os_str()]);
}

/// Checks that the bytes contain no plaintext.
#[track_caller]
fn is_sealed(what: &str, bytes: &[u8]) {
    for secret in [NAME.as_bytes(), TEXT, b"a comment", b"with xattrs"] {
        let begins = |window: &&[u8]| window[0] == secret[0];
        let found = bytes.windows(secret.len()).filter(begins).any(|window| window == secret);
        assert!(!found, "{:?} is in {what}", String::from_utf8_lossy(secret));
    }
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    // A directory of a live cache may disappear meanwhile.
    let entries = walkdir::WalkDir::new(root).into_iter().flatten();
    entries.filter(|e| e.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn a_tree_comes_back_byte_for_byte_on_another_machine() {
    let bucket = weed().bucket();
    let home = s3_home(&bucket);
    let (source, large) = (home.path("source"), home.path("large"));
    make_tree(&source);
    fs::write(&large, Random(7).content(300 * MIB)).unwrap();
    assert!(files_below(&source).len() >= 2860);
    home.type_in(&line("init", &bucket)).exits(0);
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    tool("cp", &[OsStr::new("-a"), source.as_os_str(), vault.join("copied").as_os_str()]);
    tool("cp", &[OsStr::new("-a"), large.as_os_str(), vault.join("large").as_os_str()]);
    let slashed = [source.as_os_str(), OsStr::new("/")].join(OsStr::new(""));
    tool("rsync", &[OsStr::new("-aHAX"), &slashed, vault.join("synced").as_os_str()]);
    home.type_in("sync vault").exits(0);
    for file in files_below(&home.state()) {
        // A pack that moves from staging to the cache meanwhile is checked in the bucket.
        let content = fs::read(&file).unwrap_or_default();
        is_sealed(&file.display().to_string(), &content);
    }
    home.type_in("umount vault").exits(0);
    let objects = bucket.objects();
    for (name, bytes) in &objects {
        is_sealed(name, name.as_bytes());
        is_sealed(name, bytes);
    }

    let elsewhere = s3_home(&bucket);
    elsewhere.type_in(&line("mount vault", &bucket)).exits(0);
    let vault = elsewhere.path("vault");
    same(&source, &vault.join("copied"));
    same(&source, &vault.join("synced"));
    tool("cmp", &[large.as_os_str(), vault.join("large").as_os_str()]);
    let sparse = fs::metadata(vault.join("synced/edges/only a hole")).unwrap();
    assert_eq!(sparse.len(), 1 << 20);
    elsewhere.type_in("check").exits(0);
    second_reader(&elsewhere, objects, &vault);
    elsewhere.type_in("umount vault").exits(0);
}

/// Checks that `scripts/read_vault.py` extracts the same tree from a copy of the bucket.
fn second_reader(home: &Home, objects: Vec<(String, bytes::Bytes)>, vault: &Path) {
    let copy = home.path("bucket-copy");
    for (name, bytes) in objects {
        let path = copy.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let secret = home.path("passphrase");
    fs::write(&secret, "correct horse\n").unwrap();
    let extracted = home.path("extracted");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let python = tool(scripts.join("reader-python").to_str().unwrap(), &[]);
    tool(
        python.trim(),
        &[
            scripts.join("read_vault.py").as_os_str(),
            copy.as_os_str(),
            OsStr::new("--passphrase-file"),
            secret.as_os_str(),
            OsStr::new("extract"),
            extracted.as_os_str(),
        ],
    );
    same(&extracted, vault);
}

/// `fs::write` ignores the result of close(2), which is what makes the promise.
#[allow(unsafe_code, reason = "nothing safe returns what close(2) says")]
fn write_and_close(path: &Path, n: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&Random(n + 1).content(3000))?;
    // SAFETY: `into_raw_fd` just gave up ownership of the descriptor.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn after_kill_in_the_middle_of_a_copy_every_closed_file_is_there() {
    let bucket = weed().bucket();
    let home = s3_home(&bucket);
    home.type_in(&line("init", &bucket)).exits(0);
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let daemon = home.daemon(&vault);
    let closed = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if write_and_close(&vault.join(format!("f{n}")), n).is_err() {
                    return;
                }
                closed.store(n + 1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        wait_until("some files", || closed.load(std::sync::atomic::Ordering::SeqCst) > 500);
        signal(daemon, Signal::KILL);
        wait_until("its end", || !runs(daemon));
    });
    let closed = closed.into_inner();
    // The next mount cleans up the dead one.
    home.type_in("mount vault").exits(0);
    for n in 0..closed {
        let found = fs::read(vault.join(format!("f{n}"))).unwrap();
        assert_eq!(found, Random(n + 1).content(3000), "f{n} of {closed}");
    }
    // Again, with nothing left but the bucket: it has a consistent recent state.
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("its end", || !runs(daemon));
    fs::remove_dir_all(home.state()).unwrap();
    home.type_in("mount vault").exits(0);
    let mut names: Vec<u64> = fs::read_dir(&vault)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap()[1..].parse().unwrap())
        .collect();
    names.sort_unstable();
    for n in &names {
        let found = fs::read(vault.join(format!("f{n}"))).unwrap();
        let whole = Random(n + 1).content(3000);
        // The last file may have been created and not yet written.
        assert!(found == whole || found.is_empty() && Some(n) == names.last(), "f{n}");
    }
    assert!(names.iter().copied().eq(0..names.len() as u64), "no file is missing in between");
    home.type_in("umount vault").exits(0);
}
