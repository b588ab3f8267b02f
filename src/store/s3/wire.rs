//! What passes between the SDK and the network: how far a body has moved, and the store's clock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Bytes handed to the connection at a time: small enough that a slow link shows progress every few
/// seconds, large enough to cost nothing.
const PIECE: usize = 64 << 10;

/// What was seen of one request.
#[derive(Debug, Default)]
pub(super) struct Wire {
    moved: AtomicU64,
    date: AtomicU64,
}

impl Wire {
    /// Bytes of the body that the connection has taken.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// The answer's `Date`; 1970 if it has none, which no rule believes.
    pub(super) fn date(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.date.load(Relaxed))
    }
}

/// Watches one request from inside the SDK.
#[derive(Debug)]
pub(super) struct Tap {
    wire: Arc<Wire>,
    body: Option<Bytes>,
}

impl Tap {
    /// Watches a put: after it was signed, its body is handed over in pieces that are counted.
    pub(super) fn sending(wire: Arc<Wire>, body: Bytes) -> Self {
        Self { wire, body: Some(body) }
    }

    /// Watches only the answer.
    pub(super) fn receiving(wire: Arc<Wire>) -> Self {
        Self { wire, body: None }
    }
}

impl Intercept for Tap {
    fn name(&self) -> &'static str {
        "s3vault wire"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(left) = self.body.clone().filter(|body| !body.is_empty()) {
            let pieces = Pieces { left, wire: self.wire.clone() };
            *context.request_mut().body_mut() = SdkBody::from_body_1_x(pieces);
        }
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            let seconds = date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.wire.date.store(seconds, Relaxed);
        }
        Ok(())
    }
}

/// A body in pieces, none of them copied.
struct Pieces {
    left: Bytes,
    wire: Arc<Wire>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = PIECE.min(self.left.len());
        self.wire.moved.fetch_add(piece as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

/// A CRC-32 as S3's headers have it: base64 of its big-endian bytes.
pub(super) fn crc32_to_text(crc32: u32) -> String {
    aws_smithy_types::base64::encode(crc32.to_be_bytes())
}

/// The CRC-32 of a header; of a composite one (`…-3`), which does not cover the bytes as a whole, `None`.
pub(super) fn crc32_from_text(text: &str) -> Option<u32> {
    let bytes = aws_smithy_types::base64::decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_in_headers() {
        // The check value of CRC-32/ISO-HDLC.
        let crc32 = crc32fast::hash(b"123456789");
        assert_eq!(crc32, 0xcbf4_3926);
        assert_eq!(crc32_to_text(crc32), "y/Q5Jg==");
        assert_eq!(crc32_from_text("y/Q5Jg=="), Some(crc32));
        assert_eq!(crc32_from_text("y/Q5Jg==-2"), None);
        assert_eq!(crc32_from_text(""), None);
    }
}
