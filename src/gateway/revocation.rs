//! Ends requests under way when their token is removed or expires.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::BodyError;
use super::auth::Gate;
use crate::types::Hash;

/// How often the token is checked while a body moves. A check is one stat(2).
const LOOKS: Duration = Duration::from_secs(1);

/// The body of a request or answer of somebody with a token.
pub(super) struct RevocableBody {
    body: Body,
    gate: Arc<Gate>,
    token: Hash,
    next: Instant,
}

impl RevocableBody {
    pub(super) fn new(body: Body, gate: Arc<Gate>, token: Hash) -> Self {
        Self { body, gate, token, next: Instant::now() + LOOKS }
    }
}

impl HttpBody for RevocableBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + LOOKS;
            if !self.gate.is_known(&self.token) {
                return Poll::Ready(Some(Err(BodyError::Revoked.into())));
            }
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
