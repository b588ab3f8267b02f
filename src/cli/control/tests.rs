//! The control socket between a real client and a fake daemon.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::*;
use crate::cli::daemon::spec::Hidden;

#[derive(Default)]
struct FakeDaemon {
    heard: Mutex<Vec<&'static str>>,
    is_broken: AtomicBool,
    /// The store does not answer: whoever waits for it waits.
    is_slow: AtomicBool,
}

#[async_trait]
impl ControlHandler for FakeDaemon {
    fn report(&self) -> DaemonReport {
        assert!(!self.is_broken.load(Relaxed), "planted");
        DaemonReport { mountpoint: "/m".into(), ..DaemonReport::default() }
    }
    async fn sync(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult {
        for unsent_bytes in [2, 1] {
            let step = Progress { unsent_bytes, ..Progress::default() };
            progress.send(ControlReply::Progress(step)).await.unwrap();
        }
        if self.is_slow.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        self.heard.lock().push("sync");
        Ok(())
    }
    async fn umount(&self, within: Option<Duration>, _: &mpsc::Sender<ControlReply>) -> CliResult {
        assert_eq!(within, Some(Duration::from_secs(7)));
        self.heard.lock().push("umount");
        Err(Failure::new(Exit::Busy, "open files"))
    }
    async fn leave(&self, _: &mpsc::Sender<ControlReply>) -> CliResult {
        self.heard.lock().push("leave");
        Ok(())
    }
    async fn mount(&self, mountpoint: &Path, look: &MountLook) -> CliResult {
        assert!(mountpoint == Path::new("/n") && look.allow_other);
        self.heard.lock().push("mount");
        Ok(())
    }
    async fn serve(&self, options: ServeOptions) -> CliResult {
        assert_eq!(options, service());
        self.heard.lock().push("serve");
        Ok(())
    }
    async fn tune(&self, _: LimitWords) -> CliResult {
        self.heard.lock().push("tune");
        Ok(())
    }
    async fn credentials(&self, given: Credentials) -> CliResult {
        Err(Failure::new(Exit::Denied, given.access_key))
    }

    async fn keys(&self, _: KeysAsked, _: &mpsc::Sender<ControlReply>) -> CliResult {
        Ok(())
    }
    async fn old_states(&self, _: OldStates, told: &mpsc::Sender<ControlReply>) -> CliResult {
        let said = ControlReply::Said { text: "kept".to_owned() };
        drop(told.send(said).await);
        Ok(())
    }

    async fn history(&self, _: &Path, told: &mpsc::Sender<ControlReply>) -> CliResult {
        drop(told.send(ControlReply::Said { text: "a version".into() }).await);
        Ok(())
    }

    async fn restore(&self, _: PathRestore, _: &mpsc::Sender<ControlReply>) -> CliResult {
        Ok(())
    }

    async fn recover(&self, _: AsideRecovery, _: &mpsc::Sender<ControlReply>) -> CliResult {
        Ok(())
    }

    fn files(&self) -> CliResult<FilesPlace> {
        Ok(Box::new(()))
    }

    async fn serve_files(&self, mut stream: UnixStream, umask: u32, _: FilesPlace) {
        assert_eq!(umask, 0o77);
        // The daemon sends nothing before it is asked: the client may have read ahead.
        assert_eq!(stream.read_u8().await.unwrap(), b'?');
        stream.write_all(b"frames").await.unwrap();
    }

    async fn unserve(&self, _: &mpsc::Sender<ControlReply>) -> CliResult {
        self.heard.lock().push("unserve");
        assert!(!self.is_broken.load(Relaxed), "planted");
        Ok(())
    }
}

fn service() -> ServeOptions {
    let key = PathBuf::from("/k".repeat(2000));
    ServeOptions {
        listen: "[::1]:80".parse().unwrap(),
        socket_mode: 0o600,
        only_metrics: false,
        open: true,
        hosts: vec!["a".into(), "b".into()],
        tls: Some(crate::gateway::TlsFiles { certificate: key.clone(), key }),
        max_upload: u64::MAX,
        client_timeout: 30,
        tokens: "/t".into(),
    }
}

/// A daemon in a directory whose path is longer than a socket path may be.
fn played() -> (tempfile::TempDir, PathBuf, Arc<FakeDaemon>, tokio::runtime::Runtime) {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("d".repeat(120));
    std::fs::create_dir(&dir).unwrap();
    let daemon = Arc::new(FakeDaemon::default());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(async { listen(&dir) }).unwrap();
    runtime.spawn(serve(listener, daemon.clone(), Clients::default()));
    (base, dir, daemon, runtime)
}

fn replies(dir: &Path, request: ControlRequest) -> Vec<ControlReply> {
    let mut client = Client::ask(dir, &request, SILENCE).unwrap();
    std::iter::from_fn(|| client.next().ok()).collect()
}

#[test]
fn a_panic_over_one_request_is_said_to_its_client_and_the_next_one_is_served() {
    let (_base, dir, daemon, _runtime) = played();
    daemon.is_broken.store(true, Relaxed);
    let heard = replies(&dir, ControlRequest::Unserve);
    let [ControlReply::Failed(failure)] = &heard[..] else { panic!("{heard:?}") };
    assert!(failure.exit == Exit::Other && failure.message.contains("panic"), "{failure:?}");
    let heard = replies(&dir, ControlRequest::Status);
    assert!(heard.is_empty(), "the stream ends: {heard:?}");
    daemon.is_broken.store(false, Relaxed);
    assert!(matches!(replies(&dir, ControlRequest::Status)[..], [ControlReply::Status(_)]));
    assert!(os::panics().iter().any(|line| line.starts_with("what a client asked for")));
}

#[test]
fn clients_that_wait_for_the_store_keep_nobody_else_from_being_heard() {
    let (_base, dir, daemon, _runtime) = played();
    daemon.is_slow.store(true, Relaxed);
    let mut waiting: Vec<_> = (0..2 * CLIENTS)
        .map(|_| Client::ask(&dir, &ControlRequest::Sync, SILENCE).unwrap())
        .collect();
    for client in &mut waiting {
        assert!(matches!(client.next().unwrap(), ControlReply::Progress(_)), "it is heard");
    }
    assert!(matches!(replies(&dir, ControlRequest::Status)[..], [ControlReply::Status(_)]));
}

#[test]
fn requests_are_answered_with_progress_and_an_end() {
    let (_base, dir, daemon, _runtime) = played();
    assert_eq!(dir.join(SOCKET).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let [ControlReply::Status(report)] = &replies(&dir, ControlRequest::Status)[..] else {
        panic!("status")
    };
    assert_eq!(report.mountpoint, "/m");
    let heard = replies(&dir, ControlRequest::Sync);
    assert!(
        matches!(
            heard[..],
            [ControlReply::Progress(_), ControlReply::Progress(_), ControlReply::Done]
        ),
        "{heard:?}"
    );
    let heard = replies(&dir, ControlRequest::Umount { within: Some(Duration::from_secs(7)) });
    assert!(
        matches!(&heard[..], [ControlReply::Failed(failure)] if failure.exit == Exit::Busy),
        "{heard:?}"
    );
    let mount = ControlRequest::Mount {
        mountpoint: "/n".into(),
        look: MountLook { allow_other: true, ..MountLook::default() },
    };
    let serve = ControlRequest::Serve(service());
    for request in [mount, serve, ControlRequest::Unserve, ControlRequest::Leave] {
        assert_eq!(replies(&dir, request), [ControlReply::Done]);
    }
    assert_eq!(*daemon.heard.lock(), ["sync", "umount", "mount", "serve", "unserve", "leave"]);
}

#[test]
fn credentials_are_heard_and_never_shown() {
    let (_base, dir, _, _runtime) = played();
    let hidden = |text: &str| Hidden(text.to_owned().into());
    let (secret, token) = (hidden("s3cret"), Some(hidden(&"s3cret".repeat(2000))));
    let given =
        Credentials { access_key: "ID".into(), secret, session_token: token, expires: Some(7) };
    assert_eq!(Credentials::from_store(&given.to_store()), given);
    let request = ControlRequest::Credentials(given);
    assert!(!format!("{request:?}").contains("s3cret"));
    let heard = replies(&dir, request);
    assert!(
        matches!(&heard[..], [ControlReply::Failed(failure)] if failure.message == "ID"),
        "{heard:?}"
    );
}

#[test]
fn garbage_is_answered_and_changes_nothing() {
    let (_base, dir, daemon, _runtime) = played();
    let long = vec![b'x'; 90_000];
    for garbage in [&b"{}\n"[..], b"\xff\xfe\n", b"{\"do\":\"format\"}\n", &long] {
        let handle = std::fs::File::open(&dir).unwrap();
        let mut stream = Stream::connect(short(&handle)).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        // The daemon may close before it has read everything.
        let _ = stream.write_all(garbage);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.contains("usage"), "{answer}");
    }
    assert!(daemon.heard.lock().is_empty());
    assert_eq!(replies(&dir, ControlRequest::Status).len(), 1);
}

#[test]
fn a_dead_daemons_socket_is_replaced() {
    let (_base, dir, _, runtime) = played();
    runtime.shutdown_background();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _listening = runtime.block_on(async { listen(&dir) }).unwrap();
    assert!(Client::ask(&dir, &ControlRequest::Status, Duration::from_millis(100)).is_ok());
}

#[test]
fn a_connection_for_files_takes_no_place_from_those_who_ask() {
    let (_base, dir, _daemon, _runtime) = played();
    let open = |_| {
        let mut client =
            Client::ask(&dir, &ControlRequest::Files { umask: 0o77 }, SILENCE).unwrap();
        assert_eq!(client.next().unwrap(), ControlReply::Go);
        client.into_stream()
    };
    let connections: Vec<_> = (0..2 * CLIENTS).map(open).collect();
    assert!(matches!(replies(&dir, ControlRequest::Status)[..], [ControlReply::Status(_)]));
    for mut stream in connections {
        let mut said = Vec::new();
        stream.write_all(b"?").unwrap();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"frames");
    }
}
