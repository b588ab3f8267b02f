//! GET /files/.

use super::*;

async fn filled() -> Service {
    let service = Service::new().await;
    for (path, length) in
        [("b.txt", 5), ("a/x.TXT", 1), ("a/y/z", 9), ("a.txt", 3), ("c", 7), ("a/b.txt", 2)]
    {
        service.put(&format!("/files/{path}"), data(length)).await.is(201);
    }
    service
}

async fn keys(service: &Service, query: &str) -> Vec<String> {
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/files/?{query}{cursor}")).await.is(200).json();
        for file in page["files"].as_array().unwrap() {
            keys.push(file["s3_key"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { return keys };
        cursor = format!("&cursor={}", crate::gateway::s3_key::escape(next.as_bytes()));
    }
}

#[tokio::test]
async fn pages_filters_and_orders() {
    let service = filled().await;
    let all = ["a.txt", "a/b.txt", "a/x.TXT", "a/y/z", "b.txt", "c"];
    for limit in 1..8 {
        assert_eq!(keys(&service, &format!("limit={limit}")).await, all);
        let mut down = keys(&service, &format!("limit={limit}&order=desc")).await;
        down.reverse();
        assert_eq!(down, all);
        let by_size = keys(&service, &format!("limit={limit}&sort=size")).await;
        assert_eq!(by_size, ["a/x.TXT", "a/b.txt", "a.txt", "b.txt", "c", "a/y/z"]);
        let by_time = keys(&service, &format!("limit={limit}&sort=time&order=desc")).await;
        assert_eq!(by_time, ["a/b.txt", "c", "a.txt", "a/y/z", "a/x.TXT", "b.txt"]);
    }
    assert_eq!(keys(&service, "prefix=a").await, all[..4]);
    assert_eq!(keys(&service, "prefix=a/").await, all[1..4]);
    assert_eq!(keys(&service, "prefix=a/y").await, ["a/y/z"]);
    assert!(keys(&service, "prefix=none/x").await.is_empty());
    assert!(keys(&service, "prefix=c/x").await.is_empty());
    assert_eq!(keys(&service, "name=.TXT").await, ["a.txt", "a/b.txt", "a/x.TXT", "b.txt"]);
    assert_eq!(keys(&service, "name=txt&prefix=a/&limit=1").await, ["a/b.txt", "a/x.TXT"]);
    assert_eq!(keys(&service, "recursive=false").await, ["a", "a.txt", "b.txt", "c"]);
    assert_eq!(keys(&service, "recursive=false&prefix=a/").await, ["a/b.txt", "a/x.TXT", "a/y"]);
    let one = service.get("/files/?prefix=a.txt").await.json()["files"][0].clone();
    let own = service.get("/files/a.txt?metadata=true").await.json();
    assert_eq!(one, own);
    let directory = service.get("/files/?recursive=false&limit=1").await.json()["files"][0].clone();
    assert_eq!((&directory["kind"], &directory["id"]), (&"directory".into(), &Value::Null));
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_ended_whatever_changes_between() {
    let service = filled().await;
    let first = service.get("/files/?limit=2").await.json();
    let next = first["next"].as_str().unwrap();
    service.put("/files/a.new", "").await.is(201);
    service.ask("DELETE", "/files/a/b.txt", &[], Body::empty()).await.is(204);
    service.ask("DELETE", "/files/a/x.TXT", &[], Body::empty()).await.is(204);
    let second = service.get(&format!("/files/?limit=2&cursor={next}")).await.is(200).json();
    let keys: Vec<_> = second["files"].as_array().unwrap().iter().map(|f| &f["s3_key"]).collect();
    assert_eq!(keys, ["a/y/z", "b.txt"]);
    let wrong = format!("/files/?limit=2&sort=size&cursor={next}");
    service.get(&wrong).await.is_error(400, "bad_request");
}
