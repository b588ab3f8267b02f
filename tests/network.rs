//! The way to the store as companies have it: proxies, and certificates that only they know.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/home.rs"]
mod home;
mod support;

use std::fs;
use std::time::Instant;

use home::{Home, wait_until};
use support::{ForwardProxy, Manners, Strange, TestBucket, TlsFront, noise, weed};

fn home(bucket: &TestBucket) -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    bucket.environment().into_iter().fold(home, |home, (name, value)| home.with(name, &value))
}

fn line(what: &str, bucket: &TestBucket, endpoint: &str) -> String {
    format!("{what} --bucket {} --endpoint-url {endpoint}", bucket.url())
}

/// Writes through the mount, and waits until the bucket has it.
fn write(home: &Home, name: &str) {
    fs::write(home.path("vault").join(name), noise(1, 300_000)).unwrap();
    home.type_in("sync vault").exits(0);
}

#[test]
fn a_certificate_that_is_not_trusted_is_named_and_a_bundle_trusts_it() {
    let bucket = weed().bucket();
    let front = TlsFront::start(weed().port());
    let init = line("init", &bucket, &front.endpoint());
    let none = home(&bucket);
    none.type_in(&init).exits(24).says("AWS_CA_BUNDLE").says("UnknownIssuer");
    // Whatever the bundle is instead, it is no reason to go by other certificates.
    let wrong = none.with("AWS_CA_BUNDLE", "bundle.pem");
    wrong.type_in(&init).exits(2).says("bundle.pem (AWS_CA_BUNDLE)").says("no such file");
    fs::write(wrong.path("bundle.pem"), TlsFront::start(1).certificate()).unwrap();
    wrong.type_in(&init).exits(24);
    assert_eq!(front.connections(), 0);
    fs::write(wrong.path("bundle.pem"), front.certificate()).unwrap();
    wrong.type_in(&init).exits(0);
    // The daemon's working directory is another one.
    wrong.type_in("mount vault").exits(0);
    write(&wrong, "a");
    wrong.type_in("umount vault").exits(0);
    // The profile's, on another machine.
    let other = home(&bucket);
    let (config, bundle) = (other.path("aws-config"), other.path("bundle.pem"));
    fs::write(&bundle, front.certificate()).unwrap();
    let profile = |path: &str| {
        fs::write(&config, format!("[profile work]\nca_bundle = {path}\n")).unwrap();
    };
    let other = other.with("AWS_CONFIG_FILE", "aws-config").with("AWS_PROFILE", "work");
    profile("bundle.pem");
    let mount = line("mount vault --read-only", &bucket, &front.endpoint());
    other.type_in(&mount).exits(2).says("not absolute");
    profile(bundle.to_str().unwrap());
    other.type_in(&mount).exits(0);
    assert!(fs::read(other.path("vault/a")).unwrap() == noise(1, 300_000));
    other.type_in("umount vault").exits(0);
}

#[test]
fn the_store_is_asked_through_the_proxy_and_past_it_where_it_is_to_be() {
    let bucket = weed().bucket();
    let (front, proxy) = (TlsFront::start(weed().port()), ForwardProxy::start());
    let home = home(&bucket).with("AWS_CA_BUNDLE", "bundle.pem");
    fs::write(home.path("bundle.pem"), front.certificate()).unwrap();
    let home = home.with("HTTPS_PROXY", &proxy.url());
    home.type_in(&line("init", &bucket, &front.endpoint())).exits(0);
    home.type_in("mount vault").exits(0);
    let before = proxy.used();
    write(&home, "a");
    let (tunnels, all) = (proxy.used(), front.connections());
    assert!(before > 0 && tunnels == all, "{tunnels} of {all} connections were tunnels");
    // What is open is kept; new ones go on being tunnels.
    home.type_in("umount vault").exits(0);
    assert_eq!(proxy.used(), front.connections());
    let log =
        fs::read_dir(home.state()).unwrap().flatten().map(|dir| dir.path().join("daemon.log"));
    let log: String = log.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(log.contains(&proxy.place()) && !log.contains("s3cr"), "{log}");

    // Past it.
    let used = proxy.used();
    let home = home.with("NO_PROXY", "localhost,127.0.0.0/8");
    home.type_in("mount vault").exits(0);
    write(&home, "b");
    home.type_in("umount vault").exits(0);
    assert_eq!(proxy.used(), used);

    // In the clear, requests are handed on; https_proxy is not asked for them.
    let plain = line("check", &bucket, &weed().endpoint());
    home.type_in(&plain).exits(0);
    assert_eq!(proxy.used(), used);
    let home = home.with("no_proxy", "elsewhere").with("HTTP_PROXY", &proxy.url());
    home.type_in(&plain).exits(0);
    assert!(proxy.used() > used);

    // What cannot be used is said, and not passed over; and who refused, without the password.
    let to = line("check", &bucket, &front.endpoint());
    let wrong = format!("http://squid:s3cret@{}", proxy.place());
    for (url, code, words) in
        [(wrong.as_str(), 5, "through the proxy"), ("socks5h://s3cret:s3cret@p", 2, "SOCKS")]
    {
        let mut command = home.command(to.split_whitespace());
        let done = home::Done::from(command.env("https_proxy", url).arg("-v").output().unwrap());
        let done = done.exits(code).says(words).says("https_proxy");
        assert!(!done.err.contains("s3cret"), "{}", done.err);
    }
}

/// A home and a store that knows one access key at a time.
struct Changing {
    home: Home,
    store: Strange,
    /// Before the store, so that the bucket outlives the mount.
    bucket: TestBucket,
}

impl Changing {
    fn new() -> Self {
        let bucket = weed().bucket();
        let store = Strange::start(weed().port(), Manners::default());
        let home = Home::new()
            .with("S3VAULT_PASSPHRASE", "correct horse")
            .with("AWS_EC2_METADATA_DISABLED", "true")
            .with("AWS_CONFIG_FILE", "config")
            .with("AWS_SHARED_CREDENTIALS_FILE", "keys");
        Self { home, store, bucket }
    }

    fn warnings(&self) -> String {
        self.home.status(&self.home.path("vault"))["warnings"].to_string()
    }

    fn is_sent(&self) -> bool {
        let status = self.home.status(&self.home.path("vault"));
        status["unsent_changes"] == 0 && status["open_files"] == 0
    }

    /// The store knows another key from now on: what is written is kept, and why it is not sent is said.
    fn refuses_all_but(&self, key: &'static str) {
        self.store.change(|manners| manners.knows = Some(key));
        let path = self.home.path("vault").join(format!("written before {key}"));
        fs::write(path, noise(3, 100_000)).unwrap();
        wait_until("it is said", || self.warnings().contains("refuses the credentials"));
        let said = self.warnings();
        assert!(said.contains("since 20") && said.contains("s3vault credentials"), "{said}");
        assert!(!self.is_sent());
    }

    /// What was kept is sent, within a minute of the change and without a remount.
    fn resumes(&self) {
        let begun = Instant::now();
        wait_until("it is sent", || self.is_sent());
        wait_until("nothing is wrong", || !self.warnings().contains("credentials"));
        assert!(begun.elapsed().as_secs() < 60);
    }
}

fn keys(id: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s3cret\n")
}

#[test]
fn credentials_change_under_a_mount_and_nothing_is_lost() {
    let there = Changing::new();
    let (home, bucket) = (&there.home, &there.bucket);
    let init = line("init", bucket, &there.store.endpoint());
    home.type_in(&init).exits(6).says("neither environment nor profile");
    fs::write(home.path("keys"), keys("FILE1")).unwrap();
    home.type_in(&init).exits(0);
    home.type_in("mount vault").exits(0);
    there.refuses_all_but("FILE2");
    fs::write(home.path("keys"), keys("FILE2")).unwrap();
    there.resumes();
    home.type_in("umount vault").exits(0);

    // A process that gives them.
    fs::remove_file(home.path("keys")).unwrap();
    let json = |id: &str| {
        let text =
            format!(r#"{{"Version": 1, "AccessKeyId": "{id}", "SecretAccessKey": "s3cret"}}"#);
        fs::write(home.path("keys.json"), text).unwrap();
    };
    let process = format!("cat {}", home.path("keys.json").display());
    fs::write(home.path("config"), format!("[default]\ncredential_process = {process}\n")).unwrap();
    json("FILE2");
    home.type_in("mount vault").exits(0);
    there.refuses_all_but("PROCESS");
    json("PROCESS");
    there.resumes();
    home.type_in("umount vault").exits(0);

    // Those of the environment are handed over.
    let with = |id: &str, words: &str| {
        let mut command = home.command(words.split(' '));
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", "s3cret-of-mine");
        home::Done::from(command.output().unwrap())
    };
    with("PROCESS", "mount vault").exits(0);
    there.refuses_all_but("HANDED");
    assert!(there.warnings().contains("from the environment"), "{}", there.warnings());
    with("OTHER", "credentials vault").exits(6).says("those before stay");
    assert!(!there.is_sent());
    with("HANDED", "credentials").exits(0).says("access key HANDED");
    there.resumes();
    home.type_in("umount vault").exits(0);
    let log =
        fs::read_dir(home.state()).unwrap().flatten().map(|dir| dir.path().join("daemon.log"));
    let log: String = log.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(log.contains("handed over") && !log.contains("s3cret"), "{log}");

    with("HANDED", "mount vault").exits(0);
    for key in ["FILE2", "PROCESS", "HANDED"] {
        let path = home.path("vault").join(format!("written before {key}"));
        assert!(fs::read(path).unwrap() == noise(3, 100_000), "{key}");
    }
    home.type_in("umount vault").exits(0);
}
