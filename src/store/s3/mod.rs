//! A bucket on an S3 server.

mod answer;
mod buffers;
mod client;
mod wire;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{ChecksumMode, Delete, ObjectIdentifier};
use bytes::Bytes;

use self::buffers::{Buffers, Filling};
pub use self::client::{S3Credentials, S3Options};
use self::wire::{Tap, Wire};
use super::deadlines::Deadlines;
use super::error::{Error, Result};
use super::object::{Body, Fetched, Head, Listed, Listing, OBJECT_MAX, Put, PutReply, Store};

/// A bucket on an S3 server. It neither repeats nor verifies: decorators do.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Over TLS the transport protects the body, so that its hash need not be signed: that saves
    /// 0.6 s of CPU per GiB. In the clear it is signed.
    signs_payload: bool,
    limits: Deadlines,
    buffers: Buffers,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.bucket)
    }
}

impl S3Store {
    /// Builds the client. Sends nothing to the bucket; finding a region may ask the machine's
    /// metadata service.
    pub async fn open(bucket: &str, options: &S3Options, limits: Deadlines) -> Result<Self> {
        let (client, encrypted) = client::build(options, &limits).await;
        let (bucket, signs_payload) = (bucket.to_owned(), !encrypted);
        Ok(Self { client, bucket, signs_payload, limits, buffers: Buffers::default() })
    }

    fn stalled(name: &str, after: std::time::Duration) -> Error {
        Error::Deadline { object: name.to_owned(), after }
    }

    /// Waits for a put's answer as long as its body moves.
    async fn while_moving<T>(
        &self,
        name: &str,
        wire: &Wire,
        send: impl Future<Output = T>,
    ) -> Result<T> {
        tokio::pin!(send);
        loop {
            let before = wire.moved();
            match tokio::time::timeout(self.limits.stall_put, &mut send).await {
                Ok(answer) => return Ok(answer),
                Err(_) if wire.moved() == before => {
                    return Err(Self::stalled(name, self.limits.stall_put));
                }
                Err(_) => {}
            }
        }
    }

    /// Waits for the head of an answer.
    async fn soon<T>(&self, name: &str, send: impl Future<Output = T>) -> Result<T> {
        let limit = self.limits.stall_get;
        tokio::time::timeout(limit, send).await.map_err(|_| Self::stalled(name, limit))
    }

    /// Reads a body of a known length to its end; a longer or shorter one is returned as far as it goes,
    /// for the length is checked above.
    #[allow(clippy::cast_possible_truncation, reason = "checked against OBJECT_MAX")]
    async fn collect(&self, name: &str, mut body: ByteStream, length: u64) -> Result<Bytes> {
        if length > OBJECT_MAX {
            let reason = format!("{length} bytes are more than any object has");
            return Err(Error::Corrupt { object: name.to_owned(), reason });
        }
        let mut first = Bytes::new();
        let mut all: Option<Filling> = None;
        loop {
            let piece = match self.soon(name, body.next()).await? {
                None => break,
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    return Err(Error::Unreachable {
                        object: name.to_owned(),
                        cause: Arc::new(error),
                    });
                }
            };
            let before = all.as_ref().map_or(first.len(), Filling::len);
            if (before + piece.len()) as u64 > length {
                let reason = format!("more than the announced {length} bytes came");
                return Err(Error::Corrupt { object: name.to_owned(), reason });
            }
            // One piece, as small answers are, is passed on as it came; several are copied once.
            if before == 0 {
                first = piece;
                continue;
            }
            let all = all.get_or_insert_with(|| {
                let mut all = self.buffers.take(length as usize);
                all.push(&std::mem::take(&mut first));
                all
            });
            all.push(&piece);
        }
        Ok(all.map_or(first, Filling::freeze))
    }
}

/// A count from the wire; nonsense becomes a length that fits nothing.
fn length(value: Option<i64>) -> u64 {
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(u64::MAX)
}

fn modified(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn etag(value: Option<&str>) -> Option<String> {
    value.map(|value| value.trim_matches('"').to_owned())
}

/// The total of `bytes 0-99/1234`.
fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        let wire = Arc::new(Wire::default());
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(name)
            .checksum_crc32(wire::crc32_to_text(body.crc32()))
            .set_if_none_match((condition == Put::IfAbsent).then(|| "*".to_owned()))
            .body(ByteStream::new(SdkBody::from(body.bytes().clone())))
            .customize()
            .interceptor(Tap::sending(wire.clone(), body.bytes().clone()));
        let request = if self.signs_payload { request } else { request.disable_payload_signing() };
        let answer = self.while_moving(name, &wire, request.send()).await?;
        let reply = answer.map_err(|error| answer::error(&error, &self.bucket, name))?;
        Ok(PutReply {
            time: wire.date(),
            crc32: reply.checksum_crc32().and_then(wire::crc32_from_text),
            etag: etag(reply.e_tag()),
        })
    }

    #[allow(clippy::cast_possible_truncation, reason = "at most the length of a buffer in memory")]
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let wire = Arc::new(Wire::default());
        let asked = range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end - 1));
        let send = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(name)
            .set_range(asked)
            .customize()
            .interceptor(Tap::receiving(wire.clone()))
            .send();
        let reply = self.soon(name, send).await?;
        let reply = reply.map_err(|error| answer::error(&error, &self.bucket, name))?;
        let sent = length(reply.content_length());
        let part = reply.content_range().map(str::to_owned);
        let mut bytes = self.collect(name, reply.body, sent).await?;
        if bytes.len() as u64 != sent {
            let reason = format!("{} of {sent} announced bytes came", bytes.len());
            return Err(Error::Corrupt { object: name.to_owned(), reason });
        }
        let object_length = match (&range, part) {
            (Some(range), Some(part)) => {
                if !part.starts_with(&format!("bytes {}-", range.start)) {
                    let reason = format!("{part} came where {range:?} was asked for");
                    return Err(Error::Corrupt { object: name.to_owned(), reason });
                }
                total(&part).unwrap_or(range.end)
            }
            // The whole, from a store that knows no ranges.
            (Some(range), None) => {
                let end = range.end.min(sent);
                bytes = bytes.slice(range.start.min(end) as usize..end as usize);
                sent
            }
            (None, _) => sent,
        };
        Ok(Fetched { bytes, object_length, time: wire.date() })
    }

    async fn head(&self, name: &str) -> Result<Head> {
        let wire = Arc::new(Wire::default());
        let send = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(name)
            .checksum_mode(ChecksumMode::Enabled)
            .customize()
            .interceptor(Tap::receiving(wire.clone()))
            .send();
        let reply = self.soon(name, send).await?;
        let reply = reply.map_err(|error| answer::error(&error, &self.bucket, name))?;
        Ok(Head {
            length: length(reply.content_length()),
            modified: modified(reply.last_modified()),
            crc32: reply.checksum_crc32().and_then(wire::crc32_from_text),
            etag: etag(reply.e_tag()),
            time: wire.date(),
        })
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Listing> {
        let wire = Arc::new(Wire::default());
        let send = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .customize()
            .interceptor(Tap::receiving(wire.clone()))
            .send();
        // Some stores walk a whole tree for this: give them the operation's time.
        let limit = self.limits.operation;
        let reply = tokio::time::timeout(limit, send).await;
        let reply = reply.map_err(|_| Self::stalled(prefix, limit))?;
        let reply = reply.map_err(|error| answer::error(&error, &self.bucket, prefix))?;
        let mut objects = Vec::with_capacity(reply.contents().len());
        for object in reply.contents() {
            objects.push(Listed {
                name: object.key().unwrap_or_default().to_owned(),
                length: length(object.size()),
                modified: modified(object.last_modified()),
            });
        }
        let more = reply.is_truncated().unwrap_or(false);
        let more = more.then(|| objects.last().map(|last| last.name.clone())).flatten();
        Ok(Listing { objects, more, time: wire.date() })
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        if let [name] = names {
            let send = self.client.delete_object().bucket(&self.bucket).key(name).send();
            let reply = self.soon(name, send).await?;
            return match reply.map_err(|error| answer::error(&error, &self.bucket, name)) {
                Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            };
        }
        let Some(first) = names.first() else { return Ok(()) };
        let other = |cause| Error::Other { object: first.clone(), cause: Arc::new(cause) };
        let mut delete = Delete::builder().quiet(true);
        for name in names {
            delete = delete.objects(ObjectIdentifier::builder().key(name).build().map_err(other)?);
        }
        let delete = delete.build().map_err(other)?;
        let send = self.client.delete_objects().bucket(&self.bucket).delete(delete).send();
        let limit = self.limits.operation;
        let reply = tokio::time::timeout(limit, send).await;
        let reply = reply.map_err(|_| Self::stalled(first, limit))?;
        let reply = reply.map_err(|error| answer::error(&error, &self.bucket, first))?;
        match reply.errors().iter().find(|error| error.code() != Some("NoSuchKey")) {
            Some(error) => Err(answer::refused_deletion(error)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_from_the_wire() {
        assert_eq!(total("bytes 0-99/1234"), Some(1234));
        assert_eq!(total("bytes 0-99/*"), None);
        assert_eq!(length(Some(-1)), u64::MAX);
        assert_eq!(etag(Some("\"abc\"")).as_deref(), Some("abc"));
    }
}
