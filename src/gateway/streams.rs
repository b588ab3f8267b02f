//! The requests of an HTTP/2 connection. With HTTP/2, a client can take nothing of an answer while the connection stays
//! alive, or keep a connection without a request. With HTTP/1.1, the connection itself shows both.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::service::{Service, service_fn};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::os::watched;

/// Bytes handed on at a time. A client must take this much within the stall time.
const PIECE: usize = 16 << 10;

/// Runs each request as a task, and logs its panics.
#[derive(Clone, Copy)]
pub(super) struct OnTheRuntime;

impl<F> Executor<F> for OnTheRuntime
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, work: F) {
        // A panic ends only this request: its stream is reset.
        tokio::spawn(async { drop(watched("answering by HTTP/2", work).await) });
    }
}

/// The requests under way in a connection.
#[derive(Clone)]
pub(super) struct Streams {
    table: Arc<Mutex<Table>>,
    stall: Duration,
}

struct Table {
    /// For each request, since when we have waited for the client to take more of its answer.
    streams: HashMap<u64, Option<Instant>>,
    last: u64,
    /// When the last request ended.
    idle_since: Instant,
}

/// A request under way; it ends when this is dropped.
struct InStream {
    streams: Streams,
    number: u64,
}

impl Streams {
    pub(super) fn new(stall: Duration) -> Self {
        let table = Table { streams: HashMap::new(), last: 0, idle_since: Instant::now() };
        Self { table: Arc::new(Mutex::new(table)), stall }
    }

    /// Wraps a service to count its requests and to see whether the answers are taken.
    pub(super) fn service<S>(
        &self,
        inner: S,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<TakenBody>,
        Error = Infallible,
        Future: Send,
    > + use<S>
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send,
    {
        let streams = self.clone();
        service_fn(move |request| {
            let stream = streams.begin();
            let answer = inner.call(request);
            async move { Ok(answer.await?.map(|body| TakenBody::new(body, stream))) }
        })
    }

    fn begin(&self) -> InStream {
        let mut table = self.table.lock();
        table.last += 1;
        let number = table.last;
        table.streams.insert(number, None);
        InStream { streams: self.clone(), number }
    }

    /// Returns when there was no request for so long that the connection is to end.
    pub(super) async fn idle(of: Option<&Self>) {
        let Some(this) = of else { return std::future::pending().await };
        this.once(|table, now| table.idle_for(now) >= this.stall).await;
    }

    /// Returns when the client has for too long taken nothing of an answer, or of what is still buffered of ended ones.
    pub(super) async fn stuck(of: Option<&Self>) {
        let Some(this) = of else { return std::future::pending().await };
        let is_stuck = |table: &Table, now: Instant| {
            let waits = |since: &Option<Instant>| since.is_some_and(|at| now - at >= this.stall);
            table.streams.values().any(waits) || table.idle_for(now) >= 2 * this.stall
        };
        this.once(is_stuck).await;
    }

    async fn once(&self, holds: impl Fn(&Table, Instant) -> bool) {
        while !holds(&self.table.lock(), Instant::now()) {
            sleep(self.stall / 4).await;
        }
    }
}

impl Table {
    fn idle_for(&self, now: Instant) -> Duration {
        if self.streams.is_empty() { now - self.idle_since } else { Duration::ZERO }
    }
}

impl InStream {
    /// Notes whether the next step is the client's (to take some of the answer) or ours (to produce it).
    fn waits_for_client(&self, waits: bool) {
        let since = waits.then(Instant::now);
        self.streams.table.lock().streams.insert(self.number, since);
    }
}

impl Drop for InStream {
    fn drop(&mut self) {
        let mut table = self.streams.table.lock();
        table.streams.remove(&self.number);
        table.idle_since = Instant::now();
    }
}

/// An answer's body, in small pieces. hyper asks for the next piece when the client has room for it.
pub(super) struct TakenBody {
    body: Body,
    left: Bytes,
    stream: InStream,
}

impl TakenBody {
    fn new(body: Body, stream: InStream) -> Self {
        stream.waits_for_client(true);
        Self { body, left: Bytes::new(), stream }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let length = self.left.len().min(PIECE);
        Frame::data(self.left.split_to(length))
    }
}

impl HttpBody for TakenBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = match this.left.is_empty() {
            false => Poll::Ready(Some(Ok(this.piece()))),
            true => match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(match frame.into_data() {
                    Ok(data) => {
                        this.left = data;
                        this.piece()
                    }
                    Err(other) => other,
                }))),
                other => other,
            },
        };
        this.stream.waits_for_client(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, more) = (self.body.size_hint(), self.left.len() as u64);
        let mut sum = SizeHint::new();
        sum.set_lower(hint.lower().saturating_add(more));
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper.saturating_add(more));
        }
        sum
    }
}
