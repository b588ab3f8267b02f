//! A vault to be attacked, its expected content, and the observed results.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::home::Home;
use crate::support::noise;

/// A sealed chunk.
pub const CHUNK: usize = 16384 + 16;

/// The exit codes of a mount that is refused for what the bucket holds: a wrong passphrase (a changed key slot looks like one),
/// an unknown format, damage, a rollback.
const REFUSED: [i32; 4] = [1, 4, 16, 17];

/// File contents by name.
type Tree = BTreeMap<String, Vec<u8>>;

/// Where the attack is observed: on the writer's machine, or on one that never saw the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Writers,
    Strangers,
}

/// The expected result of an attack.
pub enum Fate {
    /// The mount is refused with a message that contains all of these.
    Refused(Vec<String>),
    /// Some files cannot be read; all others are whole.
    Errors,
    /// No effect.
    Whole,
    /// Errors or not, since what was read before may be cached on this disk; but never wrong data.
    NeverWrong,
    /// The earlier state, to which the bucket was rolled back, and whole.
    Early,
}

/// A vault, its writer, and pristine copies of both.
pub struct Scene {
    pub home: Home,
    late: Tree,
    early: Tree,
}

impl Scene {
    /// An empty vault, mounted.
    fn mounted() -> Self {
        let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
        let url = format!("file://{}", home.path("bucket").display());
        home.type_in(&format!("init --recovery-file key --bucket {url}")).exits(0);
        // From here on by the recovery key: it is cheap to open, and each attack unlocks the vault four times.
        let key = fs::read_to_string(home.path("key")).unwrap();
        let home = home.with("S3VAULT_PASSPHRASE", key.trim());
        home.type_in(&format!("mount vault --bucket {url}")).exits(0);
        Self { home, late: Tree::new(), early: Tree::new() }
    }

    /// Two states, each with a checkpoint and commits after it. Nobody else has read the commits of the second.
    pub fn new() -> Self {
        let mut scene = Self::mounted();
        for n in 0..6 {
            scene.write(&format!("small-{n}"), n, 3000 + n as usize);
        }
        scene.write("large", 10, 3_000_000);
        scene.type_in("gc vault"); // this makes a checkpoint
        scene.write("after", 11, 20_000);
        scene.early = scene.late.clone();
        scene.copy("bucket", "early");
        for n in 3..9 {
            scene.write(&format!("small-{n}"), 20 + n, 4000 + n as usize);
        }
        scene.write("other", 12, 2_500_000);
        scene.type_in("gc vault");
        for n in 0..3 {
            scene.write(&format!("last-{n}"), 40 + n, 900);
        }
        scene.type_in("umount vault");
        for what in ["bucket", ".local"] {
            scene.copy(what, &format!("good{what}"));
        }
        scene
    }

    /// A vault whose files were sealed together, so that they share a pack, in order.
    pub fn crowded(files: u64, length: usize) -> Self {
        let mut scene = Self::mounted();
        // Files are sealed when they are closed, so all are closed at once; a busy machine may still close the pack in
        // between.
        for _ in 0..40 {
            let mut open = Vec::new();
            for n in 0..files {
                let (name, content) = (format!("small-{n}"), noise(n, length));
                let mut file = fs::File::create(scene.home.path("vault").join(&name)).unwrap();
                file.write_all(&content).unwrap();
                open.push(file);
                scene.late.insert(name, content);
            }
            drop(open);
            scene.type_in("sync vault");
            if scene.read(&scene.large_pack()).len() as u64 > files * length as u64 {
                break;
            }
        }
        scene.type_in("umount vault");
        for what in ["bucket", ".local"] {
            scene.copy(what, &format!("good{what}"));
        }
        scene
    }

    pub fn type_in(&self, line: &str) {
        self.home.type_in(line).exits(0);
    }

    fn write(&mut self, name: &str, seed: u64, length: usize) {
        let content = noise(seed, length);
        fs::write(self.home.path("vault").join(name), &content).unwrap();
        self.late.insert(name.to_owned(), content);
        self.type_in("sync vault");
    }

    /// Copies a directory with the times of all objects.
    pub fn copy(&self, from: &str, to: &str) {
        let to = self.home.path(to);
        drop(fs::remove_dir_all(&to));
        let copied = Command::new("cp").arg("-a").args([self.home.path(from), to]).status();
        assert!(copied.unwrap().success());
    }

    /// Restores everything to the state before the attack.
    pub fn restore(&self, seen: Seen) {
        self.copy("goodbucket", "bucket");
        self.copy("good.local", ".local");
        if seen == Seen::Strangers {
            fs::remove_dir_all(self.home.path(".local")).unwrap();
        }
    }

    pub fn object(&self, name: &str) -> PathBuf {
        self.home.path("bucket").join(name)
    }

    /// The names of the objects below a prefix, sorted.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let root = self.home.path("bucket");
        let entries = walkdir::WalkDir::new(root.join(prefix)).sort_by_file_name();
        let files = entries.into_iter().flatten().filter(|entry| entry.file_type().is_file());
        let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
        files.map(|entry| name(entry.path())).collect()
    }

    pub fn last(&self, prefix: &str) -> String {
        self.objects(prefix).pop().expect("one is there")
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.object(name)).unwrap()
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.object(name).parent().unwrap()).unwrap();
        fs::write(self.object(name), bytes).unwrap();
    }

    pub fn swap(&self, one: &str, other: &str) {
        let (first, second) = (self.read(one), self.read(other));
        self.put(one, second);
        self.put(other, first);
    }

    /// A fork by another machine from the early state: the same files, another history.
    pub fn fork(&self) {
        self.copy("early", "fork");
        let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
        let url = format!("file://{}", self.home.path("fork").display());
        other.type_in(&format!("mount vault --take-over --bucket {url}")).exits(0);
        let newest = |bucket: &str| {
            let names = fs::read_dir(self.home.path(bucket).join("log")).unwrap();
            names.map(|entry| entry.unwrap().file_name()).max()
        };
        // The fork needs a commit for each number of the original.
        for _ in 0..100 {
            if newest("fork") > newest("bucket") {
                break;
            }
            fs::write(other.path("vault/small-0"), &self.early["small-0"]).unwrap();
            other.type_in("sync vault").exits(0);
        }
        other.type_in("umount vault").exits(0);
    }

    /// Changes bytes of an object in place.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(name);
        change(&mut bytes);
        self.put(name, bytes);
    }

    /// Tries one attack on both machines.
    pub fn attack(&self, what: &str, attack: impl Fn(&Self), fate: impl Fn(Seen) -> Fate) {
        for seen in [Seen::Strangers, Seen::Writers] {
            self.restore(seen);
            attack(self);
            let begun = Instant::now();
            // The stranger only looks; the writer goes on writing.
            let how = if seen == Seen::Strangers { " --read-only" } else { "" };
            let done = self.home.type_in(&format!("mount vault{how}"));
            let what = format!("{what}, {seen:?}: {}{}", done.out, done.err);
            let fate = fate(seen);
            let is_damage = matches!(fate, Fate::Refused(_) | Fate::Errors | Fate::NeverWrong);
            match fate {
                Fate::Refused(words) => {
                    assert!(REFUSED.contains(&done.code), "{}: {what}", done.code);
                    words
                        .iter()
                        .for_each(|word| assert!(done.err.contains(word), "{word}: {what}"));
                    assert!(!done.err.contains("panic"), "{what}");
                }
                expected => {
                    assert_eq!(done.code, 0, "{what}");
                    self.look(&what, &expected);
                    self.type_in("umount vault");
                }
            }
            // `check` sees objects that a mount may never touch, and knows what this machine saw.
            let checked = self.home.type_in("check --read-data");
            let said = format!("check, {what}: {}{}", checked.out, checked.err);
            assert!(
                checked.code == 0 && !is_damage || checked.code > 2,
                "{}: {said}",
                checked.code
            );
            assert!(!said.contains("panic"), "{said}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", begun.elapsed());
        }
    }

    fn look(&self, what: &str, fate: &Fate) {
        let tree = if matches!(fate, Fate::Early) { &self.early } else { &self.late };
        let mut errors = 0;
        for (name, content) in tree {
            match fs::read(self.home.path("vault").join(name)) {
                Ok(shown) => assert!(shown == *content, "wrong data in {name}: {what}"),
                Err(error) if error.raw_os_error() == Some(libc::EIO) => errors += 1,
                Err(error) => panic!("{name}: {error}: {what}"),
            }
        }
        let listed =
            fs::read_dir(self.home.path("vault")).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match listed {
            Ok(entries) => assert_eq!(entries.len(), tree.len(), "{what}"),
            Err(error) => {
                let is_told = error.raw_os_error() == Some(libc::EIO);
                assert!(is_told && matches!(fate, Fate::Errors), "{error}: {what}");
            }
        }
        match fate {
            Fate::Errors => assert!(errors > 0, "nobody noticed: {what}"),
            Fate::NeverWrong => {}
            Fate::Whole | Fate::Early => assert_eq!(errors, 0, "{what}"),
            Fate::Refused(_) => unreachable!("it is mounted"),
        }
    }

    /// The pack of `large`, which is the largest.
    pub fn large_pack(&self) -> String {
        let length = |name: &String| fs::metadata(self.object(name)).unwrap().len();
        self.objects("pack").into_iter().max_by_key(length).unwrap()
    }
}
