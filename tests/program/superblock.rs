//! A superblock that is lost from the bucket: the copy that a machine keeps, and the backup that the owner made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::home::{Done, Home};

/// A vault with one file, and a machine that has used it.
struct Losing {
    home: Home,
    url: String,
}

const FIRST: &str = "superblock/0000000000000001";

impl Losing {
    fn new() -> Self {
        let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
        let url = format!("file://{}", home.path("bucket").display());
        home.type_in(&format!("init --recovery-file key --bucket {url}")).exits(0);
        // From here on by the recovery key, which is cheap to open.
        let key = fs::read_to_string(home.path("key")).unwrap();
        let home = home.with("S3VAULT_PASSPHRASE", key.trim());
        home.type_in(&format!("mount vault --bucket {url}")).exits(0);
        fs::write(home.path("vault/file"), "kept").unwrap();
        home.type_in("umount vault").exits(0);
        Self { home, url }
    }

    fn superblocks(&self) -> Vec<String> {
        let all = fs::read_dir(self.home.path("bucket/superblock")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn lose(&self) {
        for name in self.superblocks() {
            fs::remove_file(self.home.path("bucket/superblock").join(name)).unwrap();
        }
    }

    /// A machine that never saw the vault.
    fn stranger(&self) -> Home {
        let key = fs::read_to_string(self.home.path("key")).unwrap();
        Home::new().with("S3VAULT_PASSPHRASE", key.trim())
    }

    fn backup(&self, name: &str) -> String {
        let path = self.home.path(name);
        self.home.type_in(&format!("key backup {}", path.display())).exits(0).says("--superblock");
        path.display().to_string()
    }

    /// Mounts the vault on this machine with a file in place of the superblock.
    fn mount(&self, home: &Home, file: &str) -> Done {
        home.type_in(&format!("mount there --bucket {} --superblock {file}", self.url))
    }
}

fn shows(home: &Home, mountpoint: &str) {
    assert_eq!(fs::read(home.path(mountpoint).join("file")).unwrap(), b"kept");
    home.type_in(&format!("umount {mountpoint}")).exits(0);
}

#[test]
fn a_machine_that_used_the_vault_puts_a_lost_superblock_back() {
    let losing = Losing::new();
    let home = &losing.home;
    let first = fs::read(home.path("bucket").join(FIRST)).unwrap();
    losing.lose();
    // No new vault can be made over the remains.
    home.type_in(&format!("init --bucket {}", losing.url)).exits(9);
    home.type_in("check").exits(16).says("damaged or missing");
    home.type_in("key list").exits(0).says("recovery key").says("was used");
    // A reader does not put the superblock back; a writer does.
    home.type_in("mount vault --read-only").exits(0).says("is used");
    shows(home, "vault");
    assert!(losing.superblocks().is_empty());
    home.type_in("mount vault").exits(0).says("was put back");
    shows(home, "vault");
    assert_eq!(fs::read(home.path("bucket").join(FIRST)).unwrap(), first);
    home.type_in("check").exits(0);
    // A key change without a mount puts it back, too; and the new superblock is the one that is kept.
    losing.lose();
    home.type_in("key add --new-key-file kf").exits(0);
    losing.lose();
    home.type_in("key list --passphrase-file kf").exits(0).says("key file");
    // A superblock with foreign content is refused, not skipped.
    home.type_in("mount vault").exits(0).says("was put back");
    home.type_in("umount vault").exits(0);
    let [name] = &losing.superblocks()[..] else { panic!() };
    fs::write(home.path("bucket/superblock").join(name), "no superblock").unwrap();
    home.type_in("mount vault").exits(16).says(name);
}

#[test]
fn a_known_vault_whose_place_is_empty_is_not_replaced_unasked() {
    let losing = Losing::new();
    let Losing { home, url } = &losing;
    fs::rename(home.path("bucket"), home.path("away")).unwrap();
    // The directory below a disk that is not mounted may be missing, or empty. Nothing is made in it.
    home.type_in(&format!("init --bucket {url}")).exits(17).says("is its disk mounted");
    let is_refused = || {
        for command in ["mount vault", "mount vault --read-only", "check", "key list", "ls"] {
            home.type_in(command).exits(17).says("is its disk mounted");
        }
    };
    is_refused();
    assert!(!home.path("bucket").exists());
    fs::create_dir(home.path("bucket")).unwrap();
    is_refused();
    home.type_in(&format!("init --bucket {url}")).exits(17).says("init --forget");
    // But for the directory of unfinished puts, which every look at a store makes.
    let left = fs::read_dir(home.path("bucket")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.eq([".tmp"]));
    // The vault is there again with its disk.
    fs::remove_dir_all(home.path("bucket")).unwrap();
    fs::rename(home.path("away"), home.path("bucket")).unwrap();
    home.type_in("mount vault").exits(0);
    shows(home, "vault");
    home.type_in(&format!("init --bucket {url} --forget")).exits(9);
    // Gone for good.
    fs::remove_dir_all(home.path("bucket")).unwrap();
    home.type_in(&format!("init --bucket {url} --forget")).exits(0);
    home.type_in("mount vault").exits(0);
    assert!(!home.path("vault/file").exists());
    home.type_in("umount vault").exits(0);
}

#[test]
fn a_backup_opens_the_vault_on_a_machine_that_never_saw_it() {
    let losing = Losing::new();
    let home = &losing.home;
    let file = losing.backup("backup");
    assert_eq!(home.path("backup").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let piped = home.command(["key", "backup", "-"]).stderr(Stdio::inherit()).output().unwrap();
    assert_eq!(piped.stdout, fs::read(&file).unwrap());
    // A backup of the same vault is replaced, anything else is not.
    losing.backup("backup");
    fs::write(home.path("letter"), "dear").unwrap();
    home.type_in("key backup letter").exits(16).says("is there already");
    assert_eq!(fs::read(home.path("letter")).unwrap(), b"dear");
    // A backup of another vault, even one with the same secret; a truncated file; no file.
    let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    other.type_in(&format!("init --bucket file://{}", other.path("b").display())).exits(0);
    let theirs = other.path("b").join(FIRST).display().to_string();
    home.type_in(&format!("key backup {theirs}")).exits(16).says("is there already");
    let whole = fs::read(&file).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(home.path("cut"), &whole[..cut]).unwrap();
        losing.mount(home, "cut").exits(16).says("cut is not used");
    }
    losing.mount(home, "nowhere").exits(16).says("nowhere is not used");
    for lost in [false, true] {
        if lost {
            losing.lose();
        }
        let stranger = losing.stranger().with("S3VAULT_PASSPHRASE", "correct horse");
        losing.mount(&stranger, &theirs).exits(16).says("vault");
        // No message may advise deleting something that is intact.
        assert!(!losing.mount(&stranger, &theirs).err.contains("delete"));
    }
    let stranger = losing.stranger();
    stranger
        .type_in(&format!("mount there --bucket {}", losing.url))
        .exits(16)
        .says("s3vault key backup");
    losing.mount(&stranger, &file).exits(0).says("was put back");
    shows(&stranger, "there");
    home.type_in("mount vault").exits(0);
    shows(home, "vault");
}

#[test]
fn a_backup_from_before_a_change_of_the_keys_is_refused() {
    let losing = Losing::new();
    let home = &losing.home;
    let old = losing.backup("old");
    home.type_in("key add --new-key-file kf").exits(0);
    let new = losing.backup("new");
    // If the bucket's superblock is newer, it counts.
    losing.mount(home, &old).exits(0);
    shows(home, "there");
    home.type_in(&format!("key backup {old}")).exits(0);
    assert_eq!(fs::read(&old).unwrap(), fs::read(&new).unwrap());
    let losing = Losing::new();
    let home = &losing.home;
    let old = losing.backup("old");
    home.type_in("key add --new-key-file kf").exits(0);
    let new = losing.backup("new");
    losing.lose();
    let stranger = losing.stranger();
    for machine in [home, &stranger] {
        losing.mount(machine, &old).exits(16).says("an older one");
    }
    // An old superblock was put back: the message points to the newest, with which the vault opens.
    fs::copy(&old, home.path("bucket").join(FIRST)).unwrap();
    home.type_in("mount vault").exits(16).says("--superblock FILE");
    home.type_in(&format!("key backup {}", home.path("third").display())).exits(16);
    losing.mount(&stranger, &new).exits(0).says("was put back");
    shows(&stranger, "there");
    home.type_in("mount vault --passphrase-file kf").exits(0);
    shows(home, "vault");
}
