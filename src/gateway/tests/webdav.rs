//! WebDAV: what each method answers, and what is in the vault after it.

use super::*;
use crate::vfs::{OpenFlags, Setter, WriteAt};

const LOCKINFO: &str = "<?xml version='1.0'?><lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope>\
    <locktype><write/></locktype><owner><href>anna</href></owner></lockinfo>";

impl Service {
    async fn dav(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> HttpAnswer {
        self.ask(method, path, headers, Body::empty()).await
    }

    async fn dav_put(&self, path: &str, body: &'static str) -> HttpAnswer {
        self.ask("PUT", path, &[], body.into()).await
    }

    async fn lock(&self, path: &str) -> String {
        let answer = self.ask("LOCK", path, &[("depth", "0")], LOCKINFO.into()).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        answer.header("lock-token").to_owned()
    }

    async fn find(&self, path: &str, depth: &str, body: &'static str) -> HttpAnswer {
        self.ask("PROPFIND", path, &[("depth", depth)], body.into()).await
    }

    async fn patch(&self, path: &str, body: &str) -> HttpAnswer {
        let body = format!("<D:propertyupdate xmlns:D='DAV:'>{body}</D:propertyupdate>");
        self.ask("PROPPATCH", path, &[], body.into()).await.is(207)
    }

    async fn moved(&self, method: &str, from: &str, to: &str, more: &[(&str, &str)]) -> HttpAnswer {
        let mut headers = vec![("destination", to), ("host", "h")];
        headers.extend(more);
        self.dav(method, from, &headers).await
    }
}

/// The paths that a listing names.
fn hrefs(answer: &HttpAnswer) -> Vec<String> {
    let text = answer.text();
    assert!(text.ends_with("</D:multistatus>\n"), "{text}");
    let parts = text.split("<D:response><D:href>").skip(1);
    let mut paths: Vec<_> = parts.map(|part| part.split('<').next().unwrap().to_owned()).collect();
    // The requested resource comes first, the rest in any order.
    paths[1..].sort();
    paths
}

#[tokio::test]
async fn it_says_what_it_is_and_refuses_what_it_is_not() {
    let service = Service::new().await;
    for path in ["/dav", "/dav/", "/dav/none"] {
        let answer = service.dav("OPTIONS", path, &[]).await.is(200);
        assert_eq!((answer.header("dav"), answer.header("ms-author-via")), ("1, 2", "DAV"));
        assert!(answer.header("allow").contains("PROPFIND"));
    }
    for method in ["POST", "PATCH", "BREW"] {
        assert!(service.dav(method, "/dav/x", &[]).await.is(405).header("allow").contains("LOCK"));
    }
    service.dav("GET", "/dav/", &[]).await.is(200);
    service.dav("GET", "/dav/none", &[]).await.is_error(404, "not_found");
    service.dav("PROPFIND", "/dav/a/../b", &[("depth", "0")]).await.is(400);
    service.dav("PROPFIND", "/dav/", &[("depth", "2")]).await.is(400);
    service.dav("PROPFIND", "/dav/", &[]).await.is(403);
    for body in ["<x", "<D:propfind xmlns:D='DAV:'/>", "<!DOCTYPE a><a/>", "<a/>"] {
        service.find("/dav/", "0", body).await.is_error(400, "bad_request");
    }
    let long = "<D:propfind xmlns:D='DAV:'>".to_owned() + &" ".repeat(128 << 10);
    let answer = service.ask("PROPFIND", "/dav/", &[("depth", "0")], long.into()).await;
    assert!(answer.is(400).text().contains("128 KiB"));
}

#[tokio::test]
async fn a_file_is_put_whole_got_and_deleted() {
    let service = Service::new().await;
    let put = service.dav_put("/dav/f%20%C3%BC.txt", "first").await.is(201);
    let tag = put.header("etag").to_owned();
    let got = service.dav("GET", "/dav/f%20%C3%BC.txt", &[]).await.is(200);
    assert_eq!((got.body.as_slice(), got.header("etag")), (&b"first"[..], tag.as_str()));
    let part = service.dav("GET", "/dav/f%20%C3%BC.txt", &[("range", "bytes=1-2")]).await.is(206);
    assert_eq!(part.body, b"ir");
    service.dav_put("/dav/none/f", "x").await.is_error(409, "no_parent");
    service.dav_put("/dav/", "x").await.is(405);
    service.dav("MKCOL", "/dav/d/", &[]).await.is(201);
    service.dav_put("/dav/d", "x").await.is(405);
    service.dav("MKCOL", "/dav/d", &[]).await.is(405);
    service.dav("MKCOL", "/dav/", &[]).await.is(405);
    service.dav("MKCOL", "/dav/none/d", &[]).await.is(409);
    service.ask("MKCOL", "/dav/e", &[], "body".into()).await.is(415);
    service.ask("PUT", "/dav/d/p", &[("content-range", "bytes 0-1/3")], "x".into()).await.is(400);
    service.ask("PUT", "/dav/d/p", &[("content-encoding", "gzip")], "x".into()).await.is(415);
    // Conditions on the current version.
    let path = "/dav/f%20%C3%BC.txt";
    let put = async |headers: &[(&str, &str)]| service.ask("PUT", path, headers, "2".into()).await;
    put(&[("if-none-match", "*")]).await.is(412);
    put(&[("if-match", "\"other\"")]).await.is(412);
    put(&[("if", "([\"other\"])")]).await.is(412);
    let tagged = format!("([{tag}])");
    put(&[("if", &tagged)]).await.is(204);
    put(&[("if-match", &tag)]).await.is(412);
    let oc = [("x-oc-mtime", "1234567890")];
    assert_eq!(put(&oc).await.is(204).header("x-oc-mtime"), "accepted");
    let head = service.dav("HEAD", path, &[]).await.is(200);
    assert_eq!(head.header("last-modified"), "Fri, 13 Feb 2009 23:31:30 GMT");
    service.dav("DELETE", path, &[("if-match", &tag)]).await.is(412);
    service.dav("DELETE", path, &[]).await.is(204);
    service.dav("DELETE", path, &[]).await.is(404);
    service.dav_put("/dav/d/a", "a").await.is(201);
    service.dav("MKCOL", "/dav/d/e", &[]).await.is(201);
    service.dav_put("/dav/d/e/b", "b").await.is(201);
    service.dav("DELETE", "/dav/", &[]).await.is(403);
    service.dav("DELETE", "/dav/d/", &[]).await.is(204);
    assert!(service.paths().await.is_empty() && service.has_no_orphans().await);
}

#[tokio::test]
async fn a_listing_is_of_files_and_directories_and_goes_on_for_thousands() {
    let service = Service::new().await;
    service.dav("MKCOL", "/dav/d", &[]).await.is(201);
    let dir = service.ino("d").await;
    service.vfs().symlink(&OWNER, dir, b"link", b"/etc/passwd").await.unwrap();
    service.dav_put("/dav/d/a%26%3Cb", "12345").await.is(201);
    service.dav("MKCOL", "/dav/d/sub", &[]).await.is(201);
    let answer = service.find("/dav/d", "1", "").await.is(207);
    assert_eq!(hrefs(&answer), ["/dav/d/", "/dav/d/a%26%3Cb", "/dav/d/sub/"]);
    let text = answer.text();
    for part in [
        "<D:displayname>a&amp;&lt;b</D:displayname>",
        "<D:getcontentlength>5</D:getcontentlength>",
        "<D:resourcetype><D:collection/></D:resourcetype>",
        "<D:resourcetype/>",
        "<D:getetag>&quot;",
        "<D:lockdiscovery/>",
        "<D:locktype><D:write/></D:locktype>",
    ] {
        assert!(text.contains(part), "{part} {text}");
    }
    // Only the status is checked: a random tag may contain "404".
    assert!(!text.contains("quota") && !text.contains("HTTP/1.1 404"), "{text}");
    assert_eq!(hrefs(&service.find("/dav/d", "0", "").await), ["/dav/d/"]);
    for path in ["/dav/d/link", "/dav/d/a%26%3Cb/x"] {
        assert!(service.find(path, "0", "").await.status >= 404);
    }
    let some = "<propfind xmlns='DAV:'><prop><quota-used-bytes/><getetag/><x xmlns='u:'/></prop></propfind>";
    let text = service.find("/dav/d", "0", some).await.is(207).text();
    let (there, missing) = text.split_once("200 OK").unwrap();
    assert!(there.contains("<D:quota-used-bytes>") && !there.contains("getetag"), "{text}");
    assert!(missing.contains("<D:getetag/><x:x xmlns:x=\"u:\"/></D:prop><D:status>HTTP/1.1 404"));
    let names = service.find("/dav/d", "0", "<propfind xmlns='DAV:'><propname/></propfind>").await;
    assert!(names.is(207).text().contains("<D:getetag/>"));
    let many = service.vfs().mkdir(&OWNER, InodeNo::ROOT, b"many", 0o755).await.unwrap().ino;
    for number in 0..2000 {
        let name = format!("{number}");
        service.vfs().mkdir(&OWNER, many, name.as_bytes(), 0o755).await.unwrap();
    }
    let all = hrefs(&service.find("/dav/many/", "1", "").await.is(207));
    let set: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), set.len()), (2001, 2001));
}

#[tokio::test]
async fn dead_properties_are_kept_with_the_file_all_or_none() {
    let service = Service::new().await;
    service.dav_put("/dav/f", "x").await.is(201);
    let set = "<D:set><D:prop xml:lang='de'><a:k xmlns:a='u:1' b='&lt;'>v<b xmlns='u:2'/>&#65536;</a:k>\
               <D:own/></D:prop></D:set>";
    assert!(service.patch("/dav/f", set).await.text().contains("200 OK"));
    let value =
        "<a:k xmlns:a=\"u:1\" b=\"&lt;\" xml:lang=\"de\">v<b xmlns=\"u:2\"/>\u{10000}</a:k>";
    let has = async |path: &str| service.find(path, "0", "").await.is(207).text().contains(value);
    assert!(has("/dav/f").await);
    // One change that is not allowed undoes the others.
    let live = "<D:remove><D:prop><k xmlns='u:1'/></D:prop></D:remove>\
                <D:set><D:prop><D:getetag>x</D:getetag></D:prop></D:set>";
    let text = service.patch("/dav/f", live).await.text();
    assert!(text.contains("403 Forbidden") && text.contains("424 Failed Dependency"), "{text}");
    assert!(has("/dav/f").await);
    // Properties move with the file, and survive new content.
    service.dav_put("/dav/f", "new").await.is(204);
    assert!(has("/dav/f").await);
    service.moved("COPY", "/dav/f", "/dav/g", &[]).await.is(201);
    service.moved("MOVE", "/dav/f", "/dav/h", &[]).await.is(201);
    assert!(has("/dav/g").await && has("/dav/h").await);
    let large = "x".repeat(61 << 10);
    let large = format!("<D:set><D:prop><l xmlns='u:'>{large}</l></D:prop></D:set>");
    assert!(service.patch("/dav/g", &large).await.text().contains("507"));
    assert!(has("/dav/g").await);
    let gone = "<D:remove><D:prop><k xmlns='u:1'/><D:own/><none xmlns=''/></D:prop></D:remove>";
    assert!(service.patch("/dav/g", gone).await.text().contains("200 OK"));
    assert!(!has("/dav/g").await && has("/dav/h").await);
    let ino = service.ino("g").await;
    assert!(!service.vfs().xattrs(ino).await.unwrap().contains(&b"user.s3vault.dav".to_vec()));
    // Somebody else wrote an invalid attribute.
    let by = Setter::Superuser;
    service.vfs().set_xattr(ino, b"user.s3vault.dav", b"\xff nonsense", 0, &by).await.unwrap();
    service.find("/dav/g", "0", "").await.is(207);
    service.ask("PROPPATCH", "/dav/none", &[], "<a/>".into()).await.is(400);
    let empty = "<D:propertyupdate xmlns:D='DAV:'/>";
    service.ask("PROPPATCH", "/dav/g", &[], empty.into()).await.is(400);
    service.dav("MKCOL", "/dav/d", &[]).await.is(201);
    service.patch("/dav/d", set).await;
    service.patch("/dav/", set).await;
    assert!(has("/dav/d").await && has("/dav/").await);
}

#[tokio::test]
async fn trees_are_copied_and_moved_whole_and_replace_what_is_there() {
    let service = Service::new().await;
    service.dav("MKCOL", "/dav/a", &[]).await.is(201);
    service.dav("MKCOL", "/dav/a/b", &[]).await.is(201);
    service.dav_put("/dav/a/b/f", "f").await.is(201);
    service.dav_put("/dav/g", "g").await.is(201);
    let paths = async || service.paths().await.join(" ");
    service.moved("COPY", "/dav/a", "http://h/dav/c/", &[]).await.is(201);
    assert_eq!(paths().await, "a/b/f c/b/f g");
    service.moved("COPY", "/dav/a", "/dav/e", &[("depth", "0")]).await.is(201);
    assert_eq!(hrefs(&service.find("/dav/e", "1", "").await), ["/dav/e/"]);
    let no = [("overwrite", "F")];
    service.moved("COPY", "/dav/a", "/dav/c", &no).await.is(412);
    service.moved("MOVE", "/dav/g", "/dav/c", &no).await.is(412);
    service.dav_put("/dav/c/old", "old").await.is(201);
    service.moved("COPY", "/dav/a", "/dav/c", &[]).await.is(204);
    assert_eq!(paths().await, "a/b/f c/b/f g");
    service.moved("COPY", "/dav/g", "/dav/c", &[]).await.is(204);
    assert_eq!(paths().await, "a/b/f c g");
    service.moved("MOVE", "/dav/a", "/dav/c", &[]).await.is(204);
    assert_eq!(paths().await, "c/b/f g");
    service.moved("MOVE", "/dav/g", "/dav/c/b/f", &[]).await.is(204);
    assert_eq!(service.dav("GET", "/dav/c/b/f", &[]).await.body, b"g");
    service.moved("MOVE", "/dav/c/b", "/dav/e", &[]).await.is(204);
    assert_eq!(paths().await, "e/f");
    service.moved("MOVE", "/dav/e/f", "/dav/none/f", &[]).await.is(409);
    for (from, to) in
        [("/dav/e", "/dav/e"), ("/dav/e", "/dav/e/x"), ("/dav/e/f", "/dav/e"), ("/dav/", "/dav/x")]
    {
        for method in ["COPY", "MOVE"] {
            service.moved(method, from, to, &[]).await.is(403);
        }
    }
    for to in ["http://other/dav/x", "/files/x", "x"] {
        service.moved("MOVE", "/dav/e", to, &[]).await.is_error(502, "elsewhere");
    }
    service.dav("MOVE", "/dav/e", &[]).await.is(400);
    // An unescaped # is not part of a name, and the path before it is not what the client meant.
    for method in ["COPY", "MOVE"] {
        service.moved(method, "/dav/second", "/dav/e/#1", &[]).await.is(400);
    }
    service.moved("COPY", "/dav/e", "/dav/x", &[("depth", "1")]).await.is(400);
    service.moved("MOVE", "/dav/e", "/dav/x", &[("depth", "0")]).await.is(400);
    service.moved("MOVE", "/dav/e", "/dav/x", &[("overwrite", "maybe")]).await.is(400);
    service.moved("MOVE", "/dav/none", "/dav/x", &[]).await.is(404);
    // Two names of the same file: a move leaves one.
    let ino = service.ino("e/f").await;
    service.vfs().link(ino, InodeNo::ROOT, b"second").await.unwrap();
    service.moved("MOVE", "/dav/second", "/dav/e/f", &[]).await.is(204);
    assert_eq!(paths().await, "e/f");
    assert_eq!(hrefs(&service.find("/dav/", "1", "").await), ["/dav/", "/dav/c/", "/dav/e/"]);
}

#[tokio::test]
async fn a_lock_keeps_out_who_does_not_name_it() {
    let service = Service::new().await;
    service.dav_put("/dav/f", "f").await.is(201);
    let token = service.lock("/dav/f").await;
    let named = format!("({token})");
    let with = [("if", named.as_str())];
    let text = service.find("/dav/f", "0", "").await.text();
    assert!(text.contains("<D:activelock>") && text.contains(">anna</href></owner>"), "{text}");
    assert!(text.contains(token.trim_matches(['<', '>'])));
    let refused = service.dav_put("/dav/f", "no").await.is(423);
    assert!(refused.text().contains("<D:lock-token-submitted><D:href>/dav/f</D:href>"));
    service.dav("DELETE", "/dav/f", &[]).await.is(423);
    service.moved("MOVE", "/dav/f", "/dav/g", &[]).await.is(423);
    service.dav_put("/dav/g", "g").await.is(201);
    service.moved("MOVE", "/dav/g", "/dav/f", &[]).await.is(423);
    service.ask("PROPPATCH", "/dav/f", &[], "<propertyupdate xmlns='DAV:'/>".into()).await.is(423);
    service.ask("LOCK", "/dav/f", &[], LOCKINFO.into()).await.is(423);
    service.moved("COPY", "/dav/f", "/dav/h", &[]).await.is(201);
    service.ask("PUT", "/dav/f", &with, "yes".into()).await.is(204);
    let wrong = [("if", "(<urn:uuid:other>) (Not <DAV:no-lock>)")];
    service.ask("PUT", "/dav/f", &wrong, "no".into()).await.is(423);
    // Refreshed by the holder, who names the lock.
    service.dav("LOCK", "/dav/f", &[with[0], ("timeout", "Second-77")]).await.is(200);
    service.dav("LOCK", "/dav/f", &[]).await.is(400);
    service.dav("LOCK", "/dav/f", &wrong).await.is(412);
    service.dav("UNLOCK", "/dav/g", &[("lock-token", &token)]).await.is(409);
    service.dav("UNLOCK", "/dav/f", &[("lock-token", "x")]).await.is(400);
    service.dav("UNLOCK", "/dav/f", &[("lock-token", &token)]).await.is(204);
    service.ask("PUT", "/dav/f", &with, "no".into()).await.is(412);
    assert_eq!(service.dav("GET", "/dav/f", &[]).await.body, b"yes");
    // What was locked may go without WebDAV; whoever holds the lock can end it.
    service.dav_put("/dav/gone", "x").await.is(201);
    let token = service.lock("/dav/gone").await;
    service.dav("DELETE", "/files/gone", &[]).await.is(204);
    service.dav_put("/dav/gone", "no").await.is(423);
    service.dav("UNLOCK", "/dav/gone", &[("lock-token", &token)]).await.is(204);
    service.dav_put("/dav/gone", "yes").await.is(201);
    // A tree that is replaced takes the locks within along.
    for name in ["/dav/t", "/dav/t/sub", "/dav/u"] {
        service.dav("MKCOL", name, &[]).await.is(201);
    }
    let inner = format!("</dav/t/sub/> ({})", service.lock("/dav/t/sub").await);
    service.moved("COPY", "/dav/u", "/dav/t", &[]).await.is(423);
    service.moved("COPY", "/dav/u", "/dav/t", &[("if", &inner)]).await.is(204);
    service.dav("MKCOL", "/dav/t/sub", &[]).await.is(201);
    for name in ["/dav/t", "/dav/u"] {
        service.dav("DELETE", name, &[]).await.is(204);
    }
    // A lock on a free name makes an empty file. A lock on a directory covers the names created and removed in it.
    let made = service.ask("LOCK", "/dav/new", &[], LOCKINFO.into()).await.is(201);
    assert_eq!(service.dav("GET", "/dav/new", &[]).await.is(200).body, b"");
    let with_new = format!("({})", made.header("lock-token"));
    service.dav("DELETE", "/dav/new", &[("if", &with_new)]).await.is(204);
    service.dav_put("/dav/new", "free again").await.is(201);
    service.ask("LOCK", "/dav/none/new", &[], LOCKINFO.into()).await.is(409);
    service.dav("MKCOL", "/dav/d", &[]).await.is(201);
    service.dav_put("/dav/d/old", "o").await.is(201);
    let dir = service.lock("/dav/d").await;
    let with_dir = format!("</dav/d> ({dir})");
    for (method, path) in
        [("PUT", "/dav/d/x"), ("MKCOL", "/dav/d/y"), ("DELETE", "/dav/d/old"), ("DELETE", "/dav/d")]
    {
        service.dav(method, path, &[]).await.is(423);
    }
    service.dav_put("/dav/d/old", "its content is its own").await.is(204);
    service.dav("PUT", "/dav/d/x", &[("if", &with_dir)]).await.is(201);
    for body in ["<a/>", "<lockinfo xmlns='DAV:'/>", "<x"] {
        service.ask("LOCK", "/dav/g", &[], body.into()).await.is(400);
    }
    service.ask("LOCK", "/dav/g", &[("depth", "1")], LOCKINFO.into()).await.is(400);
    for broken in ["(", "<a>", "</files/x> (<a>)"] {
        assert!(service.dav("PUT", "/dav/g", &[("if", broken)]).await.status >= 400);
    }
}

#[tokio::test]
async fn who_goes_away_half_way_leaves_nothing() {
    let service = Service::new().await;
    let _periodic = service.vfs().start(&tokio::runtime::Handle::current());
    service.dav_put("/dav/f", "old").await.is(201);
    let parts = [Ok("new "), Err(std::io::Error::other("gone"))];
    let body = Body::from_stream(futures_util::stream::iter(parts));
    service.ask("PUT", "/dav/f", &[], body).await.is(400);
    assert_eq!(service.dav("GET", "/dav/f", &[]).await.body, b"old");
    // In the middle of copying a tree, at any moment.
    let dir = service.vfs().mkdir(&OWNER, InodeNo::ROOT, b"d", 0o755).await.unwrap().ino;
    for number in 0..300 {
        let name = format!("{number}");
        service.vfs().mkdir(&OWNER, dir, name.as_bytes(), 0o755).await.unwrap();
    }
    for micros in [1, 100, 500, 2000, 5000] {
        let copy = service.moved("COPY", "/dav/d", "/dav/e", &[]);
        drop(tokio::time::timeout(Duration::from_micros(micros), copy).await);
        let all = || async { hrefs(&service.find("/dav/", "1", "").await) };
        let mut left = all().await;
        for _ in 0..500 {
            if left.iter().all(|path| !path.contains(".s3vault-new")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            left = all().await;
        }
        assert!(left.iter().all(|path| !path.contains(".s3vault-new")), "{left:?}");
        if left.contains(&"/dav/e/".to_owned()) {
            assert_eq!(hrefs(&service.find("/dav/e", "1", "").await).len(), 301);
            service.dav("DELETE", "/dav/e", &[]).await.is(204);
        }
    }
    assert!(service.has_no_orphans().await);
}

#[tokio::test]
async fn what_the_mount_is_writing_is_overwritten_by_no_condition_that_was_about_something_older() {
    let service = Service::new().await;
    service.dav_put("/dav/f", "old").await.is(201);
    let seen = service.dav("HEAD", "/dav/f", &[]).await.is(200);
    let (tag, tagged) = (seen.header("etag").to_owned(), format!("([{}])", seen.header("etag")));
    let since = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(60));
    let ino = service.ino("f").await;
    let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
    let handle = service.vfs().open(ino, flags).await.unwrap();
    service.vfs().write(handle, WriteAt::Offset(0), b"written").await.unwrap();
    let conditions = [("if-match", &*tag), ("if", &tagged), ("if-unmodified-since", &since)];
    for (name, value) in conditions {
        let put = service.ask("PUT", "/dav/f", &[(name, value)], "new".into()).await;
        put.is_error(412, "precondition_failed");
        service.dav("DELETE", "/dav/f", &[(name, value)]).await.is(412);
        service.moved("MOVE", "/dav/f", "/dav/g", &[(name, value)]).await.is(412);
    }
    assert_eq!(service.dav("GET", "/dav/f", &[]).await.is(200).body, b"written");
    // `*` asks only that the file exists.
    service.ask("PUT", "/dav/f", &[("if-match", "*")], "new".into()).await.is(204);
    service.vfs().release(handle).await.unwrap();
    assert_eq!(service.dav("GET", "/dav/f", &[]).await.body, b"new");
    let conditions = [("if-unmodified-since", &*since)];
    service.ask("PUT", "/dav/f", &conditions, "newer".into()).await.is(204);
}
