//! Looking back as users do: `mount --at`, `history`, `restore`, on real mounts with the store that needs no account.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use crate::support::home::{Home, mounts_below};

/// The current time in the form of `--at`; nothing else happens at the same moment.
fn moment() -> String {
    std::thread::sleep(Duration::from_millis(20));
    let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_vault_as_it_was_is_mounted_beside_the_one_that_is_used() {
    let home = Home::new();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    home.type_in("sync").exits(0);
    let before = moment();
    fs::write(vault.join("file"), "first").unwrap();
    fs::create_dir(vault.join("dir")).unwrap();
    fs::write(vault.join("dir/inner"), vec![7; 300_000]).unwrap();
    home.type_in("sync").exits(0);
    let first = moment();
    fs::write(vault.join("file"), "second version").unwrap();
    fs::remove_dir_all(vault.join("dir")).unwrap();
    home.type_in("sync").exits(0);
    let second = moment();
    fs::remove_file(vault.join("file")).unwrap();
    home.type_in("sync").exits(0);

    // Two mounts of the past at once, beside the mount that goes on writing.
    home.type_in(&format!("mount then --at {first}")).exits(0).says("as of commit");
    home.type_in(&format!("mount later --at {second}")).exits(0).says("read-only");
    let (then, later) = (home.path("then"), home.path("later"));
    assert_eq!(fs::read_to_string(then.join("file")).unwrap(), "first");
    assert_eq!(fs::read(then.join("dir/inner")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read_to_string(later.join("file")).unwrap(), "second version");
    assert!(!later.join("dir").exists() && !vault.join("file").exists());
    let refused = fs::write(then.join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let status = home.status(&then);
    assert_eq!(status["read_only"], true);
    assert!(status["as_of"]["commit"].as_u64() < home.status(&later)["as_of"]["commit"].as_u64());
    home.type_in("status then").exits(0).says("as of commit");
    fs::write(vault.join("more"), "more").unwrap();
    assert!(!then.join("more").exists());

    // The state before the first change is empty; what is not a state is refused.
    home.type_in(&format!("mount none --at {before}")).exits(0);
    assert_eq!(fs::read_dir(home.path("none")).unwrap().count(), 0);
    home.type_in("mount nobody --at 2001-01-01").exits(25).says("the oldest state");
    home.type_in("mount nobody --at tuesday").exits(25).says("no snapshot");
    home.type_in("mount nobody --at now --take-over").exits(2);

    // They end without leaving anything, and are not remembered as mountpoints.
    for mount in ["then", "later", "none"] {
        home.type_in(&format!("umount {mount}")).exits(0).says("is unmounted");
    }
    let id = home.status(&vault)["vault"].as_str().unwrap().to_owned();
    let left = fs::read_dir(home.state().join(id).join("at")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "of those that failed, too: {left:?}");
    home.type_in("umount vault").exits(0);
    home.type_in("mount").exits(0);
    assert_eq!(fs::read_to_string(vault.join("more")).unwrap(), "more");
    home.type_in("umount vault").exits(0);
    // Looking back does not need the vault to be mounted.
    home.type_in(&format!("mount then --at {first}")).exits(0);
    assert_eq!(fs::read_to_string(then.join("file")).unwrap(), "first");
    home.type_in("umount then").exits(0);
    assert!(mounts_below(&home.path("")).is_empty());
}

#[test]
fn a_file_is_brought_back_and_its_history_is_told() {
    let home = Home::new();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let file = vault.join("report.txt");
    fs::write(&file, "the first version").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    home.type_in("sync").exits(0);
    let mtime = file.metadata().unwrap().mtime();
    fs::write(&file, "spoiled").unwrap();
    home.type_in("sync").exits(0);
    home.type_in("restore vault/report.txt").exits(0).says("Brought back 1 file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "the first version");
    let found = file.metadata().unwrap();
    assert_eq!((found.mtime(), found.permissions().mode() & 0o777), (mtime, 0o640));

    home.type_in("sync").exits(0);
    fs::remove_file(&file).unwrap();
    let told = home.type_in("history vault/report.txt").exits(0).says("written").says("deleted");
    let lines: Vec<_> = told.out.lines().collect();
    // A commit may come between the creation and the content.
    assert!(lines[0].contains("created") && lines[..2].concat().contains("17 B"), "{lines:?}");
    assert!(lines.last().unwrap().contains("deleted"), "{lines:?}");
    home.type_in("restore vault/report.txt").exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the first version");

    // A whole directory, from a time, to a new place.
    fs::create_dir_all(vault.join("project/src")).unwrap();
    for number in 0..20 {
        fs::write(vault.join(format!("project/src/{number}")), format!("{number}")).unwrap();
    }
    home.type_in("sync").exits(0);
    let then = moment();
    fs::remove_dir_all(vault.join("project/src")).unwrap();
    home.type_in(&format!("restore vault/project --at {then}")).exits(1).says("--to");
    home.type_in(&format!("restore vault/project/src --at {then}")).exits(0);
    home.type_in(&format!("restore vault/project --at {then} --to vault/copy/of")).exits(0);
    for number in 0..20 {
        for place in ["project", "copy/of"] {
            let text = fs::read_to_string(vault.join(format!("{place}/src/{number}"))).unwrap();
            assert_eq!(text, format!("{number}"));
        }
    }
    home.type_in("restore vault/report.txt --to elsewhere").exits(2).says("not in the mount");
    home.type_in("history vault/nothing").exits(25).says("nothing called nothing");
    home.type_in("history elsewhere").exits(13);
    home.type_in("umount vault").exits(0);
}

fn run(program: &str, arguments: &[&str]) -> String {
    let done = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn snapshots_are_looked_up_by_name_in_the_root_and_hidden_from_listings() {
    let home = Home::new();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    fs::create_dir_all(vault.join("dir/sub")).unwrap();
    fs::write(vault.join("dir/file"), "as it was").unwrap();
    fs::write(vault.join("dir/sub/large"), vec![5; 400_000]).unwrap();
    home.type_in("snapshot create monday vault").exits(0);
    fs::write(vault.join("dir/file"), "as it is").unwrap();
    fs::remove_dir_all(vault.join("dir/sub")).unwrap();
    home.type_in("snapshot create tuesday vault").exits(0);

    let names = |path: &std::path::Path| {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let (all, monday) = (vault.join(".snapshots"), vault.join(".snapshots/monday"));
    assert_eq!(names(&vault), ["dir"]);
    assert_eq!(names(&all), ["monday", "tuesday"]);
    assert_eq!(names(&monday), ["dir"]);
    assert_eq!(fs::read_to_string(monday.join("dir/file")).unwrap(), "as it was");
    assert_eq!(fs::read_to_string(all.join("tuesday/dir/file")).unwrap(), "as it is");
    assert_eq!(fs::read_to_string(vault.join("dir/file")).unwrap(), "as it is");
    assert!(!all.join("tuesday/dir/sub").exists() && !all.join("friday").exists());

    // Inode numbers differ, so nothing takes one file for another.
    let ino = |path: &std::path::Path| path.symlink_metadata().unwrap().ino();
    let inodes = [&vault, &monday, &all.join("tuesday")].map(|root| ino(&root.join("dir/file")));
    assert!(inodes[0] != inodes[1] && inodes[1] != inodes[2]);

    // Nothing there can be changed, and files can only be copied out, not linked or renamed.
    let errno = |done: std::io::Result<()>| done.unwrap_err().raw_os_error().unwrap();
    for done in [
        fs::write(monday.join("dir/file"), "x"),
        fs::write(monday.join("new"), "x"),
        fs::remove_file(monday.join("dir/file")),
        fs::create_dir(monday.join("dir/new")),
        fs::create_dir(all.join("new")),
        fs::rename(monday.join("dir/file"), monday.join("dir/other")),
        fs::set_permissions(monday.join("dir/file"), fs::Permissions::from_mode(0o600)),
    ] {
        assert_eq!(errno(done), 30, "EROFS");
    }
    assert_eq!(errno(fs::rename(monday.join("dir/file"), vault.join("moved"))), 18, "EXDEV");
    assert_eq!(errno(fs::hard_link(monday.join("dir/file"), vault.join("linked"))), 18, "EXDEV");
    fs::copy(monday.join("dir/sub/large"), vault.join("back")).unwrap();
    assert!(fs::read(vault.join("back")).unwrap() == vec![5; 400_000]);

    // As other programs see it.
    let path = |path: &std::path::Path| path.display().to_string();
    assert!(!run("find", &[&path(&vault)]).contains(".snapshots"));
    assert!(run("find", &[&path(&monday), "-type", "f"]).contains("dir/sub/large"));
    assert!(!run("ls", &["-la", &path(&vault)]).contains(".snapshots"));
    assert!(run("ls", &["-la", &path(&all)]).contains("monday"));
    run("cp", &["-a", &path(&monday.join("dir")), &path(&home.path("copy"))]);
    run("diff", &["-r", &path(&monday.join("dir")), &path(&home.path("copy"))]);
    run("du", &["-s", &path(&vault)]);
    let tar = path(&home.path("t.tar"));
    run("tar", &["-cf", &tar, "-C", &path(&monday), "dir"]);
    assert!(run("tar", &["-tf", &tar]).contains("dir/sub/large"));

    home.type_in("snapshot delete monday vault").exits(0);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(names(&all), ["tuesday"]);
    assert!(!monday.join("dir").exists());
    home.type_in("umount vault").exits(0);
    home.type_in("mount vault --no-snapshots-dir").exits(0);
    assert!(!all.exists());
    home.type_in("umount vault").exits(0);
}
