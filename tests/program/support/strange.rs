//! A proxy that makes a server as strange as real ones can be: it parses requests, and answers some of them differently
//! from the server.
//!
//! The proxy signs the requests that the server sees, so it can change them, and has a clock of its own.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

use super::bucket::{ACCESS_KEY, SECRET_KEY, test_client};

/// The quirks of the server.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Puts with `x-amz-checksum-crc32` are refused with this status.
    pub refuses_checksum: Option<u16>,
    /// Puts without that header are refused.
    pub demands_checksum: bool,
    /// Puts with `If-None-Match` are refused with this status.
    pub refuses_condition: Option<u16>,
    /// Nothing may be deleted.
    pub denies_deletes: bool,
    /// A conditional put of an existing name is answered with 304.
    pub taken_is_304: bool,
    /// Bodies and heads come without `Content-Length`.
    pub tells_no_length: bool,
    /// Names per page of a listing.
    pub page: Option<usize>,
    /// Every other page is empty, starting with the first.
    pub empty_pages: bool,
    /// Names come in a useless order.
    pub out_of_order: bool,
    pub ignores_start_after: bool,
    /// Ranges are answered with 200 and the whole object.
    pub ignores_range: bool,
    /// How far its clock is ahead of ours, in seconds.
    pub clock: i64,
    pub tells_no_date: bool,
    /// How many of the next requests are answered with this status.
    pub busy: (u32, u16),
    /// How many of the next bodies break off.
    pub cuts: u32,
    /// How many of the next puts are executed but not answered.
    pub loses: u32,
    /// The only access key that it knows; `None`: any.
    pub knows: Option<&'static str>,
    /// The speed at which it reads requests.
    pub uplink: Option<Uplink>,
}

/// A slow uplink, in bytes per second.
#[derive(Clone, Copy, Debug)]
pub enum Uplink {
    /// All connections together.
    Shared(u64),
    /// Each by itself.
    Each(u64),
}

/// A request, and the status of its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub status: u16,
}

struct State {
    port: u16,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<Asked>>,
    client: Client<HttpConnector, Full<Bytes>>,
    /// When the shared uplink is next free.
    free: Mutex<Instant>,
}

/// A running proxy; it ends when dropped.
pub struct Strange {
    address: SocketAddr,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

impl Strange {
    /// Starts one in front of the server at this port.
    pub fn start(port: u16, manners: Manners) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("strange")
            .enable_all()
            .build()
            .expect("a runtime starts");
        let inside = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        // A small buffer, so that the kernel does not accept what is read slowly.
        if manners.uplink.is_some() {
            socket.set_recv_buffer_size(16 << 10).expect("a socket's option");
        }
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let listener = socket.listen(64).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            port,
            manners: Mutex::new(manners),
            asked: Mutex::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            free: Mutex::new(Instant::now()),
        });
        runtime.spawn(accept(listener, state.clone()));
        drop(inside);
        Self { address, state, runtime: Some(runtime) }
    }

    /// The URL for the client.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the quirks from now on.
    pub fn change(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state.manners.lock());
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.asked.lock())
    }

    /// How many requests since the last [`Strange::take`] had this method and this part of the target.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let asked = self.state.asked.lock();
        asked.iter().filter(|asked| asked.method == method && asked.target.contains(part)).count()
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        tokio::spawn(async move {
            let own = Mutex::new(Instant::now());
            let io = TokioIo::new(Slow { stream, state: state.clone(), own, turn: None });
            let service = service_fn(move |request| answer(state.clone(), request));
            let mut server = hyper::server::conn::http1::Builder::new();
            let _ = server.auto_date_header(false).serve_connection(io, service).await;
        });
    }
}

/// A connection that is read no faster than the uplink allows at that moment.
struct Slow {
    stream: TcpStream,
    state: Arc<State>,
    /// When an uplink of its own is next free.
    own: Mutex<Instant>,
    turn: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let uplink = self.state.manners.lock().uplink;
        let Some(Uplink::Shared(rate) | Uplink::Each(rate)) = uplink else {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        };
        let most = ((rate / 20).clamp(512, 4096) as usize).min(buffer.remaining());
        // First come, first served: each connection has its turn on a shared link.
        if self.turn.is_none() {
            let is_shared = matches!(uplink, Some(Uplink::Shared(_)));
            let mut free = if is_shared { self.state.free.lock() } else { self.own.lock() };
            let turn = Instant::now().max(*free);
            *free = turn + Duration::from_secs_f64(most as f64 / rate as f64);
            drop(free);
            self.turn = Some(Box::pin(tokio::time::sleep_until(turn)));
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| !turn.is_elapsed()) {
            std::task::ready!(turn.as_mut().poll(cx));
        }
        let mut bytes = [0; 4096];
        let mut part = ReadBuf::new(&mut bytes[..most]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        self.turn = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Handles one request. An error breaks the connection.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Answer> {
    let asked = (request.method().to_string(), request.uri().to_string());
    let manners = state.manners.lock().clone();
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request::from_parts(head, body);
    let answered = match refusal(&state, &manners, &request) {
        Some((status, code)) => Ok(refused(status, code)),
        None if is_listing(&request) && manners.page.is_some() => {
            list(&state, &manners, &request).await
        }
        None => pass(&state, &manners, request).await,
    };
    let mut answer = answered?;
    let (method, target) = asked;
    let status = answer.status().as_u16();
    state.asked.lock().push(Asked { method, target, status });
    let seconds = (seconds_now() + manners.clock).cast_unsigned();
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    answer.headers_mut().insert(DATE, HeaderValue::from_str(&date).expect("a date"));
    if manners.tells_no_date {
        answer.headers_mut().remove(DATE);
    }
    Ok(answer)
}

/// The refusal of a request, if it is to be refused.
fn refusal(
    state: &State,
    manners: &Manners,
    request: &Request<Bytes>,
) -> Option<(u16, &'static str)> {
    let deletes = request.method() == Method::DELETE
        || (request.method() == Method::POST
            && request.uri().query().is_some_and(|q| q.contains("delete")));
    if manners.denies_deletes && deletes {
        return Some((403, "AccessDenied"));
    }
    let has = |name: &str| request.headers().contains_key(name);
    let mut left = state.manners.lock();
    if left.busy.0 > 0 {
        left.busy.0 -= 1;
        return Some((left.busy.1, "SlowDown"));
    }
    drop(left);
    let signed = request.headers().get("x-amz-date").and_then(|date| date.to_str().ok());
    let now = seconds_now() + manners.clock;
    if signed.is_some_and(|signed| (seconds_of(signed) - now).abs() > 15 * 60) {
        return Some((403, "RequestTimeTooSkewed"));
    }
    let signed = request.headers().get("authorization").and_then(|signed| signed.to_str().ok());
    if let (Some(key), Some(signed)) = (manners.knows, signed)
        && !signed.contains(&format!("Credential={key}/"))
    {
        return Some((403, "InvalidAccessKeyId"));
    }
    if request.method() != Method::PUT {
        return None;
    }
    match (manners.refuses_checksum, manners.refuses_condition) {
        (Some(status), _) if has("x-amz-checksum-crc32") => Some((status, "NotImplemented")),
        (_, Some(status)) if has("if-none-match") => Some((status, "NotImplemented")),
        _ if manners.demands_checksum && !has("x-amz-checksum-crc32") => {
            Some((400, "InvalidRequest"))
        }
        _ => None,
    }
}

fn refused(status: u16, code: &str) -> Answer {
    let text = format!("<Error><Code>{code}</Code><Message>as it is told</Message></Error>");
    let mut answer = Response::new(full(text));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, io::Error> {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body of unknown length, or one that breaks off.
fn pieces(bytes: Bytes, breaks: bool) -> BoxBody<Bytes, io::Error> {
    let half = bytes.len() / 2;
    let mut pieces = vec![Ok(Frame::data(bytes.slice(..half)))];
    pieces.push(match breaks {
        true => Err(io::Error::other("as it is told")),
        false => Ok(Frame::data(bytes.slice(half..))),
    });
    StreamBody::new(futures_util::stream::iter(pieces)).boxed()
}

/// Passes a request to the server.
async fn pass(state: &State, manners: &Manners, request: Request<Bytes>) -> io::Result<Answer> {
    let (mut head, body) = request.into_parts();
    let method = head.method.clone();
    if manners.ignores_range {
        head.headers.remove(RANGE);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    sign(&mut head.headers, &method, &target);
    head.uri = format!("http://127.0.0.1:{}{target}", state.port).parse().expect("a URI");
    let answer = state.client.request(Request::from_parts(head, Full::new(body))).await;
    let (mut head, body) = answer.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if manners.taken_is_304 && head.status == StatusCode::PRECONDITION_FAILED {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(CONTENT_LENGTH);
        return Ok(Response::from_parts(head, full("")));
    }
    if method == Method::PUT && take_one(state, |manners| &mut manners.loses) {
        return Err(io::Error::other("as it is told"));
    }
    let is_object = head.status.is_success() && (method == Method::GET || method == Method::HEAD);
    if method == Method::GET && is_object && take_one(state, |manners| &mut manners.cuts) {
        return Ok(Response::from_parts(head, pieces(body, true)));
    }
    if manners.tells_no_length && is_object {
        head.headers.remove(CONTENT_LENGTH);
        let body =
            if method == Method::HEAD { pieces(Bytes::new(), false) } else { pieces(body, false) };
        return Ok(Response::from_parts(head, body));
    }
    Ok(Response::from_parts(head, full(body)))
}

fn take_one(state: &State, count: impl Fn(&mut Manners) -> &mut u32) -> bool {
    let mut manners = state.manners.lock();
    let left = count(&mut manners);
    let one = *left > 0;
    *left = left.saturating_sub(1);
    one
}

fn is_listing(request: &Request<Bytes>) -> bool {
    request.method() == Method::GET && request.uri().query().unwrap_or("").contains("list-type=2")
}

/// A page of a listing, made from what the server lists.
async fn list(state: &State, manners: &Manners, request: &Request<Bytes>) -> io::Result<Answer> {
    let query = request.uri().query().unwrap_or_default();
    let asked = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| {
            percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
        })
    };
    let bucket = request.uri().path().trim_matches('/').to_owned();
    let client = test_client(&format!("http://127.0.0.1:{}", state.port));
    let mut pages = client
        .list_objects_v2()
        .bucket(bucket)
        .prefix(asked("prefix").unwrap_or_default())
        .into_paginator()
        .send();
    let mut all = Vec::new();
    while let Some(page) = pages.next().await {
        all.extend(page.map_err(io::Error::other)?.contents.unwrap_or_default());
    }
    // A strange order must still be consistent, or nobody could continue a listing.
    let place = |name: &str| match manners.out_of_order {
        true => name.chars().rev().collect::<String>(),
        false => name.to_owned(),
    };
    all.sort_by_key(|object| place(object.key().unwrap_or_default()));
    if let Some(after) = asked("start-after").filter(|_| !manners.ignores_start_after) {
        all.retain(|object| object.key().unwrap_or_default() > after.as_str());
    }
    let token = asked("continuation-token").unwrap_or_else(|| "empty:".to_owned());
    let (kind, from) = token.split_once(':').expect("a token of ours");
    all.retain(|object| from.is_empty() || place(object.key().unwrap_or_default()) > place(from));
    let (shown, next) = if manners.empty_pages && kind == "empty" {
        (&all[..0], Some(format!("full:{from}")))
    } else {
        let shown = &all[..all.len().min(manners.page.unwrap_or(1000))];
        let last = shown.last().and_then(|object| object.key()).unwrap_or_default();
        (shown, (shown.len() < all.len()).then(|| format!("empty:{last}")))
    };
    let mut xml = format!("<ListBucketResult><IsTruncated>{}</IsTruncated>", next.is_some());
    if let Some(next) = next {
        let _ = write!(xml, "<NextContinuationToken>{next}</NextContinuationToken>");
    }
    for object in shown {
        let time = object.last_modified().and_then(|time| time.fmt(DateTimeFormat::DateTime).ok());
        let _ = write!(
            xml,
            "<Contents><Key>{}</Key><Size>{}</Size><LastModified>{}</LastModified></Contents>",
            object.key().unwrap_or_default(),
            object.size().unwrap_or_default(),
            time.unwrap_or_default()
        );
    }
    Ok(Response::new(full(xml + "</ListBucketResult>")))
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_secs().cast_signed()
}

/// The seconds of `20261128T224712Z`.
fn seconds_of(stamp: &str) -> i64 {
    let (day, time) = stamp.split_once('T').expect("a time");
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &day[..4],
        &day[4..6],
        &day[6..],
        &time[..2],
        &time[2..4],
        &time[4..6]
    );
    DateTime::from_str(&text, DateTimeFormat::DateTime).expect("a time").secs()
}

/// Signs a request again (`SigV4`), with the body hash that it came with.
fn sign(headers: &mut hyper::HeaderMap, method: &Method, target: &str) {
    let now = DateTime::from_secs(seconds_now()).fmt(DateTimeFormat::DateTime).expect("a time");
    let stamp: String = now.chars().filter(|c| !"-:".contains(*c)).collect();
    let day = stamp[..8].to_owned();
    // The token of temporary credentials, which the real server does not know.
    headers.remove("x-amz-security-token");
    let name = HeaderName::from_static("x-amz-date");
    headers.insert(name, HeaderValue::from_str(&stamp).expect("a time"));
    let value =
        |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    pairs.sort();
    // Servers want every `x-amz-` header to be signed.
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.retain(|name| name == "host" || name.starts_with("x-amz-"));
    names.sort();
    let signed = names.join(";");
    let lines: String =
        names.iter().map(|name| [name, ":", value(name).trim(), "\n"].concat()).collect();
    let (query, hash) = (pairs.join("&"), value("x-amz-content-sha256"));
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{hash}");
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let mut key = mac(format!("AWS4{SECRET_KEY}").as_bytes(), &day);
    for part in ["us-east-1", "s3", "aws4_request"] {
        key = mac(&key, part);
    }
    let signature = hex(&mac(&key, &text));
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={signature}"
    );
    headers.insert("authorization", HeaderValue::from_str(&value).expect("a header"));
}
