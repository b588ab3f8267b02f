//! HTTP/2 at the level of bytes: what clients may not do.

use axum::body::Body;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;

const STALL: Duration = Duration::from_secs(30);
const LARGE: usize = 4 << 20;
/// GET / for the authority `a`, in HPACK's static table.
const ASKS: &[u8] = &[0x82, 0x84, 0x87, 0x41, 0x01, b'a'];

/// The client side of a connection after the HTTP/2 preface.
struct SecondClient {
    stream: DuplexStream,
    stop: watch::Sender<bool>,
    _cut: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn request(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, ASKS)
}

async fn client(window: u32) -> SecondClient {
    let router = Router::new()
        .route("/", get(|| async { Body::from(vec![7; LARGE]) }))
        .fallback(|| async { panic!("as a bug would") as &str });
    let (stop, stopped) = watch::channel(false);
    let (cutting, cut) = watch::channel(false);
    let (mut stream, theirs) = tokio::io::duplex(1 << 20);
    let setup = ConnectionSetup::new(router, stopped, cut, STALL);
    let served = tokio::spawn(setup.serve_second(theirs));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let setting = [&[0, 4], &window.to_be_bytes()[..]].concat();
    stream.write_all(&frame(4, 0, 0, &setting)).await.unwrap();
    SecondClient { stream, stop, _cut: cutting, served }
}

impl SecondClient {
    /// The next frame: kind, flags, stream, payload; `None` at the end of the connection.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some((head[3], head[4], stream, payload))
    }

    /// The error code that the connection ends with.
    async fn goes_away(&mut self) -> u32 {
        loop {
            let (kind, _, _, payload) = self.next().await.expect("GOAWAY before the end");
            if kind == 7 {
                return u32::from_be_bytes(payload[4..8].try_into().unwrap());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_whole_and_the_connection_ends_when_the_service_does() {
    let mut client = client(1 << 30).await;
    client.stream.write_all(&frame(8, 0, 0, &(1_u32 << 30).to_be_bytes())).await.unwrap();
    client.stream.write_all(&request(1)).await.unwrap();
    let mut taken = 0;
    loop {
        let (kind, flags, _, payload) = client.next().await.unwrap();
        if kind == 0 {
            assert!(payload.len() <= 16 << 10);
            taken += payload.len();
            if flags & 1 == 1 {
                break;
            }
        }
    }
    assert_eq!(taken, LARGE);
    client.stop.send_replace(true);
    assert_eq!(client.goes_away().await, 0);
    client.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_nothing_or_asks_for_nothing_is_cut_off() {
    // A client that takes nothing of the answer is cut off, though the connection is alive.
    let mut stalled = client(0).await;
    let begun = Instant::now();
    stalled.stream.write_all(&request(1)).await.unwrap();
    while stalled.next().await.is_some() {}
    stalled.served.await.unwrap();
    let took = begun.elapsed();
    assert!(took >= STALL && took < 2 * STALL, "{took:?}");
    // A client that takes 16 KiB now and then is not cut off; one that takes 100 bytes is.
    for (each, is_cut) in [(16_u32 << 10, false), (100, true)] {
        let mut slow = client(0).await;
        slow.stream.write_all(&request(1)).await.unwrap();
        let more = [frame(8, 0, 1, &each.to_be_bytes()), frame(8, 0, 0, &each.to_be_bytes())];
        for _ in 0..5 {
            let _ = slow.stream.write_all(&more.concat()).await;
            tokio::time::sleep(STALL * 2 / 3).await;
        }
        assert_eq!(slow.served.is_finished(), is_cut, "{each}");
    }
    let mut idle = client(1 << 20).await;
    let begun = Instant::now();
    assert_eq!(idle.goes_away().await, 0);
    idle.served.await.unwrap();
    assert!(begun.elapsed() <= 2 * STALL + STALL / 4);
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_back_what_it_asks_for_is_sent_away() {
    let mut client = client(1 << 20).await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        flood.extend(request(2 * number + 1));
        flood.extend(frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    let _ = client.stream.write_all(&flood).await;
    assert_eq!(client.goes_away().await, 0xb, "ENHANCE_YOUR_CALM");
    client.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_at_the_same_time_are_bounded_and_so_are_their_heads() {
    let mut crowd = client(0).await;
    let requests: Vec<u8> = (0..=STREAMS).flat_map(|number| request(2 * number + 1)).collect();
    crowd.stream.write_all(&requests).await.unwrap();
    loop {
        let (kind, _, stream, payload) = crowd.next().await.expect("one is refused");
        if kind == 3 {
            assert_eq!((stream, payload), (2 * STREAMS + 1, 7_u32.to_be_bytes().to_vec()));
            break;
        }
    }
    let mut large = client(0).await;
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7c], &[b'y'; 16_000][..]].concat();
    let parts = [frame(1, 1, 1, ASKS), frame(9, 0, 1, &field), frame(9, 0, 1, &field)].concat();
    large.stream.write_all(&[parts, frame(9, 4, 1, &field)].concat()).await.unwrap();
    loop {
        let (kind, _, _, payload) = large.next().await.expect("an answer");
        match kind {
            1 => break assert_eq!(payload[0], 0x48, "431, which no table has: {payload:?}"),
            3 | 7 => break,
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_ends_alone() {
    let mut client = client(1 << 30).await;
    let other = [&[0x82, 0x87, 0x44, 0x02][..], b"/x", &[0x41, 0x01, b'a']].concat();
    client.stream.write_all(&[frame(1, 5, 1, &other), request(3)].concat()).await.unwrap();
    let (mut is_reset, mut is_answered) = (false, false);
    while !is_reset || !is_answered {
        let (kind, _, stream, _) = client.next().await.expect("the connection goes on");
        is_reset |= (kind, stream) == (3, 1);
        is_answered |= (kind, stream) == (1, 3);
        assert!(!is_reset || kind != 7);
    }
}
