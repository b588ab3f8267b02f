//! The program as people and scripts use it: real mounts, with directories as stores.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::home::{Home, detach, mounts_below, runs, signal, wait_until};
use crate::support::terminal::at_a_terminal;

/// A home whose vault at `file://.../bucket` has a passphrase.
fn with_vault() -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    home
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_mount_needs_nothing_and_the_second_neither() {
    let home = Home::new();
    let done = home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let key = home.config().join("embedded.key");
    for said in
        ["a key was generated", "Recovery key", "umount", "daemon.log", &key.display().to_string()]
    {
        assert!(done.out.contains(said), "no {said:?} in:\n{}", done.out);
    }
    assert_eq!((mode(&key), mode(&home.config())), (0o600, 0o700));
    fs::write(vault.join("hello.txt"), "hello").unwrap();
    fs::create_dir(vault.join("dir")).unwrap();
    home.type_in("sync vault/dir").exits(0).says("everything is in the bucket");
    let status = home.status(&vault);
    assert_eq!(
        (status["state"].as_str(), status["unsent_changes"].as_u64()),
        (Some("mounted"), Some(0))
    );
    assert!(status["head"]["number"].as_u64() > Some(0));
    let daemon = home.daemon(&vault);
    home.type_in("umount vault").exits(0).says("everything is in the bucket");
    assert!(!runs(daemon) && mounts_below(&vault).is_empty());
    assert_eq!(fs::read_dir(&vault).unwrap().count(), 0);
    home.type_in("status").exits(0).says("known: file://");
    home.type_in("config show --bucket nope").exits(2).says("no vault is called nope");

    // Neither bucket nor mountpoint need be named again, and no key is made again.
    let done = home.type_in("mount").exits(0);
    assert!(!done.out.contains("Recovery key"), "{}", done.out);
    assert_eq!(fs::read_to_string(vault.join("hello.txt")).unwrap(), "hello");
    // What is written now stays unsent while the store is away.
    fs::rename(home.data().join("store"), home.path("away")).unwrap();
    fs::write(vault.join("second.txt"), "second").unwrap();
    assert!(home.status(&vault)["unsent_changes"].as_u64() > Some(0));
    fs::rename(home.path("away"), home.data().join("store")).unwrap();
    home.type_in("umount vault").exits(0);
    // After the loss of the state directory, too.
    fs::remove_dir_all(home.state()).unwrap();
    home.type_in("mount").exits(0);
    let entries = ["the root", "hello.txt", "second.txt", "dir"];
    assert_eq!(home.status(&vault)["files"], entries.len());
    assert_eq!(fs::read_to_string(vault.join("second.txt")).unwrap(), "second");
    assert_eq!(fs::read_to_string(vault.join("hello.txt")).unwrap(), "hello");
    home.type_in("umount vault").exits(0);
}

#[test]
fn another_machine_opens_it_with_passphrase_or_recovery_key() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let url = format!("file://{}", home.path("bucket").display());
    let done = home.type_in(&format!("init --bucket {url}")).exits(0);
    let mut lines = done.out.lines().skip_while(|line| !line.starts_with("Recovery key"));
    let recovery = lines.nth(1).unwrap().trim();
    assert!(lines.all(|line| line.len() < 80 || line.contains("/tmp")), "{}", done.out);
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/file"), vec![7; 100_000]).unwrap();
    home.type_in("umount vault").exits(0);

    let other = Home::new();
    fs::write(other.path("secret"), format!("{recovery}\n")).unwrap();
    let mount = format!("mount elsewhere --bucket {url} --passphrase-file secret");
    other.type_in(&mount).exits(0);
    assert_eq!(fs::read(other.path("elsewhere/file")).unwrap(), vec![7; 100_000]);
    other.type_in("umount elsewhere").exits(0);
    fs::write(other.path("secret"), "correct horse").unwrap();
    other.type_in("mount --passphrase-file secret --read-only").exits(0).says("read-only");
    assert_eq!(fs::read(other.path("elsewhere/file")).unwrap(), vec![7; 100_000]);
    let error = fs::write(other.path("elsewhere/new"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    other.type_in("umount elsewhere").exits(0);
}

#[test]
fn each_mistake_has_its_line_and_its_code() {
    let home = with_vault();
    let bucket = home.path("bucket").display().to_string();
    home.type_in(&format!("init --bucket file://{bucket}")).exits(9).says("already");
    home.type_in("init --bucket ftp://x").exits(2).says("s3://");
    fs::write(home.path("wrong"), "battery staple").unwrap();
    home.type_in("mount vault --passphrase-file wrong").exits(4).says("wrong passphrase");
    home.type_in("mount vault --passphrase-file missing").exits(2).says("missing");
    assert!(!home.path("vault").exists(), "a mountpoint is made for a mount that works only");
    fs::create_dir(home.path("empty")).unwrap();
    home.type_in(&format!("mount vault --bucket file://{}/empty", home.path("").display()))
        .exits(8)
        .says("init");
    home.type_in(&format!("mount vault --bucket file://{bucket}/missing"))
        .exits(7)
        .says("no directory");
    fs::create_dir(home.path("full")).unwrap();
    fs::write(home.path("full/file"), "kept").unwrap();
    home.type_in("mount full").exits(10).says("not empty");
    home.type_in("mount full/file").exits(10).says("not a directory");
    home.type_in("mount /proc").exits(10);
    home.type_in("umount full").exits(13).says("no s3vault mount");
    home.type_in("status full").exits(13);
    home.type_in("sync").exits(13);
    home.type_in("frobnicate").exits(2);
    let nobody = Home::new();
    nobody
        .type_in(&format!("mount vault --bucket file://{bucket}"))
        .exits(3)
        .says("--passphrase-file");
    nobody.type_in(&format!("init --bucket file://{}", nobody.path("new").display())).exits(3);
    fs::write(home.path("broken.toml"), "vault = 3").unwrap();
    home.type_in("--config broken.toml mount vault").exits(2).says("broken.toml");
}

#[test]
fn a_store_that_does_not_answer_is_named() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "x");
    let home = home.with("AWS_ACCESS_KEY_ID", "a").with("AWS_SECRET_ACCESS_KEY", "b");
    let arguments = "--bucket s3://some-bucket --endpoint-url http://127.0.0.1:9 --region r";
    home.type_in(&format!("mount vault {arguments}")).exits(5).says("http://127.0.0.1:9");
    home.type_in(&format!("init {arguments}")).exits(5);
}

#[test]
fn several_vaults_are_told_apart() {
    let home = with_vault();
    home.type_in(&format!("init --bucket file://{}", home.path("other").display())).exits(0);
    home.type_in("mount vault").exits(2).says("several").says("/other").says("/bucket");
    home.type_in(&format!("mount vault --bucket file://{}", home.path("other").display())).exits(0);
    home.type_in("umount vault").exits(0);
    home.type_in("mount vault").exits(0).says("/other");
    home.type_in("umount vault").exits(0);
}

#[test]
fn mounted_already_is_said() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    home.type_in("mount vault").exits(11).says("mounted already");
    home.type_in("mount elsewhere").exits(11).says("/vault");
    // Nor with another state directory: a machine has only one writer per vault.
    home.type_in("mount elsewhere --state-dir state2").exits(11).says("/vault");
    home.type_in("umount vault").exits(0);
}

#[test]
fn the_daemon_knows_secrets_only_from_the_pipe() {
    let home =
        with_vault().with("AWS_ACCESS_KEY_ID", "id").with("AWS_SECRET_ACCESS_KEY", "very secret");
    let home = home.with("AWS_SESSION_TOKEN", "very secret");
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let daemon = home.daemon(&vault);
    let environment = fs::read(format!("/proc/{daemon}/environ")).unwrap();
    let line = fs::read(format!("/proc/{daemon}/cmdline")).unwrap();
    for text in [environment, line] {
        let text = String::from_utf8_lossy(&text).into_owned();
        for secret in ["correct horse", "very secret", "PASSPHRASE"] {
            assert!(!text.contains(secret), "{secret} in {text:?}");
        }
    }
    fs::write(vault.join("a-name-that-nobody-may-see"), "x").unwrap();
    drop(fs::read(vault.join("another-name")));
    let log = home.status(&vault)["log"].as_str().unwrap().to_owned();
    home.type_in("umount vault").exits(0);
    assert_eq!(mode(Path::new(&log)), 0o600);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("mounted") && !log.contains("-name"), "{log}");
}

#[test]
fn umount_waits_for_open_files_and_force_does_not() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    fs::write(vault.join("closed"), "closed").unwrap();
    let open = fs::File::create(vault.join("open")).unwrap();
    home.type_in("umount vault").exits(15).says("busy");
    assert_eq!(home.status(&vault)["state"], "mounted");
    let daemon = home.daemon(&vault);
    let code = home.type_in("umount vault --force").code;
    assert!(code == 0 || code == 22, "{code}");
    wait_until("the daemon is gone", || !runs(daemon));
    assert!(mounts_below(&vault).is_empty());
    drop(open);
    home.type_in("mount vault").exits(0);
    assert_eq!(fs::read_to_string(vault.join("closed")).unwrap(), "closed");
    home.type_in("umount vault").exits(0);
}

#[test]
fn force_ends_a_daemon_that_hangs() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    fs::write(vault.join("closed"), "closed").unwrap();
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::STOP);
    // On a busy machine some of its threads still run for a moment.
    wait_until("it is stopped", || {
        let threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap().flatten();
        threads
            .map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default())
            .all(|stat| stat.is_empty() || stat.contains(") T "))
    });
    home.type_in("status vault").exits(0).says("does not answer");
    home.type_in("umount vault --force").exits(22).says("is not known");
    assert!(!runs(daemon) && mounts_below(&vault).is_empty());
    home.type_in("mount vault").exits(0);
    assert_eq!(fs::read_to_string(vault.join("closed")).unwrap(), "closed");
    home.type_in("umount vault").exits(0);
}

#[test]
fn a_dead_mount_is_cleaned_up_and_closed_files_are_there() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    for number in 0..20 {
        fs::write(vault.join(number.to_string()), format!("file {number}")).unwrap();
    }
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("the daemon is gone", || !runs(daemon));
    home.type_in("mount vault").exits(0).says("Cleaned up a dead mount");
    for number in 0..20 {
        assert_eq!(
            fs::read_to_string(vault.join(number.to_string())).unwrap(),
            format!("file {number}")
        );
    }
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("the daemon is gone", || !runs(daemon));
    home.type_in("umount vault").exits(14).says("dead mount");
    assert!(mounts_below(&vault).is_empty());
}

/// What only this machine has is said, whoever asks, and nothing else is claimed.
#[test]
fn what_a_killed_daemon_left_unsent_is_told_by_all_who_look() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let (vault, bucket, away) = (home.path("vault"), home.path("bucket"), home.path("away"));
    fs::write(vault.join("sent"), "1").unwrap();
    home.type_in("sync").exits(0).says("everything is in the bucket");
    fs::rename(&bucket, &away).unwrap();
    fs::write(vault.join("thesis"), "2").unwrap();
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("the daemon is gone", || !runs(daemon));
    fs::rename(&away, &bucket).unwrap();
    home.type_in("status").exits(0).says("NOT ENDED WELL");
    let told = home.type_in("doctor").out;
    assert!(told.contains("did not end well"), "{told}");

    let text = "not in the bucket yet";
    home.type_in("mount vault --read-only").exits(0).says(text);
    assert!(vault.join("sent").exists() && !vault.join("thesis").exists());
    assert!(home.status(&vault)["unsent_not_shown"].as_u64() > Some(0));
    home.type_in("sync").exits(14).says(text);
    home.type_in("umount vault").exits(0).says(text);

    home.type_in("mount vault").exits(0);
    assert_eq!(fs::read_to_string(vault.join("thesis")).unwrap(), "2");
    home.type_in("umount vault").exits(0).says("everything is in the bucket");
    let told = home.type_in("status").exits(0).out;
    assert!(!told.contains("NOT ENDED WELL"), "{told}");
    home.type_in("mount vault --read-only").exits(0);
    assert!(home.status(&vault)["unsent_not_shown"].is_null());
    home.type_in("sync").exits(0).says("open for reading");
    home.type_in("umount vault").exits(0);
}

#[test]
fn sigterm_finishes_and_releases() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    fs::write(vault.join("file"), vec![1; 3_000_000]).unwrap();
    // Open files do not stop a signal from ending it.
    let open = fs::File::open(vault.join("file")).unwrap();
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::TERM);
    wait_until("the daemon is gone", || !runs(daemon));
    drop(open);
    // The vault is released: another machine needs no --take-over.
    let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    other
        .type_in(&format!("mount vault --bucket file://{}", home.path("bucket").display()))
        .exits(0);
    assert_eq!(fs::read(other.path("vault/file")).unwrap(), vec![1; 3_000_000]);
    other.type_in("umount vault").exits(0);
}

#[test]
fn after_an_unmount_by_others_the_daemon_finishes_by_itself() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    fs::write(vault.join("file"), vec![2; 3_000_000]).unwrap();
    let daemon = home.daemon(&vault);
    detach(&vault);
    wait_until("the daemon is gone", || !runs(daemon));
    let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    other
        .type_in(&format!("mount vault --bucket file://{}", home.path("bucket").display()))
        .exits(0);
    assert_eq!(fs::read(other.path("vault/file")).unwrap(), vec![2; 3_000_000]);
    other.type_in("umount vault").exits(0);
}

#[test]
fn in_the_foreground_signals_are_handed_on_and_the_end_of_one_is_the_end_of_both() {
    let home = with_vault();
    let vault = home.path("vault");
    let mounted = || !mounts_below(&vault).is_empty();
    let mut front = home.spawn("mount vault --foreground");
    wait_until("it is mounted", mounted);
    fs::write(vault.join("file"), "x").unwrap();
    signal(front.id(), Signal::INT);
    assert_eq!(front.wait().unwrap().code(), Some(0));
    assert!(!mounted());

    let mut front = home.spawn("mount vault --foreground");
    wait_until("it is mounted", mounted);
    assert_eq!(fs::read_to_string(vault.join("file")).unwrap(), "x");
    wait_until("it is noted", || home.type_in("status vault").code == 0);
    let daemon = home.daemon(&vault);
    front.kill().unwrap();
    front.wait().unwrap();
    wait_until("the daemon is gone", || !runs(daemon));
    assert!(!mounted());
}

#[test]
fn another_machines_claim_is_respected_until_it_is_taken_over() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/one"), "1").unwrap();
    home.type_in("sync").exits(0);
    let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let mount = format!("mount vault --bucket file://{}", home.path("bucket").display());
    other.type_in(&mount).exits(12).says("--take-over");
    other.type_in(&format!("{mount} --read-only")).exits(0);
    assert_eq!(fs::read_to_string(other.path("vault/one")).unwrap(), "1");
    other.type_in("umount vault").exits(0);
    other.type_in(&format!("{mount} --take-over")).exits(0);
    fs::write(other.path("vault/two"), "2").unwrap();
    other.type_in("sync").exits(0);
    // The first machine notices with its next commit.
    drop(fs::write(home.path("vault/three"), "3"));
    let done = home.type_in("sync");
    assert_eq!(done.code, 18, "{}", done.err);
    assert!(home.status(&home.path("vault"))["read_only_reason"].is_string());
    let error = fs::write(home.path("vault/four"), "4").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let daemon = home.daemon(&home.path("vault"));
    home.type_in("umount vault").exits(18);
    // The daemon has ended, so nothing is in the way of the next mount.
    assert!(!runs(daemon));
    home.type_in("mount vault --take-over").exits(0);
    assert_eq!(fs::read_to_string(home.path("vault/two")).unwrap(), "2");
    other.type_in("umount vault").exits(18);
    // What it had not sent is set aside, and comes back beside what is there now.
    home.type_in("recover vault --list").exits(0).says("changes that were set aside");
    assert!(!home.path("vault/three").exists());
    home.type_in("recover vault --remove")
        .exits(0)
        .says("Recovered 1 file with 1 B into recovered-");
    let recovered = fs::read_dir(home.path("vault")).unwrap().flatten();
    let recovered = recovered.map(|entry| entry.path().join("three")).find(|path| path.exists());
    assert_eq!(fs::read_to_string(recovered.unwrap()).unwrap(), "3");
    home.type_in("recover vault").exits(0).says("Nothing of this vault is set aside");
    home.type_in("umount vault").exits(0);
}

#[test]
fn a_bucket_that_went_back_is_refused() {
    let home = with_vault();
    let (bucket, copy) = (home.path("bucket"), home.path("copy"));
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/one"), "1").unwrap();
    home.type_in("umount vault").exits(0);
    let cp = |from: &Path, to: &Path| {
        assert!(
            std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success()
        );
    };
    cp(&bucket, &copy);
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/two"), "2").unwrap();
    home.type_in("umount vault").exits(0);
    fs::remove_dir_all(&bucket).unwrap();
    cp(&copy, &bucket);
    home.type_in("check").exits(17).says("went back");
    home.type_in("mount vault").exits(17).says("--accept-rollback");
    home.type_in("mount vault --accept-rollback").exits(0);
    assert!(home.path("vault/one").exists());
    home.type_in("umount vault").exits(0);
}

#[test]
fn check_says_what_is_missing() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/file"), vec![3; 200_000]).unwrap();
    home.type_in("umount vault").exits(0);
    home.type_in("check").exits(0);
    home.type_in("check --read-data").exits(0).says("opens");
    let packs: Vec<_> = walkdir::WalkDir::new(home.path("bucket/pack"))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .collect();
    let mut bytes = fs::read(packs[0].path()).unwrap();
    bytes[1000] ^= 1;
    fs::set_permissions(packs[0].path(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(packs[0].path(), &bytes).unwrap();
    home.type_in("check --read-data").exits(16);
    fs::remove_file(packs[0].path()).unwrap();
    home.type_in("check").exits(16);
}

#[test]
fn at_a_terminal_a_passphrase_is_asked_for_and_never_shown() {
    let home = Home::new();
    let init = format!("init --bucket file://{}", home.path("bucket").display());
    let (code, said) = at_a_terminal(&home, &init, &["correct horse", "correct hose"]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = at_a_terminal(&home, &init, &["correct horse", "correct horse"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Recovery key") && !said.contains("correct horse"), "{said}");
    let (code, said) = at_a_terminal(&home, "mount vault", &["wrong", "correct horse"]);
    assert_eq!(code, 0, "{said}");
    home.type_in("umount vault").exits(0);
    let (code, said) =
        at_a_terminal(&home, "mount vault", &["wrong", "wrong", "wrong", "correct horse"]);
    assert_eq!(code, 4, "{said}");
}

/// The logs of all mounts so far.
fn log(home: &Home) -> String {
    let vaults = fs::read_dir(home.state()).unwrap().flatten();
    vaults.filter_map(|vault| fs::read_to_string(vault.path().join("daemon.log")).ok()).collect()
}

#[test]
fn with_vv_the_log_shows_each_request_with_its_inode_and_never_a_name() {
    let home = Home::new();
    home.type_in("mount vault -v").exits(0);
    let file = home.path("vault/very-private-name");
    fs::write(&file, b"very private content").unwrap();
    home.type_in("umount vault").exits(0);
    assert!(!log(&home).contains("request{"), "{}", log(&home));

    home.type_in("mount vault -vv").exits(0);
    fs::write(&file, b"other private content").unwrap();
    let ino = fs::metadata(&file).unwrap().ino();
    Command::new("getfattr").args(["-n", "user.none"]).arg(&file).output().unwrap();
    fs::rename(&file, home.path("vault/another-private-name")).unwrap();
    home.type_in("umount vault").exits(0);
    let log = log(&home);
    let errno = format!(" errno={}}}", libc::ENODATA);
    for (op, ino, end) in [
        ("lookup", 1, "}"),
        ("write", ino, "}"),
        ("flush", ino, "}"),
        ("getxattr", ino, &errno),
        ("rename", 1, "}"),
    ] {
        let request = format!("request{{op={op} ino={ino} number=");
        let is_it = |line: &&str| line.contains(&request) && line.contains(end);
        let line = log.lines().find(is_it).unwrap_or_else(|| panic!("no {request:?} in:\n{log}"));
        assert!(line.contains("close time.busy="), "{line}");
    }
    assert!(!log.contains("private"), "{log}");
}
