//! A daemon that was started for one command: who joins it, and when it ends.

use super::*;

/// A daemon that was started for a command, and the command.
struct ForCommand {
    vault: Arc<FakeVault>,
    lifecycle: Arc<Lifecycle>,
    command: mpsc::Sender<()>,
    _signals: mpsc::Sender<&'static str>,
    run: tokio::task::JoinHandle<CliResult>,
}

fn for_command(prepare: impl FnOnce(&FakeVault)) -> ForCommand {
    let vault = Arc::new(FakeVault::default());
    vault.serves_only.store(true, SeqCst);
    prepare(&vault);
    let lifecycle = Lifecycle::new(vault.clone(), LIMITS);
    let (signals, receiver) = mpsc::channel(1);
    let (command, front) = mpsc::channel(1);
    let run = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { lifecycle.run(receiver, Some(front), &FrontSender::silent()).await }
    });
    ForCommand { vault, lifecycle, command, _signals: signals, run }
}

async fn mount(lifecycle: &Lifecycle) -> CliResult {
    ControlHandler::mount(lifecycle, Path::new("/m"), &MountLook::default()).await
}

#[tokio::test]
async fn what_joins_a_commands_daemon_lives_on_when_the_command_ends_or_is_killed() {
    for (is_mounted, is_killed) in [(true, false), (true, true), (false, false), (false, true)] {
        let ForCommand { vault, lifecycle, command, _signals, run } = for_command(|_| ());
        let place = lifecycle.files().unwrap();
        vault.unsent.store(7, SeqCst);
        let joined = match is_mounted {
            true => mount(&lifecycle).await,
            false => lifecycle.serve(service()).await,
        };
        assert_eq!(joined, Ok(()));
        drop(place);
        let (sender, _receiver) = channel();
        if !is_killed {
            assert_eq!(lifecycle.leave(&sender).await, Ok(()));
            assert_eq!(vault.unsent.load(SeqCst), 0, "everything is in the bucket");
        }
        drop(command);
        // Long enough for one that would end.
        assert!(timeout(Duration::from_millis(300), vault.ended()).await.is_err());
        let state = if is_mounted { State::Mounted } else { State::Serving };
        assert_eq!(lifecycle.report().state, state);
        // It accepts others, and ends like any other.
        drop(lifecycle.files().unwrap());
        assert_eq!(lifecycle.unserve(&sender).await.is_ok(), !is_mounted);
        if is_mounted {
            assert_eq!(lifecycle.umount(None, &sender).await, Ok(()));
        }
        assert_eq!(run.await.unwrap(), Ok(()));
        assert!(vault.closed.load(SeqCst));
    }
}

#[tokio::test]
async fn who_mounts_while_the_last_command_leaves_is_waited_for() {
    for is_killed in [false, true] {
        let (kernel, waits) = tokio::sync::oneshot::channel();
        let ForCommand { vault, lifecycle, command, _signals, run } =
            for_command(|vault| *vault.kernel.lock() = Some(waits));
        let place = lifecycle.files().unwrap();
        let mounting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { mount(&lifecycle).await }
        });
        while vault.kernel.lock().is_some() {
            tokio::task::yield_now().await;
        }
        drop(place);
        let (sender, mut receiver) = channel();
        let mut leaving = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move {
                match is_killed {
                    true => {
                        drop(command);
                        Ok(())
                    }
                    false => lifecycle.leave(&sender).await,
                }
            }
        });
        if is_killed {
            assert_eq!((&mut leaving).await.unwrap(), Ok(()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        } else {
            assert!(matches!(receiver.recv().await, Some(ControlReply::Progress(_))));
        }
        assert!(vault.calls.lock().is_empty());
        drop(kernel);
        assert_eq!(mounting.await.unwrap(), Ok(()));
        if !is_killed {
            assert_eq!(leaving.await.unwrap(), Ok(()));
        }
        assert!(timeout(Duration::from_millis(50), vault.ended()).await.is_err());
        assert_eq!(lifecycle.report().state, State::Mounted);
        let (sender, _receiver) = channel();
        assert_eq!(lifecycle.umount(None, &sender).await, Ok(()));
        assert_eq!(run.await.unwrap(), Ok(()));
    }
}

/// A mount in the foreground ends with its front process, whatever joined it.
#[tokio::test]
async fn a_mount_in_the_foreground_ends_with_its_front_process() {
    let vault = Arc::new(FakeVault::default());
    let lifecycle = Lifecycle::new(vault.clone(), LIMITS);
    let (_signals, receiver) = mpsc::channel(1);
    let (command, front) = mpsc::channel(1);
    let _place = lifecycle.files().unwrap();
    assert_eq!(lifecycle.serve(service()).await, Ok(()));
    drop(command);
    assert_eq!(lifecycle.run(receiver, Some(front), &FrontSender::silent()).await, Ok(()));
    assert_eq!(*vault.calls.lock(), ["serve", "unmount", "unserve"]);
}

#[tokio::test]
async fn a_commands_daemon_takes_nobody_whom_it_would_cut_off() {
    let (kernel, inodes) = std::sync::mpsc::channel();
    let ForCommand { vault, lifecycle, command, _signals, run } =
        for_command(|vault| *vault.inodes.lock() = Some(inodes));
    let first = lifecycle.files().unwrap();
    drop(command);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The command was killed, but others use the daemon.
    let second = lifecycle.files().unwrap();
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(vault.calls.lock().is_empty());
    drop(second);
    let left = || vault.calls.lock().contains(&"unmount");
    timeout(Duration::from_secs(20), async {
        while !left() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    // It is leaving: not yet finishing, but no longer open to anybody new.
    assert_ne!(lifecycle.report().state, State::Finishing);
    assert_eq!(lifecycle.files().err().unwrap().exit, Exit::MountedAlready);
    assert_eq!(lifecycle.serve(service()).await.unwrap_err().exit, Exit::MountedAlready);
    drop(kernel);
    assert_eq!(run.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_commands_daemon_that_goes_on_after_all_takes_others() {
    let scene = scene(|vault| {
        vault.serves_only.store(true, SeqCst);
        vault.busy.store(true, SeqCst);
    });
    let (sender, _receiver) = channel();
    assert_eq!(scene.lifecycle.leave(&sender).await.unwrap_err().exit, Exit::Busy);
    drop(scene.lifecycle.files().unwrap());
    scene.vault.busy.store(false, SeqCst);
    assert_eq!(scene.lifecycle.leave(&sender).await, Ok(()));
}
