//! The way to the store in corporate networks: proxies, and certificates of private authorities.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::home::{Home, wait_until};
use crate::support::{ForwardProxy, Giver, Manners, Strange, TestBucket, TlsFront, noise, weed};

fn home(bucket: &TestBucket) -> Home {
    Home::for_bucket(bucket).with("S3VAULT_PASSPHRASE", "correct horse")
}

fn line(what: &str, bucket: &TestBucket, endpoint: &str) -> String {
    format!("{what} --bucket {} --endpoint-url {endpoint}", bucket.url())
}

/// Writes a file through the mount, and waits until the bucket has it.
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
    // A bad bundle is an error, and no reason to fall back to other certificates.
    let wrong = none.with("AWS_CA_BUNDLE", "bundle.pem");
    wrong.type_in(&init).exits(2).says("bundle.pem (AWS_CA_BUNDLE)").says("no such file");
    fs::write(wrong.path("bundle.pem"), TlsFront::start(1).certificate()).unwrap();
    wrong.type_in(&init).exits(24);
    assert_eq!(front.connections(), 0);
    fs::write(wrong.path("bundle.pem"), front.certificate()).unwrap();
    wrong.type_in(&init).exits(0);
    // The daemon has another working directory.
    wrong.type_in("mount vault").exits(0);
    write(&wrong, "a");
    wrong.type_in("umount vault").exits(0);
    // On another machine, the bundle is set in the profile.
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
    assert!(before > 0 && front.connections() > 0);
    wait_until("all connections are tunnels", || proxy.used() == front.accepted());
    // The first connections are kept, and new ones are tunnels, too.
    home.type_in("umount vault").exits(0);
    wait_until("all connections are tunnels", || proxy.used() == front.accepted());
    let log =
        fs::read_dir(home.state()).unwrap().flatten().map(|dir| dir.path().join("daemon.log"));
    let log: String = log.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(log.contains(&proxy.place()) && !log.contains("s3cr"), "{log}");

    // Around the proxy.
    let used = proxy.used();
    let home = home.with("NO_PROXY", "localhost,127.0.0.0/8");
    home.type_in("mount vault").exits(0);
    write(&home, "b");
    home.type_in("umount vault").exits(0);
    assert_eq!(proxy.used(), used);

    // Without TLS, requests are forwarded; https_proxy does not apply to them.
    let plain = line("check", &bucket, &weed().endpoint());
    home.type_in(&plain).exits(0);
    assert_eq!(proxy.used(), used);
    let home = home.with("no_proxy", "elsewhere").with("HTTP_PROXY", &proxy.url());
    home.type_in(&plain).exits(0);
    assert!(proxy.used() > used);

    // A proxy that cannot be used is an error, not skipped. The message names it, without the password.
    let to = line("check", &bucket, &front.endpoint());
    let wrong = format!("http://squid:s3cret@{}", proxy.place());
    for (url, code, words) in
        [(wrong.as_str(), 5, "through the proxy"), ("socks5h://s3cret:s3cret@p", 2, "SOCKS")]
    {
        let mut command = home.command(to.split_whitespace());
        let done = crate::support::home::Done::from(
            command.env("https_proxy", url).arg("-v").output().unwrap(),
        );
        let done = done.exits(code).says(words).says("https_proxy");
        assert!(!done.err.contains("s3cret"), "{}", done.err);
    }
}

/// A home, and a store that knows one access key at a time.
struct Changing {
    home: Home,
    store: Strange,
    /// Declared before the store, so that the bucket outlives the mount.
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

    fn with(self, name: &str, value: &str) -> Self {
        Self { home: self.home.with(name, value), ..self }
    }

    /// Makes a vault and mounts it, while the store knows only this key.
    fn begins(&self, key: &'static str) {
        self.store.change(|manners| manners.knows = Some(key));
        self.home.type_in(&line("init", &self.bucket, &self.store.endpoint())).exits(0);
        self.home.type_in("mount vault").exits(0);
        write(&self.home, "at first");
    }

    /// Unmounts: everything is in the bucket, and no secret was logged.
    fn ends(&self) {
        self.home.type_in("umount vault").exits(0);
        let log = self.log();
        assert!(!log.contains("s3cret") && !log.contains("tok3n"), "{log}");
    }

    fn log(&self) -> String {
        let dirs = fs::read_dir(self.home.state()).unwrap().flatten();
        let logs = dirs.filter_map(|dir| fs::read_to_string(dir.path().join("daemon.log")).ok());
        logs.collect()
    }

    fn warnings(&self) -> String {
        self.home.status(&self.home.path("vault"))["warnings"].to_string()
    }

    fn is_sent(&self) -> bool {
        let status = self.home.status(&self.home.path("vault"));
        status["unsent_changes"] == 0 && status["open_files"] == 0
    }

    /// From now on the store knows only another key: what is written is kept, and the reason why it is not sent is
    /// reported.
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

    // A process that supplies credentials.
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

    // Credentials of the environment are handed over.
    let with = |id: &str, words: &str| {
        let mut command = home.command(words.split(' '));
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", "s3cret-of-mine");
        crate::support::home::Done::from(command.output().unwrap())
    };
    with("PROCESS", "mount vault").exits(0);
    there.refuses_all_but("HANDED");
    assert!(there.warnings().contains("from the environment"), "{}", there.warnings());
    with("OTHER", "credentials vault").exits(6).says("the ones before stay");
    assert!(!there.is_sent());
    with("HANDED", "credentials").exits(0).says("access key HANDED");
    there.resumes();
    home.type_in("umount vault").exits(0);
    let log = there.log();
    assert!(log.contains("handed over") && !log.contains("s3cret"), "{log}");

    with("HANDED", "mount vault").exits(0);
    for key in ["FILE2", "PROCESS", "HANDED"] {
        let path = home.path("vault").join(format!("written before {key}"));
        assert!(fs::read(path).unwrap() == noise(3, 100_000), "{key}");
    }
    home.type_in("umount vault").exits(0);
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_web_identity_that_is_renewed_gives_new_credentials_under_a_mount() {
    let sts = Giver::start();
    let there = Changing::new()
        .with("AWS_ENDPOINT_URL_STS", &sts.url())
        .with("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", "token");
    fs::write(there.home.path("token"), "tok3n-1").unwrap();
    sts.gives("WEB1", HOUR, "tok3n-1");
    there.begins("WEB1");
    // The role's session is revoked, and its token is no longer accepted.
    sts.gives("WEB2", HOUR, "tok3n-2");
    there.refuses_all_but("WEB2");
    wait_until("STS was asked", || sts.refused() > 0);
    assert_eq!(sts.given("WEB2"), 0);
    // The pod's supervisor writes a new token.
    fs::write(there.home.path("token"), "tok3n-2").unwrap();
    there.resumes();
    there.ends();
}

#[test]
fn the_credentials_of_an_instance_role_are_renewed_before_they_expire() {
    let imds = Giver::start();
    let there = Changing::new()
        .with("AWS_EC2_METADATA_DISABLED", "false")
        .with("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.url());
    // Five minutes before they expire, others are asked for, while these remain in use.
    imds.gives("IMDS1", Duration::from_mins(4), "");
    there.begins("IMDS1");
    there.store.change(|manners| manners.knows = None); // accepts both, for a while
    imds.gives("IMDS2", HOUR, "");
    wait_until("it is renewed", || {
        write(&there.home, "while it serves");
        there.log().matches("new credentials").count() == 2
    });
    assert_eq!(imds.given("IMDS2"), 1);
    assert!(!there.warnings().contains("credentials"), "{}", there.warnings());
    there.store.change(|manners| manners.knows = Some("IMDS2"));
    write(&there.home, "with the new ones");
    assert!(!there.warnings().contains("credentials") && !there.log().contains("refuses"));
    there.ends();
}

#[test]
fn a_new_login_by_sso_gives_new_credentials_under_a_mount() {
    let portal = Giver::start();
    let there = Changing::new().with("AWS_ENDPOINT_URL_SSO", &portal.url());
    let profile = "[default]\nsso_session = work\nsso_account_id = 123456789012\nsso_role_name = backup\n\
         [sso-session work]\nsso_region = us-east-1\nsso_start_url = https://work.invalid/start\n";
    fs::write(there.home.path("config"), profile).unwrap();
    // As `aws sso login` leaves it: named by the SHA-1 of the session's name.
    let cache = there.home.path(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let login = |token: &str| {
        let text = format!(r#"{{"accessToken": "{token}", "expiresAt": "2126-01-01T00:00:00Z"}}"#);
        fs::write(cache.join("e274eeff768c6396088ec6eb091f4bf4d47ab1e0.json"), text).unwrap();
    };
    login("tok3n-1");
    portal.gives("SSO1", HOUR, "tok3n-1");
    there.begins("SSO1");
    // The session ends.
    portal.gives("SSO2", HOUR, "tok3n-2");
    there.refuses_all_but("SSO2");
    wait_until("the portal was asked", || portal.refused() > 0);
    assert_eq!(portal.given("SSO2"), 0);
    login("tok3n-2");
    there.resumes();
    there.ends();
}

#[test]
fn the_keys_of_the_environment_come_first_and_the_daemon_has_them_from_the_pipe_alone() {
    let sts = Giver::start();
    // As with `aws` without `--profile`, these keys are used directly, not to assume a role.
    let there = Changing::new()
        .with("AWS_ENDPOINT_URL_STS", &sts.url())
        .with("AWS_PROFILE", "role")
        .with("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
        .with("AWS_SECRET_ACCESS_KEY", " ") // blank counts as none
        .with("SECRET_ACCESS_KEY", "s3cret-of-mine");
    let profile = "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/backup\n\
         credential_source = Environment\n";
    fs::write(there.home.path("config"), profile).unwrap();
    there.begins("ENVIRONMENT");
    let daemon = there.home.daemon(&there.home.path("vault"));
    for part in ["environ", "cmdline"] {
        let shown = fs::read(format!("/proc/{daemon}/{part}")).unwrap();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(!shown.contains("s3cret"), "{shown:?}");
    }
    there.ends();
    assert_eq!((sts.refused(), sts.given("")), (0, 0));
}

#[test]
fn credentials_reach_a_service_without_a_mount_by_its_bucket() {
    let buckets = [weed().bucket(), weed().bucket()];
    let home = home(&buckets[0]);
    for bucket in &buckets {
        home.type_in(&line("init", bucket, bucket.endpoint())).exits(0);
        let serve = format!("serve --listen 127.0.0.1:0 --bucket {}", bucket.url());
        home.type_in(&serve).exits(0);
    }
    home.type_in("credentials").exits(2).says("--bucket").says(&buckets[0].url().to_string());
    let has = |dir: &fs::DirEntry| {
        fs::read_to_string(dir.path().join("daemon.log"))
            .is_ok_and(|log| log.contains("handed over"))
    };
    let reached = || fs::read_dir(home.state()).unwrap().flatten().filter(has).count();
    for (before, bucket) in buckets.iter().enumerate() {
        assert_eq!(reached(), before);
        let url = bucket.url();
        let hand_over = format!("credentials --bucket {url}");
        home.type_in(&hand_over).exits(0).says(&format!("the service of {url} "));
    }
    assert_eq!(reached(), 2);
    home.type_in(&format!("serve --stop --bucket {}", buckets[0].url())).exits(0);
    let gone = format!("credentials --bucket {}", buckets[0].url());
    home.type_in(&gone).exits(13).says("neither mounted nor served");
    home.type_in("credentials").exits(0).says(&buckets[1].url().to_string());
    home.type_in(&format!("serve --stop --bucket {}", buckets[1].url())).exits(0);
}
