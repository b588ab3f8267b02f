//! A store that gives answers that no real store gives. The client ends in time with an error and in bounded memory,
//! and nothing that a terminal would interpret reaches the terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::home::{Done, Home};
use crate::support::noise;

/// The deadline of an operation, and the same again for a busy machine.
const IN_TIME: Duration = Duration::from_secs(75);
/// The most memory that a daemon may have.
const MEMORY_KIB: u64 = 300 << 10;

/// Answers a request by its first line; `Err` ends the connection.
type Answer = fn(&str, &mut TcpStream) -> std::io::Result<()>;

fn serve(answer: Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || converse(stream, answer));
        }
    });
    port
}

fn converse(mut stream: TcpStream, answer: Answer) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut lines = BufReader::new(copy).lines();
    while let Some(Ok(first)) = lines.next() {
        if !lines.by_ref().take_while(Result::is_ok).flatten().any(|line| line.is_empty()) {
            return;
        }
        if answer(&first, &mut stream).is_err() {
            return;
        }
    }
}

fn whole(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let date = "Date: Sun, 29 Nov 2026 12:00:00 GMT\r\nContent-Type: application/xml";
    write!(stream, "HTTP/1.1 {status}\r\n{date}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn listing(size: &str) -> String {
    let object = format!(
        "<Contents><Key>superblock/0000000000000001</Key><LastModified>2026-11-29T12:00:00.000Z</LastModified>\
         <Size>{size}</Size></Contents>"
    );
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{object}</ListBucketResult>")
}

/// Sends the same piece until the other side closes the connection.
fn for_ever(stream: &mut TcpStream, head: &str, piece: &[u8]) -> std::io::Result<()> {
    stream.write_all(head.as_bytes())?;
    loop {
        stream.write_all(piece)?;
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> Vec<u8> {
    let body = text.repeat(65536 / text.len());
    format!("{:x}\r\n{body}\r\n", body.len()).into_bytes()
}

/// Answers a listing as it should be, and everything else with `then`.
fn listed(first: &str, stream: &mut TcpStream, size: &str, then: Answer) -> std::io::Result<()> {
    if first.contains("list-type") {
        whole(stream, "200 OK", &listing(size))
    } else {
        then(first, stream)
    }
}

const ANSWERS: [(&str, Answer); 12] = [
    ("escapes", |_, stream| {
        // ESC is not allowed in XML and ends the parsing; CSI as a single character is allowed.
        let words = "\u{9b}2J\r\n\u{202e}s3vault: everything is in the bucket";
        let xml = format!("<Error><Code>Evil\u{9b}31m</Code><Message>{words}</Message></Error>");
        whole(stream, "403 Forbidden", &xml)
    }),
    ("an endless listing", |_, stream| {
        for_ever(
            stream,
            CHUNKED,
            &chunk("<Contents><Key>log/0000000000000001</Key><Size>1</Size></Contents>"),
        )
    }),
    ("an endless refusal", |_, stream| {
        for_ever(
            stream,
            &CHUNKED.replace("200 OK", "403 Forbidden"),
            &chunk("<Error><Code>x</Code>"),
        )
    }),
    ("endless headers", |_, stream| {
        for_ever(stream, "HTTP/1.1 200 OK\r\n", b"X-A: aaaaaaaaaaaaaaaaaaaaa\r\n")
    }),
    ("one endless header", |_, stream| for_ever(stream, "HTTP/1.1 200 OK\r\nX-A: ", &[b'a'; 4096])),
    ("a listing within itself", |_, stream| whole(stream, "200 OK", &"<a>".repeat(1 << 20))),
    ("pages for ever", |first, stream| {
        let next = first.len() + first.matches("continuation").count();
        let token = format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>"
        );
        whole(stream, "200 OK", &format!("<ListBucketResult>{token}</ListBucketResult>"))
    }),
    ("an endless object", |first, stream| {
        listed(first, stream, "500", |_, stream| for_ever(stream, CHUNKED, &chunk("x")))
    }),
    ("an object of 2^63 bytes", |first, stream| {
        listed(first, stream, "9223372036854775807", |_, stream| {
            for_ever(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n",
                &[0; 65536],
            )
        })
    }),
    ("sizes that are none", |first, stream| {
        listed(first, stream, "-1", |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")
        })
    }),
    ("a range of nothing that was asked", |first, stream| {
        listed(first, stream, "500", |_, stream| {
            let range = "Content-Range: bytes 18446744073709551615-18446744073709551615/1";
            write!(stream, "HTTP/1.1 206 Partial Content\r\n{range}\r\nContent-Length: 1\r\n\r\nx")
        })
    }),
    ("a superblock of nested arrays", |first, stream| {
        listed(first, stream, "60000", |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")?;
            // A map with an unknown key, whose value must be skipped.
            stream.write_all(&[&[0xa1, 0x18, 0x63][..], &[0x81; 59997]].concat())
        })
    }),
];

/// Runs a command to its end; also returns its peak memory.
fn watched(home: &Home, line: &str) -> (Done, u64) {
    let mut command = home.command(line.split_whitespace());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watching = thread::spawn(move || {
        let mut most = 0;
        while let Ok(text) = fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(now) = line.and_then(|line| line.trim().split(' ').next()?.parse().ok())
            else {
                break;
            };
            most = now;
            thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let done = child.wait_with_output().unwrap().into();
    (done, watching.join().unwrap())
}

#[test]
fn a_forged_store_is_an_error_in_time_and_in_bounds() {
    thread::scope(|scope| {
        for (what, answer) in ANSWERS {
            scope.spawn(move || {
                let home = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3VAULT_PASSPHRASE"]
                    .into_iter()
                    .fold(Home::new(), |home, name| home.with(name, "x"));
                let begun = Instant::now();
                let url = format!("http://127.0.0.1:{}", serve(answer));
                let (done, kib) =
                    watched(&home, &format!("check --bucket s3://forged --endpoint-url {url}"));
                let said = format!("{}{}", done.out, done.err);
                assert!(done.code > 0, "{what}: {} {said:?}", done.code);
                assert!(
                    done.err.lines().any(|line| line.starts_with("s3vault: ")),
                    "{what}: {said:?}"
                );
                let plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
                assert!(said.chars().all(plain), "{what}: {said:?}");
                assert!(!said.contains("panic"), "{what}: {said}");
                assert!(begun.elapsed() < IN_TIME, "{what}: {:?} {said}", begun.elapsed());
                assert!(kib < MEMORY_KIB, "{what}: {kib} KiB {said}");
                println!("{what}: {:?}, {kib} KiB: {}", begun.elapsed(), done.err.trim());
            });
        }
    });
}

/// The objects of a vault in a directory, served as a real store does, but for what is below `pack/`: that gets a forged answer.
struct Honest {
    root: PathBuf,
    forged: Answer,
}

impl Honest {
    /// Serves until the test ends; returns the port.
    fn serve(self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(self);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                thread::spawn(move || server.converse(stream));
            }
        });
        port
    }

    fn converse(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        while let Some(Ok(first)) = lines.next() {
            let headers: Vec<String> =
                lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let range = headers.iter().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                let is_range = name.eq_ignore_ascii_case("range");
                is_range.then(|| Some((from.parse().ok()?, to.parse().ok()?)))?
            });
            self.answer(&first, range, &mut stream).ok()?;
        }
        None
    }

    fn answer(
        &self,
        first: &str,
        range: Option<(usize, usize)>,
        stream: &mut TcpStream,
    ) -> std::io::Result<()> {
        let target = first.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let name = path.trim_start_matches("/forged").trim_start_matches('/');
        if query.contains("list-type") {
            let prefix = query.split('&').find_map(|word| word.strip_prefix("prefix="));
            return whole(
                stream,
                "200 OK",
                &self.listing(&prefix.unwrap_or("").replace("%2F", "/")),
            );
        }
        if name.starts_with("pack/") {
            return (self.forged)(first, stream);
        }
        let Ok(bytes) = fs::read(self.root.join(name)) else {
            return whole(stream, "404 Not Found", "<Error><Code>NoSuchKey</Code></Error>");
        };
        let (from, to) = range.unwrap_or((0, bytes.len() - 1));
        let part = &bytes[from..bytes.len().min(to + 1)];
        let date =
            "Date: Sun, 29 Nov 2026 12:00:00 GMT\r\nLast-Modified: Sun, 29 Nov 2026 12:00:00 GMT";
        let of =
            format!("Content-Range: bytes {from}-{}/{}\r\n", from + part.len() - 1, bytes.len());
        let (status, of) =
            if range.is_some() { ("206 Partial Content", of) } else { ("200 OK", String::new()) };
        write!(
            stream,
            "HTTP/1.1 {status}\r\n{date}\r\n{of}Content-Length: {}\r\n\r\n",
            part.len()
        )?;
        if first.starts_with("HEAD") { Ok(()) } else { stream.write_all(part) }
    }

    fn listing(&self, prefix: &str) -> String {
        let files = walkdir::WalkDir::new(&self.root).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file()).filter_map(|entry| {
            let name = entry.path().strip_prefix(&self.root).ok()?.to_str()?.to_owned();
            let size = entry.metadata().ok()?.len();
            (name.starts_with(prefix) && !name.starts_with('.')).then(|| {
                format!(
                    "<Contents><Key>{name}</Key><LastModified>2026-11-29T12:00:00.000Z</LastModified>\
                     <Size>{size}</Size></Contents>"
                )
            })
        });
        let all: String = files.collect();
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{all}</ListBucketResult>")
    }
}

/// A store that gives a mount what it needs, and forges what is read then.
#[test]
fn a_mount_over_a_store_that_forges_content_shows_errors_in_time_and_in_bounds() {
    let writer = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let bucket = writer.path("bucket");
    let url = format!("file://{}", bucket.display());
    writer.type_in(&format!("init --recovery-file key --bucket {url}")).exits(0);
    writer.type_in(&format!("mount vault --bucket {url}")).exits(0);
    fs::write(writer.path("vault/file"), noise(1, 3_000_000)).unwrap();
    writer.type_in("umount vault").exits(0);
    let key = fs::read_to_string(writer.path("key")).unwrap();
    thread::scope(|scope| {
        for (what, forged) in ANSWERS {
            let (bucket, key) = (&bucket, key.trim());
            scope.spawn(move || {
                let variables = [
                    ("AWS_ACCESS_KEY_ID", "x"),
                    ("AWS_SECRET_ACCESS_KEY", "x"),
                    ("S3VAULT_PASSPHRASE", key),
                ];
                let home =
                    variables.iter().fold(Home::new(), |home, (name, value)| home.with(name, value));
                let port = Honest { root: bucket.clone(), forged }.serve();
                let line = format!(
                    "mount vault --read-only --bucket s3://forged --endpoint-url http://127.0.0.1:{port}"
                );
                home.type_in(&line).exits(0);
                let begun = Instant::now();
                let read = fs::read(home.path("vault/file")).map(|bytes| bytes.len());
                let error = read.expect_err(what).raw_os_error();
                assert_eq!(error, Some(libc::EIO), "{what}");
                assert!(begun.elapsed() < IN_TIME, "{what}: {:?}", begun.elapsed());
                let status = home.status(&home.path("vault")).to_string();
                assert!(!status.contains('\u{9b}') && !status.contains("panic"), "{what}: {status}");
                let daemon = home.daemon(&home.path("vault"));
                let told = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
                let peak = told.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
                let kib: u64 = peak.trim().split(' ').next().unwrap().parse().unwrap();
                assert!(kib < MEMORY_KIB, "{what}: {kib} KiB");
                println!("{what}: {:?}, {kib} KiB", begun.elapsed());
                home.type_in("umount vault").exits(0);
            });
        }
    });
}
