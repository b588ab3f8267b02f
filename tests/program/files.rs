//! Files without a mount: `put`, `get`, `ls` and the rest, with and without a running daemon.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::support::home::{Done, Home, runs, signal, wait_until};
use crate::support::noise;

const MIB: usize = 1 << 20;

/// A home whose vault at `file://.../bucket` has a passphrase.
fn with_vault() -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    home
}

/// A tree with everything that `cp -a` preserves.
fn make_tree(root: &Path) {
    let strange: OsString = OsString::from_vec(b"odd \xff\n'\"$(x)\x1b[31m".to_vec());
    fs::create_dir_all(root.join("sub/deep/empty")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("small"), "small").unwrap();
    fs::write(root.join("-dash"), "dash").unwrap();
    fs::write(root.join(".hidden"), "hidden").unwrap();
    fs::write(root.join("sub").join(&strange), "strange").unwrap();
    fs::write(root.join("n".repeat(255)), "long").unwrap();
    fs::write(root.join("sub/large"), noise(1, 35 * MIB + 17)).unwrap();
    for number in 0..300 {
        fs::write(root.join(format!("sub/deep/{number}")), noise(number, 1000)).unwrap();
    }
    let mut sparse = File::create(root.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(64 << 20)).unwrap();
    sparse.write_all(b"data").unwrap();
    sparse.set_len(100 << 20).unwrap();
    symlink("small", root.join("link")).unwrap();
    symlink("nowhere/at all", root.join("sub/dangling")).unwrap();
    symlink("sub", root.join("to-directory")).unwrap();
    fs::hard_link(root.join("small"), root.join("sub/again")).unwrap();
    let made = Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
    assert!(made.success());
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("empty", 0o4751);
    mode("-dash", 0o400);
    mode("sub/deep/empty", 0o2750);
    mode("sub/deep/7", 0o000);
    let mut set = Command::new("setfattr");
    set.args(["-n", "user.note", "-v", "kept"]).args([root.join("sub"), root.join("small")]);
    assert!(set.status().unwrap().success());
    let time = |name: &str, time: SystemTime| {
        File::open(root.join(name)).unwrap().set_modified(time).unwrap();
    };
    time("small", SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789));
    time("empty", SystemTime::UNIX_EPOCH - Duration::new(5, 7));
    time("sub/deep/empty", SystemTime::UNIX_EPOCH + Duration::from_secs(77));
    time("sub/deep", SystemTime::UNIX_EPOCH + Duration::from_secs(88));
}

/// Checks that two trees are the same: content, modes, owners, times to the nanosecond, links, xattrs.
#[track_caller]
fn same(one: &Path, other: &Path) {
    let slashed = |path: &Path| [path.as_os_str(), OsStr::new("/")].join(OsStr::new(""));
    let done = Command::new("rsync")
        .args(["-aHAXnic", "--delete", "--modify-window=-1"])
        .args([slashed(one), slashed(other)])
        .output()
        .expect("rsync");
    assert!(done.status.success(), "{done:?}");
    let differ = String::from_utf8_lossy(&done.stdout);
    assert_eq!(differ, "", "{} and {}", one.display(), other.display());
}

/// Names in a directory.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Checks that no daemon of this home runs.
#[track_caller]
fn nothing_runs(home: &Home) {
    home.type_in("status").exits(0).says("No mount or service of this user runs");
}

#[test]
fn a_tree_goes_in_and_comes_out_as_it_was_without_a_mount_and_with_one() {
    let home = with_vault();
    let tree = home.path("tree");
    make_tree(&tree);
    home.type_in("put -r tree backup").exits(0);
    home.type_in("get -r backup out").exits(0);
    same(&tree, &home.path("out"));
    let blocks = home.path("out/sparse").metadata().unwrap().blocks();
    assert!(blocks < 1000, "the holes are filled: {blocks} blocks");
    // Again, into the directory, as with cp: files that are the same are skipped, missing or changed ones are fetched.
    fs::write(home.path("out/small"), "other").unwrap();
    fs::remove_file(home.path("out/sub/deep/5")).unwrap();
    let inode = |name: &str| home.path(name).metadata().unwrap().ino();
    let (large, changed) = (inode("out/sub/large"), inode("out/small"));
    home.type_in("get -r backup/. out").exits(0);
    same(&tree, &home.path("out"));
    assert_eq!(inode("out/sub/large"), large);
    assert_ne!(inode("out/small"), changed);

    home.type_in("mount vault").exits(0);
    same(&tree, &home.path("vault/backup"));
    fs::write(tree.join("small"), "changed").unwrap();
    let there = home.path("vault/backup/sub/large").metadata().unwrap().ino();
    home.type_in("put -r tree/. backup").exits(0);
    same(&tree, &home.path("vault/backup"));
    assert_eq!(home.path("vault/backup/sub/large").metadata().unwrap().ino(), there);
    // Everything is in the bucket, as exit code 0 promises.
    assert_eq!(home.status(&home.path("vault"))["unsent_changes"].as_u64(), Some(0));
    home.type_in("get -r backup again").exits(0);
    same(&tree, &home.path("again"));
    home.type_in("umount vault").exits(0);
}

#[test]
fn pipes_of_any_length_go_through_and_nothing_is_left_of_a_broken_one() {
    let home = with_vault();
    let content = noise(7, 100 * MIB + 3);
    let pipe_in = |name: &str, content: &[u8]| -> Done {
        let mut put = home.command(["put", "-", name]);
        put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut put = put.spawn().unwrap();
        put.stdin.take().unwrap().write_all(content).unwrap();
        put.wait_with_output().unwrap().into()
    };
    pipe_in("db/new/today.sql", &content).exits(0);
    pipe_in("empty", b"").exits(0);
    for line in ["get db/new/today.sql -", "cat db/new/today.sql"] {
        let got = home.command(line.split(' ')).output().unwrap();
        assert!(got.status.success() && got.stdout == content, "{line}");
    }
    home.type_in("cat empty db/new/today.sql").exits(0);
    home.type_in("find --type f --print0").exits(0).says("/db/new/today.sql\0/empty\0");
    // A reader that has seen enough.
    let mut cat = home.command(["cat", "db/new/today.sql"]);
    let mut cat = cat.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begin = [0; 10];
    cat.stdout.take().unwrap().read_exact(&mut begin).unwrap();
    assert_eq!((begin[..] == content[..10], cat.wait().unwrap().code()), (true, Some(0)));
    // Killed in the middle: the old content stays, and a new name does not appear.
    for name in ["db/new/today.sql", "db/new/other.sql"] {
        let mut put = home.command(["put", "-", name]);
        let mut put = put.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        put.stdin.as_mut().unwrap().write_all(&content[..30 * MIB]).unwrap();
        put.kill().unwrap();
        put.wait().unwrap();
    }
    let got = home.command(["cat", "db/new/today.sql"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&got.stderr), "");
    assert!(got.status.success() && got.stdout == content);
    home.type_in("ls db/new/other.sql").exits(1).says("no such file or directory in the vault");
    home.type_in("put - db/new").exits(2).says("it is a directory");
}

#[test]
fn commands_do_as_those_of_the_same_name() {
    let home = with_vault();
    // Nobody has written to the vault: it is empty.
    assert_eq!(home.type_in("ls").exits(0).out, "");
    home.type_in("find").exits(0);
    home.type_in("cat a").exits(1).says("no such file or directory in the vault");
    home.type_in("mkdir -p a/b/c d").exits(0);
    home.type_in("mkdir a").exits(1).says("it is there already");
    home.type_in("mkdir x/y").exits(1).says("no such file or directory");
    home.type_in("mkdir -p a").exits(0);
    for name in ["one.txt", "two.txt", "three.jpg", ".dot.txt"] {
        fs::write(home.path(name), name).unwrap();
    }
    home.type_in("put one.txt two.txt three.jpg .dot.txt a").exits(0);
    home.type_in("put one.txt new/").exits(0);
    home.type_in("put one.txt a/b/renamed").exits(0);
    home.type_in("put three.jpg a/b").exits(0);
    let done = home.type_in("ls a").exits(0);
    assert_eq!(done.out, "b\none.txt\nthree.jpg\ntwo.txt\n");
    let done = home.type_in("ls a/*.txt").exits(0);
    assert_eq!(done.out, "a/one.txt\na/two.txt\n");
    home.type_in("ls a/*.png").exits(1).says("nothing in the vault is like this");
    let done = home.type_in("ls -l a/one.txt").exits(0);
    assert!(done.out.starts_with("-rw-r--r-- 1 ") && done.out.contains(" 7 20"), "{}", done.out);
    let done = home.type_in("ls -R a").exits(0);
    assert!(done.out.contains("a/b:\nc\nrenamed\nthree.jpg\n\na/b/c:\n"), "{}", done.out);
    let done = home.type_in("tree a").exits(0);
    assert!(
        done.out.contains("├── b\n│   ├── c\n│   ├── renamed\n│   └── three.jpg\n├── one.txt\n")
    );
    assert!(done.out.ends_with("└── two.txt\n\n2 directories, 5 files\n"), "{}", done.out);
    let done = home.type_in("du -b a").exits(0);
    assert_eq!(done.out, "0\ta/b/c\n16\ta/b\n47\ta\n");
    assert_eq!(home.type_in("du -sb a").exits(0).out, "47\ta\n");
    let done = home.type_in("find a --name *.txt --newer-than 1h").exits(0);
    assert_eq!(done.out, "a/.dot.txt\na/one.txt\na/two.txt\n");
    assert_eq!(home.type_in("find a --newer-than 2099-01-01").exits(0).out, "");

    home.type_in("cp a/one.txt d").exits(0);
    home.type_in("cp a d").exits(1).says("with -r it goes with all that is in it");
    home.type_in("cp -r a d").exits(0);
    home.type_in("cp -r a a/b/self").exits(1).says("cannot be put into itself");
    home.type_in("cp a/one.txt a/one.txt").exits(1).says("the same file");
    home.type_in("cp a/one.txt none/").exits(1).says("no directory");
    home.type_in("cp a/two.txt d/one.txt").exits(0);
    assert_eq!(home.type_in("cat d/one.txt d/a/b/renamed").exits(0).out, "two.txtone.txt");
    home.type_in("mv d/a/b e").exits(0);
    home.type_in("mv a/one.txt a/three.jpg").exits(0);
    assert_eq!(home.type_in("cat a/three.jpg").exits(0).out, "one.txt");
    home.type_in("mv a/b a/two.txt").exits(1).says("no directory");
    home.type_in("mv a/two.txt d/a").exits(0);
    home.type_in("mv a a/b").exits(1).says("cannot be put into itself");
    home.type_in("mv / a").exits(1).says("the root of the vault");
    assert_eq!(
        home.type_in("ls e d/a").exits(0).out,
        "e:\nc\nrenamed\nthree.jpg\n\nd/a:\none.txt\nthree.jpg\ntwo.txt\n"
    );
    home.type_in("rm d").exits(1).says("with -r");
    home.type_in("rm -r /").exits(1).says("the root of the vault, which stays");
    home.type_in("rm d/a/*.txt").exits(0);
    home.type_in("rm -r d e").exits(0);
    home.type_in("rm -f d").exits(0);
    assert_eq!(home.type_in("ls").exits(0).out, "a\nnew\n");
    // Of several, the missing ones are named and counted; the others are removed.
    let done = home.type_in("rm a/none a/b/renamed a/b/none a/b/three.jpg").exits(1);
    assert!(
        done.err.contains("  a/none: there is no such file")
            && done.err.contains("2 of 4 could not be removed")
    );
    assert_eq!(home.type_in("ls a/b").exits(0).out, "c\n");
    fs::create_dir(home.path("out")).unwrap();
    home.type_in("get a/none a/three.jpg out").exits(1).says("1 of 2 could not be brought");
    assert_eq!(fs::read_to_string(home.path("out/three.jpg")).unwrap(), "one.txt");
    home.type_in("get a/three.jpg a/b nowhere").exits(2).says("make it first");
    fs::create_dir(home.path("out/b")).unwrap();
    fs::create_dir(home.path("out/in-the-way")).unwrap();
    home.type_in("cp a/three.jpg a/in-the-way").exits(0);
    home.type_in("get a/in-the-way out").exits(1).says("there is a directory of this name");
    home.type_in("put none one.txt a").exits(1).says("1 of 2 could not be put");
    home.type_in("put out a/three.jpg").exits(1).says("is no directory, and was left");
    assert_eq!(home.type_in("cat a/one.txt").exits(0).out, "one.txt");
    nothing_runs(&home);
}

#[test]
fn names_and_symlinks_of_the_vault() {
    let home = with_vault();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let odd: OsString = OsString::from_vec(b"o\xffd\n".to_vec());
    fs::write(vault.join(&odd), "odd").unwrap();
    fs::create_dir(vault.join("dir")).unwrap();
    fs::write(vault.join("dir/f"), "f").unwrap();
    symlink("dir", vault.join("link")).unwrap();
    symlink("/etc/passwd", vault.join("out")).unwrap();
    symlink("../../x", vault.join("dir/up")).unwrap();
    let listed = home.command(["ls"]).output().unwrap().stdout;
    assert!(listed.windows(odd.len()).any(|part| part == odd.as_encoded_bytes()));
    let got = home.command([OsStr::new("cat"), &odd]).output().unwrap();
    assert_eq!(got.stdout, b"odd");
    assert_eq!(home.type_in("cat link/f").exits(0).out, "f");
    home.type_in("cat out").exits(1).says("leads out of the vault");
    home.type_in("cat dir/up").exits(1).says("leads out of the vault");
    home.type_in("cat dir").exits(1).says("it is a directory");
    home.type_in("get link followed").exits(0);
    home.type_in("get -r link kept").exits(0);
    assert!(home.path("followed/f").exists());
    assert_eq!(fs::read_link(home.path("kept")).unwrap(), Path::new("dir"));
    // Changes by commands are seen in the mount at once.
    assert_eq!(names(&vault.join("dir")).len(), 2);
    let when = vault.join("dir").metadata().unwrap().mtime();
    fs::write(home.path("g"), "g").unwrap();
    home.type_in("put g dir").exits(0);
    home.type_in("mv dir/f dir/moved").exits(0);
    assert_eq!(names(&vault.join("dir")), ["g", "moved", "up"]);
    fs::create_dir(home.path("dir")).unwrap();
    File::open(home.path("dir")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    home.type_in("put dir .").exits(0);
    assert!(when > 0 && vault.join("dir").metadata().unwrap().mtime() == 0);
    home.type_in("rm -r dir").exits(0);
    assert!(!vault.join("dir").exists());
    // Open files are no obstacle, and a vault is found by its name.
    let config = home.config().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("url =", "name = \"home\"\nurl =")).unwrap();
    assert_eq!(home.type_in("cat home:/link/../out home:none").code, 1);
    home.type_in("ls home:").exits(0).says("link");
    home.type_in("umount vault").exits(0);
    home.type_in("ls home:/").exits(0).says("link");
    home.type_in("ls other:a").exits(1).says("no such file or directory");
}

/// Two vaults with names; the second is the one that commands mean when none is named.
fn two_vaults() -> Home {
    let home = with_vault();
    for name in ["home", "other"] {
        let url = format!("file://{}", home.path(name).display());
        home.type_in(&format!("init --bucket {url} --name {name}")).exits(0);
    }
    home
}

#[test]
fn what_one_command_prints_another_takes_for_the_same_vault() {
    let home = two_vaults();
    fs::write(home.path("one.tmp"), "1").unwrap();
    for name in ["home", "other"] {
        home.type_in(&format!("put one.tmp {name}:dir/one.tmp")).exits(0);
        home.type_in(&format!("put one.tmp {name}:./home:x")).exits(0);
    }
    home.type_in("mount vault --bucket other").exits(0);
    assert_eq!(home.type_in("find home:dir --name *.tmp").exits(0).out, "home:dir/one.tmp\n");
    assert_eq!(home.type_in("ls home:dir/one.tmp").exits(0).out, "home:dir/one.tmp\n");
    assert!(home.type_in("du home:").exits(0).out.contains("home:dir"));
    assert!(home.type_in("tree home:dir").exits(0).out.starts_with("home:dir\n"));
    assert_eq!(home.type_in("find ./home:x").exits(0).out, "./home:x\n");
    let found = home.command(["find", "home:dir", "--name", "*.tmp", "--print0"]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    home.type_in(&format!("rm {}", path.trim_end_matches('\0'))).exits(0);
    assert_eq!(home.type_in("find home:dir --name *.tmp").exits(0).out, "");
    assert!(home.path("vault/dir/one.tmp").exists(), "the other vault is left alone");
    home.type_in("umount vault").exits(0);
    // The name decides, whatever bucket is the usual one; and a slip is no file's name.
    let home = home.with("S3VAULT_BUCKET", "other");
    home.type_in("put one.tmp home:usual").exits(0);
    assert_eq!(home.type_in("cat home:usual").exits(0).out, "1");
    assert_eq!(home.type_in("find other: --name *usual").exits(0).out, "");
    home.type_in("put one.tmp hmoe:usual").exits(2).says("is home meant?");
    home.type_in("init --bucket file:///nowhere/x --name home").exits(2).says("already");
    let config = home.config().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("name = \"other\"", "name = \"home\"")).unwrap();
    home.type_in("ls").exits(2).says("two vaults are called home");
}

#[test]
fn what_is_killed_in_the_middle_leaves_nothing_half_and_goes_on() {
    let home = with_vault();
    let tree = home.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..40 {
        fs::write(tree.join(format!("{number}")), noise(number, 2 * MIB)).unwrap();
    }
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let whole = |root: &Path| {
        for name in names(root).iter().filter(|name| !name.to_string_lossy().starts_with('.')) {
            assert!(fs::read(root.join(name)).unwrap() == fs::read(tree.join(name)).unwrap());
        }
    };
    // Killing the client in the middle of put and of get.
    for (line, to) in [("put tree in", vault.join("in")), ("get in out", home.path("out"))] {
        let mut client = home.spawn(line);
        wait_until("some are there", || to.exists() && names(&to).len() > 3);
        client.kill().unwrap();
        client.wait().unwrap();
        whole(&to);
        let again = if line.starts_with("put") { "put tree/. in" } else { "get in/. out" };
        home.type_in(again).exits(0);
        whole(&to);
        assert_eq!(names(&to), names(&tree));
    }
    // Ctrl-C is as orderly.
    let mut client = home.spawn("get in interrupted");
    wait_until("some are there", || {
        home.path("interrupted").exists() && names(&home.path("interrupted")).len() > 3
    });
    signal(client.id(), Signal::INT);
    assert_eq!(client.wait().unwrap().code(), Some(22));
    whole(&home.path("interrupted"));
    assert!(
        names(&home.path("interrupted"))
            .iter()
            .all(|name| !name.to_string_lossy().starts_with('.'))
    );
    // Killing the daemon.
    let daemon = home.daemon(&vault);
    let mut command = home.command(["put", "tree", "second"]);
    let client = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("some are there", || {
        vault.join("second").exists() && names(&vault.join("second")).len() > 3
    });
    signal(daemon, Signal::KILL);
    wait_until("it is gone", || !runs(daemon));
    let done: Done = client.wait_with_output().unwrap().into();
    assert!(done.code != 0 && done.err.contains("ended"), "{done:?}");
    crate::support::home::detach(&vault);
    // What it had confirmed is on this disk, and a command that only reads sees it, too.
    let listed = home.type_in("ls second").exits(0).out;
    assert!(listed.lines().count() > 2, "{listed}");
    home.type_in("put tree/. second").exits(0);
    home.type_in("get second back").exits(0);
    same(&tree, &home.path("back"));
    nothing_runs(&home);
}

#[test]
fn a_full_disk_here_is_said_and_what_is_whole_stays() {
    let home = with_vault();
    fs::create_dir(home.path("tree")).unwrap();
    fs::write(home.path("tree/a"), noise(1, 100_000)).unwrap();
    fs::write(home.path("tree/b"), noise(2, 8 * MIB)).unwrap();
    home.type_in("put tree .").exits(0);
    let small = home.path("small");
    fs::create_dir(&small).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&small);
    if !mount.status().is_ok_and(|done| done.success()) {
        return; // not root
    }
    let done = home.type_in("get tree small");
    let left = names(&small.join("tree"));
    let whole = fs::read(small.join("tree/a")).ok();
    crate::support::home::detach(&small);
    done.exits(19).says("make room");
    assert_eq!((left, whole), (vec!["a".into()], Some(noise(1, 100_000))));
}

#[test]
fn a_vault_that_another_machine_writes_is_read_and_not_written() {
    let home = with_vault();
    fs::write(home.path("f"), "content").unwrap();
    home.type_in("put f dir/").exits(0);
    home.type_in("mount vault").exits(0);
    let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let bucket = format!("--bucket file://{}", home.path("bucket").display());
    assert_eq!(other.type_in(&format!("cat dir/f {bucket}")).exits(0).out, "content");
    other.type_in(&format!("rm dir/f {bucket}")).exits(12).says("for writing");
    home.type_in("umount vault").exits(0);
    other.type_in(&format!("rm dir/f {bucket}")).exits(0);
    home.type_in("ls dir").exits(0);
    home.type_in("cat dir/f").exits(1).says("no such file");
}

#[test]
fn commands_at_the_same_time_wait_for_each_other_or_share_a_daemon() {
    let home = with_vault();
    let begun = Instant::now();
    let all: Vec<(PathBuf, _)> = (0..4)
        .map(|number| {
            let path = home.path(format!("f{number}"));
            fs::write(&path, noise(number, 3 * MIB)).unwrap();
            let mut put = home.command([OsStr::new("put"), path.as_os_str(), OsStr::new("dir/")]);
            (path, put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    let list = home.type_in("ls").exits(0);
    assert!(list.out.is_empty() || list.out == "dir\n", "{}", list.out);
    for (_, put) in all {
        Done::from(put.wait_with_output().unwrap()).exits(0);
    }
    assert_eq!(home.type_in("ls dir").exits(0).out, "f0\nf1\nf2\nf3\n");
    assert!(begun.elapsed() < Duration::from_mins(2));
    nothing_runs(&home);
}

/// A mount or service that joins the daemon of a command lives on when the command has ended, or was killed.
#[test]
fn what_joins_the_daemon_of_a_command_outlives_the_command() {
    let home = Home::new();
    let vault = home.path("vault");
    for (number, is_killed) in [false, true].into_iter().enumerate() {
        let piped = format!("piped-{number}");
        let mut put = home.command(["put", "-", &piped]);
        let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the daemon answers", || home.only_status()["pid"].as_u64().is_some());
        let daemon = home.only_status()["pid"].clone();
        home.type_in("mount vault --foreground").exits(11).says("for a command");
        home.type_in("mount vault --read-only").exits(11).says("for a command");
        home.type_in("mount vault").exits(0).says("had the vault for a command already");
        fs::write(vault.join("by the mount"), "kept").unwrap();
        if is_killed {
            signal(put.id(), Signal::KILL);
            assert!(!put.wait().unwrap().success());
        } else {
            put.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
            let begun = Instant::now();
            Done::from(put.wait_with_output().unwrap()).exits(0);
            assert!(begun.elapsed() < Duration::from_mins(1));
        }
        // What follows is done by the same daemon, and the last of the commands does not end it either.
        home.type_in("ls").exits(0).says("by the mount");
        let status = home.status(&vault);
        assert_eq!((&status["pid"], &status["state"]), (&daemon, &"mounted".into()));
        assert_eq!(fs::read(vault.join("by the mount")).unwrap(), b"kept");
        assert_eq!(vault.join(&piped).exists(), !is_killed);
        home.type_in("umount vault").exits(0).says("everything is in the bucket");
        nothing_runs(&home);
    }

    let mut put = home.command(["put", "-", "served"]);
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the daemon answers", || home.only_status()["pid"].as_u64().is_some());
    home.type_in("serve --listen 127.0.0.1:0 --open").exits(0).says("is served");
    put.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    Done::from(put.wait_with_output().unwrap()).exits(0);
    assert_eq!(home.only_status()["state"], "serving");
    home.type_in("cat served").exits(0).says("from a pipe");
    home.type_in("serve --stop").exits(0).says("everything is in the bucket");
    nothing_runs(&home);
}
