//! How the HTTP service is hosted: with and without a mount, access control, and limits. Real HTTP, with vaults on
//! SeaweedFS. The API's answers are tested in `tests/program/gateway.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::home::{Done, Home, mounts_below, runs, signal, wait_until};
use crate::support::http::{Answer, Place};
use crate::support::{TestBucket, noise, weed};

/// A user with a vault on the shared server.
struct User {
    home: Home,
    bucket: TestBucket,
}

fn user() -> User {
    let bucket = weed().bucket();
    let home = another(&bucket);
    let (name, endpoint) = (bucket.name(), bucket.endpoint());
    home.type_in(&format!("init --bucket s3://{name} --endpoint-url {endpoint}")).exits(0);
    User { home, bucket }
}

/// A user of the same vault on another machine.
fn another(bucket: &TestBucket) -> Home {
    let mut home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    for (name, value) in bucket.environment() {
        home = home.with(name, &value);
    }
    home
}

impl User {
    /// Serves on a free port.
    fn serve(&self, options: &str) -> Place {
        self.home.type_in(&format!("serve --listen 127.0.0.1:0 {options}")).exits(0);
        self.place()
    }

    fn report(&self) -> serde_json::Value {
        self.home.only_status()
    }

    fn place(&self) -> Place {
        Place::of(self.report()["service"]["url"].as_str().expect("it serves"))
    }

    fn daemon(&self) -> u32 {
        u32::try_from(self.report()["pid"].as_u64().expect("it runs")).unwrap()
    }

    /// Makes a token, and returns the header that carries it.
    fn token(&self, words: &str) -> String {
        let done = self.home.type_in(&format!("serve token add {words}")).exits(0);
        format!("Authorization: Bearer {}", done.out.trim())
    }

    /// Reads a file from the bucket on another machine, which can only claim the vault if this one has released it.
    fn elsewhere(&self, file: &str) -> Vec<u8> {
        let other = another(&self.bucket);
        let (name, endpoint) = (self.bucket.name(), self.bucket.endpoint());
        other
            .type_in(&format!("mount vault --bucket s3://{name} --endpoint-url {endpoint}"))
            .exits(0);
        let found = fs::read(other.path("vault").join(file)).unwrap();
        other.type_in("umount vault").exits(0);
        found
    }
}

/// The peak memory of a process, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn alone_it_serves_and_its_end_sends_and_releases() {
    let user = user();
    let done = user.home.type_in("serve --listen 127.0.0.1:0 --open").exits(0);
    let place = user.place();
    done.says(&format!("http://{}", place.0)).says("open to anyone on this machine");
    let report = user.report();
    assert_eq!(
        (report["state"].as_str(), report["mountpoint"].as_str()),
        (Some("serving"), Some(""))
    );
    assert_eq!(report["service"]["open"], true);
    user.home.type_in("status").exits(0).says("no mount").says(&place.0);
    place.get("/healthz").is(200).says("\"ok\"");
    let bytes = noise(0, 3_000_000);
    place.put("/files/file", &bytes).is(201);
    assert_eq!(place.get("/files/file").is(200).body, bytes);
    let metrics = place.get("/metrics").is(200).text();
    for line in [
        "s3vault_http_requests_total{method=\"PUT\",route=\"/files/{*path}\",status=\"201\"} 1",
        "s3vault_http_received_bytes_total 3000000",
        "# TYPE s3vault_unsent_bytes gauge",
        "s3vault_read_only 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    // Serving again with the same options is fine; with others, the running service must end first.
    user.home.type_in("serve --listen 127.0.0.1:0 --open").exits(0).says(&place.0);
    user.home.type_in("serve --listen 127.0.0.1:0").exits(23).says("serve --stop").says(&place.0);
    user.home.type_in("sync").exits(0).says("everything is in the bucket");
    let daemon = user.daemon();
    user.home.type_in("serve --stop").exits(0).says("everything is in the bucket");
    assert!(!runs(daemon));
    assert!(TcpStream::connect(&place.0).is_err());
    user.home.type_in("serve --stop").exits(13);
    assert_eq!(user.elsewhere("file"), bytes);
}

#[test]
fn beside_a_mount_both_see_the_same_and_end_as_they_should() {
    let user = user();
    user.home.type_in("mount vault").exits(0);
    let vault = user.home.path("vault");
    let place = user.serve("--open");
    fs::write(vault.join("by the mount"), noise(0, 100_000)).unwrap();
    assert_eq!(place.get("/files/by%20the%20mount").is(200).body, noise(0, 100_000));
    place.put("/files/by-http", &noise(0, 200_000)).is(201);
    assert_eq!(fs::read(vault.join("by-http")).unwrap(), noise(0, 200_000));
    let metrics = place.get("/metrics").is(200).text();
    for part in [
        "s3vault_fs_operation_duration_seconds_count{op=\"create\"} ",
        "s3vault_fs_operation_duration_seconds_bucket{op=\"write\",le=\"+Inf\"} ",
        "s3vault_store_requests_total{method=\"PUT\",outcome=\"ok\"} ",
        "s3vault_written_bytes_total 300000\n",
    ] {
        assert!(metrics.contains(part), "no {part} in\n{metrics}");
    }
    user.home.type_in("status vault").exits(0).says(&place.0);
    user.home.type_in("serve --foreground").exits(11).says("--foreground");

    // The service can end and begin again while the mount stays.
    let daemon = user.daemon();
    user.home.type_in("serve --stop").exits(0).says("mounted at");
    assert!(TcpStream::connect(&place.0).is_err());
    user.home.type_in("serve --stop").exits(13);
    assert_eq!(fs::read(vault.join("by-http")).unwrap(), noise(0, 200_000));
    let place = user.serve("--open");
    place.get("/files/by-http").is(200);
    // The end of the mount ends both, and says so.
    user.home.type_in("umount vault").exits(0).says("service").says("everything is in the bucket");
    assert!(!runs(daemon) && TcpStream::connect(&place.0).is_err());

    // The other way round: a mount joins a running service, without a passphrase.
    let place = user.serve("--open");
    let daemon = user.daemon();
    user.home.type_in("mount vault --foreground").exits(11).says("serve --stop");
    user.home.type_in("mount vault").exits(0).says("is mounted").says("served the vault already");
    assert_eq!(user.home.daemon(&vault), daemon);
    assert_eq!(fs::read(vault.join("by-http")).unwrap(), noise(0, 200_000));
    user.home.type_in("mount elsewhere").exits(11);
    // A signal ends both, and everything is sent.
    place.put("/files/last", b"last").is(201);
    signal(daemon, Signal::TERM);
    wait_until("the daemon is gone", || !runs(daemon));
    assert!(mounts_below(&vault).is_empty());
    assert_eq!(user.elsewhere("last"), b"last");
}

#[test]
fn in_the_foreground_it_stays_and_a_signal_ends_it() {
    let user = user();
    let mut front = user.home.spawn("serve --listen 127.0.0.1:0 --open --foreground");
    wait_until("it serves", || user.report()["service"]["url"].is_string());
    let place = user.place();
    place.put("/files/file", b"x").is(201);
    let daemon = user.daemon();
    signal(front.id(), Signal::TERM);
    assert_eq!(front.wait().unwrap().code(), Some(0));
    assert!(!runs(daemon));
    assert_eq!(user.elsewhere("file"), b"x");
}

#[test]
fn what_cannot_be_served_is_one_line_and_opens_nothing() {
    let user = user();
    let refused = |line: &str, code: i32, said: &str| -> Done {
        user.home.type_in(&format!("serve {line}")).exits(code).says(said)
    };
    refused("--open --listen 0.0.0.0:0", 2, "loopback");
    refused("--open --listen [::]:0", 2, "loopback");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&format!("--open --listen {}", taken.local_addr().unwrap()), 23, "in use");
    refused("--listen 192.0.2.1:80", 23, "no such address");
    refused("--tls-cert missing.pem --tls-key missing.pem", 2, "missing.pem");
    fs::write(user.home.path("empty.pem"), "nothing").unwrap();
    refused("--tls-cert empty.pem --tls-key empty.pem", 2, "holds no certificate");
    user.home.type_in("status").exits(0).says("No mount or service");
    // With a running daemon, too.
    user.home.type_in("mount vault").exits(0);
    refused("--open --listen 0.0.0.0:0", 2, "loopback");
    refused(&format!("--listen {}", taken.local_addr().unwrap()), 23, "in use");
    refused("--tls-cert empty.pem --tls-key empty.pem", 2, "holds no certificate");
    assert!(user.report()["service"].is_null());
    user.home.type_in("umount vault").exits(0);
}

#[test]
fn only_tokens_get_in_and_what_is_taken_back_is_refused_at_once() {
    let user = user();
    let done = user.home.type_in("serve --listen 127.0.0.1:0").exits(0).says("token add");
    let place = user.place();
    assert!(done.out.contains("no tokens yet"), "{}", done.out);
    place.get("/healthz").is(200);
    let answer = place.get("/files/").is(401).says("unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"s3vault\""));
    place.get("/metrics").is(401);
    place.put("/files/x", b"x").is(401);
    // A browser is redirected to the form.
    let answer = place.send("GET /", &["Accept: text/html"], b"").is(303);
    assert_eq!(answer.header("location"), Some("/login"));

    let (write, read) = (user.token("laptop --write"), user.token("viewer --read-only"));
    user.home.type_in("serve token add laptop --write").exits(2).says("there already");
    let list = user.home.type_in("serve token list").exits(0);
    assert!(list.out.contains("write") && list.out.contains("viewer"), "{}", list.out);
    assert!(!list.out.contains(write.rsplit('_').next().unwrap()));
    place.send("PUT /files/x", &[&write], b"kept").is(201);
    place.send("GET /files/x", &[&read], b"").is(200).says("kept");
    place.send("GET /metrics", &[&read], b"").is(200);
    place.send("PUT /files/x", &[&read], b"y").is(403).says("read_only_token");
    place.send("DELETE /files/x", &[&read], b"").is(403);
    let last = if write.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &write[..write.len() - 1]);
    for wrong in [wrong.as_str(), "Authorization: Bearer ", "Authorization: Basic eDp4"] {
        let answer = place.send("GET /files/x", &[wrong], b"").is(401);
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    }
    // No token is on the disk or in the log. Files leave staging while we look, once they are uploaded.
    let secret = write.rsplit('_').next().unwrap();
    let files = walkdir::WalkDir::new(user.home.path("")).into_iter().flatten();
    for file in files.filter(|entry| entry.file_type().is_file()) {
        let bytes = fs::read(file.path()).unwrap_or_default();
        assert!(!bytes.windows(64).any(|part| part == secret.as_bytes()), "{file:?}");
    }
    user.home.type_in("serve token remove laptop").exits(0);
    place.send("GET /files/x", &[&write], b"").is(401);
    place.send("GET /files/x", &[&read], b"").is(200);
    user.home.type_in("serve token remove laptop").exits(2);
    user.home.type_in("serve --stop").exits(0);
}

#[test]
fn a_token_that_is_taken_back_or_over_or_limited_gets_no_further() {
    let user = user();
    let place = user.serve("");
    let write = user.token("laptop --write");
    place.send("PUT /files/photos/a", &[&write], b"in").is(201);
    place.send("PUT /files/secret", &[&write], b"out").is(201);
    // A token for a part of the vault.
    let phone = user.token("phone --write --only photos --expires 1h");
    place.send("GET /files/photos/a", &[&phone], b"").is(200).says("in");
    place.send("PUT /files/photos/b", &[&phone], b"new").is(201);
    place.send("GET /files/?prefix=photos/", &[&phone], b"").is(200).says("photos/b");
    for line in [
        "GET /files/secret",
        "GET /files/",
        "GET /?path=",
        "GET /metrics",
        "PUT /files/other",
        "DELETE /files/secret",
    ] {
        place.send(line, &[&phone], b"x").is(403).says("out_of_scope");
    }
    user.home.type_in("serve token list").exits(0).says("until 20").says("only photos");
    user.home.type_in("serve token add none --write --only /").exits(2).says("--only names");
    // An expired token.
    let over = user.token("brief --read-only --expires 1s");
    wait_until("its time is up", || place.send("GET /files/secret", &[&over], b"").status == 401);
    // A token that is removed during a slow download.
    let large = noise(1, 30_000_000);
    place.send("PUT /files/photos/large", &[&write], &large).is(201);
    let mut stream = TcpStream::connect(&place.0).unwrap();
    write!(stream, "GET /files/photos/large HTTP/1.1\r\nHost: {}\r\n{phone}\r\n\r\n", place.0)
        .unwrap();
    let (mut got, mut piece) = (0, vec![0; 100_000]);
    stream.read_exact(&mut piece).unwrap();
    user.home.type_in("serve token remove phone").exits(0);
    std::thread::sleep(Duration::from_millis(1100)); // the token is checked once a second
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        got += count;
    }
    assert!(got < large.len() - 1_000_000, "{got}: all of it came");
    // A page of another site.
    let site = "Sec-Fetch-Site: cross-site";
    place.send("GET /files/secret", &[&write, site], b"").is(403).says("cross_origin");
    user.home.type_in("serve --stop").exits(0);
}

/// The cookie that an answer sets, as a request carries it.
fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").expect("a cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    format!("Cookie: {}", set.split(';').next().unwrap())
}

/// The CSRF word of a page's form that posts to `action`.
fn word(page: &str, action: &str) -> String {
    let after = page.split(&format!("{action}?csrf=")).nth(1).expect("a form");
    after.chars().take_while(|c| c.is_ascii_alphanumeric()).collect()
}

#[test]
fn a_session_is_as_good_as_its_token_and_its_forms_carry_their_word() {
    let user = user();
    let place = user.serve("");
    let write = user.token("laptop --write");
    let token = write.rsplit(' ').next().unwrap();
    let form = "Content-Type: application/x-www-form-urlencoded";
    let origin = format!("Origin: http://{}", place.0);
    let log_in = |word: &str, token: &str| {
        let line = format!("POST /login?csrf={word}");
        place.send(&line, &[form, &origin], format!("token={token}").as_bytes())
    };
    let page = place.get("/login").is(200).text();
    let own = word(&page, "/login");
    log_in(&own, &token[1..]).is(401);
    log_in("0000", token).is(403).says("csrf");
    let answer = log_in(&own, token).is(303);
    assert_eq!(answer.header("location"), Some("/"));
    let session = cookie(&answer);
    place.send("GET /files/", &[&session], b"").is(200);

    // A change also needs the session's CSRF word.
    place.send("PUT /files/x", &[&session], b"x").is(403).says("csrf");
    place.send(&format!("PUT /files/x?csrf={own}"), &[&session], b"x").is(403).says("csrf");
    let page = place.send("GET /", &[&session, "Accept: text/html"], b"").is(200).text();
    let csrf = word(&page, "/logout");
    assert_ne!(csrf, own);
    let header = format!("X-CSRF-Token: {csrf}");
    place.send("PUT /files/x", &[&session, &header], b"x").is(201);

    // A session ends with the log-out, and when its token is removed.
    place.send("POST /logout", &[&session], b"").is(403);
    place.send(&format!("POST /logout?csrf={csrf}"), &[&session, &origin], b"").is(303);
    place.send("GET /files/", &[&session], b"").is(401);
    let session = cookie(&log_in(&own, token).is(303));
    place.send("GET /files/", &[&session], b"").is(200);
    user.home.type_in("serve token remove laptop").exits(0);
    place.send("GET /files/", &[&session], b"").is(401);
    log_in(&own, token).is(401);
    user.home.type_in("serve --stop").exits(0);
}

#[test]
fn pages_elsewhere_and_names_that_are_not_ours_are_refused() {
    let user = user();
    let place = user.serve("--open --host files.example");
    place.put("/files/x", b"x").is(201);
    for origin in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        place.send("PUT /files/x", &[origin], b"y").is(403).says("cross_origin");
        place.send("POST /upload/", &[origin], b"y").is(403).says("cross_origin");
        place.send("DELETE /files/x", &[origin], b"").is(403).says("cross_origin");
        // Even reads are refused, and the browser is told not to show the answer.
        let answer = place.send("GET /files/x", &[origin], b"").is(403).says("cross_origin");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    // Our own page needs its form's CSRF word, too.
    let own = format!("Origin: http://{}", place.0);
    place.send("DELETE /files/x", &[&own], b"").is(403).says("csrf");
    for host in ["Host: evil.example", "Host: 127.0.0.1.evil.example:8000", "Host: 192.0.2.1"] {
        place.send("GET /files/x", &[host], b"").is(403).says("host_not_allowed");
        place.send("PUT /files/x", &[host], b"y").is(403).says("host_not_allowed");
    }
    for host in ["Host: localhost:9", "Host: FILES.example", "Host: [::1]:8000"] {
        place.send("GET /files/x", &[host], b"").is(200);
    }
    place.send("GET /files/x", &["Host: localhost", "Host: localhost"], b"").is(400);
    place.send("GET http://evil.example/files/x", &[], b"").is(403);
    assert_eq!(place.get("/files/x").is(200).body, b"x");
    user.home.type_in("serve --stop").exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_it_is_the_same_and_the_cookie_is_secure() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};

    let user = tokio::task::spawn_blocking(user).await.unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(user.home.path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(user.home.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(user.home.path("other.pem"), other.signing_key.serialize_pem()).unwrap();
    user.home
        .type_in("serve --listen 127.0.0.1:0 --tls-cert cert.pem --tls-key other.pem")
        .exits(2)
        .says("does not go with");
    let place = user.serve("--tls-cert cert.pem --tls-key key.pem");
    assert_eq!(user.report()["service"]["tls"], true);
    let write = user.token("laptop --write");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let ask = async |line: &str, headers: &[&str], body: &[u8]| {
        let stream = tokio::net::TcpStream::connect(&place.0).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let length = format!("Content-Length: {}", body.len());
        let headers = [headers, &[&length]].concat();
        stream.write_all(place.head(line, &headers).as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        Answer::read(&mut &answer[..]).expect("an answer")
    };
    ask("GET /healthz", &[], b"").await.is(200);
    ask("PUT /files/x", &[&write], &noise(0, 1_000_000)).await.is(201);
    assert_eq!(ask("GET /files/x", &[&write], b"").await.is(200).body, noise(0, 1_000_000));
    let page = ask("GET /login", &[], b"").await.is(200).text();
    let line = format!("POST /login?csrf={}", word(&page, "/login"));
    let form = "Content-Type: application/x-www-form-urlencoded";
    let body = format!("token={}", write.rsplit(' ').next().unwrap());
    let plain = format!("Origin: http://{}", place.0);
    ask(&line, &[form, &plain], body.as_bytes()).await.is(403).says("cross_origin");
    let own = format!("Origin: https://{}", place.0);
    let answer = ask(&line, &[form, &own], body.as_bytes()).await.is(303);
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("__Host-") && set.contains("Secure") && set.contains("Path=/"),
        "{set}"
    );
    // Without TLS a client must send first; one that only connects disturbs nobody.
    let silent = place.connect();
    let mut deaf = place.connect();
    deaf.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = deaf.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP"));
    ask("GET /healthz", &[], b"").await.is(200);
    user.home.type_in("serve --stop").exits(0);
    drop(silent);
}

/// Makes a socket buffer little unread data.
fn small_window(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_recv_buffer_size(stream, 4096).unwrap();
}

#[test]
fn clients_that_stall_flood_or_lie_are_cut_off_and_others_are_served() {
    let user = user();
    let place = user.serve("--open --client-timeout 5 --max-upload 1MiB");
    place.put("/files/large", &noise(0, 1 << 20)).is(201);

    // Too large: refused at once by the announced length, or else when too much has come.
    let mut announced = place.connect();
    let head = place.head("PUT /files/a", &["Content-Length: 9000000000"]);
    announced.write_all(head.as_bytes()).unwrap();
    Answer::read(&mut announced).unwrap().is(413).says("1048576");
    place.put("/files/a", &noise(0, (1 << 20) + 1)).is(413);
    let mut chunked = place.connect();
    let head = place.head("PUT /files/a", &["Transfer-Encoding: chunked"]);
    chunked.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n", &noise(0, 1 << 20)[..], b"\r\n"].concat();
    for _ in 0..4 {
        let _ = chunked.write_all(&chunk);
    }
    Answer::read(&mut chunked).unwrap().is(413);
    place.get("/files/a").is(404);

    // Endless headers, and too many of them.
    let bomb = format!("X-Bomb: {}", "x".repeat(100_000));
    place.send("GET /healthz", &[&bomb], b"").is(431);
    let many: Vec<_> = (0..1000).map(|number| format!("X-{number}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    place.send("GET /healthz", &many, b"").is(431);
    let long = format!("GET /{}", "x".repeat(100_000));
    let status = place.send(&long, &[], b"").status;
    assert!(status == 414 || status == 431, "{status}");

    // Clients that stall: in the head, in the body, and in taking the answer.
    let begun = Instant::now();
    let mut in_head = place.connect();
    in_head.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap();
    let mut in_body = place.connect();
    let head = place.head("PUT /files/b", &["Content-Length: 1000"]);
    in_body.write_all(format!("{head}a part").as_bytes()).unwrap();
    let mut takers: Vec<_> = (0..20).map(|_| place.connect()).collect();
    for taker in &mut takers {
        small_window(taker);
        // Not read, and more than the sockets' buffers hold.
        let request = place.head("GET /files/large", &[]).replace("Connection: close\r\n", "");
        taker.write_all(request.repeat(8).as_bytes()).unwrap();
    }
    assert_eq!(place.get("/files/large").is(200).body.len(), 1 << 20, "others are served");
    let mut rest = Vec::new();
    in_head.read_to_end(&mut rest).unwrap();
    Answer::read(&mut in_body).unwrap().is(408);
    wait_until("nobody waits for them any more", || {
        let text = place.get("/metrics").text();
        text.contains("s3vault_http_requests_in_flight 1\n")
            && text.contains("s3vault_http_connections 1\n")
    });
    assert!(begun.elapsed() < Duration::from_secs(90));
    place.get("/files/b").is(404);
    drop(takers);
    user.home.type_in("serve --stop").exits(0);
}

#[test]
fn many_at_once_are_served_and_too_many_are_told_when_to_come_again() {
    let user = user();
    let place = user.serve("--open --client-timeout 300");
    let each = noise(0, 1 << 20);
    std::thread::scope(|scope| {
        for number in 0..64 {
            let (place, each) = (&place, &each);
            scope.spawn(move || {
                place.put(&format!("/files/{number}"), &each[number..]).is(201);
                let back = place.get(&format!("/files/{number}")).is(200);
                assert_eq!(back.body, each[number..]);
            });
        }
    });
    // The client has its answer a moment before its place is free.
    wait_until("all places are free", || {
        place.get("/metrics").text().contains("s3vault_http_requests_in_flight 1\n")
    });
    // Uploads that have begun and wait for their clients.
    let mut waiting = Vec::new();
    for number in 0..128 {
        let mut stream = place.connect();
        let head = place.head(&format!("PUT /files/w{number}"), &["Content-Length: 5"]);
        stream.write_all(head.as_bytes()).unwrap();
        waiting.push(stream);
    }
    wait_until("all places are taken", || {
        place.get("/metrics").text().contains("s3vault_http_requests_in_flight 129\n")
    });
    let answer = place.get("/files/0").is(503).says("unavailable");
    assert!(answer.header("retry-after").is_some());
    // Monitoring is answered all the same.
    place.get("/healthz").is(200);
    for stream in &mut waiting {
        stream.write_all(b"12345").unwrap();
        Answer::read(stream).unwrap().is(201);
    }
    place.get("/files/w127").is(200).says("12345");
    let memory = peak(user.daemon());
    assert!(memory < 300 << 20, "{} MiB", memory >> 20);
    user.home.type_in("serve --stop").exits(0);
}

/// 512 MiB by default; for 3 GiB set `S3VAULT_TEST_UPLOAD_MIB=3072`.
#[test]
fn a_large_upload_takes_little_memory() {
    let mib = std::env::var("S3VAULT_TEST_UPLOAD_MIB").ok().map_or(512, |mib| mib.parse().unwrap());
    let user = user();
    let place = user.serve("--open");
    let piece = noise(0, 1 << 20);
    let mut stream = place.connect();
    let length = format!("Content-Length: {}", mib * piece.len());
    let head = place.head("PUT /files/large?wait=durable", &["Expect: 100-continue", &length]);
    stream.write_all(head.as_bytes()).unwrap();
    for number in 0..mib {
        // Each piece differs, so that nothing is saved by repetition.
        stream.write_all(&(number as u64).to_le_bytes()).unwrap();
        stream.write_all(&piece[8..]).unwrap();
    }
    Answer::read(&mut stream).unwrap().is(201).says("\"durable\"");
    let mut stream = place.connect();
    stream.write_all(place.head("GET /files/large", &[]).as_bytes()).unwrap();
    let mut back = std::io::BufReader::with_capacity(1 << 20, stream);
    let mut byte = [0; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        back.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut found = vec![0; piece.len()];
    for number in 0..mib {
        back.read_exact(&mut found).unwrap();
        assert_eq!(found[..8], (number as u64).to_le_bytes());
        assert!(found[8..] == piece[8..], "piece {number}");
    }
    let memory = peak(user.daemon());
    println!("{mib} MiB: peak {} MiB", memory >> 20);
    assert!(memory < 300 << 20, "{} MiB", memory >> 20);
    user.home.type_in("serve --stop").exits(0);
}

#[test]
fn at_its_end_requests_at_work_finish_and_those_that_stall_do_not_keep_it() {
    let user = user();
    let place = user.serve("--open --client-timeout 5");
    let bytes = noise(0, 16 << 20);
    place.put("/files/large", &bytes).is(201);
    let mut slow = place.connect();
    slow.write_all(place.head("GET /files/large", &[]).as_bytes()).unwrap();
    let mut begun = vec![0; 1 << 16];
    slow.read_exact(&mut begun).unwrap();
    // Takes a little all the time, since a client that takes nothing for five seconds is cut off.
    let hurry = AtomicBool::new(false);
    let take = || {
        while !hurry.load(Relaxed) {
            let at = begun.len();
            begun.resize(at + (16 << 10), 0);
            slow.read_exact(&mut begun[at..]).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        slow.read_to_end(&mut begun).unwrap();
        Answer::read(&mut &begun[..]).unwrap().is(200).body
    };
    let mut stalled = place.connect();
    let head = place.head("PUT /files/never", &["Content-Length: 1000"]);
    stalled.write_all(format!("{head}a part").as_bytes()).unwrap();
    let idle = place.connect();
    let daemon = user.daemon();
    let stop = std::thread::scope(|scope| {
        let taken = scope.spawn(take);
        wait_until("both are at work", || {
            place.get("/metrics").text().contains("s3vault_http_requests_in_flight 3\n")
        });
        let stop = scope.spawn(|| user.home.type_in("serve --stop"));
        wait_until("nobody new is let in", || TcpStream::connect(&place.0).is_err());
        hurry.store(true, Relaxed);
        assert!(taken.join().unwrap() == bytes, "a download that had begun is whole");
        stop.join().unwrap()
    });
    stop.exits(0);
    assert!(!runs(daemon));
    drop((stalled, idle));
    let _ = slow.shutdown(Shutdown::Both);
    // Nothing is left of the upload that stalled.
    let place = user.serve("--open");
    place.get("/files/never").is(404);
    assert_eq!(place.get("/files/large").is(200).body.len(), bytes.len());
    user.home.type_in("serve --stop").exits(0);
}
