//! A put: with the headers that the server accepts, and for as long as its bytes move.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::StorageClass;
use tokio::time::Instant;

use super::super::error::{Error, Result};
use super::super::line::RequestContext;
use super::super::object::{Body, Put, PutReply};
use super::body_pieces::BodyPieces;
use super::exchange::{self, Exchange, Tap};
use super::{S3Store, answer, etag};

/// How often the progress of a body is checked.
const LOOK: Duration = Duration::from_millis(250);

/// The optional headers of an attempt at a put.
#[derive(Clone, Copy)]
struct PutHeaders {
    conditional: bool,
    checksum: bool,
}

/// Why an attempt failed, and whether one of its headers may be the reason.
struct PutRefusal {
    error: Error,
    header: bool,
}

impl From<Error> for PutRefusal {
    fn from(error: Error) -> Self {
        Self { error, header: false }
    }
}

impl S3Store {
    /// Puts an object with its checksum. If the server refuses that, it tries without one, or the other way round
    /// if the server turns out to demand one. What the server took is verified either way (C5).
    pub(super) async fn put_object(
        &self,
        name: &str,
        body: &Body,
        condition: Put,
    ) -> Result<PutReply> {
        let mut conditional = condition == Put::IfAbsent;
        if conditional && self.quirks.looks_first.load(Relaxed) {
            // Only this machine writes here, one put after the other.
            match self.head_object(name).await {
                Ok(_) => return Err(Error::Exists { object: name.to_owned() }),
                Err(Error::NotFound { .. }) => conditional = false,
                Err(error) => return Err(error),
            }
        }
        let checksum = !self.quirks.without_checksums.load(Relaxed);
        let first = match self.put_as(name, body, PutHeaders { conditional, checksum }).await {
            Ok(reply) => return Ok(reply),
            Err(PutRefusal { error, header: false }) => return Err(error),
            Err(PutRefusal { error, header: true }) => error,
        };
        let other = PutHeaders { conditional, checksum: !checksum };
        match self.put_as(name, body, other).await {
            Err(PutRefusal { error, header: true }) => Err(match (first, error) {
                // Refused with the checksum and without it: what is left is the condition.
                (Error::Unsupported { what }, _) | (_, Error::Unsupported { what })
                    if conditional =>
                {
                    Error::NoConditions { object: name.to_owned(), cause: answer::said(what) }
                }
                (first, _) => first,
            }),
            Err(PutRefusal { error, .. }) if !matches!(error, Error::Exists { .. }) => Err(error),
            answered => {
                self.quirks.without_checksums.store(checksum, Relaxed);
                if checksum {
                    tracing::warn!(%first, "the store refuses checksums: what it took is verified otherwise");
                }
                answered.map_err(|refused| refused.error)
            }
        }
    }

    async fn put_as(
        &self,
        name: &str,
        body: &Body,
        headers: PutHeaders,
    ) -> std::result::Result<PutReply, PutRefusal> {
        let exchange = Arc::new(Exchange::default());
        let told = body.put_as();
        let pieces = BodyPieces::new(body.bytes(), exchange.count(), &self.pace.up);
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(name)
            .set_checksum_crc32(headers.checksum.then(|| exchange::crc32_to_text(body.crc32())))
            .set_storage_class(told.class.as_deref().map(StorageClass::from))
            .set_tagging(told.tagging.clone())
            .set_if_none_match(headers.conditional.then(|| "*".to_owned()))
            .body(ByteStream::new(SdkBody::from(body.bytes().clone())))
            .customize()
            .interceptor(Tap::sending(exchange.clone(), pieces));
        let request = if self.signs_payload { request } else { request.disable_payload_signing() };
        let answer = self.while_moving(name, &exchange, body, request.send()).await?;
        let reply = answer.map_err(|error| PutRefusal {
            header: answer::is_about_a_header(&error),
            error: self.refusal(&error, &exchange, name),
        })?;
        Ok(PutReply {
            time: exchange.date(),
            crc32: reply.checksum_crc32().and_then(exchange::crc32_from_text),
            etag: etag(reply.e_tag()),
        })
    }

    /// Waits for a put's answer as long as its body moves, and counts what moved. A link that carries next to
    /// nothing is no better than a dead one, hence the floor.
    async fn while_moving<T, E>(
        &self,
        name: &str,
        exchange: &Exchange,
        body: &Body,
        send: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<std::result::Result<T, E>> {
        let held_back = RequestContext::current().held_back;
        tokio::pin!(send);
        let (limit, least) = (self.limits.stall_put, self.limits.least_put());
        let (mut counted, mut then) = (0, (Instant::now(), 0));
        loop {
            let answer = tokio::time::timeout(LOOK.min(limit / 8), &mut send).await;
            let moved = match answer {
                Ok(Ok(_)) => body.length(),
                Ok(Err(_)) => counted, // a refused body counts as not moved
                Err(_) => exchange.moved(),
            };
            if moved > counted {
                body.moved().add(moved - counted);
                counted = moved;
            }
            if let Ok(answer) = answer {
                return Ok(answer);
            }
            // Everything handed over has been sent, and we hold back the rest.
            if held_back.is_now() && counted >= exchange.handed() {
                then = (Instant::now(), counted);
            }
            // The last bytes may be few.
            if counted >= then.1 + least || counted > then.1 && counted >= body.length() {
                then = (Instant::now(), counted);
            } else if then.0.elapsed() >= limit {
                return Err(Self::stalled(name, limit));
            }
        }
    }
}
