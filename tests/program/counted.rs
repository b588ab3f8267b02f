//! The requests of a mount, counted by a proxy that adds a round trip of 30 ms.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::support::home::{Home, wait_until};
use crate::support::{Exchange, Proxy, TestBucket, block_on, weed};

const ROUND_TRIP: Duration = Duration::from_millis(30);
const MIB: u64 = 1 << 20;

/// A bucket behind a proxy.
struct Far {
    bucket: TestBucket,
    proxy: Proxy,
}

impl Far {
    fn new() -> Self {
        let weed = weed();
        Self { bucket: weed.bucket(), proxy: Proxy::start(weed.port(), ROUND_TRIP) }
    }

    /// A user who reaches the bucket through the proxy.
    fn home(&self) -> Home {
        Home::for_bucket(&self.bucket).with("S3VAULT_PASSPHRASE", "correct horse")
    }

    fn line(&self, what: &str) -> String {
        format!("{what} --bucket {} --endpoint-url {}", self.bucket.url(), self.proxy.endpoint())
    }

    /// A mount at `vault` of a new vault, after one file and its sync.
    fn first_mount(&self) -> Home {
        self.first_mount_of(self.home())
    }

    fn first_mount_of(&self, home: Home) -> Home {
        home.type_in(&self.line("init")).exits(0);
        home.type_in("mount vault").exits(0);
        fs::write(home.path("vault/warm-up"), "x").unwrap();
        home.type_in("sync vault").exits(0);
        self.proxy.take();
        home
    }
}

fn of<'a>(method: &str, part: &str, exchanges: &'a [Exchange]) -> Vec<&'a Exchange> {
    exchanges.iter().filter(|e| e.method == method && e.target.contains(part)).collect()
}

fn listed(exchanges: &[Exchange]) -> String {
    let lines = exchanges
        .iter()
        .map(|e| format!("{} {} {} {}/{}", e.method, e.target, e.status, e.sent, e.received));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_thousand_small_files_cost_at_most_forty_requests() {
    let far = Far::new();
    // Packs are sent when they are full or waited for. If they were sent by time as well, their number would depend on
    // the machine's speed.
    let home = far.first_mount_of(far.home().with("S3VAULT_PACK_LINGER", "600"));
    let data = [7; 4096];
    let begun = Instant::now();
    for n in 0..1000 {
        fs::write(home.path(format!("vault/small-{n}")), data).unwrap();
    }
    home.type_in("sync vault").exits(0);
    let exchanges = far.proxy.take();
    println!("1,000 files: {} requests, {:?}", exchanges.len(), begun.elapsed());
    assert!(exchanges.len() <= 40, "{}", listed(&exchanges));
    home.type_in("umount vault").exits(0);
}

#[test]
fn five_thousand_small_files_go_in_with_twenty_requests_and_come_out_cold_with_eighteen() {
    let far = Far::new();
    let home = far.first_mount_of(far.home().with("S3VAULT_PACK_LINGER", "600"));
    let file = |home: &Home, n: usize| home.path(format!("vault/dir-{}/{n}", n / 100));
    for n in 0..5000 {
        if n % 100 == 0 {
            fs::create_dir(home.path(format!("vault/dir-{}", n / 100))).unwrap();
        }
        fs::write(file(&home, n), [n.to_le_bytes()[0]; 4096]).unwrap();
    }
    home.type_in("sync vault").exits(0);
    let into = far.proxy.take();
    home.type_in("umount vault").exits(0);

    let elsewhere = far.home();
    elsewhere.type_in(&far.line("mount vault")).exits(0);
    far.proxy.take();
    for n in 0..5000 {
        assert_eq!(fs::read(file(&elsewhere, n)).unwrap(), [n.to_le_bytes()[0]; 4096]);
    }
    let out = far.proxy.take();
    println!("5,000 files: {} requests in, {} out", into.len(), out.len());
    assert!(into.len() <= 20, "{}", listed(&into));
    assert!(out.len() <= 18, "{}", listed(&out));
    elsewhere.type_in("umount vault").exits(0);
}

/// PROTOCOL, C5: a reply that echoes the checksum proves the put.
#[test]
fn a_small_change_costs_two_puts_and_nothing_else() {
    let far = Far::new();
    let home = far.first_mount();
    // The file's creation is committed 200 ms later or more: wait for that before counting.
    let mut file = File::create(home.path("vault/small")).unwrap();
    home.type_in("sync vault").exits(0);
    far.proxy.take();
    for _ in 0..3 {
        file.write_all(b"x").unwrap();
        home.type_in("sync vault").exits(0);
        let exchanges = far.proxy.take();
        let puts = (of("PUT", "/pack/", &exchanges).len(), of("PUT", "/log/", &exchanges).len());
        assert!(puts == (1, 1) && exchanges.len() == 2, "{}", listed(&exchanges));
    }
    drop(file);
    home.type_in("umount vault").exits(0);
}

#[test]
fn one_file_alone_is_in_the_bucket_within_a_second_and_then_nothing_is_sent() {
    let far = Far::new();
    let home = far.first_mount();
    let committed = || home.status(&home.path("vault"))["unsent_changes"].as_u64() == Some(0);
    // The machine may stall for a moment, but hardly five times; a bug that delays the commit does so each time.
    let mut took = Vec::new();
    while took.len() < 5 && took.iter().all(|took| *took >= Duration::from_secs(1)) {
        let begun = Instant::now();
        fs::write(home.path(format!("vault/alone-{}", took.len())), "now").unwrap();
        wait_until("the commit", committed);
        took.push(begun.elapsed());
    }
    println!("one file: {took:?}");
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
    let exchanges = far.proxy.take();
    assert!(!of("PUT", "/log/", &exchanges).is_empty(), "{}", listed(&exchanges));
    // Longer than every timer of the daemon: the barrier runs every 5 s.
    std::thread::sleep(Duration::from_secs(12));
    let idle = far.proxy.take();
    assert!(idle.is_empty(), "an idle mount sends nothing:\n{}", listed(&idle));
    home.type_in("umount vault").exits(0);
}

#[test]
fn a_large_file_streams_out_and_its_middle_costs_one_get() {
    let far = Far::new();
    let home = far.first_mount();
    let mut file = File::create(home.path("vault/large")).unwrap();
    let part: Vec<u8> = (0..MIB).map(|n| (n * 31 % 251) as u8).collect();
    for _ in 0..100 {
        file.write_all(&part).unwrap();
    }
    let packs = || {
        let list = async { far.bucket.open().await.list_all("pack/").await };
        !block_on(list).expect("the bucket lists").0.is_empty()
    };
    wait_until("packs of a file that is still being written", packs);
    for _ in 100..300 {
        file.write_all(&part).unwrap();
    }
    drop(file);
    home.type_in("umount vault").exits(0);

    let elsewhere = far.home();
    elsewhere.type_in(&far.line("mount vault")).exits(0);
    let file = File::open(elsewhere.path("vault/large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 300 * MIB);
    far.proxy.take();
    let mut middle = [0; 4096];
    file.read_exact_at(&mut middle, 150 * MIB + 12_345 * 4096 % MIB).unwrap();
    let exchanges = far.proxy.take();
    let gets = of("GET", "/pack/", &exchanges);
    assert!(gets.len() == 1 && exchanges.len() == 1, "{}", listed(&exchanges));
    // A group of eight chunks, plus the head of the answer.
    assert!(gets[0].received <= 132 << 10, "{}", listed(&exchanges));
    let from = usize::try_from(12_345 * 4096 % MIB).unwrap();
    assert_eq!(middle, part[from..from + 4096]);
    drop(file);
    elsewhere.type_in("umount vault").exits(0);
}

#[test]
fn a_new_machine_lists_a_hundred_thousand_files_with_few_requests() {
    let far = Far::new();
    let home = far.first_mount();
    for dir in 0..100 {
        let path = home.path(format!("vault/dir-{dir}"));
        fs::create_dir(&path).unwrap();
        for n in 0..1000 {
            File::create(path.join(format!("file-{n}"))).unwrap();
        }
    }
    home.type_in("umount vault").exits(0);

    let elsewhere = far.home();
    far.proxy.take();
    elsewhere.type_in(&far.line("mount vault")).exits(0);
    assert_eq!(fs::read_dir(elsewhere.path("vault")).unwrap().count(), 101);
    let found = fs::metadata(elsewhere.path("vault/dir-42/file-777")).unwrap();
    assert_eq!(found.len(), 0);
    let exchanges = far.proxy.take();
    let is_list = |e: &Exchange| e.target.contains("list-type");
    let beyond: Vec<Exchange> = exchanges
        .iter()
        .filter(|e| e.method == "GET" && !is_list(e) && !e.target.contains("/log/"))
        .cloned()
        .collect();
    let bytes: u64 = beyond.iter().map(|e| e.received).sum();
    println!("100,000 files, first ls and stat: {} GETs, {bytes} bytes", beyond.len());
    assert!(!of("GET", "/checkpoint/", &beyond).is_empty(), "no checkpoint was made");
    assert!(beyond.len() <= 12 && bytes <= 4 * MIB, "{}", listed(&exchanges));
    elsewhere.type_in("umount vault").exits(0);
}
