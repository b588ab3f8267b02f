//! The API and the page over a vault in memory: every answer, and what is in the vault after it.

mod chosen;
mod documents;
mod downloads;
mod errors;
mod listings;
mod pages;
mod past;
mod uploads;
mod webdav;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::scope::Scope;
use super::{Access, Gateway, Session, StatusSource, api};
use crate::types::{InodeNo, VaultStatus};
use crate::vfs::tests::World;
use crate::vfs::{Caller, Vfs, VfsOptions};
use past::Before;

const OWNER: Caller = Caller { uid: 1000, gid: 100, pid: 0, umask: 0o022 };
const BOUNDARY: &str = "multipart/form-data; boundary=XX";

/// A vault with a fixed status.
struct Quiet(VaultStatus);

impl StatusSource for Quiet {
    fn status(&self) -> VaultStatus {
        self.0.clone()
    }
}

/// The session of a logged-in user.
fn session(access: Access) -> Session {
    Session {
        access,
        name: Some("anna".into()),
        csrf: "word-1".into(),
        token: None,
        only: None,
        ends: None,
    }
}

/// A service over a vault.
struct Service {
    world: World,
    router: Router,
}

/// A complete answer.
struct HttpAnswer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl HttpAnswer {
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let value =
            self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.headers));
        value.to_str().unwrap()
    }

    /// Checks for an error of the API: exactly `error` and `message`.
    #[track_caller]
    fn is_error(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        let value = answer.json();
        assert_eq!(value["error"], code, "{value}");
        assert!(
            value["message"].as_str().unwrap().len() > 20 && value.as_object().unwrap().len() == 2
        );
        answer
    }
}

impl Service {
    async fn new() -> Self {
        Self::over(World::new().await, Access::Write, VaultStatus::default())
    }

    fn over(world: World, access: Access, status: VaultStatus) -> Self {
        let past = Before::new(world.vfs().clone());
        Self::with_past(world, access, status, past)
    }

    /// A service for a token that is limited to a part of the vault.
    fn within(world: World, part: &str) -> Self {
        let past = Before::new(world.vfs().clone());
        let only = Scope::parse(part.as_bytes());
        assert!(only.is_some(), "{part}");
        Self::for_session(
            world,
            Session { only, ..session(Access::Write) },
            VaultStatus::default(),
            past,
        )
    }

    fn with_past(world: World, access: Access, status: VaultStatus, past: Before) -> Self {
        Self::for_session(world, session(access), status, past)
    }

    fn for_session(world: World, session: Session, status: VaultStatus, past: Before) -> Self {
        let gateway = Gateway {
            vfs: world.vfs().clone(),
            vault: Arc::new(Quiet(status)),
            past: Arc::new(past),
            owner: OWNER,
            durable_deadline: Duration::from_secs(5),
        };
        let router = api::router(Arc::new(gateway)).layer(axum::Extension(session));
        Self { world, router: router.merge(api::public()) }
    }

    /// A service with little room for data that is not uploaded.
    async fn small() -> Self {
        let world = World::with(VfsOptions::default(), 256 << 10).await;
        Self::over(world, Access::Write, VaultStatus::default())
    }

    fn vfs(&self) -> &Vfs {
        self.world.vfs()
    }

    async fn send(&self, request: Request<Body>) -> HttpAnswer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        HttpAnswer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> HttpAnswer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> HttpAnswer {
        self.ask("GET", path, &[], Body::empty()).await
    }

    async fn put(&self, path: &str, body: impl Into<Body>) -> HttpAnswer {
        self.ask("PUT", path, &[], body.into()).await
    }

    /// POSTs files: name, content type, content.
    async fn post(&self, path: &str, files: &[(&str, &str, &[u8])]) -> HttpAnswer {
        self.ask("POST", path, &[("content-type", BOUNDARY)], form(files).into()).await
    }

    /// Every path in the vault, in order.
    async fn paths(&self) -> Vec<String> {
        let page = self.get("/files/?limit=1000").await.is(200).json();
        let paths = page["files"].as_array().unwrap().iter();
        paths.map(|file| file["s3_key"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether nothing half-written is left, once everything dropped is closed.
    async fn has_no_orphans(&self) -> bool {
        for _ in 0..200 {
            if self.vfs().recover().await.unwrap() == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    async fn ino(&self, path: &str) -> InodeNo {
        let mut at = InodeNo::ROOT;
        for name in path.split('/') {
            at = self.vfs().lookup(at, name.as_bytes()).await.unwrap().ino;
        }
        at
    }
}

/// A multipart form as curl and browsers send it.
fn form(files: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, kind, content) in files {
        body.extend(
            format!(
                "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n"
            )
            .into_bytes(),
        );
        if !kind.is_empty() {
            body.extend(format!("Content-Type: {kind}\r\n").into_bytes());
        }
        body.extend(b"\r\n");
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--XX--\r\n");
    body
}

fn data(length: usize) -> Vec<u8> {
    crate::types::noise(1, length)
}
