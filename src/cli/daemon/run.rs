//! The daemon: opens the vault of its spec, mounts or serves it, and lives until that ends.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::front_link::{self, FrontLink, FrontSender};
use super::lifecycle::{EndLimits, HostedVault, Lifecycle};
use super::logfile::{self, LogFile};
use super::malloc;
use super::spec::{DaemonMessage, Spec};
use super::vault_host::VaultHost;
use crate::cli::control::{self, ControlHandler};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::last;
use crate::cli::past_dir;
use crate::os::{ServiceManager, blocking, gain_no_privileges, is_dead_mount, restarted, watched};
use crate::vault::MasterKey;

/// Threads for work that waits for the disk or the CPU (fsync, sealing): more would not make it faster.
const BLOCKING_THREADS: usize = 16;
/// Bytes of stack per thread: twice what tokio needs, a quarter of the system's default.
const STACK: usize = 2 << 20;
/// How long clients have to take their last reply: longer than the socket waits for a client that does not read.
const LAST_WORD: Duration = Duration::from_secs(30);

/// The hidden command `daemon`.
pub(crate) fn main() -> Exit {
    let FrontLink { mut spec, to_front, front } = match front_link::become_daemon() {
        Ok(link) => link,
        Err(error) => {
            complain!("s3vault: this command is for `s3vault mount` and `serve` to call: {error}");
            return Exit::Usage;
        }
    };
    gain_no_privileges(spec.mountpoint.is_some());
    let usable = Cell::new(false);
    let key = spec.take_key();
    let outcome = begin(&spec, key, &to_front, front, &usable);
    let exit = outcome.as_ref().map_or_else(|failure| failure.exit, |()| Exit::Done);
    if let Err(failure) = &outcome {
        tracing::error!(causes = ?failure.causes, "{failure}");
    }
    // The directory of a past state holds nothing worth keeping, except the log of a failure when nobody listened any
    // more.
    if spec.at.is_some() {
        let leave =
            if usable.get() && exit != Exit::Done { past_dir::keep_log } else { past_dir::remove };
        leave(&spec.dir);
    }
    to_front.say(&DaemonMessage::Ended(outcome.err()));
    exit
}

/// Tells the service manager that the mount answers, for as long as it does. Trouble with the store does not count.
async fn still_alive(manager: Arc<ServiceManager>, lifecycle: Arc<Lifecycle>) {
    let Some(period) = manager.watchdog() else { return };
    loop {
        let lifecycle = lifecycle.clone();
        let look = blocking(move || {
            let mountpoint = lifecycle.report().mountpoint;
            mountpoint.is_empty() || !is_dead_mount(Path::new(&mountpoint))
        });
        // A mount that hangs is not waited for longer than the watchdog period.
        if let Ok(Ok(true)) = tokio::time::timeout(period, look).await {
            manager.alive();
        }
        tokio::time::sleep(period / 3).await;
    }
}

/// `usable` becomes true when the front process has been told so.
fn begin(
    spec: &Spec,
    key: Option<MasterKey>,
    to_front: &FrontSender,
    front: front_link::Presence,
    usable: &Cell<bool>,
) -> CliResult {
    let log = LogFile::open(&spec.dir.join(logfile::NAME))
        .map_err(|error| Failure::io("the log cannot be written", &error))?;
    logfile::start(log, spec.verbose, spec.log_json);
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "starting");
    let pressed = malloc::keep_within(spec.memory)
        .map_err(|error| Failure::io("no thread could be started", &error))?;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("no runtime could be started", &error))?;
    let outcome = runtime.block_on(watched(
        "the daemon's life",
        run(spec, key, (to_front, front), usable, &pressed),
    ));
    // What still runs (a request that waits for the store) holds nothing that matters.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome.unwrap_or_else(|panicked| {
        let text = format!("{panicked}; what was acknowledged is on this disk: mount again");
        Err(Failure::new(Exit::Other, text))
    })
}

/// The daemon's work, from the spec to the end.
async fn run(
    spec: &Spec,
    key: Option<MasterKey>,
    (to_front, mut front): (&FrontSender, front_link::Presence),
    usable: &Cell<bool>,
    pressed: &malloc::Pressed,
) -> CliResult {
    let mut signals = front_link::signals()
        .map_err(|error| Failure::io("signals cannot be listened for", &error))?;
    let vault = tokio::select! {
        vault = VaultHost::open(spec, key) => vault?,
        Some(signal) = signals.recv() => {
            return Err(Failure::new(Exit::Forced, format!("ended by {signal} before it was usable; nothing was changed")));
        }
        None = front.recv() => {
            return Err(Failure::new(Exit::Forced, "given up before it was usable; nothing was changed"));
        }
    };
    let vault = Arc::new(vault);
    vault.gives_way(pressed);
    let lifecycle = Lifecycle::new(vault.clone(), EndLimits::usual(spec.stop_timeout));
    let control = control::listen(&spec.dir).and_then(|listener| {
        let noted = vault.running()?.note(&spec.data.join("running"))?;
        Ok((listener, noted))
    });
    let (listener, noted) = match control {
        Ok(control) => control,
        Err(error) => {
            drop(vault.detach());
            return Err(Failure::io(
                format_args!("no control socket in {}", spec.dir.display()),
                &error,
            ));
        }
    };
    let clients = control::Clients::default();
    tokio::spawn(control::serve(listener, lifecycle.clone(), clients.clone()));
    tracing::info!("{}", if spec.mountpoint.is_some() { "mounted" } else { "serving" });
    to_front.ready(lifecycle.report());
    if let Some(manager) = to_front.manager() {
        let (manager, lifecycle) = (manager.clone(), lifecycle.clone());
        tokio::spawn(restarted("telling the service manager", move || {
            still_alive(manager.clone(), lifecycle.clone())
        }));
    }
    let writer = vault.running().ok().filter(|running| !running.read_only && !running.past);
    if let Some(Err(error)) = writer.as_ref().map(last::begins) {
        tracing::warn!(%error, "that it writes is not noted");
    }
    usable.set(true);
    let outcome = lifecycle.run(signals, spec.foreground.then_some(front), to_front).await;
    if let Ok(running) = vault.running()
        && let Err(error) = last::keep(&running, &outcome)
    {
        tracing::warn!(%error, "how it ended is not kept");
    }
    if writer.is_some()
        && outcome.is_ok()
        && let Err(error) = last::ends_well(&spec.dir)
    {
        tracing::warn!(%error, "the note that it writes is not removed");
    }
    drop(noted);
    drop(tokio::time::timeout(LAST_WORD, clients.served()).await);
    drop(std::fs::remove_file(spec.dir.join(control::SOCKET)));
    tracing::info!("the end");
    outcome
}
