//! What a client may use: bytes, time, places. All of it is bounded, so that a client that stalls, drips or floods
//! holds little, and only for a while.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::BodyError;
use super::metrics::{InFlight, Metrics};

/// Concurrent requests; one more gets 503. An upload holds about a MiB.
pub(super) const REQUESTS: usize = 128;
/// Concurrent connections; one more gets 503.
pub(super) const CONNECTIONS: usize = 512;
/// Connections from one address; one more gets 429. Half of all, so that no address can take all of them.
pub(super) const CONNECTIONS_OF_ONE: usize = CONNECTIONS / 2;
/// Bytes of a request line and its headers.
pub(super) const HEADER_BYTES: usize = 32 << 10;
/// Headers of a request.
pub(super) const HEADERS: usize = 64;
/// Bytes that hyper buffers per connection, each way.
pub(super) const BUFFER: usize = 128 << 10;
/// How long a TLS handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long we go on reading from a client after our side of the connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// The bytes that a client must move within the stall time: 16 KiB in 30 s is slower than a modem.
const LEAST: u64 = 16 << 10;

/// Tells when the other side is too slow. Only time in which we wait for the other side counts.
#[derive(Debug)]
struct StallTimer {
    limit: Duration,
    waited: Duration,
    since: Option<Instant>,
    moved: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, since: None, moved: 0, sleep: None }
    }

    /// The other side moved this many bytes.
    fn moved(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.moved += bytes;
        if self.moved >= LEAST {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Called while we wait: whether the other side has taken too long. If not, the task is woken when the time is up.
    fn is_up(&mut self, cx: &mut Context<'_>) -> bool {
        let left = self.limit.saturating_sub(self.waited);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        if self.since.is_none() {
            self.since = Some(Instant::now());
            sleep.as_mut().reset(Instant::now() + left);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// A request's body: bounded in size, counted, and not too slow. Its errors are [`BodyError`]s.
pub(super) struct LimitedBody {
    body: Body,
    left: u64,
    limit: u64,
    timer: StallTimer,
    metrics: Arc<Metrics>,
}

impl LimitedBody {
    pub(super) fn new(body: Body, limit: u64, stall: Duration, metrics: Arc<Metrics>) -> Self {
        Self { body, left: limit, limit, timer: StallTimer::new(stall), metrics }
    }
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending if this.timer.is_up(cx) => {
                Poll::Ready(Some(Err(BodyError::TooSlow.into())))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.metrics.received(bytes);
                this.timer.moved(bytes);
                let Some(left) = this.left.checked_sub(bytes) else {
                    return Poll::Ready(Some(Err(BodyError::TooLarge(this.limit).into())));
                };
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, counted. The request ends when this is dropped.
pub(super) struct CountedBody {
    pub body: Body,
    pub request: InFlight,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.request.sent(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose other side must take what we send.
pub(super) struct Paced<T> {
    stream: T,
    timer: StallTimer,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    pub(super) fn new(stream: T, stall: Duration) -> Self {
        Self { stream, timer: StallTimer::new(stall), lingering: None }
    }

    fn paced<R>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<R>>,
        bytes: impl Fn(&R) -> u64,
    ) -> Poll<io::Result<R>> {
        match &polled {
            Poll::Ready(Ok(done)) => self.timer.moved(bytes(done)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending if self.timer.is_up(cx) => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(cx, polled, |count| *count as u64)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.paced(cx, polled, |count| *count as u64)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.paced(cx, polled, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.paced(cx, polled, |()| 0))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl<T: AsyncRead + Unpin> Paced<T> {
    /// Reads what the client still sends, for a moment. If a connection is closed while unread bytes wait in it, it is
    /// reset, and the client loses the answer that says why the rest of its body is not wanted.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut buffer = [0; 8 << 10];
        loop {
            if end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut into = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// The number of connections of each address.
#[derive(Clone, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address.
pub(super) struct Peer {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    /// Counts one more connection, if the address does not have too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Peer> {
        let address = client_of(address);
        let mut peers = self.0.lock();
        let count = peers.entry(address).or_default();
        if *count >= CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Peer { peers: self.clone(), address })
    }
}

/// The client that an address belongs to. An IPv4 address on an IPv6 socket is the IPv4 client; an IPv6 client has a
/// whole /64 (RFC 6177).
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into())
        }
        address => address,
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut peers = self.peers.0.lock();
        if let Some(count) = peers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const STALL: Duration = Duration::from_millis(50);

    /// The outcome of a body that comes in these pieces, and then ends or stalls.
    async fn inflow(pieces: Vec<&'static [u8]>, ends: bool, limit: u64) -> Result<u64, BodyError> {
        let sent = futures_util::stream::iter(pieces)
            .map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)));
        let body = if ends {
            Body::from_stream(sent)
        } else {
            Body::from_stream(sent.chain(futures_util::stream::pending()))
        };
        let mut body = LimitedBody::new(body, limit, STALL, Arc::default());
        let mut count = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            match frame {
                Ok(frame) => count += frame.data_ref().unwrap().len() as u64,
                Err(error) => return Err(*error.downcast_ref::<BodyError>().unwrap()),
            }
        }
        Ok(count)
    }

    use futures_util::StreamExt;

    #[test]
    fn one_client_has_a_whole_network_of_ipv6() {
        let client = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("::1"), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_at_its_limit_and_when_nothing_comes() {
        assert_eq!(inflow(vec![b"abc", b"def"], true, 6).await, Ok(6));
        assert_eq!(inflow(vec![b"abc", b"def"], true, 5).await, Err(BodyError::TooLarge(5)));
        assert_eq!(inflow(vec![b"abc"], false, 6).await, Err(BodyError::TooSlow));
        assert_eq!(inflow(vec![], true, 0).await, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_drips_is_cut_off_and_one_that_moves_is_not() {
        let dripping = |each: usize| async move {
            let (mut ours, theirs) = tokio::io::duplex(8);
            let mut paced = Paced::new(theirs, STALL);
            let drip = tokio::spawn(async move {
                let mut bytes = vec![0; each];
                for _ in 0..20 {
                    tokio::time::sleep(STALL / 5).await;
                    if ours.read_exact(&mut bytes).await.is_err() {
                        return;
                    }
                }
            });
            let written = paced.write_all(&vec![0; each * 20]).await;
            drip.abort();
            written.map_err(|error| error.kind())
        };
        assert_eq!(dripping(16).await, Err(io::ErrorKind::TimedOut));
        assert_eq!(dripping(LEAST as usize).await, Ok(()));
    }

    #[test]
    fn an_address_has_only_its_share() {
        let peers = Peers::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let held: Vec<_> = (0..CONNECTIONS_OF_ONE).map(|_| peers.admit(one).unwrap()).collect();
        assert!(peers.admit("::ffff:10.0.0.1".parse().unwrap()).is_none());
        assert!(peers.admit(other).is_some());
        drop(held);
        assert!(peers.admit(one).is_some());
        assert!(peers.0.lock().is_empty());
    }
}
