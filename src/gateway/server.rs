//! The running service: checks every request, passes it to the API, and stops.

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
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use zeroize::Zeroizing;

use super::auth::{self, Gate, Requirement};
use super::connections::accept;
use super::limits::{CountedBody, LimitedBody, REQUESTS};
use super::listen::Listening;
use super::metrics::Metrics;
use super::request_lines::WithFragment;
use super::revocation::RevocableBody;
use super::{Gateway, HttpProblem, ListenAt, ServeOptions, Session, api, page};
use crate::os::watched;

/// The most bytes of a log-in form.
const LOGIN_MAX: usize = 4 << 10;
/// Headers of every response that does not set them itself: browsers must not guess its type, other sites cannot embed
/// it, nothing caches it, and even if it were a page, it could run and load nothing.
const HEADERS_OF_ALL: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox; frame-ancestors 'none'"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// A running service. Dropping this does not end it: [`Server::stop`] does.
pub struct Server {
    state: Arc<ServerState>,
    at: ListenAt,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

/// The state of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `http://address:port` or `https://...`, or `unix:PATH`.
    pub url: String,
    /// Whether no token is needed.
    pub open: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The number of valid tokens; 0 when open.
    pub tokens: usize,
    /// Requests under way.
    pub requests: u64,
}

/// What requests are checked with and counted in.
struct ServerState {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    gateway: Arc<Gateway>,
    places: Arc<Semaphore>,
    options: ServeOptions,
}

impl Server {
    /// Serves `gateway` on the listening socket. Must be called within a runtime.
    pub fn start(gateway: Gateway, listening: Listening) -> Self {
        let (options, at) = (listening.options.clone(), listening.at.clone());
        let state = Arc::new(ServerState {
            gate: Arc::new(Gate::new(&options, &at)),
            metrics: Arc::default(),
            gateway: Arc::new(gateway),
            places: Arc::new(Semaphore::new(REQUESTS)),
            options,
        });
        let (stop, stopped) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let stall = Duration::from_secs(state.options.client_timeout.max(1));
        let accept = accept(listening, router(&state), state.metrics.clone(), stall, stopped);
        tokio::spawn(async move {
            // After a panic, which is logged, the service has ended just as after a stop.
            let _ = watched("serving by HTTP", accept).await;
            ending.send_replace(true);
        });
        Self { state, at, stop, ended }
    }

    /// The options it was started with.
    pub fn options(&self) -> &ServeOptions {
        &self.state.options
    }

    /// The state of the service. Does not block.
    pub fn status(&self) -> ServiceStatus {
        let (tls, open) = (self.state.options.tls.is_some(), self.state.gate.is_open());
        let scheme = if tls { "https" } else { "http" };
        let url = match &self.at {
            ListenAt::Tcp(address) => format!("{scheme}://{address}"),
            at @ ListenAt::Unix(_) => at.to_string(),
        };
        ServiceStatus {
            url,
            open,
            tls,
            tokens: if open { 0 } else { self.state.gate.token_count() },
            requests: self.state.metrics.in_flight(),
        }
    }

    /// Takes no more connections, lets requests under way end within [`GRACE`](super::GRACE), and cuts off the rest.
    /// Returns when nothing of the service is left.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        // An error means that the task is gone, and the service with it.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// All routes, each behind its middleware.
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
    let figures = get(metrics).with_state(state.clone());
    if state.options.only_metrics {
        return Router::new()
            .route("/healthz", get(health).with_state(state.clone()))
            .route("/metrics", figures)
            .layer(before(Requirement::Access));
    }
    api::router(state.gateway.clone())
        .route("/metrics", figures)
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
    // Monitoring is answered even if all places are taken.
    let watched = matches!(route.as_str(), "/healthz" | "/metrics");
    counted.permit = state.places.clone().try_acquire_owned().ok();
    let mut response = if counted.permit.is_none() && !watched {
        HttpProblem::unavailable(
            "The service is at work on too many requests. Try again in a second.",
            1,
        )
        .into_response()
    } else if request.extensions().get::<WithFragment>().is_some() {
        let text = "The request's target has a # in it, and what follows that never reaches a service. In a name it is \
                    written %23. Nothing was changed.";
        HttpProblem::bad_request(text).into_response()
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
        // A handler that panics yields a response and does not end the connection. It leaves nothing half done that a
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

/// The body of `/healthz`.
#[derive(Serialize)]
struct HealthBody {
    status: &'static str,
}

/// 200 while the service works; 503 if the vault was opened for writing but now refuses uploads. While the store does
/// not answer it is still 200: uploads go on, into staging.
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

/// The posted log-in form.
#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn login_form(
    State(state): State<Arc<ServerState>>,
    session: Option<axum::Extension<Session>>,
) -> Response {
    match session {
        // The user is logged in already, or needs no log-in.
        Some(_) => Redirect::to("/").into_response(),
        None => page::login(state.gate.word(), None),
    }
}

async fn log_in(State(state): State<Arc<ServerState>>, Form(form): Form<Login>) -> Response {
    match state.gate.log_in(&Zeroizing::new(form.token)) {
        Ok(Some(response)) => response,
        Err(rejection) => *rejection.0,
        Ok(None) => {
            let said = "This token is not known, has expired, or was removed.";
            let mut response = page::login(state.gate.word(), Some(said));
            auth::challenge(&mut response, true);
            response
        }
    }
}

async fn log_out(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Response {
    state.gate.log_out(&headers)
}
