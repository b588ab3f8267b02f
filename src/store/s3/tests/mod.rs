//! How a server's answers are interpreted, whatever they are.

mod server;

use self::server::{ScriptedServer, answer, refusal};
use super::super::object::OBJECT_MAX;
use super::*;

/// No test waits for these: a broken answer ends its connection.
fn limits() -> Deadlines {
    Deadlines::default()
}

/// Bytes from which their offset can be told.
fn object(range: Range<u8>) -> Vec<u8> {
    range.collect()
}

fn shown<T: fmt::Debug>(result: &Result<T>) -> String {
    format!("{result:?}")
}

#[test]
fn what_the_server_says_of_lengths_and_tags() {
    assert_eq!(length(Some(-1)), u64::MAX);
    assert_eq!(etag(Some("\"abc\"")).as_deref(), Some("abc"));
}

#[tokio::test]
async fn a_range_is_what_was_asked_for_or_an_error() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    let part = |range: &str, bytes: Vec<u8>| answer(206, &[("content-range", range)], &bytes);
    let asked = Some(10..20);
    // The bytes that came, and the length that the object is said to have.
    for (came, whole) in [
        (part("bytes 10-19/100", object(10..20)), 100),
        // The range is ignored, or more is sent than was requested.
        (answer(200, &[], &object(0..100)), 100),
        (part("bytes 0-19/100", object(0..20)), 100),
        (part("bytes 5-29/100", object(5..30)), 100),
        // Its length is not known; it is at least this.
        (part("bytes 10-19/*", object(10..20)), 20),
    ] {
        server.answers([came]);
        let got = store.get("pack/1", asked.clone()).await.unwrap();
        assert_eq!((&got.bytes[..], got.object_length), (&object(10..20)[..], whole));
        assert_ne!(got.time, SystemTime::UNIX_EPOCH);
    }
    assert!(server.take_asked().iter().all(|head| head.contains("range: bytes=10-19\r\n")));
    for (came, why) in [
        (part("bytes 12-19/100", object(12..20)), "from 12 on"),
        (part("bytes 19-10/100", object(10..20)), "is no range"),
        (part("10-19", object(10..20)), "is no range"),
        (refusal(416, "InvalidRange"), "ends before"),
    ] {
        server.answers([came]);
        let got = store.get("pack/1", asked.clone()).await;
        assert!(matches!(got, Err(Error::Corrupt { .. })) && shown(&got).contains(why), "{got:?}");
    }
    // The whole object was requested.
    server.answers([part("bytes 0-99/100", object(0..100))]);
    assert_eq!(store.get("pack/1", None).await.unwrap().bytes, object(0..100));
    for range in ["bytes 0-9/100", "bytes 0-9/*"] {
        server.answers([part(range, object(0..10))]);
        let got = store.get("pack/1", None).await;
        assert!(matches!(got, Err(Error::Corrupt { .. })), "{got:?}");
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_it_was_announced() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    // The answer breaks off.
    server.answers([answer(200, &[("content-length", "100")], &object(0..50)).ending()]);
    let got = store.get("pack/1", None).await;
    assert!(matches!(got, Err(Error::Unreachable { .. })), "{got:?}");
    // Nothing is read of an answer that is longer than any object.
    let huge = (OBJECT_MAX + 1).to_string();
    server.answers([answer(200, &[("content-length", &huge)], &object(0..50)).ending()]);
    let got = store.get("pack/1", None).await;
    assert!(matches!(got, Err(Error::Corrupt { .. })) && shown(&got).contains("more"), "{got:?}");
    // Without a length the body ends with the connection: a HEAD tells whether it broke off.
    for (length, whole) in [("50", true), ("100", false)] {
        server.answers([
            answer(200, &[("content-length", "")], &object(0..50)).ending(),
            answer(200, &[("content-length", length)], b""),
        ]);
        let got = store.get("pack/1", None).await;
        assert_eq!(got.is_ok(), whole, "{got:?}");
    }
    // A chunked body marks its own end.
    server.take_asked();
    let chunked = [("content-length", ""), ("transfer-encoding", "chunked")];
    server.answers([answer(200, &chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")]);
    assert_eq!(store.get("pack/1", None).await.unwrap().bytes, "abcde");
    assert_eq!(server.take_asked().len(), 1);
}

#[tokio::test]
async fn without_a_date_the_time_is_one_that_no_rule_believes() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    for date in ["", "yesterday"] {
        server.answers([answer(200, &[("date", date)], b"")]);
        let put = store.put("log/1", &Body::from("x"), Put::IfAbsent).await.unwrap();
        assert_eq!(put.time, SystemTime::UNIX_EPOCH);
    }
}

#[tokio::test]
async fn a_put_asks_by_its_checksum_and_tells_what_the_server_says_of_it() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    let body = Body::from("123456789");
    for (said, crc32) in [("y/Q5Jg==", Some(0xcbf4_3926)), ("y/Q5Jg==-2", None), ("", None)] {
        let headers = [("x-amz-checksum-crc32", said), ("etag", "\"abc\"")];
        server.answers([answer(200, &headers, b"")]);
        let put = store.put("log/1", &body, Put::IfAbsent).await.unwrap();
        assert_eq!((put.crc32, put.etag.as_deref()), (crc32, Some("abc")));
    }
    server.answers([answer(200, &[], b"")]);
    store.put("log/1", &body, Put::Always).await.unwrap();
    let asked = server.take_asked();
    assert!(asked.iter().all(|head| head.contains("x-amz-checksum-crc32: y/q5jg==\r\n")));
    let conditional = |head: &String| head.contains("if-none-match: *\r\n");
    assert!(asked[..3].iter().all(conditional) && !conditional(&asked[3]));
    assert_eq!(body.moved().bytes(), 4 * 9);
}

/// `localhost` is a name, and may resolve to anybody.
#[tokio::test]
async fn the_hash_of_a_body_is_signed_where_somebody_could_change_it_on_its_way() {
    let server = ScriptedServer::start().await;
    for (host, signed) in [
        ("127.0.0.1", "unsigned-payload"),
        ("localhost", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ] {
        server.answers([answer(200, &[], b"")]);
        let store = server.store_at(host, limits()).await;
        store.put("log/1", &Body::from("123456789"), Put::Always).await.unwrap();
        let asked = server.take_asked();
        let said = format!("x-amz-content-sha256: {signed}\r\n");
        assert!(asked[0].contains(&said), "{host}: {}", asked[0]);
    }
}

#[tokio::test]
async fn what_a_server_refuses_of_a_put_is_left_out_once_and_for_all() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    let body = Body::from("x");
    let put = || store.put("log/1", &body, Put::IfAbsent);
    let has_checksum = |head: &String| head.contains("x-amz-checksum-crc32");
    server.answers([refusal(501, "NotImplemented"), answer(200, &[], b""), answer(200, &[], b"")]);
    put().await.unwrap();
    put().await.unwrap();
    let asked: Vec<_> = server.take_asked().iter().map(has_checksum).collect();
    assert_eq!(asked, [true, false, false]);
    assert_eq!(store.quirks().text(), "no checksums\n");
    // The server turns out to demand a checksum.
    server.answers([refusal(400, "MissingChecksum"), answer(200, &[], b"")]);
    put().await.unwrap();
    assert_eq!(store.quirks().text(), "");
    // Refused with it and without it: only the condition is left, and that is not dropped.
    server.take_asked();
    server.answers([refusal(501, "NotImplemented"), refusal(501, "NotImplemented")]);
    let refused = put().await;
    assert!(matches!(refused, Err(Error::NoConditions { .. })), "{refused:?}");
    assert!(server.take_asked().iter().all(|head| head.contains("if-none-match")));
    assert_eq!(store.quirks().text(), "");
    // If only one machine writes there, a HEAD precedes the put.
    store.quirks().looks_first.store(true, std::sync::atomic::Ordering::Relaxed);
    server.answers([answer(200, &[("content-length", "1")], b"")]);
    assert!(matches!(put().await, Err(Error::Exists { .. })));
    server.answers([answer(404, &[], b""), answer(200, &[], b"")]);
    put().await.unwrap();
    let asked = server.take_asked();
    assert!(asked[1].starts_with("head ") && !asked[2].contains("if-none-match"), "{asked:?}");
}

#[tokio::test]
async fn refusals_of_a_put_are_what_they_mean() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    let means: [(u16, &str, fn(&Error) -> bool); 8] = [
        (412, "PreconditionFailed", |error| matches!(error, Error::Exists { .. })),
        (409, "ConditionalRequestConflict", |error| matches!(error, Error::Exists { .. })),
        (304, "", |error| matches!(error, Error::Exists { .. })),
        (400, "BadDigest", |error| matches!(error, Error::Busy { .. })),
        (503, "SlowDown", |error| matches!(error, Error::Busy { .. })),
        (507, "InsufficientStorage", |error| matches!(error, Error::Full { .. })),
        (403, "AccessDenied", |error| matches!(error, Error::Clock { .. })),
        (404, "NoSuchBucket", |error| matches!(error, Error::NoBucket { .. })),
    ];
    for (status, code, is_meant) in means {
        // A denial long after the request was signed, by the store's clock, is about the clock.
        let date = if status == 403 { "Thu, 29 Nov 2035 12:00:00 GMT" } else { "" };
        let words = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        let words = if status == 304 { "" } else { words.as_str() };
        server.answers([answer(status, &[("date", date)], words.as_bytes())]);
        let put = store.put("log/1", &Body::from("x"), Put::IfAbsent).await;
        assert!(put.as_ref().is_err_and(is_meant), "{status}: {put:?}");
    }
}

fn listing(truncated: &str, token: &str, names: &[&str]) -> server::ScriptedAnswer {
    let contents = names.iter().map(|name| format!("<Contents><Key>{name}</Key></Contents>"));
    let contents: String = contents.collect();
    let text = format!(
        "<?xml version=\"1.0\"?><ListBucketResult>{truncated}{token}{contents}</ListBucketResult>"
    );
    answer(200, &[("content-type", "application/xml")], text.as_bytes())
}

#[tokio::test]
async fn a_listing_goes_on_where_the_server_says_or_after_its_last_name() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    let (more, no_more) = ("<IsTruncated>true</IsTruncated>", "<IsTruncated>false</IsTruncated>");
    let token = "<NextContinuationToken>t</NextContinuationToken>";
    let empty = "<NextContinuationToken></NextContinuationToken>";
    let at = |word: &str| Some(Begin::Token(word.to_owned()));
    let after = Some(Begin::After("log/2".to_owned()));
    for (truncated, token, next) in [
        (more, token, at("t")),
        ("", token, at("t")),
        (no_more, token, None),
        ("", "", None),
        (more, "", after.clone()),
        (more, empty, after),
    ] {
        server.answers([listing(truncated, token, &["log/1", "log/2"])]);
        let page = store.list("log/", &Begin::First).await.unwrap();
        assert_eq!((page.objects.len(), page.more), (2, next));
        // A missing length becomes one that fits nothing.
        assert_eq!(page.objects[0].length, u64::MAX);
    }
    server.answers([listing(more, "", &[])]);
    let page = store.list("log/", &Begin::First).await;
    assert!(matches!(page, Err(Error::Corrupt { .. })), "{page:?}");
    for begin in [Begin::After("log/2".to_owned()), Begin::Token("t".to_owned())] {
        server.answers([listing(no_more, "", &[])]);
        assert!(store.list("log/", &begin).await.unwrap().objects.is_empty());
    }
    let asked = server.take_asked();
    let (after, token) = (&asked[asked.len() - 2], &asked[asked.len() - 1]);
    assert!(after.contains("start-after=log%2f2") && token.contains("continuation-token=t"));
}

#[tokio::test]
async fn objects_are_deleted_together_or_one_by_one() {
    let server = ScriptedServer::start().await;
    let store = server.store(limits()).await;
    let names = ["pack/1".to_owned(), "pack/2".to_owned()];
    let told = |code: &str| {
        let text = format!(
            "<?xml version=\"1.0\"?><DeleteResult><Error><Key>pack/2</Key><Code>{code}</Code>\
             </Error></DeleteResult>"
        );
        answer(200, &[("content-type", "application/xml")], text.as_bytes())
    };
    server.answers([told("NoSuchKey")]);
    store.delete(&names).await.unwrap();
    for (code, is_meant) in [("AccessDenied", "Denied"), ("SlowDown", "Busy")] {
        server.answers([told(code)]);
        assert!(shown(&store.delete(&names).await).contains(is_meant), "{code}");
    }
    // If the server does not know the request, or words its refusal oddly, the objects are deleted one by one; a
    // missing one is no error.
    server.take_asked();
    for refused in [refusal(501, "NotImplemented"), refusal(400, "MissingContentMD5")] {
        server.answers([refused, answer(204, &[], b""), refusal(404, "NoSuchKey")]);
        store.delete(&names).await.unwrap();
        let asked = server.take_asked();
        assert!(asked.len() == 3 && asked[1].starts_with("delete /bucket/pack/1"), "{asked:?}");
    }
    server.answers([refusal(503, "SlowDown")]);
    assert!(store.delete(&names).await.unwrap_err().is_transient());
    assert_eq!(server.take_asked().len(), 1, "a server that is busy is not asked one by one");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let server = ScriptedServer::start().await;
    let hasty = server.store(Deadlines::of(Duration::from_secs(6))).await;
    // It accepts the request, and starts an answer that never ends: a third of the deadline is enough.
    server.answers([answer(200, &[("content-length", "100")], b"x")]);
    let begun = std::time::Instant::now();
    let got = hasty.get("pack/1", None).await;
    assert!(matches!(got, Err(Error::Deadline { .. })), "{got:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    // It closes the connection instead of answering.
    let store = server.store(limits()).await;
    let got = store.get("pack/1", Some(0..1)).await;
    assert!(matches!(got, Err(Error::Unreachable { .. })), "{got:?}");
}
