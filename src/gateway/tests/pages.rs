//! The page, without script.

use super::*;
use crate::gateway::page;
use crate::types::Progress;

async fn page(service: &Service, path: &str) -> String {
    let answer = service.get(path).await.is(200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    let text = answer.text();
    is_strict(&text);
    text
}

/// Checks that the page has nothing that its policy forbids and loads nothing from elsewhere.
fn is_strict(text: &str) {
    for bad in ["<style", "style=", "onclick", "onload", "javascript:", "http://", "https://", "//"]
    {
        assert!(!text.contains(bad), "{bad} in {text}");
    }
    assert_eq!(text.matches("<script").count(), 1);
    assert!(text.contains("<script type=\"module\" src=\"/page/assets/"));
}

#[tokio::test]
async fn a_directory_is_shown_with_its_forms() {
    let service = Service::new().await;
    assert!(page(&service, "/").await.contains("Nothing is here yet."));
    service.put("/files/docs/b%20%26%3Cb%3E.txt", data(1500)).await.is(201);
    service.put("/files/top.bin", "x").await.is(201);
    let root = page(&service, "/").await;
    assert!(root.contains("href=\"/?path=docs\"") && root.contains("download=\"top.bin\""));
    let docs = page(&service, "/?path=docs").await;
    assert!(docs.contains("b &amp;&lt;b&gt;.txt") && !docs.contains("<b>.txt"));
    assert!(docs.contains("href=\"/files/docs/b%20%26%3Cb%3E.txt\"") && docs.contains("1.5 kB"));
    assert!(docs.contains("action=\"/page/upload?path=docs&amp;csrf=word-1\""));
    let item = "href=\"/?path=docs&amp;file=b%20%26%3Cb%3E.txt\"";
    assert!(docs.contains(item) && docs.contains("Uploading"));
    let item = page(&service, "/?path=docs&file=b%20%26%3Cb%3E.txt").await;
    for action in ["move", "delete"] {
        let form = "path=docs&amp;name=b%20%26%3Cb%3E.txt&amp;csrf=word-1\"";
        assert!(item.contains(&format!("action=\"/page/{action}?{form}")), "{action}");
    }
    assert!(item.contains("data-preview=\"/files/docs/b%20%26%3Cb%3E.txt\""));
    let found = page(&service, "/?name=.TXT").await;
    assert!(found.contains("docs/b &amp;&lt;b&gt;.txt") && !found.contains("id=\"upload\""));
    let found = page(&service, "/?path=docs&name=.txt").await;
    assert!(found.contains(">b &amp;&lt;b&gt;.txt</a>"));
    assert!(page(&service, "/?name=none").await.contains("Nothing here has such a name."));
    let gone = service.get("/?path=none").await.is(404).text();
    assert!(gone.contains("There is no such folder"));
    is_strict(&gone);
    service.get("/?path=..").await.is(400);
}

#[tokio::test]
async fn forms_work_without_script() {
    let service = Service::new().await;
    let kind = [("content-type", BOUNDARY)];
    let files = form(&[("a b.txt", "text/plain", b"one"), ("c", "", b"two")]);
    let sent =
        service.ask("POST", "/page/upload?path=d%20e&csrf=w", &kind, files.into()).await.is(303);
    assert_eq!(sent.header("location"), "/?path=d%20e&done=uploaded");
    assert_eq!(service.paths().await, ["d e/a b.txt", "d e/c"]);
    assert!(page(&service, sent.header("location")).await.contains("Uploaded."));
    let delete = "/page/delete?path=d%20e&name=a%20b.txt&csrf=w";
    let deleted = service.ask("POST", delete, &[], Body::empty()).await.is(303);
    assert!(page(&service, deleted.header("location")).await.contains("Deleted."));
    assert_eq!(service.paths().await, ["d e/c"]);
    let again = service.ask("POST", delete, &[], Body::empty()).await.is(404);
    assert!(again.text().contains("role=\"alert\"") && again.text().contains("/?path=d%20e"));
    let none = service.ask("POST", "/page/upload?path=&csrf=w", &kind, "--XX--\r\n".into()).await;
    assert!(none.is(422).text().contains("role=\"alert\""));
}

#[tokio::test]
async fn folders_are_made_moved_and_deleted_and_nothing_is_replaced() {
    let service = Service::new().await;
    let json = [("accept", "application/json")];
    let post = async |path: &str, body: &str| {
        service.ask("POST", path, &json, body.to_owned().into()).await
    };
    let made = post("/page/folder?path=&csrf=w", "name=a%2Fb+c").await.is(200).json();
    assert_eq!((&made["done"], &made["key"]), (&"made".into(), &"a/b%20c".into()));
    post("/page/folder?path=a&csrf=w", "name=b+c").await.is_error(409, "exists");
    for bad in ["name=..", "name=x&other=1", "name=%00", "name=a%2F%2Fb"] {
        post("/page/folder?path=a&csrf=w", bad).await.is_error(400, "bad_request");
    }
    post("/page/folder?path=a&csrf=w", "name=").await.is_error(409, "exists");
    let long = format!("name={}", "x".repeat(20_000));
    post("/page/folder?path=a&csrf=w", &long).await.is_error(400, "bad_request");
    service.put("/files/a/one", "1").await.is(201);
    service.put("/files/a/two", "2").await.is(201);
    // A taken name, a missing folder, a folder into itself, a folder outside the vault.
    let from = "/page/move?path=a&name=one&csrf=w";
    post(from, "to=two&folder=a").await.is_error(409, "exists");
    post(from, "to=one&folder=a").await.is_error(409, "exists");
    post(from, "to=one&folder=none").await.is_error(404, "not_found");
    post(from, "to=x%2Fy&folder=a").await.is_error(400, "bad_request");
    post(from, "to=one&folder=..").await.is_error(400, "bad_request");
    let itself = "/page/move?path=&name=a&csrf=w";
    post(itself, "to=a&folder=a%2Fb+c").await.is_error(409, "into_itself");
    post("/page/move?path=&name=none&csrf=w", "to=x").await.is_error(404, "not_found");
    assert_eq!(service.paths().await, ["a/one", "a/two"]);
    let moved = post(from, "to=eins&folder=%2Fa%2Fb+c%2F").await.is(200).json();
    assert_eq!(moved["key"], "a/b%20c/eins");
    assert_eq!(service.paths().await, ["a/b c/eins", "a/two"]);
    // A folder is deleted with its content only if that is asked for.
    let delete = "/page/delete?path=&name=a&csrf=w";
    post(delete, "").await.is_error(409, "not_empty");
    post(delete, "tree=true").await.is(200);
    post(delete, "tree=true").await.is_error(404, "not_found");
    assert!(service.paths().await.is_empty());
    post("/page/delete?path=&csrf=w", "tree=true").await.is_error(400, "bad_request");
}

#[tokio::test]
async fn names_that_are_no_text_can_be_moved_and_deleted() {
    let service = Service::new().await;
    service.put("/files/d%FF/f%FE.txt", "x").await.is(201);
    let item = page(&service, "/?path=d%FF&file=f%FE.txt").await;
    assert!(item.contains("/page/move?path=d%FF&amp;name=f%FE.txt"), "{item}");
    // A name that is not text stays as it is if the form returns it as shown.
    let shown = "to=g.txt&folder=d%EF%BF%BD";
    let from = "/page/move?path=d%FF&name=f%FE.txt&csrf=w";
    service.ask("POST", from, &[], shown.into()).await.is(303);
    service.get("/files/d%FF/g.txt").await.is(200);
    service
        .ask("POST", "/page/delete?path=&name=d%FF&csrf=w", &[], "tree=true".into())
        .await
        .is(303);
    assert!(service.paths().await.is_empty());
}

#[tokio::test]
async fn pages_of_a_long_directory_follow_each_other() {
    let service = Service::new().await;
    for i in 0..101 {
        service.put(&format!("/files/f{i:03}"), "").await.is(201);
    }
    let first = page(&service, "/?order=desc").await;
    let links = |page: &str, name: &str| page.contains(&format!("href=\"/files/{name}\""));
    assert!(links(&first, "f100") && !links(&first, "f000"));
    let next = first.split("rel=\"next\"").next().unwrap();
    let next = next.rsplit("href=\"").next().unwrap().split('"').next().unwrap();
    let last = page(&service, &next.replace("&amp;", "&")).await;
    assert!(links(&last, "f000") && !links(&last, "f001") && last.contains("First page"));
}

#[tokio::test]
async fn who_may_only_read_gets_no_forms_and_trouble_is_shown() {
    let status = VaultStatus {
        progress: Progress {
            unsent_changes: 2,
            unsent_bytes: 1_200_000,
            trouble: Some("no <answer>".into()),
            ..Progress::default()
        },
        warnings: vec!["a torn tail".into()],
        read_only: Some("taken over".into()),
        ..VaultStatus::default()
    };
    let service = Service::over(World::new().await, Access::Read, status);
    let text = page(&service, "/").await;
    assert!(!text.contains("/page/upload") && text.contains("read-only") && text.contains("anna"));
    for part in ["2 changes, 1.2 MB", "no &lt;answer&gt;", "a torn tail", "taken over"] {
        assert!(text.contains(part), "{part}");
    }
}

#[tokio::test]
async fn the_log_in_form_and_what_everybody_gets() {
    let response = page::login("word-2", Some("This token is not known."));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    is_strict(&text);
    assert!(text.contains("action=\"/login?csrf=word-2\"") && text.contains("name=\"token\""));
    assert_eq!(page::login("w", None).status(), StatusCode::OK);
    let public = api::public();
    for (name, kind) in [
        ("base.css", "text/css; charset=utf-8"),
        ("main.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let own = text.split(&format!("/{name}\"")).next().unwrap();
        let path = format!("{}/{name}", own.rsplit('"').next().unwrap());
        let request = Request::builder().method(Method::GET).uri(path).body(Body::empty()).unwrap();
        let response = public.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], kind);
        assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    }
}

#[tokio::test]
async fn nobody_gets_nothing() {
    let world = World::new().await;
    let gateway = Gateway {
        vfs: world.vfs().clone(),
        vault: Arc::new(Quiet(VaultStatus::default())),
        past: Arc::new(Before::new(world.vfs().clone())),
        owner: OWNER,
        durable_deadline: Duration::ZERO,
    };
    let router = api::router(Arc::new(gateway));
    let request = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}
