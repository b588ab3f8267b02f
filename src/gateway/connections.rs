//! Accepts connections and serves each, by HTTP/1.1 or (over TLS, if the client chooses it) HTTP/2, until it ends or
//! the service stops.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::limits::{BUFFER, CONNECTIONS, HANDSHAKE, HEADER_BYTES, HEADERS, Paced, Peers};
use super::listen::{Accepted, Listening, Transport};
use super::metrics::Metrics;
use super::request_lines::{Overheard, WithFragment};
use super::streams::{OnTheRuntime, Streams};
use super::tls::HTTP2;
use crate::os::{restarted, watched};

/// How long requests under way may take to end by themselves when the service stops.
pub const GRACE: Duration = Duration::from_secs(20);
/// How long, after that, the connections may take to notice that they are cut off.
const CUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept(2), most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Concurrent requests of one HTTP/2 connection.
const STREAMS: u32 = 32;
/// Bytes of request bodies that an HTTP/2 client may send before we read them: per request, and per connection.
const WINDOW: u32 = 256 << 10;
const WINDOW_OF_ALL: u32 = 1 << 20;
/// How many HTTP/2 requests a client may reset before we accept them ("rapid reset", CVE-2023-44487), and how many it
/// may make us reset by its errors (CVE-2025-8671). One more ends the connection.
const RESETS: usize = 20;
const RESETS_OF_OURS: usize = 64;

/// What serving a connection needs.
#[derive(Clone)]
struct ConnectionSetup {
    router: Router,
    http1: http1::Builder,
    http2: http2::Builder<OnTheRuntime>,
    stopped: watch::Receiver<bool>,
    cut: watch::Receiver<bool>,
    stall: Duration,
}

/// Accepts until the service stops, then ends what is left. `stall`: how long a client may move nothing.
pub(super) async fn accept(
    listening: Listening,
    router: Router,
    metrics: Arc<Metrics>,
    stall: Duration,
    stopped: watch::Receiver<bool>,
) {
    let (cutting, cut) = watch::channel(false);
    let setup = ConnectionSetup::new(router, stopped.clone(), cut, stall);
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
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics.refuse();
                refuse(accepted, tls.is_some(), StatusCode::SERVICE_UNAVAILABLE);
                continue;
            };
            let peer = accepted.address().map(|address| peers.admit(address));
            if matches!(peer, Some(None)) {
                metrics.refuse();
                refuse(accepted, tls.is_some(), StatusCode::TOO_MANY_REQUESTS);
                continue;
            }
            let kept = (metrics.connect(), peer, place);
            let serve = Box::pin(setup.clone().connection(accepted.into_stream(), tls.clone()));
            tokio::spawn(async move {
                // A panic ends this connection alone.
                let _ = watched("serving a connection", serve).await;
                drop(kept);
            });
        }
    };
    restarted("accepting connections by HTTP", begin).await;
    drop(listener);
    // Each connection gives its place back when all of it has ended.
    let all = || places.acquire_many(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX));
    if tokio::time::timeout(GRACE, all()).await.is_ok() {
        return;
    }
    let left = metrics.in_flight();
    tracing::warn!(left, "requests are cut off: the service stops");
    cutting.send_replace(true);
    if tokio::time::timeout(CUT, all()).await.is_err() {
        tracing::warn!("connections are slow to end");
    }
}

impl ConnectionSetup {
    fn new(
        router: Router,
        stopped: watch::Receiver<bool>,
        cut: watch::Receiver<bool>,
        stall: Duration,
    ) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(stall)
            .max_header_size(HEADER_BYTES)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER);
        let mut http2 = http2::Builder::new(OnTheRuntime);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES as u32)
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS_OF_OURS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW_OF_ALL)
            .max_send_buf_size(BUFFER);
        Self { router, http1, http2, stopped, cut, stall }
    }

    async fn connection(mut self, stream: Box<dyn Transport>, tls: Option<TlsAcceptor>) {
        let Some(tls) = tls else { return self.serve(stream).await };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => shaken,
            _ = self.stopped.wait_for(|stopped| *stopped) => return,
        };
        let Ok(Ok(stream)) = shaken else { return };
        match stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            true => self.serve_second(stream).await,
            false => self.serve(stream).await,
        }
    }

    /// Serves HTTP/1.1.
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, lines) = Overheard::new(Paced::new(stream, self.stall));
        let io = TokioIo::new(stream);
        let inner = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            if lines.next_has_fragment() {
                request.extensions_mut().insert(WithFragment);
            }
            inner.call(request)
        });
        let connection = self.http1.serve_connection(io, service);
        self.drive(connection, http1::Connection::graceful_shutdown, None).await;
    }

    /// Serves HTTP/2.
    async fn serve_second<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Paced::new(stream, self.stall));
        let streams = Streams::new(self.stall);
        let service = streams.service(TowerToHyperService::new(self.router.clone()));
        let connection = self.http2.serve_connection(io, service);
        self.drive(connection, http2::Connection::graceful_shutdown, Some(streams)).await;
    }

    /// Runs a connection until it ends by itself, ends because it was told to, or is cut off.
    async fn drive<C>(mut self, connection: C, end: impl Fn(Pin<&mut C>), streams: Option<Streams>)
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut idle = pin!(Streams::idle(streams.as_ref()));
        let mut stuck = pin!(Streams::stuck(streams.as_ref()));
        let mut is_ending = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                _ = self.stopped.wait_for(|stopped| *stopped), if !is_ending => {}
                () = &mut idle, if !is_ending => {}
                () = &mut stuck => {
                    tracing::debug!("a connection is cut off: the client takes nothing of an answer");
                    return;
                }
                _ = self.cut.wait_for(|cut| *cut) => return,
            }
            is_ending = true;
            end(connection.as_mut());
        }
    }
}

/// Tells a client that its connection is refused, without waiting: the text fits into the socket's empty buffer.
fn refuse(accepted: Accepted, tls: bool, status: StatusCode) {
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
    accepted.dismiss(text.as_bytes());
}

#[cfg(test)]
mod tests;
