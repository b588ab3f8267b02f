//! A get: it copes with whatever the server makes of a range, and whether or not it announces the length.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use bytes::Bytes;

use super::super::error::{Error, Result};
use super::super::line::RequestContext;
use super::super::object::{Fetched, HeadReply, OBJECT_MAX};
use super::exchange::{self, Exchange, Tap};
use super::{S3Store, etag, modified};
use crate::os::Filling;

/// A body to come, and which part of it is wanted.
struct Coming {
    /// How many bytes were announced.
    announced: Option<u64>,
    /// How many bytes to skip first.
    skip: u64,
    /// How many bytes to keep after these; the rest of a whole object is not read.
    take: u64,
}

/// What came of a body.
struct Came {
    bytes: Bytes,
    /// All bytes that came, including skipped ones; not those that were not read.
    all: u64,
}

/// Parses `bytes 0-99/1234`: the first byte's offset, and the total length if given.
fn part(content_range: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let first = first.trim().parse().ok()?;
    (last.trim().parse::<u64>().ok()? >= first).then(|| (first, total.trim().parse().ok()))
}

fn corrupt(name: &str, reason: String) -> Error {
    Error::Corrupt { object: name.to_owned(), reason }
}

impl S3Store {
    pub(super) async fn get_object(
        &self,
        name: &str,
        range: Option<Range<u64>>,
    ) -> Result<Fetched> {
        let exchange = Arc::new(Exchange::default());
        let asked = range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end - 1));
        let send = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(name)
            .set_range(asked)
            .customize()
            .interceptor(Tap::fetching(exchange.clone()))
            .send();
        let reply = self.soon(name, send).await?;
        let reply = reply.map_err(|error| self.refusal(&error, &exchange, name))?;
        let announced = reply.content_length().and_then(|length| u64::try_from(length).ok());
        let (start, total) = match reply.content_range() {
            Some(text) => match part(text) {
                Some((start, total)) => (start, total),
                None => return Err(corrupt(name, format!("{text:?} is no range"))),
            },
            None => (0, announced),
        };
        let is_part = reply.content_range().is_some();
        let wanted = range.clone().unwrap_or(0..u64::MAX);
        let Some(skip) = wanted.start.checked_sub(start) else {
            return Err(corrupt(name, format!("it came from {start} on, asked for: {wanted:?}")));
        };
        let take = wanted.end - wanted.start;
        let coming = Coming { announced, skip, take };
        let Came { bytes, all } = self.collect(name, reply.body, &coming).await?;
        if range.is_some() {
            let more = announced.unwrap_or(all) > take;
            self.quirks.ignores_ranges.store(!is_part && more, Relaxed);
        } else if is_part && total.is_none_or(|total| start + all != total) {
            return Err(corrupt(name, "a part came where all was asked for".to_owned()));
        }
        if announced.is_none() && !is_part && !exchange.is_chunked() {
            // It ended with the connection, which may have broken off.
            let said = self.ask_head(name).await?.0.content_length();
            if said.is_some_and(|said| u64::try_from(said) != Ok(all)) {
                return Err(corrupt(name, format!("{all} bytes came of {said:?}")));
            }
        }
        // With `bytes 0-99/*`, only this many bytes are known to exist.
        let object_length = total.unwrap_or(start + all);
        Ok(Fetched { bytes, object_length, time: exchange.date() })
    }

    async fn ask_head(&self, name: &str) -> Result<(HeadObjectOutput, Arc<Exchange>)> {
        let exchange = Arc::new(Exchange::default());
        let checksums = !self.quirks.without_checksums.load(Relaxed);
        let send = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(name)
            .set_checksum_mode(checksums.then_some(ChecksumMode::Enabled))
            .customize()
            .interceptor(Tap::receiving(exchange.clone()))
            .send();
        let reply = self.soon(name, send).await?;
        let reply = reply.map_err(|error| self.refusal(&error, &exchange, name))?;
        Ok((reply, exchange))
    }

    pub(super) async fn head_object(&self, name: &str) -> Result<HeadReply> {
        let (reply, exchange) = self.ask_head(name).await?;
        let length = match reply.content_length().and_then(|length| u64::try_from(length).ok()) {
            Some(length) => length,
            // A server that does not give the length here gives it with the first byte, if there is one.
            None => match self.get_object(name, Some(0..1)).await {
                Err(Error::Corrupt { .. }) => self.get_object(name, None).await?.object_length,
                other => other?.object_length,
            },
        };
        Ok(HeadReply {
            length,
            modified: modified(reply.last_modified()),
            crc32: reply.checksum_crc32().and_then(exchange::crc32_from_text),
            etag: etag(reply.e_tag()),
            time: exchange.date(),
        })
    }

    /// Reads a body, or as much of it as is wanted if it is longer. A body shorter than announced is an error; the
    /// caller checks whether it is what was asked for.
    #[allow(clippy::cast_possible_truncation, reason = "checked against OBJECT_MAX")]
    async fn collect(&self, name: &str, mut body: ByteStream, coming: &Coming) -> Result<Came> {
        let Coming { announced, skip, take } = *coming;
        if let Some(length) = announced.filter(|length| *length > OBJECT_MAX) {
            return Err(corrupt(name, format!("{length} bytes are more than any object has")));
        }
        let end = skip.saturating_add(take);
        // Of unknown length: the buffer grows.
        let room = announced.map_or(0, |length| length.min(end).saturating_sub(skip));
        let (mut first, mut kept) = (Bytes::new(), None::<Filling>);
        let (mut all, request) = (0, RequestContext::current());
        loop {
            if all >= end && announced.is_some_and(|announced| announced > end) {
                break; // the rest of an object of which only a part is wanted
            }
            let piece = match self.soon(name, body.next()).await? {
                None if announced.is_none_or(|announced| announced == all) => break,
                None => {
                    let announced = announced.unwrap_or_default();
                    return Err(corrupt(
                        name,
                        format!("{all} of {announced} announced bytes came"),
                    ));
                }
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    let (object, cause) = (name.to_owned(), Arc::new(error));
                    return Err(Error::Unreachable { object, cause });
                }
            };
            let (from, length) = (all, piece.len() as u64);
            all += length;
            // The other end does not send what is not taken from the connection.
            self.pace.down.pass_all(length, &request).await;
            if all > announced.unwrap_or(OBJECT_MAX) {
                let most = announced.unwrap_or(OBJECT_MAX);
                return Err(corrupt(name, format!("more than the announced {most} bytes came")));
            }
            let within = skip.clamp(from, all) - from..end.clamp(from, all) - from;
            let piece = piece.slice(within.start as usize..within.end as usize);
            if piece.is_empty() {
                continue;
            }
            // A single piece, as in small answers, is passed on as it came; several are copied once.
            if first.is_empty() && kept.is_none() {
                first = piece;
                continue;
            }
            let kept = kept.get_or_insert_with(|| {
                let mut kept = self.buffers.take(room as usize);
                kept.push(&std::mem::take(&mut first));
                kept
            });
            kept.push(&piece);
        }
        Ok(Came { bytes: kept.map_or(first, Filling::freeze), all })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn a_range_reads_back_and_no_text_panics(
            first: u64,
            more in prop_oneof![Just(0), 0u64..1 << 40],
            text: String,
        ) {
            let last = first.saturating_add(more);
            let said = part(&format!("bytes {first}-{last}/{}", last.saturating_add(1)));
            prop_assert_eq!(said, Some((first, Some(last.saturating_add(1)))));
            prop_assert_eq!(part(&format!("bytes {first}-{last}/{text}")).map(|said| said.0), Some(first));
            let _ = (part(&text), part(&format!("bytes {text}/1")));
        }
    }

    #[test]
    fn ranges_of_answers() {
        assert_eq!(part("bytes 0-99/1234"), Some((0, Some(1234))));
        assert_eq!(part("bytes 7-99/*"), Some((7, None)));
        for bad in ["", "bytes */1234", "bytes 9-8/10", "items 0-1/2", "bytes 0-1"] {
            assert_eq!(part(bad), None, "{bad}");
        }
    }
}
