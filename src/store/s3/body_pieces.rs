//! The body of a put in pieces, each handed to the connection when it may go.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use aws_sdk_s3::error::BoxError;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::super::flow::{Flow, PIECE_MAX};
use super::super::line::RequestContext;

/// The wait for a piece's turn. It is in a lock that nobody else takes, because a body is shared.
type Passing = Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// A body in pieces, none of them copied. They are small enough that a slow link shows progress every few seconds, and
/// large enough to cost nothing.
pub(super) struct BodyPieces {
    left: Bytes,
    /// How many bytes the connection has taken.
    handed: Arc<AtomicU64>,
    flow: Arc<Flow>,
    request: RequestContext,
    /// The next piece, which waits for its turn.
    next: Option<(u64, Passing)>,
}

impl std::fmt::Debug for BodyPieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodyPieces({} bytes)", self.left.len())
    }
}

impl BodyPieces {
    /// For the request that this task makes.
    pub(super) fn new(body: &Bytes, handed: Arc<AtomicU64>, flow: &Arc<Flow>) -> Self {
        let (flow, request) = (flow.clone(), RequestContext::current());
        Self { left: body.clone(), handed, flow, request, next: None }
    }

    /// The same body from its beginning, for the connection; `None` if it is empty.
    pub(super) fn whole(&self) -> Option<Self> {
        let (handed, flow) = (self.handed.clone(), self.flow.clone());
        let (left, request) = (self.left.clone(), self.request.clone());
        (!left.is_empty()).then_some(Self { left, handed, flow, request, next: None })
    }

    fn begin(&self) -> Option<(u64, Passing)> {
        let piece = self.flow.piece()?.min(self.left.len() as u64);
        let (flow, request) = (self.flow.clone(), self.request.clone());
        Some((piece, Mutex::new(Box::pin(async move { flow.pass(piece, &request).await }))))
    }
}

impl http_body::Body for BodyPieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.next.is_none() {
            self.next = self.begin();
        }
        let piece = match &mut self.next {
            Some((piece, passing)) => {
                ready!(passing.get_mut().as_mut().poll(context));
                *piece
            }
            None => PIECE_MAX,
        };
        self.next = None;
        let piece = usize::try_from(piece).unwrap_or(usize::MAX).min(self.left.len());
        self.handed.fetch_add(piece as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
