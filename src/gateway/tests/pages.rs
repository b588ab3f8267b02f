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

/// Nothing that the policy would forbid, and nothing from elsewhere.
fn is_strict(text: &str) {
    for bad in ["<style", "style=", "onclick", "onload", "javascript:", "http://", "https://", "//"]
    {
        let text = text.replace("<script src=", "");
        assert!(!text.contains(bad), "{bad} in {text}");
    }
    assert_eq!(text.matches("<script").count(), 1);
    assert!(text.contains("<script src=\"/page/script.js?"));
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
    let delete = "action=\"/page/delete?path=docs&amp;name=b%20%26%3Cb%3E.txt&amp;csrf=word-1\"";
    assert!(docs.contains(delete) && docs.contains("Uploading"));
    let found = page(&service, "/?name=.TXT").await;
    assert!(found.contains("docs/b &amp;&lt;b&gt;.txt") && !found.contains("id=\"upload\""));
    let found = page(&service, "/?path=docs&name=.txt").await;
    assert!(found.contains(">b &amp;&lt;b&gt;.txt</a>"));
    assert!(page(&service, "/?name=none").await.contains("Nothing here has such a name."));
    let gone = service.get("/?path=none").await.is(404).text();
    assert!(gone.contains("There is no such directory"));
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
async fn pages_of_a_long_directory_follow_each_other() {
    let service = Service::new().await;
    for i in 0..101 {
        service.put(&format!("/files/f{i:03}"), "").await.is(201);
    }
    let first = page(&service, "/?order=desc").await;
    assert!(first.contains("f100") && !first.contains("f000"));
    let next = first.split("rel=\"next\"").next().unwrap();
    let next = next.rsplit("href=\"").next().unwrap().split('"').next().unwrap();
    let last = page(&service, &next.replace("&amp;", "&")).await;
    assert!(last.contains("f000") && !last.contains("f001") && last.contains("First page"));
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
    for (path, kind) in [
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/script.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let request = Request::builder().method(Method::GET).uri(path).body(Body::empty()).unwrap();
        let response = public.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], kind);
    }
}

#[tokio::test]
async fn nobody_gets_nothing() {
    let world = World::new().await;
    let gateway = Gateway {
        vfs: world.vfs().clone(),
        vault: Arc::new(Quiet(VaultStatus::default())),
        owner: OWNER,
        durable_deadline: Duration::ZERO,
    };
    let router = api::router(Arc::new(gateway));
    let request = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}
