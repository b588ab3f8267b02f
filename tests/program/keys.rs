//! Key slots as users change them: `s3vault key`, with and without a mount.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::home::{Done, Home, runs, wait_until};

/// A vault in a directory; it opens with the passphrase in `one`, or with the recovery key in `recovery`.
struct Keyed {
    home: Home,
}

impl Keyed {
    fn new() -> Self {
        let home = Home::new();
        for (file, secret) in [("one", "one horse"), ("two", "two horses"), ("three", "a third")] {
            fs::write(home.path(file), secret).unwrap();
        }
        let keyed = Self { home };
        let init = format!("init --recovery-file recovery {}", keyed.bucket());
        keyed.by("one", &init).exits(0).says("which only this user can read");
        keyed
    }

    fn bucket(&self) -> String {
        format!("--bucket file://{}", self.home.path("bucket").display())
    }

    /// Runs a command with the secret in this file.
    fn by(&self, secret: &str, line: &str) -> Done {
        self.home.type_in(&format!("{line} --passphrase-file {secret}"))
    }

    /// The slots that this secret shows: id, kind, label.
    fn slots(&self, secret: &str) -> Vec<[String; 3]> {
        let said = self.by(secret, &format!("key list --json {}", self.bucket())).exits(0).out;
        let list: serde_json::Value = serde_json::from_str(&said).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let slot = |slot: &serde_json::Value| {
            assert!(text(&slot["made"]).starts_with("20"), "{slot}");
            ["id", "kind", "label"].map(|key| text(&slot[key]))
        };
        list["slots"].as_array().unwrap().iter().map(slot).collect()
    }

    fn opens(&self, secret: &str) -> bool {
        let line = format!("key list {}", self.bucket());
        // Without a mount, since no daemon then holds the key.
        let done = self.by(secret, &line);
        assert!([0, 4].contains(&done.code), "{done:?}");
        done.code == 0
    }

    fn superblocks(&self) -> Vec<String> {
        let all = fs::read_dir(self.home.path("bucket/superblock")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn keys_are_changed_without_a_mount() {
    let keyed = Keyed::new();
    let (home, bucket) = (&keyed.home, keyed.bucket());
    let mode = |name: &str| home.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("recovery"), 0o600);
    keyed
        .by("one", &format!("key passphrase --new-passphrase-file two {bucket}"))
        .exits(0)
        .says("the one before opens nothing any more");
    assert!(!keyed.opens("one") && keyed.opens("recovery"));
    // A second passphrase, with a label; a key file.
    let add = format!("key add --label third --new-passphrase-file three {bucket}");
    keyed.by("two", &add).exits(0).says("is added").says("third");
    keyed.by("recovery", &format!("key add --new-key-file kf {bucket}")).exits(0);
    assert_eq!(mode("kf"), 0o600);
    keyed.by("two", &format!("key add --new-key-file kf {bucket}")).exits(2).says("exists already");
    // With several passphrases, the recovery key does not tell which one to change.
    let change = format!("key passphrase --new-passphrase-file one {bucket}");
    keyed.by("recovery", &change).exits(2).says("not clear which one");
    // A new recovery key does not overwrite an existing file.
    let recovery = format!("key recovery --recovery-file recovery {bucket}");
    keyed.by("two", &recovery).exits(2).says("exists already");
    keyed.by("two", &recovery.replace("file recovery", "file again")).exits(0);
    assert!(keyed.opens("again") && keyed.slots("again").len() == 4);
    // A user must not remove the only slot that they can open.
    let slots = keyed.slots("again");
    let id = |label: &str, kind: &str| {
        let found = slots.iter().find(|slot| slot[1] == kind && slot[2] == label);
        found.map(|[id, ..]| id.clone()).unwrap()
    };
    let third = id("third", "passphrase");
    keyed.by("three", &format!("key remove {third} {bucket}")).exits(2).says("a slot that stays");
    keyed.by("two", &format!("key remove 00000000 {bucket}")).exits(2).says("no key slot");
    keyed.by("two", &format!("key remove {third} {bucket}")).exits(0).says("What opens the vault");
    for slot in [id("key file", "passphrase"), id("", "recovery key")] {
        keyed.by("two", &format!("key remove {slot} {bucket}")).exits(0);
    }
    let last = id("", "passphrase");
    keyed.by("two", &format!("key remove {last} {bucket}")).exits(2).says("the last one");
    assert_eq!(keyed.superblocks().len(), 1);
    assert!(!keyed.opens("three"));
}

#[test]
fn keys_are_changed_under_a_mount_which_goes_on() {
    let keyed = Keyed::new();
    let home = &keyed.home;
    keyed.by("one", &format!("mount vault {}", keyed.bucket())).exits(0);
    fs::write(home.path("vault/file"), "before").unwrap();
    // A user of the mount can see the slots, but needs a secret to change them.
    home.type_in("key list vault").exits(0).says("recovery key").says("256 MiB x 3");
    let change = "key passphrase vault --new-passphrase-file two";
    home.type_in(change).exits(3);
    keyed.by("three", change).exits(4);
    keyed.by("one", change).exits(0).says("the one before opens nothing any more");
    fs::write(home.path("vault/file"), "after").unwrap();
    assert!(!keyed.opens("two") || fs::read(home.path("vault/file")).unwrap() == b"after");
    keyed.by("recovery", "key passphrase vault --new-passphrase-file three").exits(0);
    home.type_in("sync vault").exits(0);
    home.type_in("umount vault").exits(0);
    // A machine that knows nothing, first with a removed secret, then with a valid one.
    let other = Home::new();
    for (secret, code) in [("two", 4), ("three", 0)] {
        let secret = home.path(secret);
        let mount =
            format!("mount there {} --passphrase-file {}", keyed.bucket(), secret.display());
        other.type_in(&mount).exits(code);
    }
    assert_eq!(fs::read(other.path("there/file")).unwrap(), b"after");
    other.type_in("umount there").exits(0);
}

/// Killed in the middle, the old secret or the new one opens the vault. Then the change is made again.
#[test]
fn k6_a_change_that_is_cut_off_leaves_one_of_the_two_secrets() {
    for step in ["a superblock was put", "old superblocks were deleted"] {
        let keyed = Keyed::new();
        let home = &keyed.home;
        let mount = format!("mount vault {} --passphrase-file one", keyed.bucket());
        let mut mount = home.command(mount.split_whitespace());
        let mounted: Done =
            mount.env("S3VAULT_FAILPOINT", format!("{step},1,kill")).output().unwrap().into();
        mounted.exits(0);
        let daemon = home.daemon(&home.path("vault"));
        let cut = keyed.by("one", "key passphrase vault --new-passphrase-file two").exits(1);
        cut.says("`s3vault key list` tells");
        wait_until("the daemon is gone", || !runs(daemon));
        crate::support::home::detach(&home.path("vault"));
        keyed.by("two", &format!("mount vault {}", keyed.bucket())).exits(0);
        keyed.by("two", "key passphrase vault --new-passphrase-file three").exits(0);
        home.type_in("umount vault").exits(0);
        assert!(keyed.opens("three"));
        assert_eq!(keyed.superblocks().len(), 1);
    }
}

#[test]
fn a_recovery_key_goes_to_no_log_by_accident() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "one horse");
    let url = format!("file://{}", home.path("bucket").display());
    let unasked = |line: &str| -> Done {
        let mut command = home.command(line.split_whitespace());
        command.env_remove("S3VAULT_RECOVERY_FILE").output().unwrap().into()
    };
    let init = format!("init --bucket {url}");
    // In a script it makes no recovery key, and says so.
    unasked(&init).exits(0).says("No recovery key was made").says("key recovery");
    let listed = unasked("key list").exits(0);
    assert!(
        listed.out.contains("passphrase") && !listed.out.contains("recovery"),
        "{}",
        listed.out
    );
    fs::remove_dir_all(home.path("bucket")).unwrap();
    fs::remove_dir_all(home.config()).unwrap();
    unasked(&format!("{init} --recovery-file key")).exits(0);
    let key = fs::read_to_string(home.path("key")).unwrap();
    assert_eq!(key.trim().len(), 63);
    unasked("key recovery").exits(2).says("--recovery-file").says("nothing was changed");
    // The first mount of the store that needs no account asks for nothing: a file beside the key file holds the key.
    let nobody = Home::new();
    let mut mount = nobody.command(["mount", "vault"]);
    let done: Done = mount.env_remove("S3VAULT_RECOVERY_FILE").output().unwrap().into();
    let done = done.exits(0).says("embedded.recovery");
    let key = fs::read_to_string(nobody.config().join("embedded.recovery")).unwrap();
    assert!(key.trim().len() == 63 && !done.out.contains(key.trim()));
    nobody.type_in("umount vault").exits(0);
}

#[test]
fn a_passphrase_comes_from_a_program_and_what_is_weak_about_it_is_said() {
    let home = Home::new();
    fs::write(home.path("secret"), "Password2026!").unwrap();
    let url = format!("file://{}", home.path("bucket").display());
    fs::set_permissions(home.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    home.type_in(&format!("init --bucket {url} --passphrase-file secret"))
        .exits(0)
        .says("is tried first")
        .says("chmod 600");
    let list = |command: &str| home.run(["key", "list", "--passphrase-command", command]);
    list("echo Password2026!").exits(0).says("recovery key");
    list("echo  $(cat secret)").exits(4);
    list("false").exits(3).says("exit status: 1");
    home.run(["key", "list", "--passphrase-command", "true", "--passphrase-file", "secret"])
        .exits(2);
    // The keyring's program is asked for this very vault.
    fs::create_dir(home.path("bin")).unwrap();
    let tool =
        "#!/bin/sh\n[ \"$*\" = \"lookup service s3vault vault $URL\" ] && echo 'Password2026!'\n";
    fs::write(home.path("bin/secret-tool"), tool).unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(home.path("bin/secret-tool"), executable).unwrap();
    let mut command = home.command(["key", "list", "--passphrase-keyring"]);
    let path = format!("{}:/usr/bin:/bin", home.path("bin").display());
    let done: Done = command.env("PATH", path).env("URL", &url).output().unwrap().into();
    done.exits(0).says("recovery key");
}

/// Checks that the program and the second reader read the file from the bucket.
fn both_read(keyed: &Keyed, secret: &str, file: &[u8]) {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/read_vault.py");
    let python = Command::new(reader.with_file_name("reader-python")).output().unwrap();
    let python = String::from_utf8(python.stdout).unwrap();
    let out = keyed.home.path(format!("extracted-{}", file.len()));
    let mut read = Command::new(python.trim());
    read.arg(&reader).arg(keyed.home.path("bucket")).arg("--passphrase-file");
    let done: Done =
        read.arg(keyed.home.path(secret)).arg("extract").arg(&out).output().unwrap().into();
    done.exits(0);
    assert_eq!(fs::read(out.join("file")).unwrap(), file);
    assert_eq!(fs::read(out.join("old")).unwrap(), b"by the old key");
}

#[test]
fn the_key_is_rotated_with_a_mount_and_without() {
    let keyed = Keyed::new();
    let home = &keyed.home;
    keyed.by("one", &format!("mount vault {}", keyed.bucket())).exits(0);
    fs::write(home.path("vault/old"), "by the old key").unwrap();
    fs::write(home.path("vault/file"), "before").unwrap();
    keyed.by("one", "key add vault --label third --new-passphrase-file three").exits(0);
    home.type_in("gc vault").exits(0);
    // The recovery key would be lost, so a place for the new one is needed.
    keyed.by("one", "key rotate vault --recovery-file recovery").exits(2).says("exists already");
    let rotate = "key rotate vault --recovery-file again";
    keyed.by("one", rotate).exits(0).says("The key is rotated").says("third");
    fs::write(home.path("vault/file"), "after").unwrap();
    home.type_in("umount vault").exits(0);
    for (secret, opens) in [("one", true), ("again", true), ("recovery", false), ("three", false)] {
        assert_eq!(keyed.opens(secret), opens, "{secret}");
    }
    both_read(&keyed, "again", b"after");
    // Without a mount, and by the recovery key: the passphrase slot is lost, and is added again.
    keyed
        .by("again", &format!("key rotate {}", keyed.bucket()))
        .exits(0)
        .says("open nothing any more");
    assert!(keyed.opens("again") && !keyed.opens("one"));
    keyed.by("again", &format!("key add --new-passphrase-file two {}", keyed.bucket())).exits(0);
    assert_eq!(keyed.superblocks().len(), 1);
    let other = Home::new();
    let secret = home.path("again");
    let mount = format!("mount there {} --passphrase-file {}", keyed.bucket(), secret.display());
    other.type_in(&mount).exits(0);
    assert_eq!(fs::read(other.path("there/file")).unwrap(), b"after");
    fs::write(other.path("there/file"), "elsewhere").unwrap();
    other.type_in("umount there").exits(0);
    keyed.by("again", "check --read-data").exits(0);
    keyed.by("again", "mount vault").exits(0);
    assert_eq!(fs::read(home.path("vault/old")).unwrap(), b"by the old key");
    home.type_in("umount vault").exits(0);
    both_read(&keyed, "again", b"elsewhere");
}

/// Killed at each step: the secret opens the vault, and the next mount finishes the rotation.
#[test]
fn k7_a_rotation_that_is_cut_off_is_finished_by_the_next_mount() {
    let (put, gone) = ("a superblock was put", "old superblocks were deleted");
    for (step, count) in [(put, 1), (gone, 1), ("a key epoch was begun", 1), (put, 2), (gone, 2)] {
        let keyed = Keyed::new();
        let home = &keyed.home;
        let mount = format!("mount vault {} --passphrase-file recovery", keyed.bucket());
        let mut mount = home.command(mount.split_whitespace());
        let mounted: Done =
            mount.env("S3VAULT_FAILPOINT", format!("{step},{count},kill")).output().unwrap().into();
        mounted.exits(0);
        fs::write(home.path("vault/old"), "by the old key").unwrap();
        fs::write(home.path("vault/file"), "kept").unwrap();
        let daemon = home.daemon(&home.path("vault"));
        keyed.by("recovery", "key rotate vault").exits(1);
        wait_until("the daemon is gone", || !runs(daemon));
        crate::support::home::detach(&home.path("vault"));
        keyed.by("recovery", &format!("mount vault {}", keyed.bucket())).exits(0);
        assert_eq!(fs::read(home.path("vault/file")).unwrap(), b"kept", "{step} {count}");
        fs::write(home.path("vault/file"), "and after").unwrap();
        keyed.by("recovery", "key add vault --new-key-file kf").exits(0);
        home.type_in("umount vault").exits(0);
        assert_eq!(keyed.superblocks().len(), 1, "{step} {count}");
        both_read(&keyed, "recovery", b"and after");
    }
}

/// What still needs the keys of the epochs, newest first.
fn needed(keyed: &Keyed) -> Vec<String> {
    let said = keyed.home.type_in("key list vault --json").exits(0).out;
    let list: serde_json::Value = serde_json::from_str(&said).unwrap();
    let epochs = list["epochs"].as_array().unwrap();
    epochs.iter().map(|epoch| epoch["needed_by"].as_str().unwrap().to_owned()).collect()
}

/// Makes everything in the bucket look as if it was put ten days ago.
fn ten_days_go_by(keyed: &Keyed) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_hours(240);
    for prefix in ["log", "page", "checkpoint", "pack"] {
        for file in walkdir::WalkDir::new(keyed.home.path("bucket").join(prefix)) {
            let file = file.unwrap();
            if file.file_type().is_file() {
                fs::File::open(file.path()).unwrap().set_modified(then).unwrap();
            }
        }
    }
}

/// Killed at each of its steps under a mount, and continued by the next one. In the end, the old secret and the old
/// superblock read nothing in the bucket.
#[test]
fn k8_all_is_sealed_anew_over_kills_and_the_old_key_opens_nothing() {
    let keyed = Keyed::new();
    let home = &keyed.home;
    let kills = ["a part of a file was sealed anew,2", "the end of the sealing anew was noted,1"];
    let retired = "older epochs were retired,1";
    let mount = |failpoint: &str| {
        let line = format!("mount vault {} --passphrase-file recovery", keyed.bucket());
        let mut mount = home.command(line.split_whitespace());
        let mounted: Done = mount.env("S3VAULT_FAILPOINT", failpoint).output().unwrap().into();
        mounted.exits(0);
        // The daemon may have ended by now.
        home.daemons().first().copied().unwrap_or(0)
    };
    let gone = |daemon: u32| {
        wait_until("the daemon is gone", || !runs(daemon));
        crate::support::home::detach(&home.path("vault"));
    };
    let daemon = mount(&format!("{},kill", kills[0]));
    for name in ["old", "file", "large"] {
        let size = if name == "large" { 300_000 } else { 9 };
        fs::write(home.path("vault").join(name), name.repeat(size)).unwrap();
    }
    home.type_in("retention 1s vault").exits(0);
    home.type_in("sync vault").exits(0);
    fs::create_dir(home.path("kept")).unwrap();
    for name in keyed.superblocks() {
        fs::copy(home.path("bucket/superblock").join(&name), home.path("kept").join(&name))
            .unwrap();
    }
    let rotate = "key rotate vault --rewrite";
    keyed.by("recovery", rotate).exits(0).says("in the background");
    gone(daemon);
    // The next mount goes on by itself.
    gone(mount(&format!("{},kill", kills[1])));
    let daemon = mount(&format!("{retired},kill"));
    fs::write(home.path("vault/beside"), "beside").unwrap();
    wait_until("all is sealed anew", || needed(&keyed) == ["new", "old"]);
    wait_until("what stays is told", || {
        let said = home.type_in("status vault").exits(0).out;
        said.contains("new key") && said.contains("for old states")
    });
    ten_days_go_by(&keyed);
    keyed.by("recovery", "gc vault").exits(0);
    gone(daemon);
    mount("");
    wait_until("nothing needs the old key", || needed(&keyed) == ["new", "nothing"]);
    home.type_in("key list vault").exits(0).says("nothing in the bucket");
    for (name, size) in [("old", 9), ("file", 9), ("large", 300_000)] {
        let found = fs::read(home.path("vault").join(name)).unwrap();
        assert!(found == name.repeat(size).as_bytes(), "{name}");
    }
    assert_eq!(fs::read(home.path("vault/beside")).unwrap(), b"beside");
    home.type_in("umount vault").exits(0);
    keyed.by("recovery", "check --read-data").exits(0);
    // An attacker with the old superblock and its secret.
    fs::remove_dir_all(home.path("bucket/superblock")).unwrap();
    fs::rename(home.path("kept"), home.path("bucket/superblock")).unwrap();
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/read_vault.py");
    let python = Command::new(reader.with_file_name("reader-python")).output().unwrap();
    for verb in ["extract", "salvage"] {
        let mut read = Command::new(String::from_utf8(python.stdout.clone()).unwrap().trim());
        read.arg(&reader)
            .arg(home.path("bucket"))
            .arg("--passphrase-file")
            .arg(home.path("recovery"));
        let done: Done = read.arg(verb).arg(home.path(verb)).output().unwrap().into();
        // Salvage succeeds, but finds nothing.
        assert!(done.code != 0 || verb == "salvage", "{verb}: {done:?}");
        let all = walkdir::WalkDir::new(home.path(verb)).into_iter().filter_map(Result::ok);
        assert_eq!(all.filter(|entry| entry.file_type().is_file()).count(), 0, "{verb}");
    }
}

#[test]
fn k8_without_a_mount_the_command_seals_all_anew_before_it_ends() {
    let keyed = Keyed::new();
    let home = &keyed.home;
    keyed.by("recovery", &format!("mount vault {}", keyed.bucket())).exits(0);
    fs::write(home.path("vault/old"), "by the old key").unwrap();
    fs::write(home.path("vault/file"), "before").unwrap();
    home.type_in("umount vault").exits(0);
    keyed
        .by("recovery", &format!("key rotate --rewrite {}", keyed.bucket()))
        .exits(0)
        .says("All that the vault needs now is sealed with the new key")
        .says("stay in the bucket for old states");
    keyed.by("recovery", &format!("key list {}", keyed.bucket())).exits(0).says("old states and");
    both_read(&keyed, "recovery", b"before");
}
