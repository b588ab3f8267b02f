//! Ctrl-C and SIGTERM in a command that waits: the user is told what goes on without it.

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;

/// From here on SIGINT or SIGTERM ends this process: `last` gets the signal's name, says what is left to say, and returns how the
/// process exits. Without a thread for it a signal ends the process at once, as usual.
pub(super) fn on_end_signal(last: impl FnOnce(&str) -> Exit + Send + 'static) {
    // In a thread with a runtime of its own: the command itself may block while it works.
    let heard = std::thread::Builder::new().name("signals".to_owned()).spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        let name = runtime.block_on(async {
            let interrupt = signal(SignalKind::interrupt()).ok()?;
            let terminate = signal(SignalKind::terminate()).ok()?;
            let (mut interrupt, mut terminate) = (interrupt, terminate);
            tokio::select! {
                _ = interrupt.recv() => Some("SIGINT"),
                _ = terminate.recv() => Some("SIGTERM"),
            }
        });
        if let Some(name) = name {
            std::process::exit(i32::from(last(name).code()));
        }
    });
    drop(heard);
}

/// The same for a command that waits until everything is in the bucket, which the daemon goes on with.
pub(super) fn stop_waiting_on_signal(command: &'static str) {
    on_end_signal(move |name| {
        complain!(
            "\ns3vault: {name}: this command waits no longer, but the daemon goes on: what is unsent is sent all the same; `s3vault \
             {command}` waits again, and `s3vault status` shows what is left."
        );
        Exit::Unsent
    });
}
