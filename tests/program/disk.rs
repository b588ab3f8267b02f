//! Disks as machines have them: small, full, and too small for what is written. Real mounts.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use rustix::process::Signal;

use crate::support::home::{Home, detach, runs, signal, wait_until};
use crate::support::{Proxy, noise, weed};

/// A small file system of its own at a directory; removed when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: PathBuf, mib: u64) -> Self {
        fs::create_dir_all(&at).unwrap();
        let (kind, flags) = (c"tmpfs", MountFlags::empty());
        rustix::mount::mount(kind, &at, kind, flags, options(mib).as_c_str()).unwrap();
        Self(at)
    }

    fn resize(&self, mib: u64) {
        let flags = MountFlags::empty();
        rustix::mount::mount_remount(&self.0, flags, options(mib).as_c_str()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

fn options(mib: u64) -> CString {
    CString::new(format!("size={mib}m,mode=0700")).unwrap()
}

fn warnings(home: &Home, vault: &Path) -> String {
    home.status(vault)["warnings"].to_string()
}

#[test]
fn a_small_disk_has_room_and_one_that_is_full_is_named() {
    let home = Home::new();
    let disk = SmallDisk::new(home.state(), 300);
    let vault = home.path("vault");
    home.type_in("mount vault --cache-size 64M").exits(0);
    fs::write(vault.join("byte"), "x").unwrap();
    fs::write(vault.join("more"), vec![7; 20 << 20]).unwrap();
    assert_eq!(warnings(&home, &vault), "[]");
    home.type_in("umount vault").exits(0);

    // Full for now: the vault is mounted and says so, as does `status`; once there is room it goes on by itself.
    let filler = disk.0.join("filler");
    let free = s3vault::testing::os::free_bytes(&disk.0).unwrap();
    fs::write(&filler, vec![1; usize::try_from(free - (24 << 20)).unwrap()]).unwrap();
    home.type_in("mount vault --cache-size 64M").exits(0).says("30 MiB of it stay free");
    assert!(warnings(&home, &vault).contains("ENOSPC until there are"));
    fs::remove_file(&filler).unwrap();
    assert_eq!(warnings(&home, &vault), "[]");
    fs::write(vault.join("again"), "x").unwrap();

    // With something unsent, the vault is mounted to send it, whatever the disk is like.
    fs::rename(home.data().join("store"), home.path("away")).unwrap();
    fs::write(vault.join("unsent"), "x").unwrap();
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("the daemon ends", || !runs(daemon));
    fs::rename(home.path("away"), home.data().join("store")).unwrap();
    disk.resize(70);
    home.type_in("mount vault --cache-size 64M").exits(0);
    home.type_in("umount vault").exits(0);
    // With nothing unsent, a disk of this size is refused for a vault that is written to.
    home.type_in("mount vault").exits(19).says("--state-dir").says("needs 72");
    home.type_in("mount vault --read-only").exits(0);
    assert_eq!(fs::read(vault.join("unsent")).unwrap(), b"x");
    home.type_in("umount vault").exits(0);
}

/// J8, with every byte of the disk used by others: even the daemon's log has no room.
#[test]
fn j8_on_a_disk_that_others_fill_all_goes_on_that_needs_no_room() {
    let home = Home::new();
    let disk = SmallDisk::new(home.state(), 300);
    let vault = home.path("vault");
    home.type_in("mount vault --cache-size 64M").exits(0);
    fs::write(vault.join("sent"), noise(1, 300_000)).unwrap();
    home.type_in("sync vault").exits(0);
    fs::rename(home.data().join("store"), home.path("away")).unwrap();
    fs::write(vault.join("unsent"), noise(2, 300_000)).unwrap();
    fs::write(vault.join("removed"), noise(3, 300_000)).unwrap();
    let mut filler = fs::File::create(disk.0.join("filler")).unwrap();
    let mut fill = || {
        for size in [1 << 20, 4096] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    };
    fill();
    fs::create_dir(vault.join("directory")).unwrap();
    fs::remove_file(vault.join("removed")).unwrap();
    fs::File::open(vault.join("unsent")).unwrap().sync_all().unwrap();
    fs::rename(home.path("away"), home.data().join("store")).unwrap();
    fill();
    home.type_in("sync vault").exits(0);
    fs::create_dir(vault.join("later")).unwrap();
    let daemon = home.daemon(&vault);
    signal(daemon, Signal::KILL);
    wait_until("the daemon ends", || !runs(daemon));
    fill();
    home.type_in("mount vault --cache-size 64M").exits(0);
    assert_eq!(fs::read(vault.join("sent")).unwrap(), noise(1, 300_000));
    assert_eq!(fs::read(vault.join("unsent")).unwrap(), noise(2, 300_000));
    assert!(vault.join("directory").is_dir() && vault.join("later").is_dir());
    assert!(!vault.join("removed").exists());
    drop(filler);
    fs::remove_file(disk.0.join("filler")).unwrap();
    wait_until("there is room", || fs::write(vault.join("again"), noise(4, 300_000)).is_ok());
    home.type_in("umount vault").exits(0);
}

/// The most packs on the wire when the store disappears; they may still arrive.
const ON_THE_WIRE: usize = 6;

#[test]
fn what_is_removed_unsent_gives_its_room_back_while_the_store_is_away() {
    let weed = weed();
    let (bucket, proxy) = (weed.bucket(), Proxy::start(weed.port(), Duration::ZERO));
    let user = || Home::for_bucket(&bucket).with("S3VAULT_PASSPHRASE", "correct horse");
    let line =
        |what, server: &str| format!("{what} --bucket {} --endpoint-url {server}", bucket.url());
    let home = user();
    home.type_in(&line("init", &proxy.endpoint())).exits(0);
    // 32 MiB of staging, 28 of which are for data.
    home.type_in("mount vault --cache-size 64M").exits(0);
    let vault = home.path("vault");
    let write = |name: String, seed| fs::write(vault.join(name), noise(seed, 1_200_000)).unwrap();
    fs::write(vault.join("sent"), "sent").unwrap();
    home.type_in("sync vault").exits(0);
    proxy.cut();
    for n in 0..20 {
        write(format!("removed-{n}"), n);
    }
    fs::rename(vault.join("removed-7"), vault.join("stays")).unwrap();
    for n in (0..20).filter(|n| *n != 7) {
        fs::remove_file(vault.join(format!("removed-{n}"))).unwrap();
    }
    for n in 0..12 {
        let begun = Instant::now();
        write(format!("new-{n}"), 100 + n);
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    }
    proxy.take();
    proxy.heal();
    home.type_in("sync vault").exits(0);
    let put = |e: &crate::support::Exchange| {
        e.method == "PUT" && e.target.contains("/pack/") && e.status == 200
    };
    let puts = proxy.take().iter().filter(|e| put(e)).count();
    assert!(puts <= 13 + ON_THE_WIRE, "{puts} packs were put");
    home.type_in("umount vault").exits(0);

    let other = user();
    other.type_in(&line("mount elsewhere --read-only", weed.endpoint().as_str())).exits(0);
    let shown = other.path("elsewhere");
    assert_eq!(fs::read_dir(&shown).unwrap().count(), 14);
    assert_eq!(fs::read(shown.join("stays")).unwrap(), noise(7, 1_200_000));
    for n in 0..12 {
        assert_eq!(fs::read(shown.join(format!("new-{n}"))).unwrap(), noise(100 + n, 1_200_000));
    }
    other.type_in(&line("check --read-data", weed.endpoint().as_str())).exits(0);
    other.type_in("umount elsewhere").exits(0);
}

/// Data that is only in the store is waited for, as with a store on the network, and not taken for lost.
#[test]
fn while_the_disk_of_the_store_is_not_mounted_reads_wait_for_it() {
    let home = Home::new();
    let vault = home.path("vault");
    home.type_in("mount vault").exits(0);
    fs::create_dir(vault.join("directory")).unwrap();
    fs::write(vault.join("directory/cold"), noise(1, 300_000)).unwrap();
    home.type_in("umount vault").exits(0);
    fs::remove_dir_all(home.state()).unwrap();
    home.type_in("mount vault").exits(0);
    let (store, away) = (home.data().join("store"), home.path("away"));
    fs::rename(&store, &away).unwrap();
    fs::create_dir(&store).unwrap(); // the mountpoint of the disk when that is not mounted
    let cold = vault.join("directory/cold");
    let reader = std::thread::spawn(move || fs::read(cold));
    wait_until("the store is missed", || warnings(&home, &vault).contains("is its disk mounted?"));
    fs::remove_dir(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), noise(1, 300_000));
    home.type_in("umount vault").exits(0);
}
