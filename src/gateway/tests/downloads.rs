//! GET and HEAD of files.

use super::*;
use crate::types::Timestamp;
use crate::vfs::{OpenFlags, SetAttributes, SetTime, WriteAt};

#[tokio::test]
async fn a_download_says_all_about_the_file() {
    let service = Service::new().await;
    let content = data(2_500_000);
    let name = "/files/x/Gr%C3%BC%C3%9Fe%20%22a%22.txt";
    let file = service.put(name, content.clone()).await.is(201).json();
    let answer = service.get(name).await.is(200);
    assert!(answer.body == content);
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"Gr__e _a_.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%22a%22.txt"
    );
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("content-length"), "2500000");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("content-security-policy"), "sandbox; default-src 'none'");
    assert_eq!(answer.header("cache-control"), "no-store", "a browser would keep it on its disk");
    assert_eq!(answer.header("x-s3vault-id"), file["id"]);
    assert_eq!(answer.header("x-s3vault-uploaded-at"), file["uploaded_at"]);
    assert_eq!(answer.header("x-s3vault-state"), "uploading");
    let digest = crate::crypto::sha256(&content);
    let digest = data_encoding::BASE64.encode(&digest.0);
    assert_eq!(answer.header("repr-digest"), format!("sha-256=:{digest}:"));
    let head = service.ask("HEAD", name, &[], Body::empty()).await.is(200);
    assert!(head.body.is_empty());
    for (name, value) in &answer.headers {
        assert_eq!(head.headers.get(name), Some(value), "{name}");
    }
    let by_key = service.get("/download/?s3_key=x/Gr%C3%BC%C3%9Fe+%22a%22.txt").await.is(200);
    assert_eq!(by_key.headers, answer.headers);
}

#[tokio::test]
async fn ranges_and_conditions() {
    let service = Service::new().await;
    let content = data(2_500_000);
    service.put("/files/f", content.clone()).await.is(201);
    let whole = service.get("/files/f").await;
    let (etag, date) = (whole.header("etag").to_owned(), whole.header("last-modified").to_owned());
    let ask = async |headers: &[(&str, &str)]| {
        service.ask("GET", "/files/f", headers, Body::empty()).await
    };
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-2100000", 1_000_000, 2_100_001),
        ("bytes=2499990-", 2_499_990, 2_500_000),
        ("bytes=-5", 2_499_995, 2_500_000),
        ("bytes=7-99999999", 7, 2_500_000),
    ] {
        let answer = ask(&[("range", range), ("if-range", &etag)]).await.is(206);
        assert!(answer.body == content[from..to], "{range}");
        let expected = format!("bytes {from}-{}/2500000", to - 1);
        assert_eq!(answer.header("content-range"), expected);
        assert_eq!(answer.header("content-length"), (to - from).to_string());
        assert_eq!(answer.header("etag"), etag);
    }
    let beyond = ask(&[("range", "bytes=2500000-")]).await.is_error(416, "range_not_satisfiable");
    assert_eq!(beyond.header("content-range"), "bytes */2500000");
    for headers in [
        [("range", "bytes=0-1,3-4"), ("x", "")],
        [("range", "lines=1-2"), ("x", "")],
        [("range", "bytes=0-1"), ("if-range", "\"other\"")],
        [("range", "bytes=0-1"), ("if-range", &date)],
    ] {
        assert!(ask(&headers).await.is(200).body == content, "{headers:?}");
    }
    let same = ask(&[("if-none-match", &etag)]).await.is(304);
    assert!(same.body.is_empty() && same.header("etag") == etag);
    assert!(!same.headers.contains_key("content-type"));
    ask(&[("if-modified-since", &date)]).await.is(304);
    ask(&[("if-none-match", "\"other\""), ("if-modified-since", &date)]).await.is(200);
    ask(&[("if-match", "\"other\"")]).await.is_error(412, "precondition_failed");
    let head = [("range", "bytes=0-1")];
    let head = service.ask("HEAD", "/files/f", &head, Body::empty()).await.is(200);
    assert_eq!(head.header("content-length"), "2500000", "a range is for GET");
    service.put("/files/f", "other").await.is(200);
    ask(&[("if-none-match", &etag)]).await.is(200);
    let empty = service.put("/files/empty", "").await.is(201);
    assert_eq!(empty.json()["size"], 0);
    let range = [("range", "bytes=0-")];
    service.ask("GET", "/files/empty", &range, Body::empty()).await.is(416);
}

#[tokio::test]
async fn a_file_of_any_time_is_sent() {
    let service = Service::new().await;
    service.put("/files/f", "content").await.is(201);
    let ino = service.ino("f").await;
    for (seconds, date) in [
        (253_402_300_799, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
        (253_402_300_800, None),
        (i64::MAX, None),
        (-1, None),
        (i64::MIN, None),
    ] {
        let time = Timestamp { seconds, nanos: 999_999_999 };
        let set = SetAttributes { mtime: Some(SetTime::To(time)), ..SetAttributes::default() };
        service.vfs().set_attributes(ino, &set).await.unwrap();
        let answer = service.get("/files/f").await.is(200);
        assert_eq!(answer.body, b"content");
        let said = answer.headers.get("last-modified").map(|value| value.to_str().unwrap());
        assert_eq!(said, date, "{seconds}");
        for path in ["/files/f?metadata=true", "/files/?sort=time", "/?sort=time"] {
            service.get(path).await.is(200);
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_never_sent_as_a_mixture() {
    let service = Service::new().await;
    service.put("/files/f", data(3_000_000)).await.is(201);
    let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
    let handle = service.vfs().open(service.ino("f").await, flags).await.unwrap();
    let request = Request::get("/files/f").body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    service.vfs().write(handle, WriteAt::Offset(2_000_000), b"new").await.unwrap();
    assert!(to_bytes(response.into_body(), usize::MAX).await.is_err(), "it breaks off");
    // A file that is being written has no entity tag, and its current content is sent.
    let now = service.get("/files/f").await.is(200);
    assert!(!now.headers.contains_key("etag") && now.body.len() == 3_000_000);
    assert_eq!(now.header("x-s3vault-state"), "uploading");
    service.vfs().release(handle).await.unwrap();
    // A file that is replaced or removed during a download is still read to its end.
    let request = Request::get("/files/f").body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    service.put("/files/f", "replaced").await.is(200);
    let old = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(old.len() == 3_000_000 && &old[2_000_000..2_000_003] == b"new");
    assert!(service.has_no_orphans().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_that_is_always_there_is_always_found() {
    let service = Arc::new(Service::new().await);
    service.put("/files/f", "0").await.is(201);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (service, over) = (service.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    service.get("/files/f").await.is(200);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for i in 0..1500 {
        service.put("/files/f", i.to_string()).await.is(200);
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(service.has_no_orphans().await);
}

#[tokio::test]
async fn what_is_no_file_is_said_and_symlinks_are_not_followed() {
    let service = Service::new().await;
    let vfs = service.vfs();
    service.put("/files/d/f", "x").await.is(201);
    let root = InodeNo::ROOT;
    vfs.symlink(&OWNER, root, b"link", b"d/f").await.unwrap();
    vfs.symlink(&OWNER, root, b"dir", b"d").await.unwrap();
    vfs.mknod(&OWNER, root, b"fifo", libc::S_IFIFO | 0o644, 0).await.unwrap();
    service.get("/files/d").await.is_error(409, "is_a_directory");
    service.get("/files/link").await.is_error(409, "not_a_file");
    service.get("/files/fifo").await.is_error(409, "not_a_file");
    for path in ["/files/dir/f", "/files/d/f/g", "/files/none", "/download/?s3_key=dir/f"] {
        service.get(path).await.is_error(404, "not_found");
    }
    service.put("/files/link", "no").await.is_error(409, "not_a_file");
    service.put("/files/d", "no").await.is_error(409, "is_a_directory");
    for path in ["/files/dir/new", "/files/d/f/new"] {
        service.put(path, "no").await.is_error(409, "not_a_directory");
    }
    let file: [(&str, &str, &[u8]); 1] = [("f", "", b"no")];
    service.post("/upload/?directory=dir", &file).await.is_error(409, "not_a_directory");
    assert_eq!(service.get("/files/d/f").await.body, b"x");
    for (path, kind) in [("link", "symlink"), ("fifo", "other"), ("d", "directory")] {
        let known = service.get(&format!("/files/{path}?metadata=true")).await.is(200).json();
        assert_eq!(known["kind"], kind);
    }
}

#[tokio::test]
async fn names_are_bytes() {
    let service = Service::new().await;
    let path = "/files/a%FFb/%0A%25%3F%23+.x";
    let file = service.put(path, "bytes").await.is(201).json();
    assert_eq!(file["s3_key"], "a\u{fffd}b/\n%?#+.x");
    let href = file["href"].as_str().unwrap();
    assert_eq!(service.get(href).await.is(200).body, b"bytes");
    let list = service.get("/files/?prefix=a%FF").await.is(200).json();
    assert_eq!(list["files"][0]["href"], href);
    let key = href.strip_prefix("/files/").unwrap();
    service.get(&format!("/download/?s3_key={key}")).await.is(200);
    service.ask("DELETE", href, &[], Body::empty()).await.is(204);
}
