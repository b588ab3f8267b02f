//! A plain HTTP client with control over every byte: it sends what a test writes, even if that is nonsense.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(2);

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and headers, as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads an answer that ends after its `Content-Length` or with the connection.
    pub fn read(from: &mut impl Read) -> Option<Self> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if from.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head is text");
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
        if status == 100 {
            return Self::read(from);
        }
        let mut answer = Self { status, head, body: Vec::new() };
        let length = answer.header("content-length").and_then(|length| length.parse::<u64>().ok());
        // A client that is cut off sees what came until then.
        let _ = from.take(length.unwrap_or(u64::MAX)).read_to_end(&mut answer.body);
        Some(answer)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks the status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.head, self.text());
        self
    }

    /// Checks that the body contains a text.
    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.text().contains(what), "no {what:?} in {}{}", self.head, self.text());
        self
    }
}

/// The address of a service.
#[derive(Clone, Debug)]
pub struct Place(pub String);

impl Place {
    /// Parses `http://127.0.0.1:1234`.
    pub fn of(url: &str) -> Self {
        Self(url.split("://").nth(1).expect("a URL").to_owned())
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.0).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// The head of a request. `headers` are whole lines; `Host` is added unless it is among them.
    pub fn head(&self, line: &str, headers: &[&str]) -> String {
        let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            head = head + "Host: " + &self.0 + "\r\n";
        }
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head + "\r\n"
    }

    /// Sends a request, and reads the answer.
    #[track_caller]
    pub fn send(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = format!("Content-Length: {}", body.len());
        let mut headers = headers.to_vec();
        if !body.is_empty() || !line.starts_with("GET") {
            headers.push(&length);
        }
        stream.write_all(self.head(line, &headers).as_bytes()).expect("it takes a head");
        // A server that refuses the request may close before it has read all of it.
        let _ = stream.write_all(body);
        Answer::read(&mut stream).expect("an answer")
    }

    /// `GET path`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], b"")
    }

    /// `PUT path`.
    #[track_caller]
    pub fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.send(&format!("PUT {path}"), &[], body)
    }
}
