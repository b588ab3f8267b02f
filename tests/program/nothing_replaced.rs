//! Commands on files replace nothing by what was not meant to take its place: neither one of several by another, nor a file by
//! half of what it was to become.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::support::home::Home;
use crate::support::noise;

const MIB: usize = 1 << 20;

/// A home whose vault has the directories `x` and `z`, with a file `same` in both.
fn with_vault() -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    home.type_in(&format!("init --bucket file://{}", home.path("bucket").display())).exits(0);
    for (directory, names) in [("x", &["1", "2", "same"][..]), ("z", &["same"])] {
        fs::create_dir(home.path(directory)).unwrap();
        for name in names {
            let content = format!("{directory}/{name}");
            fs::write(home.path(directory).join(name), content).unwrap();
        }
    }
    home.type_in("put -r x z /").exits(0);
    home
}

#[test]
fn several_go_into_a_directory_only_and_none_in_the_place_of_another() {
    let home = with_vault();
    for command in ["mv x/* y", "cp x/* y", "mv x/* x/1", "cp -r * y"] {
        home.type_in(command).exits(2).says("is no directory that is there");
    }
    home.type_in("mkdir y").exits(0);
    for command in ["mv */same y", "cp */same y", "get x/same z/same .", "put x/same z/same y/"] {
        home.type_in(command).exits(2).says("would both be called same");
    }
    assert!(!home.path("same").exists());
    assert_eq!(home.type_in("find").exits(0).out, "/\n/x\n/x/1\n/x/2\n/x/same\n/y\n/z\n/z/same\n");
    home.type_in("mv x/* y").exits(0);
    for name in ["1", "2", "same"] {
        assert_eq!(home.type_in(&format!("cat y/{name}")).exits(0).out, format!("x/{name}"));
    }
    // A single match is as if it had been named.
    home.type_in("mv z/s* w").exits(0);
    assert_eq!(home.type_in("cat w").exits(0).out, "z/same");
}

#[test]
fn what_changes_while_it_is_put_takes_no_place_nor_do_its_other_names() {
    let home = with_vault();
    let local = home.path("pair");
    fs::create_dir(&local).unwrap();
    for name in ["a", "b"] {
        fs::write(local.join(name), format!("old {name}")).unwrap();
    }
    home.type_in("put -r pair /").exits(0);
    // Now both names are one file, which is written all the time.
    fs::write(local.join("a"), noise(1, 4 * MIB)).unwrap();
    fs::remove_file(local.join("b")).unwrap();
    fs::hard_link(local.join("a"), local.join("b")).unwrap();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(local.join("a")).unwrap();
            for n in (0..4 * MIB as u64).cycle().step_by(4096) {
                if ends.load(Relaxed) {
                    return;
                }
                file.write_all_at(b"changed", n).unwrap();
            }
        });
        let put = home.type_in("put -r pair /");
        ends.store(true, Relaxed);
        put.exits(1).says("it changes all the time").says("was not put; it was left as it is");
    });
    for name in ["a", "b"] {
        assert_eq!(home.type_in(&format!("cat pair/{name}")).exits(0).out, format!("old {name}"));
    }
    // Once nobody writes, one takes the place of two.
    home.type_in("put -r pair /").exits(0);
    home.type_in("mount vault").exits(0);
    let (a, b) = (home.path("vault/pair/a"), home.path("vault/pair/b"));
    assert_eq!(fs::read(&a).unwrap(), fs::read(local.join("a")).unwrap());
    assert_eq!(ino(&a), ino(&b));
    assert_eq!(fs::read_dir(home.path("vault/pair")).unwrap().count(), 2, "nothing is left over");
    home.type_in("umount vault").exits(0);
}

fn ino(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().ino()
}
