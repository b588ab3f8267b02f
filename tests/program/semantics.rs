//! The semantics of system calls according to `src/SEMANTICS.md`, on a real mount: its examples, and many concurrent
//! users.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use crate::support::home::{Home, PATIENCE, wait_until};

const SEMANTICS: &str = include_str!("../../src/SEMANTICS.md");
/// The heading of the table.
const SECTION: &str = "## What works as on a local disk";

/// The section's table, and the block of examples after it.
fn section() -> (&'static str, &'static str) {
    let from = SEMANTICS.find(SECTION).expect("the section");
    let (table, rest) = SEMANTICS[from..].split_once("```sh\n").expect("a block of examples");
    let (block, _) = rest.split_once("```").expect("its end");
    (table, block)
}

/// An example: its row, what to type, and what that prints.
struct Example {
    row: String,
    line: String,
    expected: String,
}

/// A line is `command # -> output`, with output lines joined by spaces; `# name` begins the examples of a row.
fn examples(block: &str) -> Vec<Example> {
    let (mut found, mut row) = (Vec::new(), String::new());
    for line in block.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("# ") {
            name.clone_into(&mut row);
        } else {
            let (line, expected) = line.rsplit_once("# ->").expect("what it prints");
            let expected = expected.strip_prefix(' ').unwrap_or(expected);
            let (line, expected) = (line.trim().to_owned(), expected.to_owned());
            found.push(Example { row: row.clone(), line, expected });
        }
    }
    found
}

#[test]
fn the_page_says_what_is_so() {
    let (table, block) = section();
    let examples = examples(block);
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let rows: BTreeSet<&str> = rows.filter(|row| !row.starts_with(['|', '-'])).collect();
    let shown: BTreeSet<&str> = examples.iter().map(|example| &*example.row).collect();
    assert!(rows.len() > 10 && rows == shown, "rows without an example, or the other way round");

    let home = Home::new();
    home.type_in("mount vault --allow-other").exits(0);
    let vault = home.path("vault");
    let mut wrong = Vec::new();
    for Example { row, line, expected } in examples {
        // A mount that hangs must not hang the test.
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "50", "sh", "-c", &line]).current_dir(&vault);
        let done = command.env("LC_ALL", "C").output().unwrap();
        let printed = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        let printed: Vec<&str> = printed.iter().flat_map(|text| text.lines()).collect();
        let printed = printed.join(" ");
        if printed != expected {
            wrong.push(format!("{row}: {line}\n  says   {expected}\n  prints {printed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    home.type_in("umount vault").exits(0);
    home.type_in("check --read-data").exits(0);
}

/// The number of users that share a few names, and the steps that each takes.
const USERS: u64 = 64;
const STEPS: u64 = 60;

/// Whether an error can be explained by what the others do.
fn is_fair(error: &io::Error) -> bool {
    // EINVAL: a rename of a directory into itself; EPERM: a link to a directory.
    let fair = [
        libc::ENOENT,
        libc::EEXIST,
        libc::ENOTEMPTY,
        libc::EISDIR,
        libc::ENOTDIR,
        libc::EINVAL,
        libc::EPERM,
    ];
    error.raw_os_error().is_some_and(|errno| fair.contains(&errno))
}

/// One random step in four directories with sixteen names each.
fn step(root: &Path, random: &mut impl FnMut(u64) -> u64) -> io::Result<()> {
    let mut place = || root.join(format!("dir-{}/name-{}", random(4), random(16)));
    let (one, other) = (place(), place());
    match random(12) {
        0..=2 => fs::write(&one, [b'x'; 3000]),
        3 | 4 => fs::rename(&one, &other),
        5 => fs::read(&one).map(drop),
        6 => fs::read_dir(one.parent().unwrap())?.try_for_each(|entry| entry.map(drop)),
        7 => fs::remove_file(&one),
        8 => fs::create_dir(&one),
        9 => fs::remove_dir(&one),
        10 => fs::hard_link(&one, &other),
        _ => fs::metadata(&one).map(drop),
    }
}

fn user(root: &Path, number: u64) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (number + 1);
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    for _ in 0..STEPS {
        match step(root, &mut random) {
            Err(error) if !is_fair(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn many_users_of_the_same_directories_never_wait_for_each_other_for_ever() {
    let home = Home::new();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let dirs: Vec<PathBuf> = (0..4).map(|dir| vault.join(format!("dir-{dir}"))).collect();
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let (sender, receiver) = channel();
    for number in 0..USERS {
        let (vault, sender) = (vault.clone(), sender.clone());
        // Not joined: if a thread hangs, the test reports it, and the daemon's end frees it.
        std::thread::spawn(move || sender.send(user(&vault, number)));
    }
    let deadline = Instant::now() + 4 * PATIENCE;
    for done in 0..USERS {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left) {
            Ok(outcome) => outcome.unwrap(),
            Err(RecvTimeoutError::Timeout) => panic!("{} of {USERS} hang", USERS - done),
            Err(RecvTimeoutError::Disconnected) => panic!("a user panicked"),
        }
    }
    // What is left must be whole: all of it can be read and removed, and then nothing is left.
    for dir in &dirs {
        for entry in walkdir::WalkDir::new(dir).contents_first(true).min_depth(1) {
            let entry = entry.unwrap();
            if entry.file_type().is_dir() {
                fs::remove_dir(entry.path()).unwrap();
            } else {
                let content = fs::read(entry.path()).unwrap();
                assert!(content.iter().all(|byte| *byte == b'x'), "{}", entry.path().display());
                fs::remove_file(entry.path()).unwrap();
            }
        }
        fs::remove_dir(dir).unwrap();
    }
    assert_eq!(fs::read_dir(&vault).unwrap().count(), 0);
    // The kernel takes its time to forget removed inodes.
    wait_until("only the root is left", || home.status(&vault)["files"].as_u64() == Some(1));
    home.type_in("umount vault").exits(0);
}
