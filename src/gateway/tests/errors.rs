//! Everything that is refused, and that it leaves nothing behind.

use super::*;
use crate::gateway::BodyError;

#[tokio::test]
async fn paths_that_lead_out_or_nowhere_are_refused() {
    let service = Service::new().await;
    let long = "x".repeat(256);
    let deep = "x/".repeat(2100);
    for key in
        ["..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "%00", "a/.", "", &long, &deep]
    {
        let path = format!("/download/?s3_key={key}");
        service.get(&path).await.is_error(400, "bad_request");
        if !key.is_empty() {
            service.put(&format!("/files/{key}"), "no").await.is_error(400, "bad_request");
        }
    }
    service.put("/files/a%2Fb", "no").await.is_error(400, "bad_request");
    for name in ["..", ".", "a/b", "/etc/passwd", "../x", &long] {
        let answer = service.post("/upload/", &[(name, "", b"no")]).await;
        answer.is_error(400, "bad_request");
    }
    for directory in ["..", "/etc", "a//b", "a%00"] {
        let answer =
            service.post(&format!("/upload/?directory={directory}"), &[("f", "", b"")]).await;
        answer.is_error(400, "bad_request");
    }
    assert!(service.paths().await.is_empty() && service.has_no_orphans().await);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_told_so() {
    let service = Service::new().await;
    for path in [
        "/download/",
        "/download/?s3_key=a&s3_key=b",
        "/download/?S3_key=a",
        "/files/?limit=0",
        "/files/?limit=1001",
        "/files/?sort=colour",
        "/files/?order=up",
        "/files/?recursive=yes",
        "/files/?cursor=x",
        "/files/?prefix=../",
        "/files/?prefix=/etc/",
        "/files/?prefix=a%00",
        "/files/?name=%00",
        "/files/?what=1",
        "/files/f?metadata=1",
    ] {
        service.get(path).await.is_error(400, "bad_request");
    }
    let long = format!("/files/?prefix={}", "x".repeat(4096));
    service.get(&long).await.is_error(400, "bad_request");
    service.put("/files/f?wait=forever", "no").await.is_error(400, "bad_request");
    for (name, value, status) in [
        ("content-range", "bytes 0-1/2", 400),
        ("content-encoding", "gzip", 415),
        ("if-match", "\"x\"", 400),
        ("if-none-match", "\"x\"", 400),
    ] {
        service.ask("PUT", "/files/f", &[(name, value)], "no".into()).await.is(status);
    }
    service.put("/files/stays", "x").await.is(201);
    for name in ["if-match", "if-none-match", "if-unmodified-since"] {
        let answer = service.ask("DELETE", "/files/stays", &[(name, "\"x\"")], Body::empty()).await;
        answer.is_error(400, "bad_request");
    }
    service.ask("DELETE", "/files/stays", &[], Body::empty()).await.is(204);
    let plain = [("content-type", "text/plain")];
    service.ask("POST", "/upload/", &plain, "no".into()).await.is_error(400, "bad_request");
    let typed = [("content-type", BOUNDARY)];
    let empty = "--XX--\r\n";
    service.ask("POST", "/upload/", &typed, empty.into()).await.is_error(422, "no_file");
    let field = "--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--XX--\r\n";
    service.ask("POST", "/upload/", &typed, field.into()).await.is_error(422, "no_file_name");
    let other = field.replace("\"file\"", "\"other\"; filename=\"x\"");
    service.ask("POST", "/upload/", &typed, other.into()).await.is_error(422, "no_file");
    let files: Vec<_> = (0..101).map(|_| ("f", "", &b"x"[..])).collect();
    service.post("/upload/", &files).await.is_error(400, "bad_request");
    service.get("/nothing").await.is_error(404, "not_found");
    let answer = service.ask("PATCH", "/files/f", &[], Body::empty()).await;
    let answer = answer.is_error(405, "method_not_allowed");
    let allowed = answer.header("allow");
    assert!(["GET", "HEAD", "PUT", "DELETE"].iter().all(|method| allowed.contains(method)));
    service.get("/upload/").await.is_error(405, "method_not_allowed");
    assert!(service.paths().await.is_empty() && service.has_no_orphans().await);
}

#[tokio::test]
async fn limits_of_the_host_are_told_and_leave_nothing() {
    let service = Service::new().await;
    for (error, status, code) in
        [(BodyError::TooLarge(7), 413, "too_large"), (BodyError::TooSlow, 408, "too_slow")]
    {
        let broken = |part: Vec<u8>| {
            let parts = [Ok(part), Err(axum::Error::new(error))];
            Body::from_stream(futures_util::stream::iter(parts))
        };
        let answer = service.put("/files/f", broken(data(100_000))).await;
        answer.is_error(status, code);
        let mut part = form(&[("f", "", &data(100_000))]);
        part.truncate(50_000);
        let kind = [("content-type", BOUNDARY)];
        let answer = service.ask("POST", "/upload/", &kind, broken(part)).await;
        answer.is_error(status, code);
    }
    assert!(service.paths().await.is_empty() && service.has_no_orphans().await);
}

#[tokio::test]
async fn a_full_vault_says_so_and_keeps_nothing() {
    let service = Service::small().await;
    let answer = service.put("/files/f", data(2 << 20)).await.is_error(507, "full");
    assert_eq!(answer.header("retry-after"), "60");
    let answer = service.post("/upload/", &[("f", "", &data(2 << 20))]).await;
    answer.is_error(507, "full");
    assert!(service.paths().await.is_empty() && service.has_no_orphans().await);
    service.put("/files/f", "small").await.is(201);
}

#[tokio::test]
async fn deleting() {
    let service = Service::new().await;
    let delete = async |path: &str| service.ask("DELETE", path, &[], Body::empty()).await;
    service.put("/files/d/f", "x").await.is(201);
    service.vfs().symlink(&OWNER, InodeNo::ROOT, b"link", b"d/f").await.unwrap();
    delete("/files/none").await.is_error(404, "not_found");
    delete("/files/d/f/g").await.is_error(404, "not_found");
    delete("/files/d").await.is_error(409, "not_empty");
    delete("/files/../d").await.is_error(400, "bad_request");
    delete("/files/link").await.is(204);
    assert_eq!(service.paths().await, ["d/f"]);
    assert!(delete("/files/d/f").await.is(204).body.is_empty());
    delete("/files/d").await.is(204);
    delete("/files/d").await.is_error(404, "not_found");
}
