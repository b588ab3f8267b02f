//! The store on real servers: SeaweedFS, which honours conditional puts, and rclone, which does not.

use std::time::{Duration, SystemTime};

use crate::support::{Proxy, Rclone, Trouble, weed};
use bytes::Bytes;
use s3vault::testing::store::{
    Bucket, Conditional, Deadlines, Error, S3Options, S3Store, StoreUrl, conformance,
};
use s3vault::testing::types::with_causes;

async fn open(url: &StoreUrl, options: &S3Options) -> Result<Bucket, Error> {
    Bucket::open(url, options, Deadlines::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs_passes_the_suite() {
    let bucket = weed().bucket();
    let limits = Deadlines::default();
    let store = S3Store::open(bucket.name(), &bucket.options(), limits).await.unwrap();
    conformance::run(&store, "some/prefix/").await.assert_passed();
}

/// Any endpoint: `scripts/conformance ENDPOINT BUCKET`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an endpoint: scripts/conformance"]
async fn given_endpoint_passes_the_suite() {
    let given = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let options = S3Options {
        endpoint_url: Some(given("S3VAULT_CONFORMANCE_ENDPOINT")),
        ..S3Options::default()
    };
    let name = given("S3VAULT_CONFORMANCE_BUCKET");
    let store = S3Store::open(&name, &options, Deadlines::default()).await.unwrap();
    let report = conformance::run(&store, "s3vault-conformance/").await;
    for (check, result) in &report.checks {
        println!("{check}: {}", result.as_ref().err().map_or("passed", String::as_str));
    }
    let bucket = open(&format!("s3://{name}").parse().unwrap(), &options).await.unwrap();
    println!("rule W6, conditional puts: {:?}", bucket.probe_conditional().await);
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_verifies_what_it_puts_and_gets() {
    let test = weed().bucket();
    let bucket = test.open().await;
    let body = Bytes::from(vec![7; 5 << 20]);
    let up = bucket.put_new("pack/00/a", body.clone()).await.unwrap();
    assert_eq!((up.name(), up.length()), ("pack/00/a", 5 << 20));
    let age = SystemTime::now().duration_since(up.time()).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    let counts = bucket.requests();
    assert_eq!((counts.puts, counts.heads, counts.gets), (1, 1, 0), "the CRC-32 was echoed");
    // Putting the same bytes again is fine; putting others is not.
    bucket.put_new("pack/00/a", body.clone()).await.unwrap();
    let other = bucket.put_new("pack/00/a", Bytes::from_static(b"other")).await;
    assert!(matches!(other, Err(Error::Exists { .. })), "{other:?}");
    assert_eq!(bucket.get("pack/00/a", Some(1 << 20..2 << 20)).await.unwrap(), body[..1 << 20]);
    let beyond = bucket.get("pack/00/a", Some(5 << 20..(5 << 20) + 1)).await;
    assert!(matches!(beyond, Err(Error::Corrupt { .. })), "{beyond:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_denied_at_once() {
    let test = weed().bucket();
    let mut options = test.options();
    options.credentials.as_mut().unwrap().secret_key = "wrong".to_owned().into();
    let opened = open(&test.url(), &options).await;
    assert!(matches!(opened, Err(Error::Denied { .. })), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named() {
    let test = weed().bucket();
    let url = "s3://no-such-bucket-here".parse().unwrap();
    let opened = open(&url, &test.options()).await;
    let named =
        matches!(&opened, Err(Error::NoBucket { bucket, .. }) if bucket == "no-such-bucket-here");
    assert!(named, "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_unreachable() {
    let test = weed().bucket();
    let limits = Deadlines::of(Duration::from_secs(3));
    let options = test.options_through("http://127.0.0.1:1");
    let opened = Bucket::open(&test.url(), &options, limits).await;
    assert!(matches!(opened, Err(Error::Unreachable { .. })), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_the_error_says_so() {
    let Ok(endpoint) = std::env::var("S3VAULT_TEST_WITHOUT_CREDENTIALS") else {
        // Runs again in a process of its own, since the environment matters.
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::without_credentials_the_error_says_so", "--nocapture"])
            .env_clear()
            .envs([("HOME", "/nonexistent"), ("AWS_EC2_METADATA_DISABLED", "true")])
            .env("S3VAULT_TEST_WITHOUT_CREDENTIALS", weed().endpoint())
            .output()
            .unwrap();
        let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        assert!(output.status.success() && ran, "{output:?}");
        return;
    };
    let options = S3Options { endpoint_url: Some(endpoint), ..S3Options::default() };
    let opened = open(&"s3://bucket".parse().unwrap(), &options).await;
    let said = matches!(&opened, Err(error @ Error::NoCredentials { .. })
        if with_causes(error).contains("credentials"));
    assert!(said, "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn w6_seaweedfs_is_not_disproved() {
    let test = weed().bucket();
    let bucket = test.open().await;
    assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::NotDisproved);
    assert!(bucket.list_all("").await.unwrap().0.is_empty(), "the probe is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn w6_a_store_that_ignores_the_condition_is_detected() {
    let rclone = Rclone::start();
    let test = rclone.bucket();
    let bucket = test.open().await;
    assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::Ignored);
    // rclone keeps listing a deleted key if it was written several times at once.
    for listed in bucket.list_all("").await.unwrap().0 {
        let head = bucket.head(&listed.name).await;
        assert!(matches!(head, Err(Error::NotFound { .. })), "the probe is deleted: {head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_adds_a_round_trip_and_counts() {
    let test = weed().bucket();
    let proxy = Proxy::start(weed().port(), Duration::from_millis(30));
    let options = test.options_through(&proxy.endpoint());
    let bucket = open(&test.url(), &options).await.unwrap();
    bucket.put_new("log/1", Bytes::from(vec![1; 100_000])).await.unwrap();
    proxy.take();
    let start = std::time::Instant::now();
    bucket.get("log/1", Some(0..4096)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
    let seen = proxy.take();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].method.as_str(), seen[0].status), ("GET", 206));
    assert!((4096..6000).contains(&seen[0].received), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_reply_is_lost_counts_when_its_bytes_are_there() {
    let test = weed().bucket();
    let proxy = Proxy::start(weed().port(), Duration::ZERO);
    let bucket = open(&test.url(), &test.options_through(&proxy.endpoint())).await.unwrap();
    proxy.trouble("PUT", "pack/", 1, Trouble::LoseReply);
    let body = Bytes::from(vec![3; 300_000]);
    bucket.put_new("pack/aa/1", body.clone()).await.unwrap();
    let statuses: Vec<_> =
        proxy.take().iter().filter(|e| e.method == "PUT").map(|e| e.status).collect();
    assert_eq!(statuses, [200, 412]);
    // `put_once` makes a single attempt.
    proxy.trouble("PUT", "log/", 1, Trouble::LoseReply);
    let once = bucket.put_once("log/1", body.clone()).await;
    assert!(matches!(once, Err(Error::Unreachable { .. })), "{once:?}");
    assert_eq!(bucket.get("log/1", None).await.unwrap(), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_given_up_at_the_deadline_and_comes_back() {
    let test = weed().bucket();
    let proxy = Proxy::start(weed().port(), Duration::ZERO);
    let limits = Deadlines::of(Duration::from_secs(8));
    let options = test.options_through(&proxy.endpoint());
    let bucket = Bucket::open(&test.url(), &options, limits).await.unwrap();
    bucket.put_new("log/1", Bytes::from_static(b"x")).await.unwrap();
    for cut in [true, false] {
        if cut {
            proxy.cut();
        } else {
            proxy.trouble("GET", "log/", u32::MAX, Trouble::Stall);
        }
        let start = std::time::Instant::now();
        let got = bucket.get("log/1", Some(0..1)).await;
        assert!(got.as_ref().is_err_and(Error::is_transient), "{got:?}");
        assert!(start.elapsed() < Duration::from_secs(16), "{:?}", start.elapsed());
        proxy.heal();
        assert_eq!(bucket.get("log/1", Some(0..1)).await.unwrap(), "x");
    }
}
