//! Watches the request lines of an HTTP/1.1 connection. hyper drops the fragment (`#...`) of a target. No client sends
//! one (RFC 9112, section 3.2), unless it forgot to escape a `#` in a name, and then the rest names something else:
//! `DELETE /dav/directory/#1` would delete the directory.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Only this much of a header line is kept, to find the body's length. A longer line is another header, or is refused.
const LINE_MAX: usize = 256;

/// Marks a request whose target came with a fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct WithFragment;

/// For each request that hyper has read but not handed on, whether it has a fragment. They are few, since hyper's
/// read-ahead is bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestLines(Arc<Mutex<VecDeque<bool>>>);

impl RequestLines {
    /// Whether the next request that hyper hands on came with a fragment.
    pub(super) fn next_has_fragment(&self) -> bool {
        self.0.lock().pop_front().unwrap_or(false)
    }
}

/// A stream that hyper reads and that is parsed on the way.
#[derive(Debug)]
pub(super) struct Overheard<S> {
    stream: S,
    reading: RequestFraming,
    lines: RequestLines,
}

impl<S> Overheard<S> {
    pub(super) fn new(stream: S) -> (Self, RequestLines) {
        let lines = RequestLines::default();
        (Self { stream, reading: RequestFraming::default(), lines: lines.clone() }, lines)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let Self { reading, lines, .. } = &mut *self;
        reading.take(&buffer.filled()[before..], &mut |is_so| lines.0.lock().push_back(is_so));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// How far the requests are parsed. A malformed request ends the connection, so what this makes of it does not matter.
#[derive(Debug, Default)]
struct RequestFraming {
    at: RequestPart,
    line: Vec<u8>,
    has_fragment: bool,
    length: u64,
    is_chunked: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum RequestPart {
    #[default]
    RequestLine,
    Header,
    /// This many bytes of the body are still to come.
    Body(u64),
    ChunkSize,
    /// This many bytes of a chunk are still to come, including the end of its line.
    Chunk(u64),
    /// The lines after the last chunk.
    Trailer,
}

impl RequestFraming {
    fn take(&mut self, mut bytes: &[u8], request: &mut impl FnMut(bool)) {
        while let Some(byte) = bytes.first() {
            match &mut self.at {
                RequestPart::Body(left) | RequestPart::Chunk(left) => {
                    let some = (*left).min(bytes.len() as u64);
                    *left -= some;
                    bytes = &bytes[usize::try_from(some).unwrap_or(bytes.len())..];
                    match self.at {
                        RequestPart::Body(0) => self.at = RequestPart::RequestLine,
                        RequestPart::Chunk(0) => self.at = RequestPart::ChunkSize,
                        _ => {}
                    }
                    continue;
                }
                RequestPart::RequestLine => self.has_fragment |= *byte == b'#',
                _ => {}
            }
            bytes = &bytes[1..];
            match byte {
                b'\n' => self.line_ends(request),
                _ if self.line.len() < LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn line_ends(&mut self, request: &mut impl FnMut(bool)) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii_end();
        match self.at {
            // Some clients send an empty line between two requests.
            RequestPart::RequestLine if line.is_empty() => {}
            RequestPart::RequestLine => {
                (self.at, self.length, self.is_chunked) = (RequestPart::Header, 0, false);
            }
            RequestPart::Header if line.is_empty() => {
                request(std::mem::take(&mut self.has_fragment));
                self.at = match (self.is_chunked, self.length) {
                    (true, _) => RequestPart::ChunkSize,
                    (false, 0) => RequestPart::RequestLine,
                    (false, length) => RequestPart::Body(length),
                };
            }
            RequestPart::Header => self.header(line),
            RequestPart::ChunkSize => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                self.at = match number(digits.trim_ascii(), 16) {
                    Some(0) | None => RequestPart::Trailer,
                    Some(size) => RequestPart::Chunk(size.saturating_add(2)),
                };
            }
            RequestPart::Trailer if line.is_empty() => self.at = RequestPart::RequestLine,
            RequestPart::Trailer | RequestPart::Body(_) | RequestPart::Chunk(_) => {}
        }
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = number(value, 10).unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        }
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for each request; it must not depend on how the bytes are split.
    fn found(text: &str) -> Vec<bool> {
        let in_pieces = |size: usize| {
            let (mut reading, mut found) = (RequestFraming::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                reading.take(piece, &mut |is_so| found.push(is_so));
            }
            found
        };
        let whole = in_pieces(text.len());
        for size in [1, 2, 3, 7, 16] {
            assert_eq!(in_pieces(size), whole, "{text}");
        }
        whole
    }

    #[test]
    fn a_fragment_is_found_in_a_request_line_and_nowhere_else() {
        let long = "x".repeat(LINE_MAX * 2);
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nA: #\r\n\r\n".to_owned(), &[false][..]),
            ("DELETE /dav/d/#1 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), &[true]),
            (format!("GET /{long}#1 HTTP/1.1\r\nHost: {long}\r\n\r\n"), &[true]),
            // Requests one after the other, with bodies that look like requests.
            (
                "\r\nPUT /a HTTP/1.1\r\ncontent-LENGTH:  21\r\n\r\nGET /#1 HTTP/1.1\r\n\r\n\nGET /#2 HTTP/1.1\n\n\
                 GET / HTTP/1.1\r\n\r\n"
                    .to_owned(),
                &[false, true, false],
            ),
            (
                "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n14;x=1\r\nGET /#1 HTTP/1.1\r\n\r\n\r\n1\r\n#\r\n\
                 0\r\nA: #\r\n\r\nPUT /# HTTP/1.1\r\n\r\n"
                    .to_owned(),
                &[false, true],
            ),
            ("GET /#1 HTTP/1.1\r\nHost".to_owned(), &[]),
        ] {
            assert_eq!(found(&text), expected, "{text}");
        }
    }
}
