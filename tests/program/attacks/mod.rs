//! What the bucket's owner can try without the key, on a real vault through a real mount: once on a machine that knows
//! only the vault's passphrase, and once on the one that wrote it. Data is never wrong: reads return what was written,
//! or an error, and a mount that is refused names the object. SECURITY.md has the table.

mod argon;
mod scene;

use std::fs::{self, File};

use crate::support::home::{Home, wait_until};
use scene::{CHUNK, Fate, Scene, Seen};

fn says(words: impl IntoIterator<Item = impl Into<String>>) -> Fate {
    Fate::Refused(words.into_iter().map(Into::into).collect())
}

/// A change inside a pack is an error if the pack is read from the bucket.
fn in_a_pack(seen: Seen) -> Fate {
    if seen == Seen::Strangers { Fate::Errors } else { Fate::NeverWrong }
}

/// The writer knows that there were later commits.
fn rolled_back(seen: Seen) -> Fate {
    if seen == Seen::Strangers { Fate::Early } else { says(["went back"]) }
}

#[test]
fn packs_that_were_exchanged_cut_or_changed_are_errors() {
    let scene = Scene::new();
    scene.restore(Seen::Writers);
    let large = scene.large_pack();
    let length = scene.read(&large).len();
    let other = scene.objects("pack").into_iter().find(|name| *name != large).unwrap();
    scene.attack("two packs are swapped", |s| s.swap(&large, &other), in_a_pack);
    let moved = large.replace(&large[5..7], "00");
    let to = moved.clone();
    scene.attack(
        "a pack is moved",
        |s| {
            s.put(&to, s.read(&large));
            fs::remove_file(s.object(&large)).unwrap();
        },
        in_a_pack,
    );
    scene.attack("a pack is gone", |s| fs::remove_file(s.object(&large)).unwrap(), in_a_pack);
    let chunk = |n: usize| 56 + n * CHUNK..56 + (n + 1) * CHUNK;
    scene.attack(
        "two chunks change places",
        |s| {
            s.edit(&large, |bytes| {
                let (one, two) = (bytes[chunk(1)].to_vec(), bytes[chunk(2)].to_vec());
                bytes[chunk(1)].copy_from_slice(&two);
                bytes[chunk(2)].copy_from_slice(&one);
            });
        },
        in_a_pack,
    );
    scene.attack(
        "a chunk is dropped",
        |s| s.edit(&large, |bytes| drop(bytes.drain(chunk(3)))),
        in_a_pack,
    );
    scene.attack(
        "a chunk comes twice",
        |s| {
            s.edit(&large, |bytes| {
                let twice = bytes[chunk(3)].to_vec();
                bytes[chunk(4)].copy_from_slice(&twice);
            });
        },
        in_a_pack,
    );
    for keeps in [0, 1, 55, 56, 57, 56 + CHUNK - 1, 56 + CHUNK, 56 + CHUNK + 1, length / 2] {
        scene.attack(
            &format!("a pack of {keeps} bytes"),
            |s| s.edit(&large, |bytes| bytes.truncate(keeps)),
            in_a_pack,
        );
    }
    scene.attack("a pack of zeros", |s| s.edit(&large, |bytes| bytes.fill(0)), in_a_pack);
    for at in [60, 56 + CHUNK - 1, 1_000_000] {
        scene.attack(
            &format!("a bit at {at}"),
            |s| s.edit(&large, |bytes| bytes[at] ^= 4),
            in_a_pack,
        );
    }
    // The extent map holds the salt and commitment, too.
    scene.attack("a bit of its salt", |s| s.edit(&large, |bytes| bytes[3] ^= 4), |_| Fate::Whole);
}

/// Small files share a pack. Data that is moved within it belongs to another file, or to another place of the same
/// file.
#[test]
fn what_was_moved_about_or_dropped_in_a_shared_pack_is_an_error() {
    let scene = Scene::crowded(8, 40_000);
    scene.restore(Seen::Writers);
    let pack = scene.large_pack();
    let extent = 56 + 2 * CHUNK + (40_000 - 2 * 16384 + 16);
    assert!(scene.read(&pack).len() > 8 * extent, "they do not share a pack");
    let chunk = |file: usize, n: usize| {
        let at = file * extent + 56 + n * CHUNK;
        at..at + CHUNK
    };
    let swap = |bytes: &mut Vec<u8>, one: std::ops::Range<usize>, other: std::ops::Range<usize>| {
        let (first, second) = (bytes[one.clone()].to_vec(), bytes[other.clone()].to_vec());
        bytes[one].copy_from_slice(&second);
        bytes[other].copy_from_slice(&first);
    };
    let whole = |file: usize| file * extent..(file + 1) * extent;
    let edits: [(&str, &dyn Fn(&mut Vec<u8>)); 9] = [
        ("chunks of one file change places", &|b| swap(b, chunk(2, 0), chunk(2, 1))),
        ("chunks of two files change places", &|b| swap(b, chunk(2, 1), chunk(5, 1))),
        ("two files change places", &|b| swap(b, whole(1), whole(6))),
        ("a chunk comes twice", &|b| b.copy_within(chunk(3, 0), chunk(3, 1).start)),
        ("a chunk of another file comes twice", &|b| b.copy_within(chunk(3, 0), chunk(4, 0).start)),
        ("a chunk is dropped", &|b| drop(b.drain(chunk(0, 1)))),
        ("a file is dropped", &|b| drop(b.drain(whole(3)))),
        ("a file is zeros", &|b| b[whole(4)].fill(0)),
        ("the last files are cut off", &|b| b.truncate(5 * extent + 56 + 100)),
    ];
    for (what, edit) in edits {
        scene.attack(what, |s| s.edit(&pack, |bytes| edit(bytes)), in_a_pack);
    }
}

#[test]
fn a_log_that_was_cut_mixed_or_rolled_back_is_refused_or_told() {
    let scene = Scene::new();
    scene.restore(Seen::Writers);
    let log = scene.objects("log");
    let [.., before, last] = &log[..] else { panic!("{log:?}") };
    scene.attack("the whole bucket went back", |s| s.copy("early", "bucket"), rolled_back);
    scene.attack(
        "and without a checkpoint between",
        |s| {
            s.copy("early", "bucket");
            s.objects("checkpoint")
                .iter()
                .for_each(|name| fs::remove_file(s.object(name)).unwrap());
        },
        rolled_back,
    );
    scene.attack(
        "a commit in the middle is gone",
        |s| fs::remove_file(s.object(before)).unwrap(),
        |_| says(["is missing"]),
    );
    scene.attack(
        "two commits are swapped",
        |s| s.swap(before, last),
        |_| says([before, "Delete it"]),
    );
    scene.fork();
    let theirs = |name: &str| fs::read(scene.home.path("fork").join(name)).unwrap();
    scene.attack(
        "a commit of another history",
        |s| s.put(last, theirs(last)),
        |_| says([&last[4..]]),
    );
    scene.attack("another history", |s| s.copy("fork", "bucket"), rolled_back);
    scene.attack(
        "an old commit under a new number",
        |s| s.put(last, s.read(&log[0])),
        |_| says([last]),
    );
    for (what, bytes) in
        [("zeros", vec![0; 500]), ("nothing", Vec::new()), ("a long one", vec![1; 5 << 20])]
    {
        scene.attack(
            &format!("the last commit is {what}"),
            |s| s.put(last, &bytes),
            |_| says([last, "Delete it"]),
        );
    }
    // Numbers after the newest commit.
    let head = u64::from_str_radix(&last[4..], 16).unwrap();
    for number in [head + 1, head + 2, u64::MAX] {
        let name = format!("log/{number:016x}");
        scene.attack(
            &name,
            |s| s.put(&name, "no commit"),
            |_| says([&*name, "without the key", "Delete it"]),
        );
    }
    scene.attack(
        "a commit of 5 GB that is a hole",
        |s| {
            let name = format!("log/{:016x}", head + 1);
            File::create(s.object(&name)).unwrap().set_len(5 << 30).unwrap();
        },
        |_| says([format!("log/{:016x}", head + 1)]),
    );
}

#[test]
fn checkpoints_that_were_forged_or_changed_change_nothing() {
    let scene = Scene::new();
    scene.restore(Seen::Writers);
    let newest = scene.last("checkpoint");
    let oldest = scene.objects("checkpoint").remove(0);
    let pages = scene.objects("page");
    scene.attack(
        "an old manifest under the newest's name",
        |s| s.put(&newest, s.read(&oldest)),
        |_| Fate::Whole,
    );
    scene.attack(
        "the newest manifest is gone",
        |s| fs::remove_file(s.object(&newest)).unwrap(),
        |_| Fate::Whole,
    );
    scene.attack("a bit of it", |s| s.edit(&newest, |bytes| bytes[80] ^= 1), |_| Fate::Whole);
    scene.attack(
        "a thousand strangers",
        |s| {
            (0..1000)
                .for_each(|n| s.put(&format!("checkpoint/{:016x}", u64::MAX - n), vec![5; 5000]));
        },
        |_| Fate::Whole,
    );
    scene.attack(
        "one of 5 GB that is a hole",
        |s| {
            File::create(s.object("checkpoint/ffffffffffffffff"))
                .unwrap()
                .set_len(5 << 30)
                .unwrap();
        },
        |_| Fate::Whole,
    );
    scene.attack(
        "names that are none",
        |s| {
            for name in [
                "checkpoint/x",
                "log/-1",
                "log/1",
                "pack/zz/zz",
                "superblock/x",
                "page/0",
                "\u{1b}[31m",
            ] {
                s.put(name, "?");
            }
        },
        |_| Fate::Whole,
    );
    scene.attack(
        "all pages are zeros",
        |s| pages.iter().for_each(|name| s.edit(name, |bytes| bytes.fill(0))),
        in_a_pack,
    );
}

#[test]
fn a_superblock_that_was_changed_is_refused_and_asks_for_nothing_beyond_bounds() {
    let scene = Scene::new();
    let mine = "superblock/0000000000000001";
    // A machine that knows the vault has seen the right one. To another, a changed key slot looks like a wrong passphrase, and
    // the format of a later version like one.
    let changed = |seen: Seen| match seen {
        Seen::Writers => says([mine, "--superblock FILE"]),
        Seen::Strangers => Fate::Refused(Vec::new()),
    };
    let other = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    other.type_in(&format!("init --bucket file://{}", other.path("b").display())).exits(0);
    let theirs = fs::read(other.path("b").join(mine)).unwrap();
    scene.attack("another vault's", |s| s.put(mine, &theirs), changed);
    let length = fs::read(scene.object(mine)).unwrap().len();
    // Every byte counts: format, features, ids, parameters and slots are in the first part, the MAC at the end.
    for at in (0..length).step_by(length / 12) {
        scene.attack(&format!("a bit at {at}"), |s| s.edit(mine, |bytes| bytes[at] ^= 1), changed);
    }
    let forged = "superblock/ffffffffffffffff";
    for bytes in [Vec::new(), vec![0; 100], scene.read(mine)] {
        scene.attack("one of a higher generation", |s| s.put(forged, &bytes), |_| says([forged]));
    }
    scene.attack(
        "one of 5 GB that is a hole",
        |s| {
            File::create(s.object(forged)).unwrap().set_len(5 << 30).unwrap();
        },
        |_| says([forged]),
    );
    // A machine that used the vault has a copy, and puts it back.
    scene.attack(
        "none",
        |s| fs::remove_file(s.object(mine)).unwrap(),
        |seen| match seen {
            Seen::Writers => Fate::Whole,
            Seen::Strangers => says(["superblock", "--superblock FILE"]),
        },
    );
}

#[test]
fn what_someone_without_the_key_puts_into_the_log_fences_no_writer() {
    let scene = Scene::new();
    let home = &scene.home;
    scene.restore(Seen::Writers);
    home.type_in("mount vault").exits(0);
    let head = u64::from_str_radix(&scene.last("log")[4..], 16).unwrap();
    for number in [head + 1, u64::MAX] {
        let name = format!("log/{number:016x}");
        scene.put(&name, "no commit");
        fs::write(home.path("vault/new"), "kept").unwrap();
        let mut sync = home.spawn("sync vault");
        let vault = home.path("vault");
        if number == head + 1 {
            let told = || home.status(&vault).to_string().contains(&name);
            wait_until("status says what is in the way", told);
            assert!(!home.status(&vault).to_string().contains("another machine"));
            fs::remove_file(scene.object(&name)).unwrap();
            assert!(sync.wait().unwrap().success());
        } else {
            // An object beyond the next number is in nobody's way until the next mount.
            assert!(sync.wait().unwrap().success());
            fs::remove_file(scene.object(&name)).unwrap();
        }
        home.type_in("sync vault").exits(0);
    }
    home.type_in("umount vault").exits(0);
}
