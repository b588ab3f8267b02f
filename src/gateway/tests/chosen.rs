//! Several entries at once, with and without script.

use super::*;

const JSON: [(&str, &str); 1] = [("accept", "application/json")];

async fn post(service: &Service, path: &str, body: &str) -> HttpAnswer {
    service.ask("POST", path, &JSON, body.to_owned().into()).await
}

/// Posts like a form without script.
async fn submit(service: &Service, path: &str, body: &str) -> HttpAnswer {
    service.ask("POST", path, &[], body.to_owned().into()).await
}

async fn with_files(paths: &[&str]) -> Service {
    let service = Service::new().await;
    for path in paths {
        service.put(&format!("/files/{path}"), "x").await.is(201);
    }
    service
}

#[tokio::test]
async fn each_row_has_its_box_and_the_form_asks_before_anything_is_done() {
    let service = with_files(&["d/a%20%25%3Cb%3E.txt", "d/e/inside", "d/f%FE"]).await;
    let view = service.get("/?path=d").await.is(200).text();
    let form = "<form class=\"choice\" id=\"chosen\" method=\"post\" action=\"/page/chosen?path=d&amp;csrf=word-1\">";
    assert!(view.contains(form), "{view}");
    for (value, label) in
        [("a%20%25%3Cb%3E.txt", "a %&lt;b&gt;.txt"), ("e", "e"), ("f%FE", "f\u{fffd}")]
    {
        let own = format!(
            "name=\"name\" value=\"{value}\" autocomplete=\"off\"><span class=\"hidden\">Choose {label}</span>"
        );
        assert!(view.contains(&own), "{own} in {view}");
    }
    // Search results are named relative to this directory.
    let found = service.get("/?path=d&name=inside").await.is(200).text();
    assert!(found.contains("name=\"name\" value=\"e/inside\""), "{found}");

    // A browser encodes what the form names once more.
    let both = "name=a%2520%2525%253Cb%253E.txt&name=e&name=f%25FE";
    let asked = |action: &str| format!("{both}&action={action}");
    let question = submit(&service, "/page/chosen?path=d&csrf=w", &asked("delete")).await;
    let question = question.is(200).text();
    assert!(question.contains("action=\"/page/chosen/delete?path=d&amp;csrf=word-1\""));
    assert!(question.contains("<b>a %&lt;b&gt;.txt</b>") && question.contains("Delete them"));
    let hidden = "<input type=\"hidden\" name=\"name\" value=\"f%FE\">";
    assert!(question.contains(hidden), "{question}");
    let question =
        submit(&service, "/page/chosen?path=d&csrf=w", &asked("move")).await.is(200).text();
    assert!(
        question.contains("/page/chosen/move?") && question.contains("name=\"folder\" value=\"d\"")
    );
    let links =
        submit(&service, "/page/chosen?path=d&csrf=w", &asked("download")).await.is(200).text();
    assert!(links.contains("href=\"/files/d/f%FE\"") && links.contains("1 other entry is no file"));
    assert_eq!(service.paths().await.len(), 3);

    let led = submit(&service, "/page/chosen/delete?path=d&csrf=w", both).await.is(303);
    assert_eq!(led.header("location"), "/?path=d&done=deleted");
    assert!(service.paths().await.is_empty());
}

#[tokio::test]
async fn what_is_chosen_goes_into_a_folder_and_nothing_is_replaced() {
    let service = with_files(&["d/a", "d/b", "d/c/x", "to/b"]).await;
    let wanted = "name=a&name=b&name=c&name=gone&name=a";
    let moving = "/page/chosen/move?path=d&csrf=w";
    for folder in ["none", "to/b"] {
        let body = format!("{wanted}&folder={folder}");
        let status = post(&service, moving, &body).await.status;
        assert!([404, 409].contains(&status), "{folder}: {status}");
        // Without script, the question is shown again with all entries.
        let again = submit(&service, moving, &body).await.text();
        assert!(again.contains("role=\"alert\"") && again.contains("value=\"gone\""), "{again}");
    }
    post(&service, moving, "name=a&folder=..").await.is_error(400, "bad_request");
    assert_eq!(service.paths().await, ["d/a", "d/b", "d/c/x", "to/b"]);

    // An entry that stays is named with its reason; the others are moved.
    let answer = post(&service, moving, &format!("{wanted}&folder=%2Fto")).await.is(409).json();
    assert_eq!(answer["error"], "not_all_done");
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("Moved 2 of 4 entries to to;"), "{message}");
    let failed: Vec<_> = answer["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["name"], &one["error"]))
        .collect();
    assert_eq!(failed, [(&"b".into(), &"exists".into()), (&"gone".into(), &"not_found".into())]);
    assert_eq!(service.paths().await, ["d/b", "to/a", "to/b", "to/c/x"]);

    // Without script, the page asks again about the failed entries only.
    let again = submit(&service, moving, "name=b&name=gone&folder=to").await.is(409).text();
    assert!(
        again.contains("Nothing was moved, of 2 entries") && again.contains("<span class=\"why\">")
    );
    assert!(again.contains("<input type=\"hidden\" name=\"name\" value=\"b\">"));

    let done = post(&service, "/page/chosen/move?path=to&csrf=w", "name=a&name=c&folder=").await;
    let done = done.is(200).json();
    assert_eq!(done["message"], "Moved 2 entries to the top of the vault.");
    assert_eq!(service.paths().await, ["a", "c/x", "d/b", "to/b"]);
    // One folder into itself, and a file next to it.
    let into = post(&service, "/page/chosen/move?path=&csrf=w", "name=c&name=a&folder=c").await;
    assert_eq!(into.is(409).json()["failed"][0]["error"], "into_itself");
    assert_eq!(service.paths().await, ["c/a", "c/x", "d/b", "to/b"]);
}

#[tokio::test]
async fn names_that_lead_elsewhere_none_and_too_many_change_nothing() {
    let service = with_files(&["d/a", "b"]).await;
    for path in ["/page/chosen", "/page/chosen/delete", "/page/chosen/move"] {
        let path = format!("{path}?path=d&csrf=w");
        let many = (0..101).map(|i| format!("name={i}")).collect::<Vec<_>>().join("&") + "&";
        let long = "name=a&".repeat(40_000);
        for bad in [
            "",
            "name=",
            "name=a&name=..%2Fb",
            "name=a&name=%252e%252e%2Fb",
            "name=a&other=1",
            "name=a%2500",
            &many,
            &long,
        ] {
            let answer = post(&service, &path, bad).await.is_error(400, "bad_request");
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(bad != many || message.contains("More than 100"), "{message}");
            // Without script, the error stands above the list.
            assert!(submit(&service, &path, bad).await.is(400).text().contains("role=\"alert\""));
        }
        post(&service, "/page/chosen/delete?path=d&name=a&csrf=w", "name=a")
            .await
            .is_error(400, "bad_request");
    }
    assert_eq!(service.paths().await, ["b", "d/a"]);
    // A hundred are not too many.
    let hundred = (0..99).map(|i| format!("name={i}")).collect::<Vec<_>>().join("&") + "&";
    let answer =
        post(&service, "/page/chosen/delete?path=d&csrf=w", &format!("{hundred}name=a")).await;
    assert!(
        answer.is(409).json()["message"].as_str().unwrap().starts_with("Deleted 1 of 100 entries;")
    );
    assert_eq!(service.paths().await, ["b"]);
}

#[tokio::test]
async fn a_part_of_the_vault_is_not_left_and_a_reader_is_not_asked() {
    let service = with_files(&["part/a", "part/in/x", "else/b"]).await;
    let service = Service::within(service.world, "part");
    let moving = "/page/chosen/move?path=part&csrf=w";
    for folder in ["", "else", "%2F"] {
        post(&service, moving, &format!("name=a&folder={folder}"))
            .await
            .is_error(403, "out_of_scope");
    }
    post(&service, "/page/chosen/delete?path=else&csrf=w", "name=b")
        .await
        .is_error(403, "out_of_scope");
    assert_eq!(service.paths().await, ["else/b", "part/a", "part/in/x"]);
    post(&service, moving, "name=a&folder=part%2Fin").await.is(200);
    assert_eq!(service.paths().await, ["else/b", "part/in/a", "part/in/x"]);

    // A reader's form is hidden, to be shown by script, and offers no changes.
    let reader = Service::over(service.world, Access::Read, VaultStatus::default());
    let view = reader.get("/?path=else").await.is(200).text();
    assert!(
        view.contains("<td class=\"pick\" hidden>") && view.contains("csrf=word-1\" hidden>"),
        "{view}"
    );
    assert!(view.contains("value=\"download\"") && !view.contains("value=\"delete\""));
}
