//! One fake server for all sources of temporary credentials: STS (web identity), the SSO portal, and an instance's
//! metadata service (version 2 only: without its own token it gives nothing).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::network::Listening;

/// The session token of the metadata service.
const SESSION: &str = "session-of-the-instance";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// A running server; it ends when dropped.
pub struct Giver {
    listening: Listening,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The access key that it hands out.
    key: String,
    lives: Duration,
    /// The token that a client must show. The metadata service asks for none.
    token: String,
    given: HashMap<String, usize>,
    refused: usize,
}

impl Giver {
    /// Starts a server that hands out nothing yet.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let listening = Listening::start(move |stream, _| {
            let state = shared.clone();
            async move {
                let service = service_fn(move |request| answer(state.clone(), request));
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        Self { listening, state }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address)
    }

    /// From now on it hands out credentials with this access key to clients that show this token. They are valid for
    /// `lives`.
    pub fn gives(&self, key: &str, lives: Duration, token: &str) {
        let mut state = self.state.lock();
        (state.key, state.lives, state.token) = (key.to_owned(), lives, token.to_owned());
    }

    /// How often it handed out credentials with this key.
    pub fn given(&self, key: &str) -> usize {
        self.state.lock().given.get(key).copied().unwrap_or_default()
    }

    /// How often it refused.
    pub fn refused(&self) -> usize {
        self.state.lock().refused
    }
}

/// The secret key of all credentials.
pub const SECRET: &str = "s3cret-for-an-hour";

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let mut state = state.lock();
    let field =
        |name: &str, value: &str| body.split('&').any(|pair| pair == format!("{name}={value}"));
    let answer = match (&head.method, head.uri.path()) {
        (&Method::PUT, "/latest/api/token") => {
            let ttl = header("x-aws-ec2-metadata-token-ttl-seconds").unwrap_or_default().to_owned();
            let mut answer = of(200, SESSION);
            answer
                .headers_mut()
                .insert("x-aws-ec2-metadata-token-ttl-seconds", ttl.parse().expect("a number"));
            answer
        }
        (&Method::GET, path) if path.starts_with(ROLES) => {
            match (header("x-aws-ec2-metadata-token") == Some(SESSION), &path[ROLES.len()..]) {
                (true, "") => of(200, "backup"),
                (true, "backup") if !state.key.is_empty() => of(200, &state.of_the_instance()),
                _ => state.refuses(401, ""),
            }
        }
        (&Method::GET, "/federation/credentials") => {
            match header("x-amz-sso_bearer_token") == Some(&state.token) {
                true => of(200, &state.of_the_portal()),
                false => {
                    let why = r#"{"message": "Session token not found or invalid"}"#;
                    let mut answer = state.refuses(401, why);
                    let kind = "UnauthorizedException".parse().expect("a header");
                    answer.headers_mut().insert("x-amzn-errortype", kind);
                    answer
                }
            }
        }
        (&Method::POST, "/") => {
            let asked = field("Action", "AssumeRoleWithWebIdentity");
            match asked && field("WebIdentityToken", &state.token) {
                true => of(200, &state.of_sts()),
                false => state.refuses(
                    400,
                    "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code>\
                     <Message>Token expired</Message></Error></ErrorResponse>",
                ),
            }
        }
        _ => of(404, ""),
    };
    Ok(answer)
}

fn of(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_owned())));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

impl State {
    fn refuses(&mut self, status: u16, body: &str) -> Response<Full<Bytes>> {
        self.refused += 1;
        of(status, body)
    }

    /// Counts a hand-out, and returns when it expires.
    fn give(&mut self) -> Duration {
        *self.given.entry(self.key.clone()).or_default() += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        now + self.lives
    }

    fn give_until(&mut self) -> String {
        let end = i64::try_from(self.give().as_secs()).expect("a time");
        jiff::Timestamp::from_second(end).expect("a time").to_string()
    }

    fn of_the_instance(&mut self) -> String {
        let (end, key) = (self.give_until(), &self.key);
        format!(
            r#"{{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
                 "AccessKeyId": "{key}", "SecretAccessKey": "{SECRET}", "Token": "t", "Expiration": "{end}"}}"#
        )
    }

    fn of_the_portal(&mut self) -> String {
        let (end, key) = (self.give().as_millis(), &self.key);
        format!(
            r#"{{"roleCredentials": {{"accessKeyId": "{key}", "secretAccessKey": "{SECRET}",
                 "sessionToken": "t", "expiration": {end}}}}}"#
        )
    }

    fn of_sts(&mut self) -> String {
        let (end, key) = (self.give_until(), &self.key);
        format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{end}</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
    }
}
