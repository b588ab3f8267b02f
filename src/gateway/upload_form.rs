//! The multipart form of an upload, as a stream of parts. Its parser (multer) buffers everything between two of its
//! events (the head of a part, or a piece of its content), however long that is. So the bytes it is given between
//! events are bounded.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use futures_util::{Stream, StreamExt};

use super::errors::Result;
use super::{BodyError, HttpProblem};

/// The most bytes given to the parser between two events. It bounds the text before the first part, the head of a part,
/// and a piece of content.
const BETWEEN: usize = 64 << 10;

/// A form being received.
pub(super) struct UploadForm {
    parts: Multipart,
    given: FedBytes,
}

/// Bytes given to the parser since its last event; `LOOK` right after an event.
type FedBytes = Arc<AtomicUsize>;

/// Makes the parser look at what it has before it is given more. Otherwise it takes in all that it can get first, and
/// with many small parts each event would let it buffer another `BETWEEN`.
const LOOK: usize = usize::MAX;

impl UploadForm {
    /// Reads a request's body, which must be declared as multipart.
    pub(super) async fn of(request: Request) -> Result<Self> {
        let given = FedBytes::default();
        let bounded = request.map(|body| {
            let (body, given) = (body.into_data_stream(), given.clone());
            Body::from_stream(Bounded { body, rest: Bytes::new(), given, is_full: false })
        });
        let parts = Multipart::from_request(bounded, &()).await.map_err(|_| {
            HttpProblem::bad_request(
                "The body is no form with files (multipart/form-data with a boundary). With curl: -F 'file=@PATH'.",
            )
        })?;
        Ok(Self { parts, given })
    }

    /// The next part. The part before must have been read to its end, or skipped.
    pub(super) async fn next(&mut self) -> Result<Option<FormPart<'_>>> {
        let field = self.parts.next_field().await.map_err(|error| HttpProblem::of_body(&error))?;
        self.given.store(LOOK, Ordering::Relaxed);
        let given = self.given.clone();
        Ok(field.map(|field| FormPart { field, given }))
    }
}

/// A part of the form; its content is a stream.
pub(super) struct FormPart<'a> {
    field: Field<'a>,
    given: FedBytes,
}

impl FormPart<'_> {
    /// The field's name.
    pub(super) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// The file's name.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// The content type that the client gave.
    pub(super) fn content_type(&self) -> Option<&str> {
        self.field.content_type()
    }

    /// Discards the content. (Left to the parser, all of it would be one gap between two events.)
    pub(super) async fn skip(mut self) -> Result<()> {
        while let Some(piece) = self.next().await {
            piece.map_err(|error| HttpProblem::of_body(&error))?;
        }
        Ok(())
    }
}

impl Stream for FormPart<'_> {
    type Item = std::result::Result<Bytes, MultipartError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.field).poll_next(cx));
        self.given.store(LOOK, Ordering::Relaxed);
        Poll::Ready(piece)
    }
}

/// A body that gives out up to `BETWEEN` bytes until `given` is reset.
struct Bounded {
    body: BodyDataStream,
    /// Bytes of a received frame that are not given out yet.
    rest: Bytes,
    given: FedBytes,
    /// Whether the parser was told to wait, so that it uses what it has.
    is_full: bool,
}

impl Stream for Bounded {
    type Item = std::result::Result<Bytes, axum::BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut given = this.given.load(Ordering::Relaxed);
        let is_new = given == LOOK;
        if is_new {
            given = 0;
            this.given.store(0, Ordering::Relaxed);
            this.is_full = false;
        }
        let room = BETWEEN.saturating_sub(given);
        if room == 0 && this.is_full {
            return Poll::Ready(Some(Err(BodyError::Shapeless(BETWEEN).into())));
        }
        if room == 0 || is_new {
            // The parser looks at what it has when nothing more comes for now.
            this.is_full = room == 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_next(cx)) {
                Some(frame) => this.rest = frame?,
                None => return Poll::Ready(None),
            }
        }
        let part = this.rest.split_to(room.min(this.rest.len()));
        this.given.fetch_add(part.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A form of `count` parts without content, each a frame of its own, and a count of the frames asked for.
    fn small_parts(count: usize) -> (Request, FedBytes) {
        let asked = FedBytes::default();
        let counted = asked.clone();
        let frames = (0..count).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            let part = "--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n\r\n";
            Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))
        });
        let last = std::iter::once(Ok(Bytes::from_static(b"--XX--\r\n")));
        let body = Body::from_stream(futures_util::stream::iter(frames.chain(last)));
        let kind = "multipart/form-data; boundary=XX";
        (Request::builder().header("content-type", kind).body(body).unwrap(), asked)
    }

    #[tokio::test]
    async fn small_parts_are_taken_in_as_they_are_used() {
        let (request, asked) = small_parts(20_000);
        let mut form = UploadForm::of(request).await.unwrap();
        let mut seen = 0;
        while let Some(part) = form.next().await.unwrap() {
            assert_eq!(part.name(), Some("note"));
            part.skip().await.unwrap();
            seen += 1;
            let ahead = asked.load(Ordering::Relaxed) - seen;
            assert!(ahead * 50 <= 2 * BETWEEN, "{ahead} parts");
        }
        assert_eq!(seen, 20_000);
    }
}
