//! What may stand between the program and a server: a TLS server, and a forward proxy.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::PROXY_AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};

/// A listening server; it ends when dropped.
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    count: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Listening {
    /// Serves each connection by a task of its own.
    pub(super) fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, counted.clone()));
            }
        });
        Self { address, count, runtime: Some(runtime) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A server behind TLS, with a self-signed certificate.
pub struct TlsFront {
    listening: Listening,
    accepted: Arc<AtomicUsize>,
    certificate: String,
}

impl TlsFront {
    /// Starts one in front of the server at this port.
    pub fn start(port: u16) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("made");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepted = Arc::<AtomicUsize>::default();
        let counted = accepted.clone();
        let listening = Listening::start(move |stream, count| {
            let (acceptor, accepted) = (acceptor.clone(), counted.clone());
            async move {
                accepted.fetch_add(1, Relaxed);
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                count.fetch_add(1, Relaxed);
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ = copy_bidirectional(&mut inside, &mut server).await;
            }
        });
        Self { listening, accepted, certificate: made.cert.pem() }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.listening.address)
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Connections so far, before their handshakes.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// Connections whose handshake was done.
    pub fn connections(&self) -> usize {
        self.listening.count.load(Relaxed)
    }
}

/// A corporate proxy: it tunnels (CONNECT) and forwards requests, for clients that authenticate.
pub struct ForwardProxy(Listening);

/// User and password, as in a URL.
pub const PROXY_USER: &str = "squid:s3cr%40t";
/// The same in the header: `squid:s3cr@t`.
const AUTHORIZATION: &str = "Basic c3F1aWQ6czNjckB0";

impl ForwardProxy {
    /// Starts one.
    pub fn start() -> Self {
        let client: Client<HttpConnector, Incoming> =
            Client::builder(TokioExecutor::new()).build_http();
        Self(Listening::start(move |stream, count| {
            let client = client.clone();
            async move {
                let service =
                    service_fn(move |request| hand_on(client.clone(), count.clone(), request));
                let server = hyper::server::conn::http1::Builder::new();
                let _ =
                    server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            }
        }))
    }

    /// `host:port`.
    pub fn place(&self) -> String {
        self.0.address.to_string()
    }

    /// Its URL, with user and password.
    pub fn url(&self) -> String {
        format!("http://{PROXY_USER}@{}", self.0.address)
    }

    /// The number of tunnels and forwarded requests so far.
    pub fn used(&self) -> usize {
        self.0.count.load(Relaxed)
    }
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

fn answer(status: StatusCode) -> Answer {
    let body = Empty::new().map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

async fn hand_on(
    client: Client<HttpConnector, Incoming>,
    count: Arc<AtomicUsize>,
    mut request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let said = request.headers_mut().remove(PROXY_AUTHORIZATION);
    if said.is_none_or(|said| said != AUTHORIZATION) {
        return Ok(answer(StatusCode::PROXY_AUTHENTICATION_REQUIRED));
    }
    count.fetch_add(1, Relaxed);
    if request.method() != Method::CONNECT {
        return Ok(match client.request(request).await {
            Ok(reply) => reply.map(BodyExt::boxed),
            Err(_) => answer(StatusCode::BAD_GATEWAY),
        });
    }
    let target = request.uri().to_string();
    let Ok(mut server) = TcpStream::connect(target).await else {
        return Ok(answer(StatusCode::BAD_GATEWAY));
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut server).await;
        }
    });
    Ok(answer(StatusCode::OK))
}
