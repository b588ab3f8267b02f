//! What can be seen between the SDK and the network: how far a body has moved, and the store's clock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeDeserializationInterceptorContextRef,
    BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat, SdkBody};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::body_pieces::BodyPieces;
use super::socket::Socket;

/// How far a request's time may be from the store's clock before a refusal is blamed on that: stores allow a quarter of an
/// hour, some less.
const SKEWED: Duration = Duration::from_secs(4 * 60);

/// The most bytes of an answer that is not an object's content: a page of a listing has 1,000 names of 1 KiB. The SDK reads
/// such a body whole before it parses it.
const ANSWER_MAX: u64 = 8 << 20;

/// What was seen of one request.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    handed: Arc<AtomicU64>,
    date: AtomicU64,
    signed: AtomicU64,
    chunked: AtomicBool,
    connection: Mutex<Option<CaptureSmithyConnection>>,
    socket: Mutex<Option<Socket>>,
}

impl Exchange {
    /// How much of the body has moved; grows as long as it moves. The kernel accepts megabytes that then wait on a slow
    /// link, so only what the other end has acknowledged counts. If the socket cannot be found, what the connection has
    /// taken counts.
    pub(super) fn moved(&self) -> u64 {
        let handed = self.handed.load(Relaxed);
        let addresses = || {
            let connection = self.connection.lock().as_ref()?.get()?;
            Some((connection.local_addr()?, connection.remote_addr()?))
        };
        let mut socket = self.socket.lock();
        if socket.is_none() {
            *socket = addresses().and_then(|(here, there)| Socket::find(here, there));
        }
        // A closed connection has moved nothing more; the request reports what became of it.
        socket.as_mut().map_or(handed, |socket| handed.min(socket.acknowledged()))
    }

    /// How much of the body the connection has taken.
    pub(super) fn handed(&self) -> u64 {
        self.handed.load(Relaxed)
    }

    /// The counter of what the connection has taken.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        self.handed.clone()
    }

    /// The answer's `Date`; 1970 if it has none, which no rule believes.
    pub(super) fn date(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.date.load(Relaxed))
    }

    /// Whether the request's time is far from the store's clock. Then that is why it is refused, whatever the answer says.
    pub(super) fn is_skewed(&self) -> bool {
        let (signed, date) = (self.signed.load(Relaxed), self.date.load(Relaxed));
        signed != 0 && date != 0 && signed.abs_diff(date) > SKEWED.as_secs()
    }

    /// Whether the answer's body marks its own end.
    pub(super) fn is_chunked(&self) -> bool {
        self.chunked.load(Relaxed)
    }
}

/// Watches one request from inside the SDK.
#[derive(Debug)]
pub(super) struct Tap {
    exchange: Arc<Exchange>,
    body: Option<BodyPieces>,
    /// Whether the answer is an object's content, whose length is not limited here.
    fetches: bool,
}

impl Tap {
    /// Watches a put: after signing, its body is replaced by pieces that are counted.
    pub(super) fn sending(exchange: Arc<Exchange>, body: BodyPieces) -> Self {
        Self { exchange, body: Some(body), fetches: false }
    }

    /// Watches only the answer.
    pub(super) fn receiving(exchange: Arc<Exchange>) -> Self {
        Self { exchange, body: None, fetches: false }
    }

    /// Watches only the answer, which is an object's content.
    pub(super) fn fetching(exchange: Arc<Exchange>) -> Self {
        Self { exchange, body: None, fetches: true }
    }
}

impl Intercept for Tap {
    fn name(&self) -> &'static str {
        "s3vault exchange"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let signed = context.request().headers().get("x-amz-date").and_then(signing_time);
        self.exchange.signed.store(signed.unwrap_or(0), Relaxed);
        if let Some(pieces) = self.body.as_ref().and_then(BodyPieces::whole) {
            *context.request_mut().body_mut() = SdkBody::from_body_1_x(pieces);
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The SDK's own handle, with which it closes broken connections: it knows the addresses once there is a connection.
        *self.exchange.connection.lock() = config.load::<CaptureSmithyConnection>().cloned();
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response_mut();
        if !(self.fetches && answer.status().is_success()) {
            let inner = std::mem::replace(answer.body_mut(), SdkBody::taken());
            *answer.body_mut() = SdkBody::from_body_1_x(AnswerBody { inner, left: ANSWER_MAX });
        }
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let coding = headers.get("transfer-encoding").unwrap_or_default();
        self.exchange.chunked.store(coding.to_ascii_lowercase().contains("chunked"), Relaxed);
        let date = headers.get("date");
        if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            let seconds = date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.exchange.date.store(seconds, Relaxed);
        }
        Ok(())
    }
}

/// A body that ends in an error if it is longer than it may be.
#[derive(Debug)]
struct AnswerBody {
    inner: SdkBody,
    left: u64,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err("the answer does not end".into()))),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.inner)
    }
}

/// The Unix seconds of `20261128T224712Z`.
fn signing_time(text: &str) -> Option<u64> {
    let at = |range: std::ops::Range<usize>| text.get(range);
    let (day, time) = ((at(0..4)?, at(4..6)?, at(6..8)?), (at(9..11)?, at(11..13)?, at(13..15)?));
    let text = format!("{}-{}-{}T{}:{}:{}Z", day.0, day.1, day.2, time.0, time.1, time.2);
    let time = DateTime::from_str(&text, DateTimeFormat::DateTime).ok()?;
    u64::try_from(time.secs()).ok()
}

/// A CRC-32 as in S3's headers: base64 of its big-endian bytes.
pub(super) fn crc32_to_text(crc32: u32) -> String {
    aws_smithy_types::base64::encode(crc32.to_be_bytes())
}

/// The CRC-32 of a header; `None` for a composite one (`…-3`), which does not cover the bytes as a whole.
pub(super) fn crc32_from_text(text: &str) -> Option<u32> {
    let bytes = aws_smithy_types::base64::decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn headers_read_back_and_no_text_panics(crc32: u32, seconds in 0i64..4_000_000_000, text: String) {
            prop_assert_eq!(crc32_from_text(&crc32_to_text(crc32)), Some(crc32));
            let time = DateTime::from_secs(seconds).fmt(DateTimeFormat::DateTime).unwrap();
            let signed = time.replace(['-', ':'], "");
            prop_assert_eq!(signing_time(&signed), u64::try_from(seconds).ok());
            let _ = (signing_time(&text), crc32_from_text(&text));
        }
    }

    #[test]
    fn the_time_that_a_request_was_signed_with() {
        assert_eq!(signing_time("20261128T224712Z"), Some(1_795_906_032));
        assert_eq!(signing_time("19700101T000001Z"), Some(1));
        for bad in ["", "2026", "20261328T224712Z", "2026112éT224712Z"] {
            assert_eq!(signing_time(bad), None, "{bad}");
        }
        let exchange = Exchange::default();
        for (signed, date, skewed) in
            [(0, 5000, false), (5000, 0, false), (5000, 5240, false), (5000, 4000, true)]
        {
            exchange.signed.store(signed, Relaxed);
            exchange.date.store(date, Relaxed);
            assert_eq!(exchange.is_skewed(), skewed, "{signed} {date}");
        }
    }

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
