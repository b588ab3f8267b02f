//! The HTTP service at a Unix socket, for a proxy before it, and by HTTP/2: with curl, as a client that we did not write.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::support::home::{Home, runs, signal, wait_until};
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

/// What curl prints: the answer, and in a last line what `-w` asks for.
#[track_caller]
fn curl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "60", "-w", "\n%{http_code} %{http_version}"]).args(arguments);
    let done = command.output().expect("curl runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let (body, last) = text.rsplit_once('\n').unwrap_or(("", &text));
    (body.to_owned(), format!("{last}{}", String::from_utf8_lossy(&done.stderr)))
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
    // A token as over TCP, and any name, as a proxy hands it on. What it says of others is not believed.
    assert_eq!(ask(&[], "/files/").1, "401 1.1");
    let forged = "X-Forwarded-For: 127.0.0.1";
    assert_eq!(ask(&["-H", forged, "-H", "X-Forwarded-Host: localhost"], "/files/").1, "401 1.1");
    assert_eq!(ask(&["-H", &bearer, "-T", &file], "/files/a").1, "201 1.1");
    let got = home.path("got").display().to_string();
    assert_eq!(ask(&["-H", &bearer, "-o", &got], "/files/a").1, "200 1.1");
    assert_eq!(fs::read(&got).unwrap(), noise(3, 2_000_000));
    // A page elsewhere, through the proxy.
    let elsewhere = ["-H", bearer.as_str(), "-H", "Origin: http://evil.example", "-X", "DELETE"];
    assert_eq!(ask(&elsewhere, "/files/a").1, "403 1.1");

    // Live it is in the way, of another vault's service as of this one's again with other options.
    let other = user();
    other.type_in(&format!("serve --listen unix:{path}")).exits(23).says("a process listens there");
    home.type_in("serve --listen unix:run.sock --open").exits(23).says("serve --stop");
    assert_eq!(ask(&[], "/healthz").1, "200 1.1");
    home.type_in("serve --stop").exits(0).says("unix:");
    assert!(!socket.exists());

    // Of a dead process it is replaced; what is no socket is not.
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
    // Many at once in one connection, one of them long.
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
