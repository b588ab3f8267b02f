//! A committed vault of each format version, which must open for ever, with the program and with the second reader.
//!
//! `S3VAULT_MAKE_GOLDEN=1 cargo test --test program golden::` makes the missing ones of the current version.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::home::Home;
use s3vault::testing::crypto::sha256;
use s3vault::testing::types::{InodeNo, MIB};
use s3vault::testing::vault::{
    Argon2Params, Bucket, Deadlines, Fsync, InitSecrets, Machine, NewKey, Passphrase, S3Options,
    Vault, VaultOptions, init, open_by, seal_passphrase,
};
use s3vault::testing::vfs::{Caller, OpenFlags, RenameMode, SetAttributes, Setter, WriteAt};

const PASSPHRASE: &str = "golden, for ever";
const LONG: Duration = Duration::from_secs(60);
const USER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Everything about a tree, one line per file: type and mode, links, owner, size, time, hash or target, name.
fn listing(root: &Path) -> String {
    let mut lines = Vec::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let found = entry.path().symlink_metadata().unwrap();
        let content = if found.is_symlink() {
            fs::read_link(entry.path()).unwrap().display().to_string()
        } else if found.is_file() {
            sha256(&fs::read(entry.path()).unwrap()).to_string()
        } else {
            "-".to_owned()
        };
        // The size of a directory depends on the file system.
        let size = if found.is_dir() { 0 } else { found.len() };
        let name = entry
            .path()
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .escape_ascii()
            .to_string();
        let (mode, links) = (found.mode(), if found.is_dir() { 0 } else { found.nlink() });
        let (uid, gid, seconds, nanos) =
            (found.uid(), found.gid(), found.mtime(), found.mtime_nsec());
        lines.push(format!(
            "{name} {mode:o} {links} {uid}:{gid} {size} {seconds}.{nanos:09} {content}"
        ));
    }
    lines.sort();
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}

async fn put(vault: &Vault, parent: InodeNo, name: &[u8], parts: &[(u64, &[u8])]) -> InodeNo {
    let vfs = vault.vfs();
    let flags = OpenFlags::from_bits(libc::O_RDWR | libc::O_CREAT);
    let (made, handle) = vfs.create(&USER, parent, name, 0o640, flags).await.unwrap();
    for (offset, data) in parts {
        vfs.write(handle, WriteAt::Offset(*offset), data).await.unwrap();
    }
    vfs.flush(handle).await.unwrap();
    vfs.release(handle).await.unwrap();
    made.ino
}

/// A little of everything, half of it in a checkpoint and half in later commits.
async fn fill(vault: &Vault) {
    let (vfs, root) = (vault.vfs(), InodeNo::ROOT);
    let dir = vfs.mkdir(&USER, root, b"dir", 0o755).await.unwrap().ino;
    let noise: Vec<u8> = (0..70_000u32).map(|n| (n.wrapping_mul(n) % 253) as u8).collect();
    put(vault, root, b"hello.txt", &[(0, b"hello, later\n")]).await;
    let large = put(vault, dir, b"large", &[(0, &noise)]).await;
    put(vault, dir, b"sparse", &[(5, b"begin"), (3 << 20, b"end")]).await;
    put(vault, dir, b"goes", &[(0, b"gone before long")]).await;
    put(vault, root, b"not\xffutf8", &[]).await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    vfs.symlink(&USER, root, b"link", b"dir/large").await.unwrap();
    vfs.link(large, root, b"hard").await.unwrap();
    vfs.unlink(dir, b"goes").await.unwrap();
    put(vault, dir, b"small", &[(0, b"x")]).await;
    vfs.rename((dir, b"small"), (root, b"moved"), RenameMode::Replace).await.unwrap();
    vfs.set_xattr(large, b"user.golden", b"yes", 0, &Setter::Superuser).await.unwrap();
    let flags = OpenFlags::from_bits(libc::O_RDWR);
    let handle = vfs.open(large, flags).await.unwrap();
    vfs.write(handle, WriteAt::Offset(20_000), b"overwritten in the middle").await.unwrap();
    vfs.flush(handle).await.unwrap();
    vfs.release(handle).await.unwrap();
    vfs.set_attributes(large, &SetAttributes { size: Some(60_000), ..SetAttributes::default() })
        .await
        .unwrap();
    vault.sync(LONG).await.unwrap();
}

/// Rotates the key, and writes more of one file and a new file with the new key, in a checkpoint and after it.
async fn rotate(vault: &Vault, argon: Argon2Params) {
    let secret = || Passphrase::from_bytes(PASSPHRASE.into());
    let opened = open_by(&vault.options().bucket, None, &secret()).await.unwrap();
    let new = NewKey::make(&opened);
    let slot = seal_passphrase(&new.unlocked, &secret(), argon, "").unwrap();
    let done = vault.rotate_key(&new.rotation(vec![slot])).await.unwrap();
    assert!(done.trouble.is_empty(), "{:?}", done.trouble);
    put(vault, InodeNo::ROOT, b"rotated", &[(0, b"by the new key\n")]).await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    put(vault, InodeNo::ROOT, b"rotated, later", &[(0, b"after its checkpoint\n")]).await;
    vault.sync(LONG).await.unwrap();
}

/// Makes a vault of the current version.
fn make(at: &Path, rotated: bool) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        fs::create_dir_all(at).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let url = format!("file://{}", at.display()).parse().unwrap();
        let bucket = Bucket::open(&url, &S3Options::default(), Deadlines::default()).await.unwrap();
        let passphrase = Passphrase::from_bytes(PASSPHRASE.into());
        // The cheapest parameters allowed, so that opening it is fast.
        let argon = Argon2Params { memory_kib: 64 << 10, passes: 3, lanes: 1 };
        let made =
            init(&bucket, InitSecrets { passphrase, argon, recovery: true }, false, |_| Ok(()))
                .await
                .unwrap();
        let machine =
            Machine::identify(Some("golden".into()), &scratch.path().join("data")).unwrap();
        let options = VaultOptions {
            bucket,
            unlocked: made.unlocked,
            state_dir: scratch.path().join("state"),
            machine,
            memory: 64 * MIB,
            cache_size: Some(64 * MIB),
            at: None,
            read_only: false,
            refresh: None,
            take_over: false,
            accept_rollback: false,
            accept_damage: false,
            single_machine: false,
            fsync: Fsync::Local,
            mountpoint: "golden".into(),
        };
        let vault: Arc<Vault> = Vault::open(options).await.unwrap();
        fill(&vault).await;
        if rotated {
            rotate(&vault, argon).await;
        }
        vault.close(LONG).await.unwrap();
    });
}

fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).into_iter().map(Result::unwrap) {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_vault_of_version_1_opens_for_ever() {
    opens_for_ever("v1", false);
}

#[test]
fn a_vault_of_version_1_whose_key_was_rotated_opens_for_ever() {
    opens_for_ever("v1-rotated", true);
}

fn opens_for_ever(name: &str, rotated: bool) {
    let (store, expected) = (golden(name), golden(name).with_extension("listing"));
    let making = std::env::var_os("S3VAULT_MAKE_GOLDEN").is_some() && !store.exists();
    if making {
        make(&store, rotated);
    }
    let home = Home::new().with("S3VAULT_PASSPHRASE", PASSPHRASE);
    let bucket = home.path("bucket");
    copy(&store, &bucket);
    home.type_in(&format!("mount vault --bucket file://{}", bucket.display())).exits(0);
    let found = listing(&home.path("vault"));
    if making {
        fs::write(&expected, &found).unwrap();
    }
    let expected = fs::read_to_string(&expected).unwrap();
    assert_eq!(found, expected);
    let mut getfattr = Command::new("getfattr");
    getfattr.args(["-n", "user.golden", "--only-values", "vault/hard"]).current_dir(home.path(""));
    let xattr = getfattr.output().unwrap();
    assert_eq!(xattr.stdout, b"yes");
    // It can still be written to.
    fs::write(home.path("vault/new"), "new").unwrap();
    home.type_in("umount vault").exits(0);
    home.type_in("check --read-data").exits(0);

    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let python = Command::new(scripts.join("reader-python")).output().unwrap();
    let python = String::from_utf8(python.stdout).unwrap();
    let secret = home.path("passphrase");
    fs::write(&secret, PASSPHRASE).unwrap();
    let (extracted, reader) = (home.path("extracted"), scripts.join("read_vault.py"));
    let words: [&OsStr; 6] = [
        reader.as_os_str(),
        store.as_os_str(),
        OsStr::new("--passphrase-file"),
        secret.as_os_str(),
        OsStr::new("extract"),
        extracted.as_os_str(),
    ];
    let read = Command::new(python.trim()).args(words).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(listing(&extracted), expected);
}
