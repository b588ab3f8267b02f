//! Whole lives of a daemon over a fake vault, with short time limits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::cli::control::ControlHandler;
use crate::cli::daemon_report::State;

mod for_command;

/// A vault that works as the test says.
#[derive(Default)]
struct FakeVault {
    unsent: AtomicU64,
    /// What the store has taken; each look adds `moves`.
    moved: AtomicU64,
    moves: AtomicU64,
    /// Whether the store takes nothing.
    offline: AtomicBool,
    busy: AtomicBool,
    fenced: AtomicBool,
    closed: AtomicBool,
    serves_only: AtomicBool,
    /// How closing fails before it works, one entry per attempt.
    close_fails: Mutex<Vec<Exit>>,
    unmounted: watch::Sender<bool>,
    /// The kernel takes long to drop the inodes of what was unmounted: until the other end is dropped.
    inodes: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    /// Mounting takes until the other end is dropped.
    kernel: Mutex<Option<tokio::sync::oneshot::Receiver<()>>>,
    sent: Notify,
    calls: Mutex<Vec<&'static str>>,
}

#[async_trait]
impl HostedVault for FakeVault {
    fn report(&self) -> DaemonReport {
        DaemonReport::default()
    }
    fn progress(&self) -> Progress {
        let trouble = self.offline.load(SeqCst).then(|| "no route".to_owned());
        let moved_bytes = self.moved.fetch_add(self.moves.load(SeqCst), SeqCst);
        let unsent_bytes = self.unsent.load(SeqCst);
        Progress { unsent_bytes, moved_bytes, trouble, ..Progress::default() }
    }
    async fn sync(&self, limit: Duration) -> CliResult {
        if self.fenced.load(SeqCst) {
            return Err(Failure::new(Exit::Fenced, "fenced"));
        }
        let all_sent = async {
            while self.offline.load(SeqCst) {
                self.sent.notified().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.unsent.store(0, SeqCst);
        };
        timeout(limit, all_sent).await.map_err(|_| Failure::new(Exit::Unsent, "deadline"))
    }
    async fn close(&self) -> CliResult {
        assert_eq!(self.unsent.load(SeqCst), 0, "released with data unsent");
        tokio::time::sleep(Duration::from_millis(30)).await;
        if let Some(exit) = self.close_fails.lock().pop() {
            return Err(Failure::new(exit, "not closed"));
        }
        self.closed.store(true, SeqCst);
        Ok(())
    }
    fn has_mount(&self) -> bool {
        !self.serves_only.load(SeqCst)
    }
    async fn mount(&self, _: &Path, _: &MountLook) -> CliResult {
        let kernel = self.kernel.lock().take();
        if let Some(kernel) = kernel {
            assert!(kernel.await.is_err());
        }
        self.serves_only.store(false, SeqCst);
        Ok(())
    }
    async fn serve(&self, _: ServeOptions) -> CliResult {
        self.calls.lock().push("serve");
        Ok(())
    }
    async fn tune(&self, _: LimitWords) -> CliResult {
        self.calls.lock().push("tune");
        Ok(())
    }
    async fn credentials(&self, _: Credentials) -> CliResult {
        Ok(())
    }

    async fn keys(&self, _: KeysAsked) -> CliResult<Vec<String>> {
        Ok(Vec::new())
    }

    async fn old_states(&self, _: OldStates) -> CliResult<Vec<String>> {
        Ok(vec!["kept".to_owned()])
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

    async fn unserve(&self) -> bool {
        let mut calls = self.calls.lock();
        let mut serves = calls.iter().filter(|call| call.ends_with("serve"));
        let was = serves.next_back() == Some(&"serve");
        if was {
            assert!(!self.closed.load(SeqCst), "released while it is served");
            calls.push("unserve");
        }
        was
    }
    async fn serve_files(&self, _: UnixStream, _: u32) {
        std::future::pending::<()>().await;
    }
    fn has_service(&self) -> bool {
        let calls = self.calls.lock();
        calls.iter().rfind(|call| call.ends_with("serve")) == Some(&"serve")
    }
    fn unmount(&self) -> CliResult {
        self.calls.lock().push("unmount");
        if self.busy.load(SeqCst) {
            return Err(Failure::new(Exit::Busy, "open files"));
        }
        self.unmounted.send_replace(true);
        if let Some(kernel) = self.inodes.lock().take() {
            assert!(kernel.recv().is_err());
        }
        Ok(())
    }
    fn detach(&self) -> CliResult {
        self.calls.lock().push("detach");
        Ok(())
    }
    async fn ended(&self) {
        drop(self.unmounted.subscribe().wait_for(|unmounted| *unmounted).await);
    }
}

struct Scene {
    vault: Arc<FakeVault>,
    lifecycle: Arc<Lifecycle>,
    signals: mpsc::Sender<&'static str>,
    run: tokio::task::JoinHandle<CliResult>,
}

const LIMITS: EndLimits = EndLimits {
    tick: Duration::from_millis(5),
    failing: Duration::from_millis(200),
    silent: Duration::from_mins(1),
    stop: Duration::from_mins(1),
    echo: Duration::ZERO,
};

fn scene(prepare: impl FnOnce(&FakeVault)) -> Scene {
    scene_with(LIMITS, prepare)
}

fn scene_with(limits: EndLimits, prepare: impl FnOnce(&FakeVault)) -> Scene {
    let vault = Arc::new(FakeVault::default());
    vault.unsent.store(7, SeqCst);
    prepare(&vault);
    let lifecycle = Lifecycle::new(vault.clone(), limits);
    let (signals, receiver) = mpsc::channel(4);
    let run = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { lifecycle.run(receiver, None, &FrontSender::silent()).await }
    });
    Scene { vault, lifecycle, signals, run }
}

fn channel() -> (mpsc::Sender<ControlReply>, mpsc::Receiver<ControlReply>) {
    mpsc::channel(1000)
}

#[tokio::test]
async fn a_signal_unmounts_sends_and_releases() {
    let scene = scene(|_| ());
    scene.signals.send("SIGTERM").await.unwrap();
    assert_eq!(scene.run.await.unwrap(), Ok(()));
    assert!(scene.vault.closed.load(SeqCst));
    assert_eq!(*scene.vault.calls.lock(), ["unmount"]);
}

#[tokio::test]
async fn a_signal_detaches_what_is_busy() {
    let scene = scene(|vault| vault.busy.store(true, SeqCst));
    scene.signals.send("SIGINT").await.unwrap();
    assert_eq!(scene.run.await.unwrap(), Ok(()));
    assert_eq!(*scene.vault.calls.lock(), ["unmount", "detach"]);
}

fn service() -> ServeOptions {
    ServeOptions {
        listen: "[::1]:80".parse().unwrap(),
        socket_mode: 0o600,
        only_metrics: false,
        open: true,
        hosts: Vec::new(),
        tls: None,
        max_upload: 1,
        client_timeout: 1,
        tokens: "/t".into(),
    }
}

#[tokio::test]
async fn a_service_beside_a_mount_stops_alone_and_ends_with_it() {
    let scene = scene(|_| ());
    let (sender, _receiver) = channel();
    assert_eq!(scene.lifecycle.unserve(&sender).await.unwrap_err().exit, Exit::NotMounted);
    assert_eq!(scene.lifecycle.serve(service()).await, Ok(()));
    assert_eq!(scene.lifecycle.unserve(&sender).await, Ok(()));
    assert_eq!(scene.lifecycle.report().state, State::Mounted);
    assert_eq!(scene.lifecycle.serve(service()).await, Ok(()));
    assert_eq!(scene.lifecycle.umount(None, &sender).await, Ok(()));
    assert_eq!(scene.run.await.unwrap(), Ok(()));
    assert_eq!(*scene.vault.calls.lock(), ["serve", "unserve", "serve", "unmount", "unserve"]);
    // Too late.
    assert_eq!(scene.lifecycle.serve(service()).await.unwrap_err().exit, Exit::MountedAlready);
    let late =
        ControlHandler::mount(&*scene.lifecycle, Path::new("/m"), &MountLook::default()).await;
    assert_eq!(late.unwrap_err().exit, Exit::MountedAlready);
}

#[tokio::test]
async fn a_service_without_a_mount_ends_when_it_is_stopped_unless_it_was_mounted_meanwhile() {
    let alone = scene(|vault| vault.serves_only.store(true, SeqCst));
    let (sender, _receiver) = channel();
    assert_eq!(alone.lifecycle.report().state, State::Serving);
    assert_eq!(alone.lifecycle.serve(service()).await, Ok(()));
    assert_eq!(alone.lifecycle.unserve(&sender).await, Ok(()));
    assert_eq!(alone.run.await.unwrap(), Ok(()));
    assert!(alone.vault.closed.load(SeqCst));

    let joined = scene(|vault| vault.serves_only.store(true, SeqCst));
    assert_eq!(joined.lifecycle.serve(service()).await, Ok(()));
    assert_eq!(
        ControlHandler::mount(&*joined.lifecycle, Path::new("/m"), &MountLook::default()).await,
        Ok(())
    );
    assert_eq!(joined.lifecycle.unserve(&sender).await, Ok(()));
    assert_eq!(joined.lifecycle.report().state, State::Mounted);
    assert!(!joined.vault.closed.load(SeqCst));
    joined.signals.send("SIGTERM").await.unwrap();
    assert_eq!(joined.run.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn after_a_signal_a_stuck_upload_is_given_up_and_not_released() {
    let scene = scene(|vault| vault.offline.store(true, SeqCst));
    scene.signals.send("SIGTERM").await.unwrap();
    let failure = scene.run.await.unwrap().unwrap_err();
    assert_eq!(failure.exit, Exit::Unsent);
    assert!(failure.message.contains("7 B") && failure.message.contains("no route"), "{failure}");
    assert!(!scene.vault.closed.load(SeqCst));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let scene = scene(|vault| vault.offline.store(true, SeqCst));
    let begun = Instant::now();
    scene.signals.send("SIGTERM").await.unwrap();
    scene.signals.send("SIGTERM").await.unwrap();
    assert_eq!(scene.run.await.unwrap().unwrap_err().exit, Exit::Forced);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// systemd sends a signal to each process of a unit, and the front process passes its own on.
#[tokio::test]
async fn a_signal_that_comes_by_two_ways_counts_once() {
    let limits =
        EndLimits { echo: Duration::from_mins(1), failing: Duration::from_mins(1), ..LIMITS };
    let scene = scene_with(limits, |vault| vault.offline.store(true, SeqCst));
    scene.signals.send("SIGTERM").await.unwrap();
    scene.signals.send("SIGTERM").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!scene.run.is_finished());
    scene.signals.send("SIGINT").await.unwrap();
    assert_eq!(scene.run.await.unwrap().unwrap_err().exit, Exit::Forced);
}

#[tokio::test]
async fn sigterm_gives_up_when_its_time_is_over_though_bytes_move_and_sigint_does_not() {
    let stop = Duration::from_millis(300);
    let slow = |vault: &FakeVault| {
        vault.offline.store(true, SeqCst);
        vault.moves.store(1, SeqCst);
    };
    let limits = EndLimits { stop, failing: Duration::from_mins(1), ..LIMITS };
    let asked = scene_with(limits, slow);
    asked.signals.send("SIGINT").await.unwrap();
    let told = scene_with(limits, slow);
    let begun = Instant::now();
    told.signals.send("SIGTERM").await.unwrap();
    let (sender, _receiver) = channel();
    let sync = ControlHandler::sync(&*told.lifecycle, &sender);
    // A client that waits for the daemon is told in time, too.
    let (outcome, synced) = tokio::join!(told.run, sync);
    let failure = outcome.unwrap().unwrap_err();
    assert_eq!((failure.exit, synced.unwrap_err().exit), (Exit::Unsent, Exit::Unsent));
    assert!(failure.message.contains("7 B") && failure.message.contains("next mount"), "{failure}");
    assert!(begun.elapsed() >= stop && begun.elapsed() < Duration::from_secs(20));
    assert!(!told.vault.closed.load(SeqCst) && !asked.run.is_finished());
}

#[tokio::test]
async fn umount_with_a_timeout_says_what_is_missing_in_time_and_the_daemon_goes_on() {
    let limits = EndLimits { failing: Duration::from_mins(1), ..LIMITS };
    let scene = scene_with(limits, |vault| vault.offline.store(true, SeqCst));
    let (sender, mut receiver) = channel();
    let failure = scene.lifecycle.umount(Some(Duration::ZERO), &sender).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unsent);
    let within = Some(Duration::from_millis(100));
    let failure = scene.lifecycle.umount(within, &sender).await.unwrap_err();
    assert!(failure.message.contains("7 B") && failure.message.contains("--timeout"), "{failure}");
    assert!(matches!(receiver.recv().await, Some(ControlReply::Progress(_))));
    assert!(!scene.run.is_finished());
    scene.vault.offline.store(false, SeqCst);
    scene.vault.sent.notify_waiters();
    assert_eq!(scene.lifecycle.umount(Some(Duration::MAX), &sender).await, Ok(()));
}

#[tokio::test]
async fn after_an_unmount_from_outside_it_goes_on_until_all_is_sent() {
    let scene = scene(|vault| vault.offline.store(true, SeqCst));
    scene.vault.unmounted.send_replace(true);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!scene.run.is_finished());
    assert_eq!(scene.lifecycle.report().state, State::Finishing);
    scene.vault.offline.store(false, SeqCst);
    scene.vault.sent.notify_waiters();
    assert_eq!(scene.run.await.unwrap(), Ok(()));
    assert!(scene.vault.closed.load(SeqCst));
}

#[tokio::test]
async fn fenced_is_the_end_and_says_so() {
    let scene = scene(|vault| vault.fenced.store(true, SeqCst));
    scene.vault.unmounted.send_replace(true);
    assert_eq!(scene.run.await.unwrap().unwrap_err().exit, Exit::Fenced);
}

#[tokio::test]
async fn umount_is_refused_while_files_are_open_and_changes_nothing() {
    let scene = scene(|vault| vault.busy.store(true, SeqCst));
    let (sender, _receiver) = channel();
    assert_eq!(scene.lifecycle.umount(None, &sender).await.unwrap_err().exit, Exit::Busy);
    assert_eq!(scene.lifecycle.report().state, State::Mounted);
    scene.vault.busy.store(false, SeqCst);
    assert_eq!(scene.lifecycle.umount(None, &sender).await, Ok(()));
    assert!(scene.vault.closed.load(SeqCst));
    assert_eq!(scene.run.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn umount_is_answered_when_all_is_sent_though_the_kernel_still_forgets_inodes() {
    let (kernel, waits) = std::sync::mpsc::channel::<()>();
    let scene = scene(|vault| *vault.inodes.lock() = Some(waits));
    let (sender, mut receiver) = channel();
    let lifecycle = scene.lifecycle.clone();
    let umount = tokio::spawn(async move { lifecycle.umount(None, &sender).await });
    assert_eq!(scene.run.await.unwrap(), Ok(()));
    let answer = timeout(Duration::from_secs(20), umount).await;
    assert_eq!(answer.expect("an answer while the kernel is busy").unwrap(), Ok(()));
    assert!(scene.vault.closed.load(SeqCst));
    assert!(receiver.try_recv().is_ok(), "it speaks while it waits");
    drop(kernel);
}

#[tokio::test]
async fn umount_of_a_vault_whose_store_is_gone_says_what_is_missing_and_the_daemon_goes_on() {
    let scene = scene(|vault| vault.offline.store(true, SeqCst));
    let (sender, mut receiver) = channel();
    let failure = scene.lifecycle.umount(None, &sender).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unsent);
    assert!(failure.message.contains("goes on trying"), "{failure}");
    assert!(matches!(receiver.recv().await, Some(ControlReply::Progress(_))));
    assert!(!scene.run.is_finished());
    // Asked again, it waits again, and succeeds when the store is back.
    scene.vault.offline.store(false, SeqCst);
    scene.vault.sent.notify_waiters();
    assert_eq!(scene.lifecycle.umount(None, &sender).await, Ok(()));
}

#[tokio::test]
async fn sync_waits_and_fails_when_stuck() {
    let scene = scene(|_| ());
    let (sender, _receiver) = channel();
    assert_eq!(ControlHandler::sync(&*scene.lifecycle, &sender).await, Ok(()));
    scene.vault.unsent.store(9, SeqCst);
    scene.vault.offline.store(true, SeqCst);
    let failure = ControlHandler::sync(&*scene.lifecycle, &sender).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unsent);
    assert!(failure.message.contains("9 B"), "{failure}");
    // A link on which data moves is waited for, even if the last attempt failed.
    scene.vault.moves.store(1, SeqCst);
    let sync = ControlHandler::sync(&*scene.lifecycle, &sender);
    tokio::pin!(sync);
    assert!(timeout(Duration::from_millis(600), &mut sync).await.is_err());
    scene.vault.moves.store(0, SeqCst);
    assert_eq!(sync.await.unwrap_err().exit, Exit::Unsent);
}

#[tokio::test]
async fn a_first_signal_does_not_interrupt_the_release() {
    let scene = scene(|_| ());
    scene.vault.unmounted.send_replace(true);
    tokio::time::sleep(Duration::from_millis(35)).await; // in the middle of closing
    scene.signals.send("SIGTERM").await.unwrap();
    assert_eq!(scene.run.await.unwrap(), Ok(()));
    assert!(scene.vault.closed.load(SeqCst));
}

#[tokio::test]
async fn a_release_that_a_last_write_delays_is_tried_again_and_a_failed_one_is_said() {
    let scene_of = |fails: &[Exit]| scene(|vault| *vault.close_fails.lock() = fails.to_vec());
    let waits = scene_of(&[Exit::Unsent, Exit::Unsent]);
    waits.vault.unmounted.send_replace(true);
    assert_eq!(waits.run.await.unwrap(), Ok(()));
    let fails = scene_of(&[Exit::Unreachable]);
    fails.vault.unmounted.send_replace(true);
    let failure = fails.run.await.unwrap().unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.contains("everything is in the bucket"), "{failure}");
}
