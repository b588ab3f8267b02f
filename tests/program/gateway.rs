//! The HTTP service's API over real HTTP, with vaults on SeaweedFS: used with curl, beside a mount, from a second
//! machine, by many clients, and by clients that go away. How the service is hosted is tested in
//! `tests/program/serve.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::home::{Home, runs, signal, wait_until};
use crate::support::http::Place;
use crate::support::{TestBucket, noise, weed};
use serde_json::Value;

/// A user on a machine of their own, with a vault on the shared server.
struct User {
    home: Home,
    vault: String,
}

fn user(bucket: &TestBucket) -> User {
    let mut home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    for (name, value) in bucket.environment() {
        home = home.with(name, &value);
    }
    // The directory in which temporary plaintext would end up.
    fs::create_dir(home.path("tmp")).unwrap();
    let temporary = home.path("tmp").display().to_string();
    let (name, endpoint) = (bucket.name(), bucket.endpoint());
    let vault = format!("--bucket s3://{name} --endpoint-url {endpoint}");
    User { home: home.with("TMPDIR", &temporary), vault }
}

fn new_vault(bucket: &TestBucket) -> User {
    let user = user(bucket);
    user.home.type_in(&format!("init {}", user.vault)).exits(0);
    user
}

impl User {
    /// Serves without tokens on a free port.
    fn serve(&self, options: &str) -> Place {
        let line = format!("serve --open --listen 127.0.0.1:0 {} {options}", self.vault);
        self.home.type_in(&line).exits(0);
        Place::of(self.report()["service"]["url"].as_str().expect("it serves"))
    }

    fn report(&self) -> Value {
        self.home.only_status()
    }

    fn daemon(&self) -> u32 {
        u32::try_from(self.report()["pid"].as_u64().expect("it runs")).unwrap()
    }

    /// Runs a line in a shell, with the service's own address filled in.
    #[track_caller]
    fn shell(&self, place: &Place, line: &str) -> Vec<u8> {
        let line = line.replace("127.0.0.1:8000", &place.0);
        let line = line.replace("/path/to", &self.home.path("").display().to_string());
        let done = Command::new("sh").args(["-c", &line]).output().expect("sh starts");
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}\n{complaint}");
        done.stdout
    }
}

fn json(place: &Place, path: &str) -> Value {
    serde_json::from_slice(&place.get(path).is(200).body).unwrap()
}

/// Every path in the vault.
fn paths(place: &Place) -> BTreeSet<String> {
    let page = json(place, "/files/?limit=1000");
    let files = page["files"].as_array().unwrap().iter();
    files.map(|file| file["s3_key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn as_typed_and_seen_in_the_mount_and_from_a_second_machine() {
    let bucket = weed().bucket();
    let user = new_vault(&bucket);
    user.home.type_in("mount vault").exits(0);
    let place = user.serve("");
    let content = noise(1, 3_000_000);
    fs::write(user.home.path("file.txt"), &content).unwrap();

    // The two command lines that the README promises.
    let upload = "curl -sS -X POST http://127.0.0.1:8000/upload/ -F 'file=@/path/to/file.txt'";
    let download = "curl -sS -X GET \"http://127.0.0.1:8000/download/?s3_key=encrypted/file.txt\"";
    let file: Value = serde_json::from_slice(&user.shell(&place, upload)).unwrap();
    assert_eq!((&file["s3_key"], &file["size"]), (&"encrypted/file.txt".into(), &3_000_000.into()));
    assert_eq!(
        (&file["file_name"], &file["content_type"]),
        (&"file.txt".into(), &"text/plain".into())
    );
    assert!(user.shell(&place, download) == content);
    let sum = user.shell(&place, "sha256sum /path/to/file.txt");
    assert_eq!(file["sha256"].as_str().unwrap().as_bytes(), &sum[..64]);

    // The same file is in the mount, and the reverse.
    let mounted = user.home.path("vault/encrypted/file.txt");
    assert!(fs::read(&mounted).unwrap() == content);
    let again: Value = serde_json::from_slice(&user.shell(&place, upload)).unwrap();
    assert_eq!(again["s3_key"], "encrypted/file-1.txt");
    fs::rename(&mounted, user.home.path("vault/renamed ä.txt")).unwrap();
    let renamed = json(&place, "/files/renamed%20%C3%A4.txt?metadata=true");
    assert_eq!((&renamed["id"], &renamed["s3_key"]), (&file["id"], &"renamed ä.txt".into()));
    place.get("/download/?s3_key=encrypted/file.txt").is(404);
    fs::write(user.home.path("vault/encrypted/file-1.txt"), "changed").unwrap();
    let changed = json(&place, "/files/encrypted/file-1.txt?metadata=true");
    assert!(changed["id"].is_null() && changed["sha256"].is_null());
    assert_eq!(place.get("/files/encrypted/file-1.txt").is(200).body, b"changed");

    // Resumed, in parts, and with nothing to send.
    fs::write(user.home.path("part"), &content[..1_000_001]).unwrap();
    let resume = "curl -sS -C - -o /path/to/part http://127.0.0.1:8000/files/renamed%20%C3%A4.txt";
    user.shell(&place, resume);
    assert!(fs::read(user.home.path("part")).unwrap() == content);
    let named =
        "cd /path/to/tmp && curl -sS -OJ http://127.0.0.1:8000/files/renamed%20%C3%A4.txt && ls";
    assert!(!user.shell(&place, named).is_empty());
    fs::remove_dir_all(user.home.path("tmp")).unwrap();
    fs::create_dir(user.home.path("tmp")).unwrap();

    // Once in the bucket, it looks the same from another machine.
    let put = "curl -sS -T /path/to/file.txt 'http://127.0.0.1:8000/files/last?wait=durable'";
    let last: Value = serde_json::from_slice(&user.shell(&place, put)).unwrap();
    assert_eq!(last["state"], "durable");
    let here = json(&place, "/files/");
    let other = self::user(&bucket);
    let there = other.serve("--read-only");
    assert_eq!(json(&there, "/files/"), here);
    assert!(there.get("/files/last").is(200).body == content);
    there.put("/files/no", b"x").is(403).says("read_only");
    other.home.type_in("serve --stop").exits(0);
    user.home.type_in("umount vault").exits(0);
}

/// The peak memory of a process, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_form_whose_parts_never_begin_takes_no_memory() {
    let bucket = weed().bucket();
    let user = new_vault(&bucket);
    let place = user.serve("");
    place.put("/files/f", &noise(0, 1_000_000)).is(201);
    let (before, length) = (peak(user.daemon()), 150_u64 << 20);
    let mut stream = place.connect();
    let length = format!("Content-Length: {length}");
    let kind = "Content-Type: multipart/form-data; boundary=XX";
    stream.write_all(place.head("POST /upload/", &[&length, kind]).as_bytes()).unwrap();
    // The service answers before it has the whole body, and reads no more of it.
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..150 {
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    drop(stream);
    let grown = peak(user.daemon()) - before;
    assert!(grown < 32 << 20, "by {} MiB", grown >> 20);
    user.home.type_in("serve --stop").exits(0);
}

#[test]
fn the_mount_knows_at_once_what_is_changed_by_http() {
    let bucket = weed().bucket();
    let user = new_vault(&bucket);
    user.home.type_in("mount vault").exits(0);
    let place = user.serve("");
    let vault = user.home.path("vault");
    let names = || -> BTreeSet<String> {
        let list = fs::read_dir(&vault).unwrap();
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let path = vault.join("f");
    for round in 0..5 {
        // The kernel caches all of this: missing names, sizes, content.
        assert!(!path.exists() && names().is_empty());
        let (first, second) = (noise(round, 1000), noise(round, 70_000));
        place.put("/files/f", &first).is(201);
        assert_eq!(fs::read(&path).unwrap(), first);
        place.put("/files/f", &second).is(200);
        assert_eq!(fs::metadata(&path).unwrap().len(), 70_000);
        assert_eq!(fs::read(&path).unwrap(), second);
        assert_eq!(names(), BTreeSet::from(["f".to_owned()]));
        place.send("DELETE /files/f", &[], b"").is(204);
        assert!(!path.exists() && names().is_empty());
        place.put("/files/d/e/f", b"x").is(201);
        assert_eq!(fs::read(vault.join("d/e/f")).unwrap(), b"x");
        for gone in ["d/e/f", "d/e", "d"] {
            place.send(&format!("DELETE /files/{gone}"), &[], b"").is(204);
            assert!(!vault.join(gone).exists(), "{gone}");
        }
    }
    user.home.type_in("umount vault").exits(0);
}

#[test]
fn sixty_four_clients_at_once_lose_and_mix_nothing() {
    let bucket = weed().bucket();
    let user = new_vault(&bucket);
    let place = user.serve("");
    let clients: Vec<_> = (0..64)
        .map(|i| {
            let place = place.clone();
            std::thread::spawn(move || {
                let content = noise(i, 20_000 * (1 + i as usize % 40));
                let mut body = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"same.bin\"\r\n\r\n".to_vec();
                body.extend(&content);
                body.extend(b"\r\n--XX--\r\n");
                let kind = ["Content-Type: multipart/form-data; boundary=XX"];
                let answer = place.send("POST /upload/", &kind, &body).is(201);
                let file: Value = serde_json::from_slice(&answer.body).unwrap();
                let key = file["s3_key"].as_str().unwrap().to_owned();
                assert!(place.get(&format!("/download/?s3_key={key}")).is(200).body == content);
                (key, content)
            })
        })
        .collect();
    let files: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let keys: BTreeSet<_> = files.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys.len(), 64);
    assert_eq!(paths(&place), keys);
    user.home.type_in("serve --stop").exits(0);
    user.home.type_in("mount vault").exits(0);
    for (key, content) in files {
        assert!(fs::read(user.home.path("vault").join(&key)).unwrap() == content, "{key}");
    }
    user.home.type_in("umount vault").exits(0);
}

#[test]
fn who_goes_away_half_way_leaves_nothing_not_even_after_a_crash() {
    let bucket = weed().bucket();
    let user = new_vault(&bucket);
    let place = user.serve("");
    let half = |line: &str, headers: &[&str], part: &[u8]| {
        let mut stream = place.connect();
        let mut headers = headers.to_vec();
        headers.push("Content-Length: 50000000");
        stream.write_all(place.head(line, &headers).as_bytes()).unwrap();
        stream.write_all(part).unwrap();
        stream
    };
    let form = ["Content-Type: multipart/form-data; boundary=XX"];
    let mut begun =
        b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half\"\r\n\r\n"
            .to_vec();
    begun.extend(noise(5, 10_000_000));
    for _ in 0..3 {
        drop(half("PUT /files/half", &[], &noise(4, 10_000_000)));
        drop(half("POST /upload/", &form, &begun));
    }
    let open = (half("PUT /files/d/half", &[], &begun), half("POST /upload/", &form, &begun));
    assert!(paths(&place).is_empty());
    place.put("/files/whole", b"whole").is(201);
    // Aborted uploads leave nothing, and those still open do not delay what is sent.
    user.home.type_in("sync").exits(0);
    assert_eq!(paths(&place), BTreeSet::from(["whole".to_owned()]));
    let daemon = user.daemon();
    signal(daemon, Signal::KILL);
    wait_until("the daemon is gone", || !runs(daemon));
    drop(open);
    user.home.type_in("mount vault").exits(0);
    let names =
        fs::read_dir(user.home.path("vault")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["whole"]);
    // The root and the one file; what was begun is removed in the background.
    wait_until("what was begun is removed", || user.report()["files"].as_u64() == Some(2));
    user.home.type_in("umount vault").exits(0);
}

#[test]
fn no_plaintext_and_no_name_is_on_the_disk() {
    let bucket = weed().bucket();
    let user = new_vault(&bucket);
    let place = user.serve("");
    let secret = b"nobody-but-the-owner-may-read-this ".repeat(60_000);
    let head =
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"telltale.name\"\r\n\r\n";
    let body = [head.as_bytes(), &secret, b"\r\n--XX--\r\n"].concat();
    let kind = ["Content-Type: multipart/form-data; boundary=XX"];
    place.send("POST /upload/", &kind, &body).is(201);
    place.put("/files/telltale.name", &secret).is(201);
    // An upload that is under way while we look.
    let mut open = place.connect();
    let begin = place.head("PUT /files/telltale.open", &["Content-Length: 99000000"]);
    open.write_all(begin.as_bytes()).unwrap();
    open.write_all(&secret).unwrap();
    assert!(place.get("/files/telltale.name").is(200).body == secret);
    place.get("/files/?name=telltale").is(200);
    let looked = search(&user.home.path(""), &[b"nobody-but-the-owner", b"telltale"]);
    assert!(looked > 4_000_000, "only {looked} bytes were looked at");
    drop(open);
    user.home.type_in("serve --stop").exits(0);
    search(&user.home.path(""), &[b"nobody-but-the-owner", b"telltale"]);
}

/// Searches every file below a directory; returns how many bytes were read.
fn search(directory: &Path, words: &[&[u8]]) -> u64 {
    let mut looked = 0;
    for entry in walkdir::WalkDir::new(directory) {
        // Files leave staging while we look, once they are uploaded.
        let Ok(entry) = entry else { continue };
        let Some(bytes) =
            entry.file_type().is_file().then(|| fs::read(entry.path()).ok()).flatten()
        else {
            continue;
        };
        looked += bytes.len() as u64;
        for word in words {
            let found = bytes.windows(word.len()).any(|part| part == *word);
            assert!(!found, "{:?} is in {}", String::from_utf8_lossy(word), entry.path().display());
        }
    }
    looked
}
