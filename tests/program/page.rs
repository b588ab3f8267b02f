//! The requests that the service's page makes, over real HTTP: versions, restoring, snapshots, folders, and access
//! rights. The page itself is tested in a browser by `scripts/suites/page`.

use std::fs;

use serde_json::Value;

use crate::support::home::Home;
use crate::support::http::{Answer, Place};

const JSON: &str = "Accept: application/json";

/// A vault on this disk, and its service.
struct Host {
    home: Home,
    place: Place,
}

impl Host {
    fn new() -> Self {
        let home = Home::new()
            .with("S3VAULT_PASSPHRASE", "correct horse")
            .with("S3VAULT_RECOVERY_FILE", "-");
        fs::create_dir(home.path("store")).unwrap();
        let store = format!("file://{}", home.path("store").display());
        home.type_in(&format!("init --bucket {store}")).exits(0);
        home.type_in("serve --listen 127.0.0.1:0").exits(0);
        let report = home.type_in("status --json").exits(0);
        let report: Value = serde_json::from_str(&report.out).unwrap();
        let place = Place::of(report["mounts"][0]["service"]["url"].as_str().unwrap());
        Self { home, place }
    }

    /// Makes a token, and returns the header that carries it.
    fn token(&self, words: &str) -> String {
        let done = self.home.type_in(&format!("serve token add {words}")).exits(0);
        format!("Authorization: Bearer {}", done.out.trim())
    }

    fn end(self) {
        self.home.type_in("serve --stop").exits(0);
    }

    fn get(&self, token: &str, path: &str) -> Answer {
        self.place.send(&format!("GET {path}"), &[token, JSON], b"")
    }

    fn post(&self, token: &str, path: &str, form: &str) -> Answer {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        self.place.send(&format!("POST {path}"), &[token, JSON, kind], form.as_bytes())
    }

    fn put(&self, token: &str, path: &str, text: &str) {
        let answer = self.place.send(&format!("PUT /files/{path}"), &[token], text.as_bytes());
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    /// The commits and words of a path's versions, oldest first.
    fn versions(&self, token: &str, query: &str) -> Vec<(u64, String)> {
        let told = json(&self.get(token, &format!("/page/history?{query}")).is(200));
        assert_eq!(told["is_complete"], true);
        let versions = told["versions"].as_array().unwrap().iter();
        versions
            .map(|one| (one["commit"].as_u64().unwrap(), one["what"].as_str().unwrap().to_owned()))
            .collect()
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

#[test]
fn versions_are_told_had_and_restored_and_so_are_snapshots() {
    let host = Host::new();
    let write = host.token("write --write");
    host.put(&write, "d/file", "first");
    host.home.type_in("snapshot create before").exits(0);
    host.put(&write, "d/file", "second, longer");
    // A change that is undone within the same commit makes no version.
    host.home.type_in("sync").exits(0);
    host.place.send("DELETE /files/d/file", &[&write], b"").is(204);
    let versions = host.versions(&write, "path=d&name=file");
    let words: Vec<_> = versions.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(words, ["created", "written", "deleted"]);
    let (first, second) = (versions[0].0, versions[1].0);

    // Both versions can be downloaded, and the page of a past state shows them.
    let was = |at: u64| format!("path=d&name=file&at={at}");
    assert_eq!(host.get(&write, &format!("/page/past?{}", was(first))).is(200).text(), "first");
    let range = "Range: bytes=8-13";
    let part = host.place.send(&format!("GET /page/past?{}", was(second)), &[&write, range], b"");
    assert_eq!(part.is(206).text(), "longer");
    let page = host.place.send(&format!("GET /?path=d&at={first}"), &[&write], b"").is(200);
    page.says("As it was").says("snapshot").says("before").says("/page/past?path=d");

    // Restored in place, and elsewhere; what is replaced remains as a version.
    host.post(&write, &format!("/page/restore?{}", was(first)), "").is(200).says("\"d/file\"");
    assert_eq!(host.get(&write, "/files/d/file").is(200).text(), "first");
    host.post(&write, &format!("/page/restore?{}", was(second)), "to=d%2Ffile").is(200);
    assert_eq!(host.get(&write, "/files/d/file").is(200).text(), "second, longer");
    assert_eq!(host.versions(&write, "path=d&name=file").len(), 5);
    host.post(&write, &format!("/page/restore?{}", was(first)), "to=new%2Fa+b").is(200);
    assert_eq!(host.get(&write, "/files/new/a%20b").is(200).text(), "first");
    // A folder is restored only to a free name.
    let folder = format!("/page/restore?path=&name=d&at={first}");
    host.post(&write, &folder, "").is(409).says("exists");
    host.post(&write, &folder, "to=again").is(200);
    assert_eq!(host.get(&write, "/files/again/file").is(200).text(), "first");
    let deleted = versions[2].0;
    host.post(&write, &format!("/page/restore?{}", was(deleted)), "").is(404).says("not_found");
    host.get(&write, "/page/past?path=d&name=file&at=999999").is(404).says("no_state");
    host.post(&write, "/page/restore?path=d&name=file&at=0", "").is(404).says("no_state");

    // Snapshots, and a state by its time.
    let told = json(&host.get(&write, "/page/snapshots").is(200));
    assert_eq!(told["snapshots"][0]["name"], "before");
    let at = told["snapshots"][0]["commit"].as_u64().unwrap();
    assert_eq!(host.get(&write, &format!("/page/past?{}", was(at))).is(200).text(), "first");
    let led = host.get(&write, "/page/look?path=d&time=2100-01-01T00:00:00Z").is(303);
    assert!(led.header("location").unwrap().starts_with("/?path=d&at="));
    host.get(&write, "/page/look?path=d&time=2001-01-01T00:00:00Z").is(404).says("no_state");
    host.end();
}

#[test]
fn who_may_less_sees_and_does_less() {
    let host = Host::new();
    let write = host.token("write --write");
    host.put(&write, "photos/a", "a");
    host.put(&write, "secret/s", "s");
    host.home.type_in("snapshot create hidden-name").exits(0);
    host.put(&write, "photos/a", "b");
    let [(at, _), ..] = &host.versions(&write, "path=photos&name=a")[..] else { panic!("none") };

    // A reader can look back, and change nothing.
    let read = host.token("read --read-only --expires 1h");
    let page = host.place.send("GET /", &[&read], b"").is(200).text();
    assert!(page.contains("Read only") && page.contains("read") && !page.contains("csrf=\" "));
    assert!(!page.contains("/page/folder") && !page.contains("id=\"upload\""));
    host.get(&read, &format!("/page/past?path=photos&name=a&at={at}")).is(200);
    let history = host.place.send("GET /page/history?path=photos&name=a", &[&read], b"").is(200);
    assert!(!history.text().contains("/page/restore"));
    for (path, form) in [
        ("/page/folder?path=".to_owned(), "name=x"),
        ("/page/move?path=photos&name=a".to_owned(), "to=c"),
        ("/page/delete?path=photos&name=a".to_owned(), ""),
        (format!("/page/restore?path=photos&name=a&at={at}"), ""),
    ] {
        host.post(&read, &path, form).is(403).says("read_only_token");
    }

    // A token for a part of the vault starts there and gets nowhere else, neither by a path nor by a form field.
    let part = host.token("part --write --only photos");
    let led = host.place.send("GET /", &[&part], b"").is(303);
    assert_eq!(led.header("location"), Some("/?path=photos"));
    let page = host.place.send("GET /?path=photos", &[&part], b"").is(200).text();
    assert!(
        page.contains("photos") && !page.contains("entries") && !page.contains("/page/snapshots")
    );
    let told = host.get(&part, "/page/history?path=photos&name=a").is(200).text();
    assert!(told.contains("\"host\":null") && !told.contains("hidden-name"), "{told}");
    let then = host.place.send(&format!("GET /?path=photos&at={at}"), &[&part], b"").is(200);
    assert!(!then.text().contains("hidden-name"));
    for path in [
        "/?path=".to_owned(),
        "/?path=secret".to_owned(),
        "/?path=&file=secret".to_owned(),
        format!("/?path=&at={at}"),
        "/page/history?path=secret&name=s".to_owned(),
        format!("/page/past?path=secret&name=s&at={at}"),
        "/page/look?path=secret&time=2100-01-01T00:00:00Z".to_owned(),
        "/page/snapshots".to_owned(),
    ] {
        host.get(&part, &path).is(403).says("out_of_scope");
    }
    let restore = format!("/page/restore?path=photos&name=a&at={at}");
    for (path, form) in [
        ("/page/folder?path=", "name=photos%2Fx"),
        ("/page/folder?path=secret", "name=x"),
        ("/page/move?path=photos&name=a", "to=a&folder=secret"),
        ("/page/move?path=photos&name=a", "to=a&folder="),
        ("/page/move?path=secret&name=s", "to=s&folder=photos"),
        ("/page/delete?path=secret&name=s", ""),
        ("/page/delete?path=&name=secret", "tree=true"),
        (restore.as_str(), "to=secret%2Fa"),
    ] {
        host.post(&part, path, form).is(403).says("out_of_scope");
    }
    host.post(&part, "/page/folder?path=photos", "name=mine").is(200);
    host.post(&part, "/page/move?path=photos&name=a", "to=b&folder=photos%2Fmine").is(200);
    host.post(&part, &restore, "").is(200);
    assert_eq!(host.get(&part, "/files/photos/a").is(200).text(), "a");
    assert_eq!(host.get(&write, "/files/secret/s").is(200).text(), "s");

    // A removed token is refused.
    host.home.type_in("serve token remove part").exits(0);
    host.post(&part, &restore, "").is(401);
    host.end();
}

#[test]
fn a_page_elsewhere_posts_nothing_and_makes_nobody_look_back() {
    let host = Host::new();
    let write = host.token("write --write");
    host.put(&write, "a", "a");
    let site = "Sec-Fetch-Site: cross-site";
    let shown = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
    for line in [
        "POST /page/folder?path=",
        "POST /page/move?path=&name=a",
        "POST /page/delete?path=&name=a",
        "POST /page/restore?path=&name=a&at=1",
    ] {
        host.place.send(line, &[&write, site], b"").is(403).says("cross_origin");
    }
    // Not even by a link, since these make the vault work.
    for line in [
        "GET /page/history?path=&name=a",
        "GET /page/look?path=&time=2100-01-01T00:00:00Z",
        "GET /page/past?path=&name=a&at=1",
        "GET /page/snapshots",
    ] {
        let all = [&write[..], site, shown[0], shown[1]];
        host.place.send(line, &all, b"").is(403).says("cross_origin");
    }
    let place = &host.place;
    let policy = place.send("GET /", &[&write], b"").is(200);
    let policy = policy.header("content-security-policy").unwrap().to_owned();
    for part in
        ["default-src 'none'", "script-src 'self';", "style-src 'self';", "img-src 'self' blob:"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("data:"));
    assert_eq!(host.get(&write, "/files/a").is(200).text(), "a");
    host.end();
}
