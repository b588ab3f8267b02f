//! A server that answers by script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::super::{Deadlines, S3Credentials, S3Options, S3Store};

/// One answer: its bytes on the connection, and whether the connection ends with it.
#[derive(Clone)]
pub(super) struct ScriptedAnswer {
    bytes: Vec<u8>,
    ends: bool,
}

/// `bytes=...`, `Date` and the length are added; a header that is given replaces the default.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> ScriptedAnswer {
    let length = body.len().to_string();
    let usual = [("date", "Sun, 29 Nov 2026 12:00:00 GMT"), ("content-length", length.as_str())];
    let given = |name: &str| headers.iter().any(|(known, _)| *known == name);
    let usual = usual.iter().filter(|(name, _)| !given(name));
    let mut head = format!("HTTP/1.1 {status} x\r\n");
    // A header given with an empty value is left out.
    for (name, value) in headers.iter().chain(usual).filter(|(_, value)| !value.is_empty()) {
        for part in [*name, ": ", *value, "\r\n"] {
            head.push_str(part);
        }
    }
    ScriptedAnswer { bytes: [head.as_bytes(), b"\r\n", body].concat(), ends: false }
}

/// A refusal as S3 words it.
pub(super) fn refusal(status: u16, code: &str) -> ScriptedAnswer {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    answer(status, &[("content-type", "application/xml")], text.as_bytes())
}

impl ScriptedAnswer {
    /// The connection is closed after this answer.
    pub(super) fn ending(self) -> Self {
        Self { ends: true, ..self }
    }
}

#[derive(Default)]
struct Script {
    answers: VecDeque<ScriptedAnswer>,
    /// The head of each request, in lower case.
    asked: Vec<String>,
}

/// A server on its own port; it ends with the test's runtime.
pub(super) struct ScriptedServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl ScriptedServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Arc::<Mutex<Script>>::default());
        let own = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move { serve(stream, &own).await.unwrap_or_default() });
            }
        });
        Self { address, script }
    }

    /// A store on this server.
    pub(super) async fn store(&self, limits: Deadlines) -> S3Store {
        self.store_at("127.0.0.1", limits).await
    }

    /// A store on this server, by a name of this machine.
    pub(super) async fn store_at(&self, host: &str, limits: Deadlines) -> S3Store {
        let credentials = S3Credentials {
            access_key: "key".to_owned(),
            secret_key: Zeroizing::new("secret".to_owned()),
            session_token: None,
            expires: None,
        };
        let options = S3Options {
            endpoint_url: Some(format!("http://{host}:{}", self.address.port())),
            region: Some("us-east-1".to_owned()),
            credentials: Some(credentials),
        };
        S3Store::open("bucket", &options, limits).await.unwrap()
    }

    /// Sets the answers to the next requests.
    pub(super) fn answers(&self, answers: impl IntoIterator<Item = ScriptedAnswer>) {
        self.script.lock().answers.extend(answers);
    }

    /// The heads of the requests since the last call.
    pub(super) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().asked)
    }
}

async fn serve(stream: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let next = {
            let mut script = script.lock();
            script.asked.push(head);
            script.answers.pop_front()
        };
        let Some(answer) = next else { return Ok(()) };
        stream.get_mut().write_all(&answer.bytes).await?;
        if answer.ends {
            return stream.get_mut().shutdown().await;
        }
    }
}
