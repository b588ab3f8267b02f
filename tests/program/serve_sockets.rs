//! The HTTP service at a Unix socket for a proxy, and over HTTP/2; the client is curl, which we did not write.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::support::home::{Home, runs, signal, wait_until};
use crate::support::http::{Answer, Place};
use crate::support::noise;

/// A user with a vault in a directory.
fn user() -> Home {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    fs::create_dir(home.path("store")).unwrap();
    home.type_in(&format!("init --bucket file://{}", home.path("store").display())).exits(0);
    home
}

fn pid(home: &Home) -> u32 {
    let done = home.type_in("status --json").exits(0);
    let value: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    u32::try_from(value["mounts"][0]["pid"].as_u64().expect("it runs")).unwrap()
}

fn url(home: &Home) -> String {
    let done = home.type_in("status --json").exits(0);
    let value: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    value["mounts"][0]["service"]["url"].as_str().expect("it serves").to_owned()
}

/// What curl prints: the answer, and the values of `-w` from the last line.
#[track_caller]
fn curl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "60", "-w", "\n%{http_code} %{http_version}"]).args(arguments);
    let done = command.output().expect("curl runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let (body, last) = text.rsplit_once('\n').unwrap_or(("", &text));
    (body.to_owned(), format!("{last}{}", String::from_utf8_lossy(&done.stderr)))
}

/// RFC 9112, section 3.2: no client sends a fragment, except one that forgot to escape a `#` in a name.
#[test]
fn a_number_sign_in_the_target_is_refused_and_nothing_is_touched() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let bucket = format!("--bucket file://{}", home.path("bucket").display());
    home.type_in(&format!("init {bucket}")).exits(0);
    home.type_in(&format!("serve --open --listen 127.0.0.1:0 {bucket}")).exits(0);
    let report = home.type_in("status --json").exits(0);
    let report: serde_json::Value = serde_json::from_str(&report.out).unwrap();
    let place = Place::of(report["mounts"][0]["service"]["url"].as_str().unwrap());
    place.send("MKCOL /dav/dir", &[], b"").is(201);
    place.put("/files/dir/file", b"content").is(201);
    place.put("/files/dir/%231", b"its name is #1").is(201);
    let (to, onto) = ("Destination: /dav/new", "Destination: /dav/dir/#1");
    for (line, headers) in [
        ("DELETE /dav/dir/#1", &[][..]),
        ("DELETE /files/dir/file#1", &[]),
        ("GET /files/dir/file#1", &[]),
        ("PUT /files/dir/file#1", &[]),
        ("PUT /dav/dir/file#", &[]),
        ("MKCOL /dav/new#1", &[]),
        ("PROPFIND /dav/dir?a#1", &[]),
        ("MOVE /dav/dir/#1", &[to]),
        ("MOVE /dav/dir/file", &[onto]),
        ("COPY /dav/dir/#1", &[to]),
        ("POST /page/dir/#1", &[]),
        ("POST /upload/dir/#1", &[]),
        ("GET /page/#1", &[]),
        ("GET /healthz#1", &[]),
    ] {
        place.send(line, headers, b"").is(400);
    }
    // In the middle of a connection, after a body that looks like a request.
    let body = b"GET /#1 HTTP/1.1\r\n\r\n";
    let head =
        format!("PUT /files/log HTTP/1.1\r\nHost: {}\r\nContent-Length: 20\r\n\r\n", place.0);
    let rest = [body, place.head("DELETE /dav/dir/#1", &[]).as_bytes()].concat();
    let mut stream = place.connect();
    stream.write_all(&[head.as_bytes(), &rest].concat()).unwrap();
    Answer::read(&mut stream).unwrap().is(201);
    Answer::read(&mut stream).unwrap().is(400).says("%23");
    assert_eq!(place.get("/files/log").is(200).body, body);
    for (path, content) in [("dir/file", &b"content"[..]), ("dir/%231", b"its name is #1")] {
        assert_eq!(place.get(&format!("/files/{path}")).is(200).body, content);
    }
    place.send("DELETE /dav/dir/%231", &[], b"").is(204);
    place.get("/files/dir/file").is(200);
    home.type_in("serve --stop").exits(0);
}

#[test]
fn at_a_socket_its_permissions_are_the_access_and_it_comes_and_goes_with_the_service() {
    let home = user();
    let socket: PathBuf = home.path("run.sock");
    let path = socket.to_str().unwrap().to_owned();
    let done = home.type_in("serve --listen unix:run.sock").exits(0);
    done.says(&format!("unix:{path}")).says("curl --unix-socket");
    let made = fs::symlink_metadata(&socket).unwrap();
    assert!(made.file_type().is_socket() && made.permissions().mode() & 0o7777 == 0o600);
    let token = home.type_in("serve token add proxy --write").exits(0).out.trim().to_owned();
    let bearer = format!("Authorization: Bearer {token}");
    fs::write(home.path("file"), noise(3, 2_000_000)).unwrap();
    let file = home.path("file").display().to_string();
    let ask = |more: &[&str], url: &str| {
        let url = format!("http://files.example{url}");
        curl(&[&["--unix-socket", path.as_str()], more, &[url.as_str()]].concat())
    };
    // Tokens work as over TCP, under any host name, as a proxy passes it on. Forwarding headers are not trusted.
    assert_eq!(ask(&[], "/files/").1, "401 1.1");
    let forged = "X-Forwarded-For: 127.0.0.1";
    assert_eq!(ask(&["-H", forged, "-H", "X-Forwarded-Host: localhost"], "/files/").1, "401 1.1");
    assert_eq!(ask(&["-H", &bearer, "-T", &file], "/files/a").1, "201 1.1");
    let got = home.path("got").display().to_string();
    assert_eq!(ask(&["-H", &bearer, "-o", &got], "/files/a").1, "200 1.1");
    assert_eq!(fs::read(&got).unwrap(), noise(3, 2_000_000));
    // A page of another site, through the proxy.
    let elsewhere = ["-H", bearer.as_str(), "-H", "Origin: http://evil.example", "-X", "DELETE"];
    assert_eq!(ask(&elsewhere, "/files/a").1, "403 1.1");

    // A live socket is not replaced, neither by another vault's service nor by this one's with other options.
    let other = user();
    other.type_in(&format!("serve --listen unix:{path}")).exits(23).says("a process listens there");
    home.type_in("serve --listen unix:run.sock --open").exits(23).says("serve --stop");
    assert_eq!(ask(&[], "/healthz").1, "200 1.1");
    home.type_in("serve --stop").exits(0).says("unix:");
    assert!(!socket.exists());

    // The socket of a dead process is replaced; a file that is not a socket is not.
    let open = "serve --listen unix:run.sock --socket-mode 660 --open --host proxied.example";
    home.type_in(open).exits(0).says("whoever may write to the socket");
    let daemon = pid(&home);
    signal(daemon, Signal::KILL);
    wait_until("it is dead", || !runs(daemon));
    assert!(socket.exists());
    home.type_in(open).exits(0);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(ask(&[], "/files/").1, "403 1.1");
    let own = ["--unix-socket", path.as_str(), "http://proxied.example/files/a?metadata=true"];
    let (body, last) = curl(&own);
    assert!(last == "200 1.1" && body.contains("\"size\":2000000"), "{body} {last}");
    home.type_in("serve --stop").exits(0);
    fs::write(&socket, "mine").unwrap();
    home.type_in(open).exits(23).says("no socket, and stays");
    assert_eq!(fs::read(&socket).unwrap(), b"mine");
}

#[test]
fn a_mount_tells_what_it_does_and_nothing_else_to_those_who_monitor_it() {
    let home = user();
    let store = format!("--bucket file://{}", home.path("store").display());
    home.type_in(&format!("mount vault {store} --metrics 0.0.0.0:0")).exits(2).says("loopback");
    home.type_in(&format!("mount vault {store} --metrics unix:metrics.sock")).exits(0);
    fs::write(home.path("vault/file"), noise(1, 100_000)).unwrap();
    let socket = home.path("metrics.sock").display().to_string();
    let ask = |path: &str| curl(&["--unix-socket", &socket, &format!("http://localhost{path}")]);
    let (metrics, last) = ask("/metrics");
    assert_eq!(last, "200 1.1");
    for part in [
        "s3vault_fs_operation_duration_seconds_count{op=\"create\"} 1\n",
        "written_bytes_total 100000\n",
    ] {
        assert!(metrics.contains(part), "no {part} in\n{metrics}");
    }
    assert_eq!(ask("/healthz").1, "200 1.1");
    for path in ["/", "/files/", "/files/file", "/dav/", "/login", "/openapi.json"] {
        assert_eq!(ask(path).1, "404 1.1", "{path}");
    }
    // The vault can be served as usual beside it.
    home.type_in("serve --listen 127.0.0.1:0 --open").exits(0);
    assert_eq!(curl(&[&format!("{}/files/file", url(&home))]).1, "200 1.1");
    home.type_in("umount vault").exits(0);
    assert!(!home.path("metrics.sock").exists());
}

#[test]
fn over_tls_curl_speaks_http_2_and_1_1() {
    let home = user();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(home.path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(home.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    home.type_in("serve --listen 127.0.0.1:0 --tls-cert cert.pem --tls-key key.pem").exits(0);
    let done = home.type_in("status --json").exits(0);
    let value: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    let url =
        value["mounts"][0]["service"]["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
    let token = home.type_in("serve token add laptop --write").exits(0).out.trim().to_owned();
    let (bearer, cert) = (format!("Authorization: Bearer {token}"), home.path("cert.pem"));
    let ask = |more: &[&str], path: &str| {
        let (url, cert) = (format!("{url}{path}"), cert.display().to_string());
        curl(&[&["--cacert", cert.as_str(), "-H", bearer.as_str()], more, &[url.as_str()]].concat())
    };
    fs::write(home.path("file"), noise(4, 5_000_000)).unwrap();
    let file = home.path("file").display().to_string();
    let got = home.path("got").display().to_string();
    for (version, said) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let name = format!("/files/{said}");
        assert_eq!(ask(&[version, "-T", &file], &name).1, format!("201 {said}"));
        assert_eq!(ask(&[version, "-o", &got], &name).1, format!("200 {said}"));
        assert_eq!(fs::read(&got).unwrap(), noise(4, 5_000_000));
        let part = ask(&[version, "-r", "5-9", "-o", &got], &name).1;
        assert_eq!((part, fs::read(&got).unwrap().len()), (format!("206 {said}"), 5));
        assert_eq!(ask(&[version, "-H", "Host: evil.example"], "/files/").1, format!("403 {said}"));
        assert_eq!(
            ask(&[version, "-H", "Origin: https://evil.example"], "/").1,
            format!("403 {said}")
        );
        assert_eq!(ask(&[version], "/files/none").1, format!("404 {said}"));
    }
    // Many concurrent requests in one connection, one of them long.
    let mut many = vec!["--http2".to_owned(), "-Z".to_owned()];
    for number in 0..50 {
        let to = home.path(format!("got-{number}")).display().to_string();
        many.extend(["-o".to_owned(), to, format!("{url}/files/2")]);
    }
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    ask(&many, "/healthz");
    for number in 0..50 {
        assert_eq!(fs::read(home.path(format!("got-{number}"))).unwrap(), noise(4, 5_000_000));
    }
    home.type_in("serve --stop").exits(0);
}

/// The credentials that curl's `-u` sends with `Authorization: Basic`.
fn basic(token: &str) -> String {
    format!("any name:{token}")
}

/// Nobody else can use a lock, even if they know its token.
fn its_holder_alone_uses_a_lock(
    ask: &impl Fn(&str, &[&str], &str) -> (String, String),
    (write, other): (&str, &str),
    file: &str,
) {
    let code = |token: &str, more: &[&str], path: &str| ask(token, more, path).1;
    let info = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let (locked, last) = ask(write, &["-X", "LOCK", "-d", info], "/dav/d/e/f");
    assert_eq!(last, "200 1.1");
    let name = locked.split("urn:uuid:").nth(1).unwrap().split('<').next().unwrap();
    let (named, own) =
        (format!("If: (<urn:uuid:{name}>)"), format!("Lock-Token: <urn:uuid:{name}>"));
    assert_eq!(code(other, &["-T", file, "-H", &named], "/dav/d/e/f"), "423 1.1");
    assert_eq!(code(other, &["-X", "UNLOCK", "-H", &own], "/dav/d/e/f"), "403 1.1");
    assert_eq!(code(write, &["-T", file, "-H", &named], "/dav/d/e/f"), "204 1.1");
    assert_eq!(code(write, &["-X", "UNLOCK", "-H", &own], "/dav/d/e/f"), "204 1.1");
}

#[test]
fn by_webdav_a_token_is_the_password_and_no_page_gets_in() {
    let home = user();
    home.type_in("serve --listen 127.0.0.1:0").exits(0);
    let url = url(&home);
    let token = |words: &str| {
        home.type_in(&format!("serve token add {words}")).exits(0).out.trim().to_owned()
    };
    let (write, read) = (token("w --write"), token("r --read-only"));
    let only = token("o --write --only d/e");
    let other = token("x --write");
    let ask = |token: &str, more: &[&str], path: &str| {
        let (user, url) = (basic(token), format!("{url}{path}"));
        curl(&[&["-u", user.as_str()], more, &[url.as_str()]].concat())
    };
    let code = |token: &str, more: &[&str], path: &str| ask(token, more, path).1;
    // Without a token, or with a wrong one, a program is asked for a password, and a browser is redirected to the page.
    let dav = format!("{url}/dav/");
    assert!(curl(&["-D", "-", &dav]).0.to_lowercase().contains("www-authenticate: basic"));
    let browser = curl(&["-D", "-", "-H", "Accept: text/html", &dav]);
    assert!(browser.1 == "303 1.1" && !browser.0.to_lowercase().contains("basic"), "{browser:?}");
    assert_eq!(code("s3vault_wrong", &[], "/dav/"), "401 1.1");
    // A token works as a password for WebDAV only, since a browser repeats a password on its own.
    assert_eq!(code(&write, &[], "/files/"), "401 1.1");
    let propfind = ["-X", "PROPFIND", "-H", "Depth: 1"];
    for token in [&write, &read] {
        assert_eq!(code(token, &propfind, "/dav/"), "207 1.1");
    }
    for (method, path) in
        [("MKCOL", "/dav/no"), ("PUT", "/dav/no"), ("DELETE", "/dav/no"), ("LOCK", "/dav/no")]
    {
        assert_eq!(code(&read, &["-X", method], path), "403 1.1", "{method}");
    }
    for path in ["/dav/d", "/dav/d/e", "/dav/s"] {
        assert_eq!(code(&write, &["-X", "MKCOL"], path), "201 1.1");
    }
    // What a page of another site makes a browser do with the password.
    let forms: [&[&str]; 5] = [
        &["-X", "DELETE", "-H", "Origin: http://evil.example"],
        &["-X", "DELETE", "-H", "Sec-Fetch-Site: same-origin"],
        &["-X", "MKCOL", "-H", "Sec-Fetch-Site: none"],
        &[
            "-H",
            "Sec-Fetch-Site: cross-site",
            "-H",
            "Sec-Fetch-Mode: navigate",
            "-H",
            "Sec-Fetch-Dest: document",
        ],
        &["-X", "PROPFIND", "-H", "Depth: 0", "-H", "Origin: http://evil.example"],
    ];
    for form in forms {
        assert_eq!(code(&write, form, "/dav/d/e"), "403 1.1", "{form:?}");
    }
    // A token for a part of the vault cannot get outside it by any header.
    assert_eq!(code(&only, &propfind, "/dav/d/e/"), "207 1.1");
    for path in ["/dav/", "/dav/d/", "/dav/s/", "/dav/d/e/%2e%2e/"] {
        assert_eq!(code(&only, &propfind, path), "403 1.1", "{path}");
    }
    fs::write(home.path("file"), "content").unwrap();
    let file = home.path("file").display().to_string();
    assert_eq!(code(&only, &["-T", &file], "/dav/d/e/f"), "201 1.1");
    for to in ["/dav/s/f", "/dav/f"] {
        let to = format!("Destination: {to}");
        for method in ["COPY", "MOVE"] {
            assert_eq!(code(&only, &["-X", method, "-H", &to], "/dav/d/e/f"), "403 1.1");
        }
    }
    let asks = "If: </dav/s> ([\"x\"]) </dav/d/e/f> (Not <DAV:no-lock>)";
    assert_eq!(code(&only, &["-X", "DELETE", "-H", asks], "/dav/d/e/f"), "403 1.1");
    its_holder_alone_uses_a_lock(&ask, (&write, &other), &file);
    home.type_in("serve token remove w").exits(0);
    assert_eq!(code(&write, &propfind, "/dav/"), "401 1.1");
    home.type_in("serve --stop").exits(0);
}

#[test]
fn by_webdav_nothing_is_taken_in_the_clear_nor_changed_where_nothing_can_be() {
    let home = user();
    home.type_in("serve --listen 127.0.0.1:0 --open").exits(0);
    fs::write(home.path("file"), "content").unwrap();
    let file = home.path("file").display().to_string();
    assert_eq!(curl(&["-T", &file, &format!("{}/dav/f", url(&home))]).1, "201 1.1");
    let other = home.type_in("serve token add x --write").exits(0).out.trim().to_owned();
    home.type_in("serve --stop").exits(0);
    // Over a network without TLS, a password is neither asked for nor accepted; a bearer token is.
    home.type_in("serve --listen 0.0.0.0:0").exits(0);
    let port = url(&home).rsplit(':').next().unwrap().to_owned();
    let dav = format!("http://127.0.0.1:{port}/dav/");
    assert!(curl(&["-D", "-", &dav]).0.to_lowercase().contains("www-authenticate: bearer"));
    let (body, last) = curl(&["-u", &basic(&other), &dav]);
    assert!(last == "403 1.1" && body.contains("basic_needs_tls"), "{body}");
    assert_eq!(curl(&["-H", &format!("Authorization: Bearer {other}"), &dav]).1, "200 1.1");
    home.type_in("serve --stop").exits(0);
    // A read-only vault has no locks.
    home.type_in("serve --listen 127.0.0.1:0 --open --read-only").exits(0);
    let dav = format!("{}/dav/f", url(&home));
    assert_eq!(curl(&["-X", "PROPFIND", "-H", "Depth: 0", &dav]).1, "207 1.1");
    let info = "<lockinfo xmlns='DAV:'><lockscope><shared/></lockscope><locktype><write/></locktype></lockinfo>";
    for words in [["-X", "LOCK", "-d", info], ["-X", "DELETE", "-H", "Depth: infinity"]] {
        assert_eq!(curl(&[&words[..], &[&dav]].concat()).1, "403 1.1", "{words:?}");
    }
    home.type_in("serve --stop").exits(0);
}
