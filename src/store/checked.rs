//! Verifies what a store says: what it returns must be as long as what was requested, and what it took must be what
//! was sent (rule C5).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::error::{self, Error, Result};
use super::object::{Begin, Body, Fetched, HeadReply, Listing, OBJECT_MAX, Put, PutReply, Store};
use super::quirks::Quirks;

/// How the object in the store compares with what it should be.
pub(super) enum Compared {
    /// It holds the very bytes.
    Same(PutReply),
    /// It holds other bytes; the text says how.
    Differs(String),
}

/// Verifies each put and each get.
pub(super) struct Checked {
    inner: Arc<dyn Store>,
    quirks: Arc<Quirks>,
}

impl Checked {
    pub(super) fn over(inner: Arc<dyn Store>, quirks: Arc<Quirks>) -> Self {
        Self { inner, quirks }
    }

    /// Compares the object with these bytes: by length, and by the store's own checksum if it has one, or else byte
    /// for byte.
    pub(super) async fn compare(&self, name: &str, body: &Body) -> Result<Compared> {
        let head = self.inner.head(name).await?;
        let reply = PutReply { time: head.time, crc32: head.crc32, etag: head.etag.clone() };
        if head.length != body.length() {
            let (is, should) = (head.length, body.length());
            return Ok(Compared::Differs(format!("it has {is} bytes instead of {should}")));
        }
        if is_proof(head.crc32, head.etag.as_deref(), body) {
            return Ok(Compared::Same(reply));
        }
        let fetched = self.get(name, None).await?;
        if fetched.bytes == body.bytes() {
            return Ok(Compared::Same(reply));
        }
        Ok(Compared::Differs("it holds other bytes".to_owned()))
    }

    /// Puts without verifying yet.
    pub(super) async fn send(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        if body.length() > OBJECT_MAX {
            return Err(Error::Unsupported { what: format!("{name}: an object over 64 MiB") });
        }
        self.inner.put(name, body, condition).await
    }

    /// Rule C5. The bytes are proven by the CRC-32 of the whole if the answer echoes it, or else by the entity tag if
    /// it is the MD5, or else by reading the object back. A HEAD also checks the length. It is left out only for an
    /// echoed CRC-32, once HEADs have confirmed echoes for objects nearly as long, and as long as nothing has
    /// contradicted the store.
    pub(super) async fn verify(
        &self,
        name: &str,
        body: &Body,
        reply: PutReply,
    ) -> Result<PutReply> {
        let echoed = reply.crc32 == Some(body.crc32());
        if echoed && self.quirks.echo_proves(body.length()) {
            return Ok(reply);
        }
        let found = if is_proof(reply.crc32, reply.etag.as_deref(), body) {
            match self.inner.head(name).await {
                Ok(head) if head.length == body.length() => {
                    if echoed {
                        self.quirks.echo_held(body.length());
                    }
                    return Ok(reply);
                }
                Ok(head) => Ok(Compared::Differs(format!(
                    "{} of {} bytes are there",
                    head.length,
                    body.length()
                ))),
                Err(error) => Err(error),
            }
        } else {
            self.compare(name, body).await
        };
        let reason = match found {
            Ok(Compared::Same(_)) => return Ok(reply),
            Ok(Compared::Differs(reason)) => reason,
            Err(Error::NotFound { .. }) => "it was put, but is not there".to_owned(),
            Err(error) => return Err(error),
        };
        self.quirks.contradicted(name);
        Err(corrupt(name, &reason))
    }
}

/// Whether the store's checksum or entity tag of an object proves that it has these bytes (apart from the length).
fn is_proof(crc32: Option<u32>, etag: Option<&str>, body: &Body) -> bool {
    match (crc32, etag) {
        (Some(crc32), _) => crc32 == body.crc32(),
        // MD5 costs 1.6 s of CPU per GiB, so it is used only if there is nothing better.
        (None, Some(etag)) if etag.len() == 32 => {
            let digest = Md5::digest(body.bytes());
            digest.iter().zip(etag.as_bytes().chunks(2)).all(|(byte, digits)| {
                std::str::from_utf8(digits).is_ok_and(|digits| {
                    u8::from_str_radix(digits, 16).is_ok_and(|value| value == *byte)
                })
            })
        }
        _ => false,
    }
}

fn corrupt(name: &str, reason: &str) -> Error {
    Error::Corrupt { object: name.to_owned(), reason: reason.to_owned() }
}

fn check_fetched(name: &str, range: Option<&Range<u64>>, fetched: &Fetched) -> Result<()> {
    let got = fetched.bytes.len() as u64;
    let whole = fetched.object_length;
    let fits = match range {
        None => got == whole,
        Some(range) => range.end <= whole && got == range.end - range.start,
    };
    if fits {
        return Ok(());
    }
    let asked = range.map_or("all".to_owned(), |range| format!("{}..{}", range.start, range.end));
    Err(corrupt(name, &format!("{got} bytes came where {asked} of {whole} were asked for")))
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Store for Checked {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        let reply = self.send(name, body, condition).await?;
        self.verify(name, body, reply).await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        if range.as_ref().is_some_and(|range| range.start >= range.end) {
            // HTTP cannot express an empty range.
            let head = self.inner.head(name).await?;
            let (object_length, time) = (head.length, head.time);
            return Ok(Fetched { bytes: Bytes::new(), object_length, time });
        }
        let fetched = self.inner.get(name, range.clone()).await;
        // Nobody asks for more than was put.
        let is_short = match (&fetched, &range) {
            (Ok(fetched), Some(range)) => fetched.object_length < range.end,
            (Err(Error::Corrupt { reason, .. }), _) => reason == error::ENDS_EARLY,
            _ => false,
        };
        if is_short {
            self.quirks.contradicted(name);
        }
        let fetched = fetched?;
        check_fetched(name, range.as_ref(), &fetched)?;
        Ok(fetched)
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        self.inner.head(name).await
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let page = self.inner.list(prefix, begin).await?;
        if let Some(stranger) = page.objects.iter().find(|o| !o.name.starts_with(prefix)) {
            return Err(corrupt(&stranger.name, &format!("listed under {prefix}")));
        }
        // Asking for a page that does not go forward would never end.
        if page.more.as_ref() == Some(begin) {
            return Err(corrupt(prefix, "its listing does not go forward"));
        }
        Ok(page)
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        self.inner.delete(names).await
    }
}
