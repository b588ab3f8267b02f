//! The running service: accepts connections, checks every request, passes it to the API, and stops.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Form, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::auth::{self, Gate, Requirement};
use super::limits::{
    BUFFER, CONNECTIONS, CountedBody, HANDSHAKE, HEADER_BYTES, HEADERS, LimitedBody, Paced, Peers,
    REQUESTS,
};
use super::listen::Listening;
use super::metrics::Metrics;
use super::revocation::RevocableBody;
use super::{Gateway, HttpProblem, ServeOptions, Session, api, page};
use crate::os::{restarted, watched};

/// How long requests at work have to end by themselves when the service stops.
pub const GRACE: Duration = Duration::from_secs(20);
/// After that: for connections to notice that they are cut off.
const CUT: Duration = Duration::from_secs(5);
/// Bytes of a log-in form.
const LOGIN_MAX: usize = 4 << 10;
/// Pause after a failed accept(2): out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The headers of every response that does not set them itself: browsers guess no type, other sites cannot embed it,
/// nothing caches it, and were it a page, it could run and load nothing.
const HEADERS_OF_ALL: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox; frame-ancestors 'none'"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// A running service. It goes on when this is dropped: [`Server::stop`] ends it.
pub struct Server {
    state: Arc<ServerState>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

/// How a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `http://address:port` or `https://...`.
    pub url: String,
    /// Whether nobody needs a token.
    pub open: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Tokens that are let in; 0 when open.
    pub tokens: usize,
    /// Requests at work.
    pub requests: u64,
}

/// What every request is checked by and counted in.
struct ServerState {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    gateway: Arc<Gateway>,
    places: Arc<Semaphore>,
    options: ServeOptions,
}

impl Server {
    /// Serves `gateway` to whoever connects. Within a runtime.
    pub fn start(gateway: Gateway, listening: Listening) -> Self {
        let (options, address) = (listening.options.clone(), listening.address);
        let state = Arc::new(ServerState {
            gate: Arc::new(Gate::new(&options, address)),
            metrics: Arc::default(),
            gateway: Arc::new(gateway),
            places: Arc::new(Semaphore::new(REQUESTS)),
            options,
        });
        let (stop, stopped) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let accept = accept(listening, state.clone(), stopped);
        tokio::spawn(async move {
            // After a panic, which is logged, the service is over just as after a stop.
            let _ = watched("serving by HTTP", accept).await;
            ending.send_replace(true);
        });
        Self { state, address, stop, ended }
    }

    /// How it was asked to be.
    pub fn options(&self) -> &ServeOptions {
        &self.state.options
    }

    /// How it is. Asks nobody.
    pub fn status(&self) -> ServiceStatus {
        let (tls, open) = (self.state.options.tls.is_some(), self.state.gate.is_open());
        let scheme = if tls { "https" } else { "http" };
        ServiceStatus {
            url: format!("{scheme}://{}", self.address),
            open,
            tls,
            tokens: if open { 0 } else { self.state.gate.token_count() },
            requests: self.state.metrics.in_flight(),
        }
    }

    /// Takes no more connections, lets requests at work end within [`GRACE`], and cuts off the rest. Returns when
    /// nothing of it is left.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        // An error means that the task is gone, and with it the service.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Everything that a connection needs.
#[derive(Clone)]
struct ConnectionSetup {
    router: Router,
    http: http1::Builder,
    cut: watch::Receiver<bool>,
    stall: Duration,
}

/// Accepts until it is stopped, then ends what is left.
async fn accept(listening: Listening, state: Arc<ServerState>, stopped: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let (cutting, cut) = watch::channel(false);
    let stall = Duration::from_secs(state.options.client_timeout.max(1));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(stall)
        .max_header_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER);
    let setup = ConnectionSetup { router: router(&state), http, cut, stall };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Peers::default();
    let Listening { listener, tls, .. } = listening;
    let begin = || async {
        let mut stopped = stopped.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                state.metrics.refuse();
                refuse(stream, tls.is_some(), StatusCode::SERVICE_UNAVAILABLE);
                continue;
            };
            let Some(peer) = peers.admit(address.ip()) else {
                state.metrics.refuse();
                refuse(stream, tls.is_some(), StatusCode::TOO_MANY_REQUESTS);
                continue;
            };
            // Answers are written whole; there is nothing to gather.
            drop(stream.set_nodelay(true));
            let kept = (state.metrics.connect(), peer, place);
            let serve = setup.clone().connection(stream, tls.clone(), graceful.watcher());
            tokio::spawn(async move {
                // A panic ends this connection alone.
                let _ = watched("serving a connection", serve).await;
                drop(kept);
            });
        }
    };
    restarted("accepting connections by HTTP", begin).await;
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        let left = state.metrics.in_flight();
        tracing::warn!(left, "requests are cut off: the service stops");
        cutting.send_replace(true);
    }
    // Every connection gives its place back when nothing of it is left.
    let all = places.acquire_many(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX));
    if tokio::time::timeout(CUT, all).await.is_err() {
        tracing::warn!("connections are slow to end");
    }
}

impl ConnectionSetup {
    async fn connection(self, stream: TcpStream, tls: Option<TlsAcceptor>, watcher: Watcher) {
        let Some(tls) = tls else { return self.serve(stream, watcher).await };
        let mut cut = self.cut.clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => shaken,
            _ = cut.wait_for(|cut| *cut) => return,
        };
        if let Ok(Ok(stream)) = shaken {
            self.serve(stream, watcher).await;
        }
    }

    async fn serve<S>(mut self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Paced::new(stream, self.stall));
        let service = TowerToHyperService::new(self.router);
        let connection = watcher.watch(self.http.serve_connection(io, service));
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            _ = self.cut.wait_for(|cut| *cut) => {}
        }
    }
}

/// Tells a client that its connection is refused, without waiting: the text fits into the socket's empty buffer.
fn refuse(stream: TcpStream, tls: bool, status: StatusCode) {
    if tls {
        return;
    }
    let body = r#"{"error":"too_many_connections","message":"There are too many connections; try again soon."}"#;
    let reason = status.canonical_reason().unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: \
         1\r\nConnection: close\r\n\r\n{body}",
        status.as_u16(),
        body.len()
    );
    drop(stream.try_write(text.as_bytes()));
}

/// All routes, each with the middleware before it.
fn router(state: &Arc<ServerState>) -> Router {
    let before =
        |needs: Requirement| middleware::from_fn_with_state((state.clone(), needs), before);
    let login = get(login_form).post(log_in).layer(DefaultBodyLimit::max(LOGIN_MAX));
    let public = api::public()
        .route("/healthz", get(health).with_state(state.clone()))
        .route("/login", login.with_state(state.clone()))
        .layer(before(Requirement::Nothing));
    let log_out = Router::new()
        .route("/logout", post(log_out).with_state(state.clone()))
        .layer(before(Requirement::Somebody));
    api::router(state.gateway.clone())
        .route("/metrics", get(metrics).with_state(state.clone()))
        .layer(before(Requirement::Access))
        .merge(public)
        .merge(log_out)
}

/// The middleware: counts a request, takes a place for it, and checks it before it is handled.
async fn before(
    State((state, needs)): State<(Arc<ServerState>, Requirement)>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("(none)", MatchedPath::as_str).to_owned();
    let mut counted = state.metrics.begin(request.method(), &route);
    // Those who monitor the service are answered even when all places are taken.
    let watched = matches!(route.as_str(), "/healthz" | "/metrics");
    counted.permit = state.places.clone().try_acquire_owned().ok();
    let mut response = if counted.permit.is_none() && !watched {
        HttpProblem::unavailable(
            "The service is at work on too many requests. Try again in a second.",
            1,
        )
        .into_response()
    } else if let Err(rejection) = state.gate.admit(&mut request, needs) {
        *rejection.0
    } else {
        let token = request.extensions().get::<Session>().and_then(|session| session.token);
        let revocable = |body| match token {
            Some(token) => Body::new(RevocableBody::new(body, state.gate.clone(), token)),
            None => body,
        };
        state.handed_on(request.map(revocable), next).await.map(revocable)
    };
    for (name, value) in HEADERS_OF_ALL {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    counted.answered(response.status().as_u16());
    response.map(|body| Body::new(CountedBody { body, request: counted }))
}

impl ServerState {
    async fn handed_on(&self, request: Request, next: Next) -> Response {
        let limit = self.options.max_upload;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit) {
            let text =
                format!("The body is longer than the {limit} bytes that one request may have.");
            return HttpProblem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
                .into_response();
        }
        let stall = Duration::from_secs(self.options.client_timeout.max(1));
        let metrics = self.metrics.clone();
        let request = request.map(|body| Body::new(LimitedBody::new(body, limit, stall, metrics)));
        // A handler that panics gives a response, and does not end the connection. It leaves nothing half done that a
        // client that goes away would not leave, too.
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!("a handler of the service panicked");
                let text = "The service failed because of a bug; its log says where.";
                HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
                    .into_response()
            }
        }
    }
}

/// What `/healthz` says.
#[derive(Serialize)]
struct HealthBody {
    status: &'static str,
}

/// 200 while the service works; 503 when it would refuse uploads although the vault was opened for writing. While the
/// store does not answer it is still 200: uploads go on, into staging.
async fn health(State(state): State<Arc<ServerState>>) -> Response {
    let status = state.gateway.vault.status();
    let as_asked = state.gateway.vfs.options().read_only;
    let (code, status) = match (&status.read_only, &status.progress.trouble) {
        (Some(_), _) if !as_asked => (StatusCode::SERVICE_UNAVAILABLE, "read-only"),
        (_, Some(_)) => (StatusCode::OK, "degraded"),
        _ => (StatusCode::OK, "ok"),
    };
    let mut response = (code, Json(HealthBody { status })).into_response();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

async fn metrics(State(state): State<Arc<ServerState>>) -> Response {
    let text = state.metrics.text(&state.gateway.vault.status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The log-in form as it is posted.
#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn login_form(
    State(state): State<Arc<ServerState>>,
    session: Option<axum::Extension<Session>>,
) -> Response {
    match session {
        // Logged in already, or nobody needs to.
        Some(_) => Redirect::to("/").into_response(),
        None => page::login(state.gate.word(), None),
    }
}

async fn log_in(State(state): State<Arc<ServerState>>, Form(form): Form<Login>) -> Response {
    match state.gate.log_in(&Zeroizing::new(form.token)) {
        Ok(Some(response)) => response,
        Err(rejection) => *rejection.0,
        Ok(None) => {
            let said = "This token is not known, or was removed.";
            let mut response = page::login(state.gate.word(), Some(said));
            auth::challenge(&mut response, true);
            response
        }
    }
}

async fn log_out(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Response {
    state.gate.log_out(&headers)
}
