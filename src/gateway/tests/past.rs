//! Versions, past states and restores, over a past that the test makes up.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::gateway::{
    BringBack, HttpProblem, OpenedPast, PastSource, PathVersion, PathVersions, SnapshotNote,
};
use crate::types::{AsOf, CommitNo, StateAt, Timestamp};

const THEN: Timestamp = Timestamp { seconds: 1_795_874_400, nanos: 0 };

/// A past in which the vault was the same as another one up to commit 9.
pub(super) struct Before {
    vfs: Vfs,
    opened: Arc<AtomicUsize>,
    panics: bool,
    hangs: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
    kept: Mutex<Vec<SnapshotNote>>,
    /// Whether something is on its way to the bucket, for hours; and how many changes have waited for it.
    is_busy: Arc<AtomicBool>,
    waited: Arc<AtomicUsize>,
}

impl Before {
    pub(super) fn new(vfs: Vfs) -> Self {
        let (opened, given_up) = (Arc::default(), Arc::default());
        let kept = Mutex::new(vec![note(b"the <first>", None)]);
        let (is_busy, waited) = (Arc::default(), Arc::default());
        Self { vfs, opened, panics: false, hangs: Arc::default(), given_up, kept, is_busy, waited }
    }
}

fn note(name: &[u8], ends: Option<Timestamp>) -> SnapshotNote {
    SnapshotNote { name: name.to_vec(), commit: 1, created: THEN, ends }
}

fn version(commit: u64, what: &'static str, is_there: bool) -> PathVersion {
    PathVersion {
        commit,
        time: THEN,
        what,
        snapshot: (commit == 1).then(|| "the <first>".into()),
        is_there,
        is_directory: false,
        size: 1500,
        host: Some("desk".into()),
    }
}

#[async_trait]
impl PastSource for Before {
    async fn versions(&self, path: &[Vec<u8>]) -> Result<PathVersions, HttpProblem> {
        let versions = match path.last().map(Vec::as_slice) {
            Some(b"never") => Vec::new(),
            _ => vec![
                version(1, "in the snapshot", true),
                version(5, "deleted", false),
                version(7, "created", true),
            ],
        };
        Ok(PathVersions { versions, left_out: 3, is_complete: true })
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotNote>, HttpProblem> {
        Ok(self.kept.lock().clone())
    }

    async fn settles(&self, limit: Duration) -> bool {
        assert!(limit <= Duration::from_mins(2), "for that long nobody else can change anything");
        if self.is_busy.load(Ordering::Relaxed) {
            self.waited.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(limit).await;
        }
        !self.is_busy.load(Ordering::Relaxed)
    }

    async fn make_snapshot(&self, name: &[u8], keep: Option<Duration>) -> Result<(), HttpProblem> {
        assert!(!self.is_busy.load(Ordering::Relaxed), "it would wait for hours");
        let mut kept = self.kept.lock();
        if kept.iter().any(|note| note.name == name) {
            return Err(HttpProblem::no_snapshot("there is a snapshot of that name"));
        }
        kept.push(note(name, keep.map(|keep| THEN.after(keep))));
        Ok(())
    }

    async fn delete_snapshot(&self, name: &[u8]) -> Result<(), HttpProblem> {
        let gone = self.kept.lock().extract_if(.., |note| note.name == name).count();
        match gone {
            0 => Err(HttpProblem::no_snapshot("there is no snapshot of that name")),
            _ => Ok(()),
        }
    }

    async fn open(&self, at: &StateAt) -> Result<OpenedPast, HttpProblem> {
        let commit = match at {
            StateAt::Commit(commit) if *commit <= 9 => *commit,
            StateAt::Time(_) => 4,
            _ => return Err(HttpProblem::no_state("This state is not kept (any more).")),
        };
        self.opened.fetch_add(1, Ordering::Relaxed);
        let as_of = AsOf { commit: CommitNo(commit), time: THEN, snapshot: None };
        Ok(OpenedPast { vfs: self.vfs.clone(), as_of, keep: Box::new(()) })
    }

    async fn restore(
        &self,
        what: &BringBack,
        go_on: &mut (dyn FnMut() -> ControlFlow<()> + Send),
    ) -> Result<(), HttpProblem> {
        assert!(!self.panics, "as asked");
        while self.hangs.load(Ordering::Relaxed) {
            if go_on().is_break() {
                self.given_up.store(true, Ordering::Relaxed);
                return Err(HttpProblem::not_restored("nobody waits"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(what.commit, 3);
        let text = [what.path.join(&b'/'), what.to.join(&b'/')].join(&b'>');
        assert_eq!(String::from_utf8(text).unwrap(), "d/f>d/g");
        Ok(())
    }
}

/// A service over two vaults: the present and the past.
struct Looking {
    service: Service,
    was: World,
    opened: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
    is_busy: Arc<AtomicBool>,
    waited: Arc<AtomicUsize>,
}

impl Looking {
    async fn new(access: Access, panics: bool) -> Self {
        let was = World::new().await;
        let before = Service::over(was, Access::Write, VaultStatus::default());
        before.put("/files/d/f", data(3_000_000)).await.is(201);
        before.put("/files/d/was/f", "old").await.is(201);
        let was = before.world;
        let past = Before { panics, ..Before::new(was.vfs().clone()) };
        let (opened, given_up) = (past.opened.clone(), past.given_up.clone());
        let hangs = past.hangs.clone();
        let (is_busy, waited) = (past.is_busy.clone(), past.waited.clone());
        let world = World::new().await;
        let service = Service::with_past(world, access, VaultStatus::default(), past);
        Self { service, was, opened, hangs, given_up, is_busy, waited }
    }
}

const JSON: [(&str, &str); 1] = [("accept", "application/json")];

#[tokio::test]
async fn versions_are_told_to_people_and_programs() {
    let Looking { service, was: _was, .. } = Looking::new(Access::Write, false).await;
    let page = service.get("/page/history?path=d&name=f").await.is(200).text();
    for part in ["the &lt;first&gt;", "by desk", "as it is now", "3 older versions", "1.5 kB"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // The current version, and one that is not a file, are not offered.
    assert_eq!(page.matches("/page/restore?path=d&amp;name=f&amp;at=1&amp;csrf=word-1").count(), 1);
    assert!(!page.contains("name=f&amp;at=7&amp;csrf") && !page.contains("at=5"));
    let told = service.ask("GET", "/page/history?path=d&name=f", &JSON, Body::empty()).await;
    let told = told.is(200).json();
    assert_eq!(told["versions"][1]["what"], "deleted");
    assert_eq!(told["versions"][2]["time"], "2026-11-28T14:00:00.000Z");
    assert_eq!((&told["left_out"], &told["is_complete"]), (&3.into(), &true.into()));
    let never = service.get("/page/history?path=&name=never").await.is(200).text();
    assert!(never.contains("in any state that is kept"));
    service.ask("GET", "/page/history?path=", &JSON, Body::empty()).await.is(400);
    let all = service.get("/page/snapshots").await.is(200).text();
    assert!(all.contains("the &lt;first&gt;") && all.contains("href=\"/?path=&amp;at=1\""));
    let all = service.ask("GET", "/page/snapshots", &JSON, Body::empty()).await.is(200).json();
    assert_eq!(all["snapshots"][0]["name"], "the <first>");
}

#[tokio::test]
async fn a_state_is_browsed_and_its_files_are_had_and_it_is_opened_once() {
    let looking = Looking::new(Access::Write, false).await;
    let service = &looking.service;
    let page = service.get("/?path=d&at=1").await.is(200).text();
    for part in ["the &lt;first&gt;", "/page/past?path=d&amp;name=f&amp;at=1", "Back to now"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("id=\"upload\"") && !page.contains("In the bucket"));
    let item = service.get("/?path=d&file=f&at=1").await.is(200).text();
    assert!(
        item.contains("/page/restore?path=d&amp;name=f&amp;at=1") && !item.contains("/page/move")
    );
    let content = service.get("/page/past?path=d&name=f&at=1").await.is(200);
    assert!(content.body == data(3_000_000));
    assert!(content.header("content-disposition").starts_with("attachment"));
    assert!(content.header("content-security-policy").contains("sandbox"));
    let range = [("range", "bytes=1-3")];
    let part = service.ask("GET", "/page/past?path=d&name=f&at=1", &range, Body::empty()).await;
    assert_eq!(part.is(206).body, data(3_000_000)[1..4]);
    assert_eq!(looking.opened.load(Ordering::Relaxed), 1);
    for commit in 2..9 {
        service.get(&format!("/?path=d&at={commit}")).await.is(200);
    }
    service.get("/?path=d&at=1").await.is(200);
    assert_eq!(looking.opened.load(Ordering::Relaxed), 9, "few stay open");
    // Paths that did not exist, and states that do not.
    service.get("/?path=none&at=1").await.is(404);
    service.get("/?path=d&file=none&at=1").await.is(404);
    service.get("/page/past?path=d&name=f&at=10").await.is_error(404, "no_state");
    service.get("/page/past?path=d&name=f").await.is_error(400, "bad_request");
    service.get("/page/past?path=d&name=f&at=x").await.is_error(400, "bad_request");
    let led = service.get("/page/look?path=d&time=2026-11-28T14:00").await.is(303);
    assert_eq!(led.header("location"), "/?path=d&at=4");
    service.get("/page/look?path=d&time=then").await.is_error(400, "bad_request");
}

#[tokio::test]
async fn what_is_brought_back_replaces_a_file_and_nothing_else() {
    let Looking { service, was: _was, hangs, given_up, .. } =
        Looking::new(Access::Write, false).await;
    let post = async |path: &str, body: &str| {
        service.ask("POST", path, &JSON, body.to_owned().into()).await
    };
    let from = "/page/restore?path=d&name=f&at=3&csrf=w";
    let done = post(from, "to=%2Fd%2Fg").await.is(200).json();
    assert_eq!((&done["done"], &done["key"]), (&"restored".into(), &"d/g".into()));
    service.put("/files/d/g", "now").await.is(201);
    post(from, "to=d%2Fg").await.is(200);
    service.put("/files/there/x", "now").await.is(201);
    post(from, "to=there").await.is_error(409, "is_a_directory");
    post("/page/restore?path=d&name=was&at=3&csrf=w", "to=there").await.is_error(409, "exists");
    post("/page/restore?path=d&name=was&at=3&csrf=w", "to=d%2Fg").await.is_error(409, "exists");
    post("/page/restore?path=d&name=none&at=3&csrf=w", "").await.is_error(404, "not_found");
    post("/page/restore?path=d&name=f&at=12&csrf=w", "").await.is_error(404, "no_state");
    post("/page/restore?path=d&name=f&csrf=w", "").await.is_error(400, "bad_request");
    post(from, "to=..%2Fx").await.is_error(400, "bad_request");
    // At most two run at a time; a restore ends when its client goes away.
    hangs.store(true, Ordering::Relaxed);
    let waiting = async {
        tokio::join!(post(from, "to=d%2Fg"), post(from, "to=d%2Fg"), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            post(from, "to=d%2Fg").await.is_error(503, "unavailable");
        })
    };
    let cut = tokio::time::timeout(Duration::from_secs(2), waiting).await;
    assert!(cut.is_err());
    while !given_up.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    hangs.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn snapshots_are_made_and_deleted_by_forms() {
    let Looking { service, was: _was, .. } = Looking::new(Access::Write, false).await;
    let names = async || service.get("/page/snapshots").await.is(200).text();
    let post = async |path: &str, body: &str| {
        service.ask("POST", path, &JSON, body.to_owned().into()).await
    };
    let page = names().await;
    for part in [
        "action=\"/page/snapshots?csrf=word-1\"",
        "action=\"/page/snapshots/delete?name=the%20%3Cfirst%3E&amp;csrf=word-1\"",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let done =
        post("/page/snapshots?csrf=w", "name=+before+%26+after+&keep=7d").await.is(200).json();
    assert_eq!((&done["done"], &done["href"]), (&"kept".into(), &"/page/snapshots?".into()));
    let all = service.ask("GET", "/page/snapshots", &JSON, Body::empty()).await.is(200).json();
    assert_eq!(all["snapshots"][1]["name"], "before & after");
    assert_eq!(all["snapshots"][1]["ends"], "2026-12-05T14:00:00.000Z");
    post("/page/snapshots?csrf=w", "name=before+%26+after").await.is_error(409, "no_snapshot");
    post("/page/snapshots?csrf=w", "name=x&keep=8d").await.is_error(400, "bad_request");
    post("/page/snapshots?csrf=w", "name=x&other=1").await.is_error(400, "bad_request");
    // Without script: the page again, with what was done or the error.
    let led = service.ask("POST", "/page/snapshots?csrf=w", &[], "name=plain&keep=".into()).await;
    assert_eq!(led.is(303).header("location"), "/page/snapshots?done=kept");
    let wrong = service.ask("POST", "/page/snapshots?csrf=w", &[], "name=plain".into()).await;
    assert!(wrong.is(409).text().contains("there is a snapshot of that name"));
    let done = service.get("/page/snapshots?done=kept").await.is(200).text();
    assert!(done.contains("The snapshot is made.") && done.contains(">plain<"));
    let gone = "/page/snapshots/delete?name=the%20%3Cfirst%3E&csrf=w";
    assert_eq!(post(gone, "").await.is(200).json()["done"], "deleted");
    post(gone, "").await.is_error(409, "no_snapshot");
    let led = service.ask("POST", "/page/snapshots/delete?name=plain&csrf=w", &[], Body::empty());
    assert_eq!(led.await.is(303).header("location"), "/page/snapshots?done=deleted");
    let page = names().await;
    assert!(!page.contains("the &lt;first&gt;") && page.contains("before &amp; after"));
}

#[tokio::test]
async fn what_is_on_its_way_for_hours_is_not_waited_for_and_keeps_nobody_out() {
    let Looking { service, was: _was, is_busy, waited, .. } =
        Looking::new(Access::Write, false).await;
    let post = async |path: &str, body: &str| {
        service.ask("POST", path, &JSON, body.to_owned().into()).await
    };
    let (keep, restore) = ("/page/snapshots?csrf=w", "/page/restore?path=d&name=f&at=3&csrf=w");
    is_busy.store(true, Ordering::Relaxed);
    // A client that asks for two and goes away leaves both places free.
    let waiting = async { tokio::join!(post(keep, "name=x"), post(keep, "name=x")) };
    tokio::select! {
        _ = waiting => panic!("it is on its way still"),
        () = async {
            while waited.load(Ordering::Relaxed) < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
    let gone = "/page/snapshots/delete?name=the%20%3Cfirst%3E&csrf=w";
    let begun = tokio::time::Instant::now();
    loop {
        let done = post(gone, "").await;
        if done.status == 200 {
            break;
        }
        done.is_error(503, "unavailable");
        assert!(begun.elapsed() < Duration::from_secs(60), "the places are not free");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A client that stays gets an answer within two minutes.
    tokio::time::pause();
    for (path, body) in [(keep, "name=x"), (restore, "to=d%2Fg")] {
        post(path, body).await.is_error(503, "unavailable");
    }
    tokio::time::resume();
    is_busy.store(false, Ordering::Relaxed);
    post(keep, "name=x").await.is(200);
    post(restore, "to=d%2Fg").await.is(200);
}

#[tokio::test]
async fn who_only_reads_gets_no_form_for_snapshots() {
    let Looking { service, was: _was, .. } = Looking::new(Access::Read, false).await;
    let page = service.get("/page/snapshots").await.is(200).text();
    assert!(page.contains("the &lt;first&gt;") && !page.contains("<form class=\"panel\""));
}

#[tokio::test]
async fn a_restoring_that_panics_is_said() {
    let Looking { service, was: _was, .. } = Looking::new(Access::Write, true).await;
    let path = "/page/restore?path=d&name=f&at=3&csrf=w";
    service.ask("POST", path, &JSON, "to=d%2Fg".into()).await.is_error(500, "internal");
    service.get("/page/history?path=d&name=f").await.is(200);
}
