//! The limits of a mount on its use of the store: bytes per second, concurrent requests, storage class and tags; set,
//! changed, and remembered.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::home::{Home, runs, wait_until};
use crate::support::{TestBucket, block_on, noise, test_client, weed};

/// A vault on the real server.
struct Limited {
    home: Home,
    bucket: TestBucket,
}

impl Limited {
    fn new() -> Self {
        let bucket = weed().bucket();
        let home = Home::for_bucket(&bucket).with("S3VAULT_PASSPHRASE", "correct horse");
        let init = format!("init --bucket {} --endpoint-url {}", bucket.url(), bucket.endpoint());
        home.type_in(&init).exits(0);
        Self { home, bucket }
    }

    fn mount(&self, options: &str) {
        self.home.type_in(&format!("mount vault {options}")).exits(0);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path("vault").join(name)
    }

    /// Bytes that the store has taken.
    fn moved(&self) -> u64 {
        self.home.status(&self.home.path("vault"))["moved_bytes"].as_u64().unwrap()
    }

    fn forget_cache(&self) {
        for entry in fs::read_dir(self.home.state()).unwrap().flatten() {
            let _ = fs::remove_dir_all(entry.path().join("cache"));
        }
    }
}

fn write(path: &Path, seed: u64, length: usize) {
    fs::write(path, noise(seed, length)).unwrap();
}

const RATE: f64 = (512 << 10) as f64;
/// A stretch of this many bytes must reach the full rate at least once, however busy this machine is.
const STRETCH: u64 = 2 << 20;

/// Checks samples of time and bytes moved: the whole took no less time than allowed (within a fifth), and some stretch
/// no more.
fn is_about(what: &str, seen: &[(Instant, u64)]) {
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    let seconds = |a: (Instant, u64), b: (Instant, u64)| {
        (b.0.duration_since(a.0).as_secs_f64(), (b.1 - a.1) as f64 / RATE)
    };
    let (took, should) = seconds(first, last);
    assert!(took > should * 0.8, "{what}: {took} s of {should} s");
    let stretches = seen.iter().filter_map(|a| {
        let b = seen.iter().find(|b| b.1 >= a.1 + STRETCH)?;
        Some(seconds(*a, *b))
    });
    let least = stretches.map(|(took, should)| took / should).fold(f64::INFINITY, f64::min);
    assert!(least < 1.2, "{what}: the quickest stretch takes {least} times what it should");
}

#[test]
fn bytes_go_as_fast_as_they_may_both_ways() {
    let limited = Limited::new();
    limited.mount("--bandwidth-up 512KiB/s --bandwidth-down 512KiB/s");
    write(&limited.path("file"), 1, 6 << 20);
    let mut sync = limited.home.spawn("sync");
    let mut seen = Vec::new();
    // Starts when the file has become a pack, and bytes move.
    while seen.last().is_none_or(|(_, moved)| *moved < 11 << 19) {
        let moved = limited.moved();
        if moved >= 512 << 10 {
            seen.push((Instant::now(), moved));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    is_about("the way up", &seen);
    assert!(sync.wait().unwrap().success());
    limited.home.type_in("umount vault").exits(0);
    limited.forget_cache();
    limited.mount("--bandwidth-up 08:00-08:01=16KiB/s,512KiB/s --bandwidth-down 512KiB/s");
    let mut seen = vec![(Instant::now(), 0)];
    let mut file = fs::File::open(limited.path("file")).unwrap();
    let mut read = Vec::new();
    while (&mut file).take(64 << 10).read_to_end(&mut read).unwrap() > 0 {
        seen.push((Instant::now(), read.len() as u64));
    }
    is_about("the way down", &seen);
    assert!(read == noise(1, 6 << 20));
    drop(file);
    limited.home.type_in("umount vault").exits(0);
}

#[test]
fn limits_are_changed_while_a_pack_goes_up() {
    let limited = Limited::new();
    limited.mount("--bandwidth-up 64KiB/s --max-requests 2 --read-ahead 0");
    let shown = limited.home.type_in("tune").exits(0).out;
    for line in [
        "bandwidth-up    64KiB/s",
        "bandwidth-down  unlimited",
        "max-requests    2",
        "read-ahead      0",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    write(&limited.path("large"), 2, 17 << 20);
    let (begun, before) = (Instant::now(), limited.moved());
    std::thread::sleep(Duration::from_secs(5));
    let moved = limited.moved() - before;
    let took = begun.elapsed();
    let may = took.as_millis() * 65536 / 1000 + 100_000;
    assert!(u128::from(moved) <= may, "{moved} bytes in {took:?}");
    // A read meanwhile: of the two requests allowed, one is never used for packs.
    limited.home.type_in("check").exits(0);
    let begun = Instant::now();
    limited
        .home
        .type_in("tune vault --bandwidth-up 4MiB/s --max-requests unlimited")
        .exits(0)
        .says("4MiB/s");
    limited.home.type_in("sync").exits(0);
    let took = begun.elapsed();
    assert!((3..60).contains(&took.as_secs()), "{took:?}");
    limited.home.type_in("tune vault --bandwidth-up 1KiB/s").exits(2).says("too slow");
    limited.home.type_in("tune elsewhere").exits(13);
    limited.home.type_in("umount vault").exits(0);
}

#[test]
fn an_end_under_a_tight_limit_goes_on_says_how_far_it_is_and_can_be_hurried() {
    let limited = Limited::new();
    let config = limited.home.config().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[vault.limits]\nbandwidth-up = \"32KiB/s\"\n")).unwrap();
    let shown = limited.home.type_in("config show").exits(0).out;
    let line = shown.lines().find(|line| line.starts_with("bandwidth-up")).unwrap();
    assert!(line.contains("32KiB/s") && line.contains("(config file)"), "{line}");
    limited.mount("");
    let daemon = limited.home.daemon(&limited.home.path("vault"));
    write(&limited.path("file"), 3, 3 << 20);
    let begun = Instant::now();
    let done = limited.home.type_in("umount vault --timeout 12s").exits(14);
    assert!((12..60).contains(&begun.elapsed().as_secs()));
    assert!(
        done.err.contains("not in the bucket yet") && done.err.contains("KiB/s"),
        "{}",
        done.err
    );
    assert!(runs(daemon) && !limited.path("file").exists());
    // The end may be waiting for just this limit.
    limited.home.type_in("tune vault --bandwidth-up unlimited").exits(0);
    limited.home.type_in("umount vault --timeout 1m").exits(0).says("everything is in the bucket");
    assert!(!runs(daemon));
    limited.mount("--bandwidth-up unlimited");
    assert!(fs::read(limited.path("file")).unwrap() == noise(3, 3 << 20));
    limited.home.type_in("umount vault").exits(0);
}

#[test]
fn packs_have_their_class_all_has_its_tags_and_what_cannot_be_is_refused() {
    let limited = Limited::new();
    limited.mount("--storage-class STANDARD_IA --tag owner=me --tag what=a/b");
    write(&limited.path("file"), 4, 300_000);
    limited.home.type_in("umount vault").exits(0);
    let bucket = &limited.bucket;
    let names: Vec<_> = bucket.objects().into_iter().map(|(name, _)| name).collect();
    let (mut packs, mut tagged) = (0, 0);
    block_on(async {
        let client = test_client(bucket.endpoint());
        for name in &names {
            let head = client.head_object().bucket(bucket.name()).key(name).send().await.unwrap();
            let class = head.storage_class().map(|class| class.as_str().to_owned());
            let is_cold = class.as_deref() == Some("STANDARD_IA");
            assert_eq!(is_cold, name.starts_with("pack/"), "{name}: {class:?}");
            packs += u32::from(is_cold);
            let tags = client.get_object_tagging().bucket(bucket.name()).key(name).send().await;
            let tags = tags.unwrap();
            let mut tags: Vec<_> =
                tags.tag_set().iter().map(|tag| format!("{}={}", tag.key(), tag.value())).collect();
            tags.sort();
            tagged += u32::from(tags == ["owner=me", "what=a/b"]);
        }
    });
    assert!(packs >= 1 && tagged > packs, "{packs} {tagged}: {names:?}");
    limited.home.type_in("mount vault --storage-class DEEP_ARCHIVE").exits(2).says("takes hours");
    let other = Home::new();
    other.type_in("mount vault --tag a=b").exits(2).says("a directory knows neither");
    other.type_in("mount vault").exits(0);
    other.type_in("tune --storage-class STANDARD_IA").exits(2).says("nothing was changed");
    other.type_in("tune --bandwidth-down 1MiB/s").exits(0).says("1MiB/s");
    other.type_in("umount vault").exits(0);
}

/// An extended attribute in which the mount describes a file.
fn said_of(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; 64 << 10];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(String::from_utf8(value).unwrap())
}

#[test]
fn a_file_says_whether_it_is_in_the_bucket_and_where() {
    let limited = Limited::new();
    limited.mount("--bandwidth-up 64KiB/s");
    let (file, folder) = (limited.path("folder/file"), limited.path("folder"));
    fs::create_dir(&folder).unwrap();
    write(&file, 5, 2 << 20);
    let state = |path: &Path| said_of(path, "user.s3vault.state").unwrap();
    // The file is closed, and its pack waits or is being sent.
    assert_ne!(state(&file), "durable");
    let key = said_of(&file, "user.s3vault.s3_key").unwrap();
    assert!(key.starts_with("pack/") && key.lines().count() == 1, "{key}");
    assert_eq!(said_of(&folder, "user.s3vault.s3_key"), None, "a directory lies in no pack");
    let mut sync = limited.home.spawn("sync");
    wait_until("it is on the wire", || state(&file) == "uploading");
    let shown = limited.home.type_in("status vault/folder/file").exits(0).out;
    for part in ["uploading", "2.0 MiB", &key, "not in the bucket yet"] {
        assert!(shown.contains(part), "{shown}");
    }
    let shown = limited.home.type_in("status vault/folder").exits(0).out;
    assert!(shown.contains("waiting") && shown.contains("folder/file"), "{shown}");
    // An open file that was just written is only on this machine.
    let mut open = fs::File::create(limited.path("open")).unwrap();
    open.write_all(b"some").unwrap();
    assert_eq!(state(&limited.path("open")), "local");
    drop(open);
    limited.home.type_in("tune --bandwidth-up unlimited").exits(0);
    assert!(sync.wait().unwrap().success());
    limited.home.type_in("sync").exits(0);
    for path in [&file, &folder, &limited.path("open")] {
        assert_eq!(state(path), "durable");
    }
    assert!(limited.bucket.objects().iter().any(|(name, _)| *name == key));
    let json = limited.home.type_in("status --json vault/folder").exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["state"], &json["durable"]["entries"]), (&"durable".into(), &2.into()));
    // The attributes are not listed, so they are not copied; and nobody can set them.
    let mut list = vec![0; 4096];
    assert_eq!(rustix::fs::llistxattr(&file, &mut list[..]).unwrap(), 0);
    for name in ["user.s3vault.state", "user.s3vault.s3_key", "user.s3vault.other"] {
        let set = rustix::fs::lsetxattr(&file, name, b"durable", rustix::fs::XattrFlags::empty());
        assert_eq!(set, Err(rustix::io::Errno::PERM), "{name}");
        let removed = rustix::fs::lremovexattr(&file, name);
        assert_eq!(removed, Err(rustix::io::Errno::PERM), "{name}");
    }
    limited.home.type_in("umount vault").exits(0);
    limited.mount("--read-only");
    assert_eq!(state(&file), "durable");
    assert_eq!(said_of(&file, "user.s3vault.s3_key").unwrap(), key);
    limited.home.type_in("umount vault").exits(0);
}
