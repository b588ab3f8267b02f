//! A proxy in front of a server: it adds a round trip, counts requests and bytes, and breaks things.
//!
//! It passes bytes on unchanged, so a signature over the `Host` header stays valid: the client signs for the proxy's
//! address, and the server verifies the header as it arrives. The proxy parses HTTP/1.1 only as far as it needs to tell
//! requests apart.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Pieces under way in one direction: at 64 KiB each, more than a loopback connection fills in 15 ms.
const IN_FLIGHT: usize = 512;

/// A request and its answer.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The answer's status; 0 until there is one.
    pub status: u16,
    /// Bytes from the client, headers included.
    pub sent: u64,
    /// Bytes to the client, headers included.
    pub received: u64,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection breaks before the request reaches the server.
    Break,
    /// The server executes the request; the connection breaks when the answer comes.
    LoseReply,
    /// The request reaches the server, but its answer never arrives.
    Stall,
}

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    /// Rules: a request's method, a part of its target, how many more times, and what happens.
    script: Vec<(String, String, u32, Trouble)>,
}

/// A running proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    open: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// Starts a proxy in front of the server at this port; `round_trip` is added to every request.
    pub fn start(port: u16, round_trip: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("a runtime starts");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket's option");
        let state = Arc::new(Mutex::new(State::default()));
        let (open, opened) = watch::channel(true);
        let each_way = round_trip / 2;
        let shared = state.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((client, _)) = listener.accept().await {
                let (state, opened) = (shared.clone(), opened.clone());
                tokio::spawn(async move { serve(client, port, each_way, state, opened).await });
            }
        });
        Self { address, state, open, runtime: Some(runtime) }
    }

    /// The URL for the client.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.state.lock().exchanges)
    }

    /// The next `times` requests with this method and this part of the target get into trouble.
    pub fn trouble(&self, method: &str, part: &str, times: u32, trouble: Trouble) {
        let rule = (method.to_owned(), part.to_owned(), times, trouble);
        self.state.lock().script.push(rule);
    }

    /// Breaks all connections, and each new one at once.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Ends the cut and all trouble.
    pub fn heal(&self) {
        self.state.lock().script.clear();
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    client: TcpStream,
    port: u16,
    each_way: Duration,
    state: Arc<Mutex<State>>,
    mut opened: watch::Receiver<bool>,
) {
    if !*opened.borrow() {
        return;
    }
    // Connecting takes a round trip, too.
    tokio::time::sleep(each_way * 2).await;
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let connection = Connection { state, current: Arc::default() };
    let up = pump(from_client, to_server, each_way, Requests::new(connection.clone()));
    let down = pump(from_server, to_client, each_way, Replies { connection, head: true });
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = opened.wait_for(|open| !open) => {}
    }
}

/// The state shared by both directions of a connection.
#[derive(Clone)]
struct Connection {
    state: Arc<Mutex<State>>,
    /// The current request: its index in the list (unless the list was taken meanwhile) and its trouble.
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    exchange: Exchange,
    at: Option<usize>,
    trouble: Option<Trouble>,
}

impl Connection {
    fn begins(&self, method: String, target: String) -> Option<Trouble> {
        let mut state = self.state.lock();
        let rule = state.script.iter_mut().find(|(m, part, times, _)| {
            *times > 0 && *m == method && target.contains(part.as_str())
        });
        let trouble = rule.map(|(_, _, times, trouble)| {
            *times -= 1;
            *trouble
        });
        let exchange = Exchange { method, target, ..Exchange::default() };
        state.exchanges.push(exchange.clone());
        let at = Some(state.exchanges.len() - 1);
        *self.current.lock() = Current { exchange, at, trouble };
        trouble
    }

    fn update(&self, change: impl FnOnce(&mut Exchange)) {
        let mut state = self.state.lock();
        let mut current = self.current.lock();
        change(&mut current.exchange);
        let Some(at) = current.at else { return };
        if let Some(listed) = state.exchanges.get_mut(at)
            && listed.target == current.exchange.target
        {
            *listed = current.exchange.clone();
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        self.current.lock().trouble
    }
}

/// Follows one direction of a connection.
trait Watch: Send {
    /// Sees the next bytes; returning false breaks the connection.
    fn see(&mut self, bytes: &[u8]) -> bool;
    /// Whether the bytes are to be held back.
    fn holds(&self) -> bool {
        false
    }
}

/// Passes bytes on, each piece after `delay`, however many are under way.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, watch: impl Watch) {
    let (send, mut receive) = mpsc::channel::<(Instant, Bytes)>(IN_FLIGHT);
    let reads = async move {
        let mut watch = watch;
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(64 << 10);
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
            let piece = buffer.split().freeze();
            if !watch.see(&piece) {
                return true;
            }
            if !watch.holds() && send.send((Instant::now() + delay, piece)).await.is_err() {
                return true;
            }
        }
    };
    let writes = async move {
        while let Some((due, piece)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::pin!(writes);
    tokio::select! {
        broken = reads => if broken { return },
        _ = &mut writes => return,
    }
    let _: io::Result<()> = writes.await;
}

/// The requests of a connection.
struct Requests {
    connection: Connection,
    head: Vec<u8>,
    body_left: u64,
}

impl Requests {
    fn new(connection: Connection) -> Self {
        Self { connection, head: Vec::new(), body_left: 0 }
    }
}

impl Watch for Requests {
    fn see(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let part = self.body_left.min(bytes.len() as u64);
                self.connection.update(|exchange| exchange.sent += part);
                self.body_left -= part;
                bytes = &bytes[part as usize..];
                continue;
            }
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return true;
            };
            let head = String::from_utf8_lossy(&self.head[..end]).into_owned();
            self.head.clear();
            bytes = &bytes[end + 4 - before..];
            let mut lines = head.lines();
            let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
            let method = first.next().unwrap_or_default();
            let target = first.next().unwrap_or_default();
            self.body_left = lines
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0);
            if self.connection.begins(method, target) == Some(Trouble::Break) {
                return false;
            }
            self.connection.update(|exchange| exchange.sent += head.len() as u64 + 4);
        }
        true
    }
}

/// The answers of a connection: everything before the next request belongs to the current one.
struct Replies {
    connection: Connection,
    head: bool,
}

impl Watch for Replies {
    fn see(&mut self, bytes: &[u8]) -> bool {
        let status = || std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok();
        self.connection.update(|exchange| {
            if exchange.received == 0 && self.head {
                exchange.status = status().unwrap_or(0);
            }
            exchange.received += bytes.len() as u64;
        });
        self.connection.trouble() != Some(Trouble::LoseReply)
    }

    fn holds(&self) -> bool {
        self.connection.trouble() == Some(Trouble::Stall)
    }
}
