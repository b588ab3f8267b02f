//! Imperfect stores and networks, simulated by a proxy in front of SeaweedFS. For each, either everything works, or
//! `init` says in one clear line why not. It must never half work, or report "there is no vault", "older than what this
//! machine saw" or "credentials".

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use crate::support::home::Home;
use crate::support::{Manners, Strange, TestBucket, Uplink, noise, weed};
use bytes::Bytes;
use s3vault::testing::store::{Bucket, Conditional, Deadlines, Error, S3Store, conformance};

/// A bucket behind a proxy.
struct Far {
    bucket: TestBucket,
    proxy: Strange,
}

impl Far {
    fn new(manners: Manners) -> Self {
        let weed = weed();
        Self { bucket: weed.bucket(), proxy: Strange::start(weed.port(), manners) }
    }

    async fn open(&self) -> Bucket {
        self.try_open(Deadlines::default()).await.unwrap()
    }

    async fn try_open(&self, limits: Deadlines) -> Result<Bucket, Error> {
        let options = self.bucket.options_through(&self.proxy.endpoint());
        Bucket::open(&self.bucket.url(), &options, limits).await
    }

    /// Runs the conformance suite, which every backend passes.
    async fn passes_the_suite(&self) {
        let options = self.bucket.options_through(&self.proxy.endpoint());
        let store = S3Store::open(self.bucket.name(), &options, Deadlines::default());
        conformance::run(&store.await.unwrap(), "some/prefix/").await.assert_passed();
    }

    fn home(&self) -> Home {
        Home::for_bucket(&self.bucket).with("S3VAULT_PASSPHRASE", "correct horse")
    }

    fn line(&self, what: &str) -> String {
        format!("{what} --bucket {} --endpoint-url {}", self.bucket.url(), self.proxy.endpoint())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_that_is_refused_is_left_out_and_c5_holds_all_the_same() {
    for status in [501, 400] {
        let far = Far::new(Manners { refuses_checksum: Some(status), ..Manners::default() });
        let bucket = far.open().await;
        let body = Bytes::from(noise(1, 100_000));
        bucket.put_new("pack/1", body.clone()).await.unwrap();
        bucket.put_once("pack/2", body.clone()).await.unwrap();
        let refused = far.proxy.take().iter().filter(|asked| asked.status == status).count();
        assert_eq!(refused, 1, "once, and never again");
        assert!(bucket.quirks()[0].contains("ETag"), "{:?}", bucket.quirks());
        let other = bucket.put_once("pack/1", Bytes::from_static(b"other")).await;
        assert!(matches!(other, Err(Error::Exists { .. })), "{other:?}");
        // A remembered quirk also saves the first failed request.
        let later = far.open().await;
        later.recall(&bucket.learned());
        far.proxy.take();
        later.put_new("pack/3", body).await.unwrap();
        assert!(far.proxy.take().iter().all(|asked| asked.status != status));
        far.passes_the_suite().await;
    }
    // A store that demands checksums works, even if the opposite is remembered.
    let far = Far::new(Manners { demands_checksum: true, ..Manners::default() });
    let bucket = far.open().await;
    bucket.recall("no checksums\n");
    bucket.put_new("pack/1", Bytes::from_static(b"x")).await.unwrap();
    assert!(bucket.quirks().is_empty() && !bucket.learned().contains("checksums"));
    far.passes_the_suite().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_may_be_answered_by_304() {
    let far = Far::new(Manners { taken_is_304: true, ..Manners::default() });
    assert_eq!(far.open().await.probe_conditional().await.unwrap(), Conditional::NotDisproved);
    far.passes_the_suite().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w6_a_store_that_refuses_conditions_is_found_out_and_one_machine_looks_first() {
    for status in [501, 400] {
        let far = Far::new(Manners { refuses_condition: Some(status), ..Manners::default() });
        let bucket = far.open().await;
        assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::Refused);
        let put = bucket.put_once("log/1", Bytes::from_static(b"x")).await;
        if status == 501 {
            assert!(matches!(put, Err(Error::NoConditions { .. })), "{put:?}");
        }
        assert!(put.is_err(), "never without a condition unasked");
        assert!(bucket.list_all("").await.unwrap().0.is_empty());
        bucket.do_without_conditions();
        bucket.put_once("log/1", Bytes::from_static(b"x")).await.unwrap();
        let other = bucket.put_once("log/1", Bytes::from_static(b"y")).await;
        assert!(matches!(other, Err(Error::Exists { .. })), "{other:?}");
        assert_eq!(bucket.get("log/1", None).await.unwrap(), "x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_may_come_without_their_length() {
    let far = Far::new(Manners { tells_no_length: true, ..Manners::default() });
    let bucket = far.open().await;
    bucket.put_new("pack/1", Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(bucket.head("pack/1").await.unwrap().length, 5);
    assert_eq!(bucket.get("pack/1", None).await.unwrap(), "hello");
    far.passes_the_suite().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_ignored_is_cut_out_of_the_whole() {
    let far = Far::new(Manners { ignores_range: true, ..Manners::default() });
    let bucket = far.open().await;
    let body = Bytes::from(noise(2, 9 << 20));
    bucket.put_new("pack/1", body.clone()).await.unwrap();
    for range in [0..1, 4_000_000..4_131_072, 9_437_183..9_437_184] {
        let got = bucket.get_timed("pack/1", Some(range.clone())).await.unwrap();
        assert_eq!(got.bytes, body[range.start as usize..range.end as usize]);
        assert_eq!(got.object_length, 9 << 20);
    }
    assert!(bucket.quirks()[0].contains("ranges"), "{:?}", bucket.quirks());
    far.proxy.change(|manners| manners.tells_no_length = true);
    assert_eq!(bucket.get("pack/1", Some(77..99)).await.unwrap(), body[77..99]);
    far.passes_the_suite().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_followed_to_its_end_however_it_is_cut() {
    let names: Vec<_> = (1..=9).map(|n| format!("log/{n:016x}")).collect();
    let far = Far::new(Manners { page: Some(2), ..Manners::default() });
    let bucket = far.open().await;
    for name in &names {
        bucket.put_new(name, Bytes::from_static(b"x")).await.unwrap();
    }
    let list = async |after: Option<&str>| {
        let found = match after {
            Some(after) => bucket.list_after("log/", after).await.unwrap().0,
            None => bucket.list_all("log/").await.unwrap().0,
        };
        found.into_iter().map(|object| object.name).collect::<Vec<_>>()
    };
    for strange in 0..8 {
        far.proxy.change(|manners| {
            manners.empty_pages = strange & 1 > 0;
            manners.out_of_order = strange & 2 > 0;
            manners.ignores_start_after = strange & 4 > 0;
        });
        assert_eq!(list(None).await, names, "{strange}");
        assert_eq!(list(Some(&names[3])).await, names[4..], "{strange}");
        assert_eq!(list(Some(&names[8])).await, [""; 0], "{strange}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_clock_is_the_one_to_sign_by() {
    for off in [25 * 60, -25 * 60] {
        let far = Far::new(Manners { clock: off, ..Manners::default() });
        let bucket = far.open().await;
        let up = bucket.put_once("log/1", Bytes::from_static(b"x")).await.unwrap();
        let apart = up.time().duration_since(SystemTime::now()).unwrap_or_else(|e| e.duration());
        assert!(apart > Duration::from_secs(20 * 60), "it is the store's: {apart:?}");
        // If the clock jumps, ours or the store's, a request under way is repeated; a single attempt reports the clock.
        far.proxy.change(|manners| manners.clock = -off);
        assert_eq!(bucket.get("log/1", None).await.unwrap(), "x");
        far.proxy.change(|manners| manners.clock = 0);
        let once = bucket.put_once("log/2", Bytes::from_static(b"y")).await;
        assert!(matches!(once, Err(Error::Clock { .. })), "{once:?}");
        bucket.put_once("log/2", Bytes::from_static(b"y")).await.unwrap();
    }
    // If the difference cannot be measured, the clock is still named as the reason.
    let far = Far::new(Manners { clock: 25 * 60, tells_no_date: true, ..Manners::default() });
    let opened = far.try_open(Deadlines::of(Duration::from_secs(1))).await;
    assert!(matches!(opened, Err(Error::Clock { .. })), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_while_is_asked_again_until_the_deadline() {
    let far = Far::new(Manners::default());
    let bucket = far.open().await;
    for status in [500, 503] {
        far.proxy.change(|manners| manners.busy = (12, status));
        assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::NotDisproved);
        far.proxy.change(|manners| manners.busy = (3, status));
        let name = format!("pack/{status}");
        let body = Bytes::from(noise(3, 300_000));
        bucket.put_new(&name, body.clone()).await.unwrap();
        far.proxy.change(|manners| (manners.busy, manners.cuts) = ((2, status), 2));
        assert_eq!(bucket.get(&name, None).await.unwrap(), body);
        far.proxy.change(|manners| manners.busy = (3, status));
        assert_eq!(bucket.list_all(&name).await.unwrap().0.len(), 1);
    }
    far.proxy.change(|manners| manners.loses = 2);
    bucket.put_new("pack/lost", Bytes::from_static(b"x")).await.unwrap();
    // Conditional puts whose replies are lost prove nothing, and are repeated.
    far.proxy.change(|manners| manners.loses = 4);
    assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::NotDisproved);
    let hasty = far.try_open(Deadlines::of(Duration::from_secs(3))).await.unwrap();
    far.proxy.change(|manners| manners.busy = (u32::MAX, 503));
    let begun = Instant::now();
    let probed = hasty.probe_conditional().await;
    assert!(probed.as_ref().is_err_and(Error::is_transient), "{probed:?}");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_moves_is_not_given_up_and_one_that_does_not_is() {
    // 900 kB take three times the five seconds within which something must move; the kernel accepts them all at once.
    let limits = Deadlines { stall_put: Duration::from_secs(5), ..Deadlines::default() };
    let far = Far::new(Manners { uplink: Some(Uplink::Each(60_000)), ..Manners::default() });
    let bucket = far.try_open(limits).await.unwrap();
    let moved = bucket.moving();
    let begun = Instant::now();
    let put = bucket.put_new_counted("pack/1", noise(4, 900_000).into(), &moved);
    tokio::pin!(put);
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut put).await.is_err());
    let half_way = moved.bytes();
    assert!((20_000..800_000).contains(&half_way), "what the other end took: {half_way}");
    put.await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(far.proxy.count("PUT", "pack/1"), 1, "it is sent once");
    assert!(bucket.moved() >= 900_000);
    // Almost no progress counts as none: otherwise it would go on for 87 s.
    let floor = Deadlines { floor_put: 150_000, stall_put: Duration::from_secs(1), ..limits };
    let bucket = far.try_open(floor).await.unwrap();
    let begun = Instant::now();
    let put = bucket.put_once("pack/2", noise(6, 5 << 20).into()).await;
    assert!(matches!(put, Err(Error::Deadline { .. })), "{put:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Concurrent puts share a link, and none is given up. (The kernel reports 16 KiB at a time: a second for each.)
    let limits = Deadlines { stall_put: Duration::from_secs(10), ..limits };
    let shared = Far::new(Manners { uplink: Some(Uplink::Shared(60_000)), ..Manners::default() });
    let bucket = shared.try_open(limits).await.unwrap();
    let body = Bytes::from(noise(5, 200_000));
    let names: Vec<_> = (0..4).map(|n| format!("pack/{n}")).collect();
    let puts = names.iter().map(|name| bucket.put_new(name, body.clone()));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(shared.proxy.count("PUT", "pack/"), 4, "each is sent once");
}

/// All quirks at once that a store can have and still work.
#[test]
fn a_vault_lives_on_the_strangest_store() {
    let strange = Manners {
        refuses_checksum: Some(501),
        taken_is_304: true,
        tells_no_length: true,
        page: Some(2),
        empty_pages: true,
        out_of_order: true,
        ignores_start_after: true,
        ignores_range: true,
        clock: 25 * 60,
        busy: (2, 503),
        ..Manners::default()
    };
    let far = Far::new(strange);
    let home = far.home();
    home.type_in(&far.line("init")).exits(0);
    home.type_in("mount vault").exits(0);
    let content = noise(7, 1_200_000);
    for name in ["a", "b", "c"] {
        fs::write(home.path("vault").join(name), &content).unwrap();
        home.type_in("sync vault").exits(0);
    }
    let said = home.type_in("status").exits(0).out;
    assert!(said.contains("refuses checksums"), "{said}");
    // A jump of the store's clock does not fence the writer, and nothing is set aside.
    far.proxy.change(|manners| manners.clock = -25 * 60);
    fs::write(home.path("vault/d"), &content).unwrap();
    home.type_in("sync vault").exits(0);
    far.proxy.change(|manners| manners.clock = 0);
    fs::write(home.path("vault/e"), &content).unwrap();
    home.type_in("sync vault").exits(0);
    far.proxy.change(|manners| manners.tells_no_date = true);
    fs::write(home.path("vault/f"), &content).unwrap();
    home.type_in("umount vault").exits(0);
    // What was learned is known at the next mount.
    far.proxy.take();
    home.type_in("mount vault").exits(0);
    let asked = far.proxy.take();
    assert!(asked.iter().all(|asked| asked.status != 501), "{asked:?}");
    home.type_in("umount vault").exits(0);
    // Another machine finds every name, and reads each byte from the bucket.
    let other = far.home();
    other.type_in(&far.line("mount vault")).exits(0);
    for name in ["a", "b", "c", "d", "e", "f"] {
        assert!(fs::read(other.path("vault").join(name)).unwrap() == content, "{name}");
    }
    let said = other.type_in("status").exits(0).out;
    assert!(said.contains("ignores ranges"), "{said}");
    other.type_in("umount vault").exits(0);
}

#[test]
fn w6_a_store_without_conditional_puts_is_for_a_single_machine() {
    let far = Far::new(Manners { refuses_condition: Some(501), ..Manners::default() });
    let home = far.home();
    home.type_in(&far.line("init")).exits(21).says("--single-machine");
    home.type_in(&far.line("init --single-machine")).exits(0).says("one machine only");
    home.type_in("mount vault").exits(21).says("--single-machine");
    home.type_in("mount vault --single-machine").exits(0);
    fs::write(home.path("vault/a"), "x").unwrap();
    home.type_in("umount vault").exits(0);
    home.type_in("mount vault --single-machine").exits(0);
    assert_eq!(fs::read(home.path("vault/a")).unwrap(), b"x");
    home.type_in("umount vault").exits(0);
    // A store that used to have them: a vault on it gets the same message.
    let far = Far::new(Manners::default());
    let home = far.home();
    home.type_in(&far.line("init")).exits(0);
    home.type_in("mount vault").exits(0);
    home.type_in("umount vault").exits(0);
    far.proxy.change(|manners| manners.refuses_condition = Some(501));
    home.type_in("mount vault").exits(21).says("--single-machine");
    home.type_in("mount vault --single-machine").exits(0);
    home.type_in("umount vault").exits(0);
}

#[test]
fn a_clock_that_nobody_can_correct_is_said_as_what_it_is() {
    let far = Far::new(Manners { clock: 25 * 60, tells_no_date: true, ..Manners::default() });
    far.home().type_in(&far.line("init")).exits(5).says("set the clock");
}
