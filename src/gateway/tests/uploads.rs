//! POST and PUT.

use super::*;
use crate::crypto::sha256;
use crate::vfs::{RenameMode, SetAttributes, SetTime};

#[tokio::test]
async fn a_form_becomes_a_file_of_the_vault() {
    let service = Service::new().await;
    let content = data(300_000);
    let answer = service.post("/upload/", &[("file.txt", "text/plain", &content)]).await.is(201);
    assert_eq!(answer.header("location"), "/files/encrypted/file.txt");
    let file = answer.json();
    for (name, value) in [
        ("file_name", "file.txt"),
        ("s3_key", "encrypted/file.txt"),
        ("content_type", "text/plain"),
        ("sha256", &sha256(&content).to_string()),
        ("state", "uploading"),
        ("kind", "file"),
    ] {
        assert_eq!(file[name], value);
    }
    assert_eq!(file["size"], 300_000);
    assert_eq!(file["id"].as_str().unwrap().len(), 32);
    let seen = service.vfs().attributes(service.ino("encrypted/file.txt").await).await.unwrap();
    assert_eq!((seen.mode, seen.uid, seen.gid), (libc::S_IFREG | 0o644, 1000, 100));
    let dir = service.vfs().attributes(service.ino("encrypted").await).await.unwrap();
    assert_eq!((dir.mode, dir.uid), (libc::S_IFDIR | 0o755, 1000));
    let known = service.get("/files/encrypted/file.txt?metadata=true").await.is(200).json();
    assert_eq!(known, file);
    let answer = service.get("/download/?s3_key=encrypted/file.txt").await.is(200);
    assert_eq!(answer.body, content);
    assert!(service.has_no_orphans().await);
}

#[tokio::test]
async fn a_name_that_is_there_gets_a_number_and_nothing_is_overwritten() {
    let service = Service::new().await;
    for (i, key) in ["f.txt", "f-1.txt", "f-2.txt"].iter().enumerate() {
        let content = [i as u8; 10];
        let file = service.post("/upload/?directory=d", &[("f.txt", "", &content)]).await.is(201);
        assert_eq!(file.json()["s3_key"], format!("d/{key}"));
    }
    for (i, key) in ["f.txt", "f-1.txt", "f-2.txt"].iter().enumerate() {
        assert_eq!(service.get(&format!("/files/d/{key}")).await.body, [i as u8; 10]);
    }
    let files: [(&str, &str, &[u8]); 2] = [("f.txt", "", b"a"), ("f.txt", "", b"b")];
    let answer = service.post("/upload/?directory=", &files).await.is(201).json();
    let keys: Vec<_> = answer["files"].as_array().unwrap().iter().map(|f| &f["s3_key"]).collect();
    assert_eq!(keys, ["f.txt", "f-1.txt"]);
    assert_eq!(service.get("/files/f-1.txt").await.body, b"b");
}

#[tokio::test]
async fn put_makes_replaces_and_heeds_its_condition() {
    let service = Service::new().await;
    let new = service.put("/files/a/b%20c/d.json", "{}").await.is(201);
    assert_eq!(new.header("location"), "/files/a/b%20c/d.json");
    assert_eq!(new.json()["content_type"], "application/json");
    let old = service.ino("a/b c/d.json").await;
    let typed = [("content-type", "x/y; z=1")];
    let again = service.ask("PUT", "/files/a/b%20c/d.json", &typed, "[1]".into()).await.is(200);
    assert_eq!(again.json()["content_type"], "x/y; z=1");
    assert!(service.ino("a/b c/d.json").await != old);
    assert_ne!(again.json()["id"], new.json()["id"]);
    assert_eq!(service.get("/files/a/b%20c/d.json").await.body, b"[1]");
    let only_new = [("if-none-match", "*")];
    let refused = service.ask("PUT", "/files/a/b%20c/d.json", &only_new, "no".into()).await;
    refused.is_error(412, "precondition_failed");
    service.ask("PUT", "/files/a/new", &only_new, Body::empty()).await.is(201);
    assert_eq!(service.get("/files/a/new").await.is(200).body, b"");
    assert_eq!(service.get("/files/a/b%20c/d.json").await.body, b"[1]");
    assert!(service.has_no_orphans().await);
}

#[tokio::test]
async fn durable_is_answered_when_the_bucket_has_it() {
    let service = Service::new().await;
    let before = service.world.asked_of_the_bucket();
    let file = service.post("/upload/?wait=durable", &[("f", "", b"x")]).await.is(201).json();
    assert_eq!(file["state"], "durable");
    assert!(service.world.asked_of_the_bucket() > before, "it waited");
    let file = service.put("/files/g?wait=durable", "x").await.is(201).json();
    assert_eq!(file["state"], "durable");
}

#[tokio::test]
async fn what_is_known_is_of_the_version_that_was_uploaded() {
    let service = Service::new().await;
    let vfs = service.vfs();
    let id = service.put("/files/f", data(1000)).await.is(201).json()["id"].clone();
    let known = async |path: &str| {
        let file = service.get(&format!("/files/{path}?metadata=true")).await.is(200).json();
        let names = ["id", "content_type", "sha256", "uploaded_at"];
        assert!(names.iter().all(|name| file[*name].is_null() == file["id"].is_null()), "{file}");
        file["id"].clone()
    };
    let ino = service.ino("f").await;
    let touch =
        SetAttributes { mtime: Some(SetTime::Now), mode: Some(0o600), ..SetAttributes::default() };
    vfs.set_attributes(ino, &touch).await.unwrap();
    vfs.rename((InodeNo::ROOT, b"f"), (InodeNo::ROOT, b"g"), RenameMode::Replace).await.unwrap();
    assert_eq!(known("g").await, id);
    let cut = SetAttributes { size: Some(999), ..SetAttributes::default() };
    vfs.set_attributes(ino, &cut).await.unwrap();
    assert!(known("g").await.is_null());
    let headers = service.get("/files/g").await.is(200).headers;
    assert!(!headers.contains_key("repr-digest") && !headers.contains_key("x-s3vault-id"));
    // A copy with its attributes, as `cp -a` makes it, does not count as that upload.
    let original = service.put("/files/h", "content").await.is(201).json();
    let note = vfs.xattr(service.ino("h").await, b"user.s3vault.upload").await.unwrap();
    service.put("/files/copy", "content").await.is(201);
    vfs.set_xattr(
        service.ino("copy").await,
        b"user.s3vault.upload",
        &note,
        0,
        &crate::vfs::Setter::Superuser,
    )
    .await
    .unwrap();
    assert!(known("copy").await.is_null());
    assert_eq!(known("h").await, original["id"]);
}

#[tokio::test]
async fn a_client_that_goes_away_or_sends_nonsense_leaves_nothing() {
    let service = Service::new().await;
    let whole = form(&[("a", "", &data(200_000)), ("b", "", &data(200_000))]);
    for end in [0, 30, 100, 150_000, 250_000, whole.len() - 7] {
        let part = whole[..end].to_vec();
        let kind = [("content-type", BOUNDARY)];
        let answer = service.ask("POST", "/upload/", &kind, part.clone().into()).await;
        assert!([400, 422].contains(&answer.status), "{end}: {}", answer.status);
        // The same, but the connection is gone: nobody polls the request any more.
        let (sender, body) = stalling(part);
        let request =
            Request::post("/upload/").header("content-type", BOUNDARY).body(body).unwrap();
        let asked = service.router.clone().oneshot(request);
        let ended = tokio::time::timeout(Duration::from_millis(50), asked).await;
        assert!(ended.is_err(), "it waits for more");
        drop(sender);
    }
    for path in ["/files/f", "/files/d/f"] {
        let (_sender, body) = stalling(data(200_000));
        let request = Request::put(path).body(body).unwrap();
        let asked = service.router.clone().oneshot(request);
        assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err());
    }
    assert!(service.has_no_orphans().await);
    let list = service.vfs().read_dir(InodeNo::ROOT, 0, 10).await.unwrap();
    assert_eq!(list.len(), 2, "nothing but . and ..: {list:?}");
}

#[tokio::test]
async fn a_form_whose_parts_never_begin_is_not_kept_in_memory() {
    let service = Service::new().await;
    let kind = [("content-type", BOUNDARY)];
    let head = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n";
    for start in [
        String::new(),
        "--XX\r\nContent-Disposition: form-data; name=\"".to_owned(),
        format!("{head}X: "),
        format!("{head}\r\ncontent\r\n{head}"),
    ] {
        let frames = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = frames.clone();
        let endless = (0..2000).map(move |i| {
            counted.store(i, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 8 << 10]))
        });
        let first = std::iter::once(Ok(bytes::Bytes::from(start.clone())));
        let body = Body::from_stream(futures_util::stream::iter(first.chain(endless)));
        let answer = service.ask("POST", "/upload/", &kind, body).await;
        let answer = answer.is_error(400, "bad_request");
        assert!(answer.text().contains("no part begins"), "{start:?}: {}", answer.text());
        let taken = frames.load(std::sync::atomic::Ordering::Relaxed) * (8 << 10);
        assert!(taken <= 2 * (64 << 10), "{start:?}: {taken}");
    }
    assert!(service.has_no_orphans().await);
}

#[tokio::test]
async fn what_is_no_file_in_a_form_is_passed_over_however_long_it_is() {
    let service = Service::new().await;
    let (other, content) = (data(700_000), data(900_000));
    let mut body = b"--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n".to_vec();
    body.extend(&other);
    body.extend(b"\r\n");
    body.extend(form(&[("f", "", &content)]));
    for frame in [1000, 100_000, body.len()] {
        let frames: Vec<_> =
            body.chunks(frame).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
        let body = Body::from_stream(futures_util::stream::iter(frames));
        let kind = [("content-type", BOUNDARY)];
        let kept = service.ask("POST", "/upload/", &kind, body).await.is(201).json();
        let key = kept["s3_key"].as_str().unwrap();
        assert!(service.get(&format!("/files/{key}")).await.is(200).body == content);
    }
}

/// A body that yields this much, and then stalls while the sender is kept.
fn stalling(part: Vec<u8>) -> (tokio::sync::oneshot::Sender<()>, Body) {
    let (sender, more) = tokio::sync::oneshot::channel::<()>();
    let stream = futures_util::stream::unfold(Some((Some(part), more)), |state| async {
        let (part, more) = state?;
        match part {
            Some(part) => Some((Ok::<_, std::io::Error>(part), Some((None, more)))),
            None => {
                _ = more.await;
                Some((Err(std::io::ErrorKind::ConnectionReset.into()), None))
            }
        }
    });
    (sender, Body::from_stream(stream))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_at_once_get_sixty_four_names() {
    let service = Arc::new(Service::new().await);
    let tasks: Vec<_> = (0..64_u8)
        .map(|i| {
            let service = service.clone();
            tokio::spawn(async move {
                let content = vec![i; 5000 + usize::from(i)];
                let answer = service.post("/upload/", &[("same.bin", "", &content)]).await.is(201);
                (answer.json()["s3_key"].as_str().unwrap().to_owned(), content)
            })
        })
        .collect();
    let mut keys = std::collections::BTreeSet::new();
    for task in tasks {
        let (key, content) = task.await.unwrap();
        let read = service.get(&format!("/download/?s3_key={key}")).await.is(200).body;
        assert!(read == content, "{key}");
        keys.insert(key);
    }
    assert_eq!(keys.len(), 64);
    assert!(service.has_no_orphans().await);
}
