//! The program on imperfect machines: small files emptied by a power cut, two containers that share a home, full
//! outputs, limits, names that are not text, passphrases written by other systems.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::home::{Done, Home, mounts_below, runs};

/// A home whose vault at `file://.../bucket` has a passphrase.
fn with_vault() -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    home
}

/// The only file in the data directory whose name has this suffix.
fn data_file(home: &Home, suffix: &str) -> PathBuf {
    let entries = fs::read_dir(home.data()).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.to_string_lossy().ends_with(suffix)).unwrap()
}

/// Runs the program under a wrapper such as `unshare -n`.
fn run_by(home: &Home, wrapper: &[&str], line: &str) -> Done {
    let own = home.command(line.split_whitespace());
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(own.get_program()).args(own.get_args());
    command.current_dir(home.path("")).stdin(Stdio::null());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap().into()
}

#[test]
fn o2_a_memory_that_a_power_cut_emptied_is_said_and_accept_rollback_gets_out() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    fs::write(home.path("vault/file"), "kept").unwrap();
    home.type_in("umount vault").exits(0);
    let (seen, probed) = (data_file(&home, ".seen"), data_file(&home, ".probed"));
    for damaged in [&b""[..], b"not sealed by anybody"] {
        fs::write(&seen, damaged).unwrap();
        fs::write(&probed, "").unwrap();
        home.type_in("mount vault").exits(16).says("--accept-rollback").says("damaged");
        home.type_in("mount vault --read-only").exits(16).says("--accept-rollback");
        assert_eq!(fs::read(&seen).unwrap(), damaged, "nothing is forgotten by itself");
        home.type_in("mount vault --accept-rollback").exits(0).says("begun anew");
        assert_eq!(fs::read_to_string(home.path("vault/file")).unwrap(), "kept");
        home.type_in("umount vault").exits(0);
        // What can be learned again is, without a message.
        assert_eq!(fs::read_to_string(&probed).unwrap(), "not disproved");
    }
    home.type_in("mount vault").exits(0);
    home.type_in("umount vault").exits(0);
}

#[test]
fn w2_a_second_container_with_the_same_home_is_refused_and_the_first_goes_on() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    fs::write(vault.join("file"), "one").unwrap();
    let daemon = home.daemon(&vault);
    let container = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"];
    for options in ["", "--read-only", "--take-over"] {
        let second = run_by(&home, &container, &format!("mount elsewhere {options}"));
        second.exits(11).says(&vault.display().to_string());
    }
    run_by(&home, &container, "status").exits(0);
    assert!(runs(daemon));
    fs::write(vault.join("file"), "two").unwrap();
    home.type_in("sync").exits(0);
    // The first container's note was left alone.
    home.type_in("umount vault").exits(0);
    home.type_in("mount vault").exits(0);
    assert_eq!(fs::read_to_string(vault.join("file")).unwrap(), "two");
    home.type_in("umount vault").exits(0);
}

/// Runs the program with a redirection of its output, in shell syntax.
fn with_output(home: &Home, line: &str, output: &str) -> Done {
    run_by(home, &["sh", "-c", &format!("exec \"$0\" \"$@\" {output}")], line)
}

#[test]
fn a_recovery_key_that_nobody_can_see_opens_nothing() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let init = format!("init --bucket file://{}", home.path("bucket").display());
    for output in [">/dev/full", ">&-"] {
        with_output(&home, &init, output).exits(1).says("recovery key").says("nothing was made");
        assert!(!home.path("bucket/superblock").exists());
    }
    // A reader that closes the pipe before reading.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.command(init.split_whitespace());
    let done: Done = command.stdout(writer).output().unwrap().into();
    done.exits(1).says("nothing was made");
    home.type_in(&init).exits(0).says("Recovery key");
    for output in [">/dev/full", ">&-"] {
        let add = "serve token add laptop --write";
        with_output(&home, add, output).exits(1).says("cannot be written");
    }
    assert_eq!(home.type_in("serve token list").exits(0).out, "");
}

#[test]
fn a_report_that_cannot_be_written_is_no_success_and_one_that_nobody_reads_is() {
    let home = with_vault();
    for line in ["status", "status --json", "check"] {
        for output in [">/dev/full", ">&-"] {
            with_output(&home, line, output).exits(1).says("cannot be written");
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = home.command(line.split_whitespace());
        let done: Done = command.stdout(writer).output().unwrap().into();
        done.exits(0);
    }
}

#[test]
fn a_shell_that_limits_files_is_outgrown_or_told() {
    let home = with_vault();
    // A soft limit is raised. (dash counts in units of 512 bytes.)
    run_by(&home, &["sh", "-c", "ulimit -S -f 2000; exec \"$0\" \"$@\""], "mount vault").exits(0);
    // A write beyond the limit must fail, not kill the process.
    let status = format!("/proc/{}/status", home.daemon(&home.path("vault")));
    let status = fs::read_to_string(status).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert!(ignored & (1 << (libc::SIGXFSZ - 1)) != 0, "{status}");
    fs::write(home.path("vault/file"), vec![7; 9 << 20]).unwrap();
    home.type_in("umount vault").exits(0);
    // A hard limit, for a user who may not raise it: a warning if it is large enough, otherwise refused.
    let limited = |blocks: u64| {
        format!("ulimit -f {blocks}; exec setpriv --bounding-set -sys_resource \"$0\" \"$@\"")
    };
    run_by(&home, &["sh", "-c", &limited(400_000)], "mount vault").exits(0).says("ulimit -f");
    fs::write(home.path("vault/file"), vec![8; 9 << 20]).unwrap();
    home.type_in("umount vault").exits(0);
    run_by(&home, &["sh", "-c", &limited(2000)], "mount vault").exits(19).says("ulimit -f");
    assert!(mounts_below(&home.path("vault")).is_empty());
}

#[test]
fn a_mountpoint_that_is_no_utf8_works() {
    let home = with_vault();
    let name = OsString::from_vec(b"v\xff\xfe \n".to_vec());
    let vault = home.path(&name);
    let arguments = |word: &str| [OsString::from(word), vault.clone().into_os_string()];
    home.run(arguments("mount")).exits(0);
    fs::write(vault.join("file"), "kept").unwrap();
    assert_eq!(home.status(&vault)["state"], "mounted");
    home.run([OsStr::new("sync"), vault.join("file").as_os_str()]).exits(0);
    home.run(arguments("mount")).exits(11);
    home.run(arguments("umount")).exits(0);
    assert_eq!(fs::read_dir(&vault).unwrap().count(), 0);
    // The note for a client that lost its connection.
    let vaults = fs::read_dir(home.state()).unwrap();
    let last = vaults.last().unwrap().unwrap().path().join("last.json");
    let last: serde_json::Value = serde_json::from_slice(&fs::read(last).unwrap()).unwrap();
    assert!(last["pid"].is_u64() && last["failure"].is_null(), "{last}");
}

#[test]
fn a_machine_that_looks_like_another_is_told_of_its_name() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let bucket = home.path("bucket");
    let other =
        Home::new().with("S3VAULT_PASSPHRASE", "correct horse").with("S3VAULT_MACHINE_ID", "");
    let mount = format!("mount vault --bucket file://{}", bucket.display());
    other.type_in(&mount).exits(12).says("S3VAULT_MACHINE_ID");
    home.type_in("umount vault").exits(0);
}

#[test]
fn the_same_passphrase_in_other_bytes_is_refused_with_a_hint() {
    let home = Home::new();
    let url = format!("file://{}", home.path("bucket").display());
    fs::write(home.path("made"), "na\u{ef}ve\n").unwrap();
    let made = home.type_in(&format!("init --bucket {url} --passphrase-file made")).exits(0);
    let mount = |content: &[u8]| {
        fs::write(home.path("given"), content).unwrap();
        home.type_in("mount vault --passphrase-file given").exits(4)
    };
    mount("na\u{ef}ve\r\n".as_bytes()).says("without a carriage return");
    mount("\u{feff}nai\u{308}ve".as_bytes()).says("NFC").says("byte order mark");
    let wrong = mount(b"naive");
    assert!(!wrong.err.contains("opens it"), "{}", wrong.err);
    // A recovery key with two letters swapped.
    let mut lines = made.out.lines().skip_while(|line| !line.starts_with("Recovery key"));
    let mut key = lines.nth(1).unwrap().trim().as_bytes().to_vec();
    let at = key.windows(2).position(|two| two[0] != two[1] && !two.contains(&b'-')).unwrap();
    key.swap(at, at + 1);
    mount(&key).says("typing error");
    home.type_in("mount vault --passphrase-file missing").exits(2).says("missing");
    home.type_in("mount vault --passphrase-file made --memory 1MiB").exits(2).says("64MB");
    home.type_in("mount vault --passphrase-file made --cache-size 1MiB").exits(2).says("64MB");
}

#[test]
fn a_mount_that_cannot_be_makes_no_vault() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let no_device = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec \"$0\" \"$@\"";
    for (wrapper, why) in [
        (&["setpriv", "--bounding-set", "-sys_admin"][..], "CAP_SYS_ADMIN"),
        (&["unshare", "--mount", "sh", "-c", no_device], "there is no /dev/fuse"),
    ] {
        run_by(&home, wrapper, "mount vault").exits(20).says(why).says("nothing was made");
        for path in [home.path("vault"), home.data(), home.state(), home.config()] {
            assert!(!path.exists(), "{}", path.display());
        }
    }
    home.type_in("mount vault").exits(0);
    home.type_in("umount vault").exits(0);
}
