//! The `OpenAPI` document agrees with the service.

use super::*;

#[tokio::test]
async fn every_operation_of_the_document_is_served_and_no_other() {
    let service = Service::new().await;
    let answer = service.get("/openapi.json").await.is(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        let url = path.replace("{path}", "none");
        let served = document_of_host(path);
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            let is_told = item.get(method.to_lowercase()).is_some();
            let answer = service.ask(method, &url, &[], Body::empty()).await;
            let is_served = answer.status != 405 && !(answer.status == 404 && served);
            // HEAD works wherever GET does, whether the document names it or not.
            let is_head = method == "HEAD" && item.get("get").is_some();
            assert!(
                served || is_told == is_served || is_head,
                "{method} {path}: {}",
                answer.status
            );
        }
    }
}

#[test]
fn the_page_is_left_out_of_the_document_which_says_so() {
    let document: Value = serde_json::from_str(api::OPENAPI).unwrap();
    let about = document["info"]["description"].as_str().unwrap();
    for address in ["/", "/login", "/logout", "/page/"] {
        assert!(about.contains(&format!("`{address}`")), "{address}");
        let mut paths = document["paths"].as_object().unwrap().keys();
        assert!(!paths.any(|path| path == address || path.starts_with("/page")), "{address}");
    }
}

/// The paths that the hosting half serves.
fn document_of_host(path: &str) -> bool {
    ["/healthz", "/metrics"].contains(&path)
}

#[tokio::test]
async fn a_file_has_the_fields_of_the_document() {
    let service = Service::new().await;
    let document = service.get("/openapi.json").await.json();
    let schema = &document["components"]["schemas"]["File"];
    let mut told: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let mut required: Vec<_> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let file = service.put("/files/f", "x").await.json();
    let mut had: Vec<_> = file.as_object().unwrap().keys().cloned().collect();
    told.sort();
    required.sort_unstable();
    had.sort();
    assert!(told == had && required == had, "{told:?} {required:?} {had:?}");
}

#[test]
fn every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(api::OPENAPI).unwrap();
    visit(&document, &document);
}

fn visit(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{target}");
            }
            fields.values().for_each(|value| visit(value, document));
        }
        Value::Array(items) => items.iter().for_each(|value| visit(value, document)),
        _ => {}
    }
}
