//! Turns a process into a daemon: session, descriptors, limits, environment; and its link to the front process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::spec::{DaemonMessage, Spec};
use crate::cli::daemon_report::{DaemonReport, describe_progress};
use crate::os::{self, ServiceManager};
use crate::types::Progress;

/// How much more time the daemon asks the service manager for, repeatedly, while uploads make progress.
const MORE_TIME: Duration = Duration::from_secs(60);
/// Variables that the front process removes from the daemon's environment.
pub(crate) const SECRET_VARIABLES: [&str; 4] = [
    "S3VAULT_PASSPHRASE",
    "AWS_SECRET_ACCESS_KEY",
    "SECRET_ACCESS_KEY", // the SDK accepts it instead of the one above
    "AWS_SESSION_TOKEN",
];

/// The daemon's end of its link with the front process.
pub(crate) struct FrontLink {
    /// What the daemon is to do.
    pub spec: Spec,
    /// Messages to the front process.
    pub to_front: FrontSender,
    /// Tells when the front process is gone.
    pub front: Presence,
}

/// Closes when the front process is gone; carries nothing before.
pub(crate) type Presence = mpsc::Receiver<()>;

/// Sends messages to the front process while it listens. Never blocks.
#[derive(Clone, Debug)]
pub(crate) struct FrontSender {
    pipe: Arc<File>,
    /// The service manager, which is told, too.
    manager: Option<Arc<ServiceManager>>,
}

impl FrontSender {
    /// Sends one message; it is lost if the pipe is full or closed.
    pub(crate) fn say(&self, message: &DaemonMessage) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        // One write: up to 4096 bytes are written completely or not at all, and a longer message (`Ready`) finds the
        // pipe empty.
        drop((&*self.pipe).write(&line));
    }

    /// The mount or service is usable.
    pub(crate) fn ready(&self, report: DaemonReport) {
        if let Some(manager) = &self.manager {
            let name = match report.mountpoint.as_str() {
                "" => format!("serving {}", report.bucket),
                path => format!("{} is mounted at {path}", report.bucket),
            };
            manager.ready(&name);
        }
        self.say(&DaemonMessage::Ready(Box::new(report)));
    }

    /// The daemon ends once everything unsent is in the bucket.
    pub(crate) fn ending(&self) {
        if let Some(manager) = &self.manager {
            manager.stopping("sending what is not in the bucket yet");
        }
    }

    /// Reports the progress of the end. While uploads are not stuck, asks the service manager for more time.
    pub(crate) fn sending(&self, progress: &Progress, is_stuck: bool) {
        if let Some(manager) = self.manager.as_ref().filter(|_| !is_stuck) {
            manager.extend(MORE_TIME, &describe_progress(progress));
        }
        self.say(&DaemonMessage::Progress(progress.clone()));
    }

    /// The service manager, if there is one.
    pub(crate) fn manager(&self) -> Option<&Arc<ServiceManager>> {
        self.manager.as_ref()
    }

    /// A sender without a listener.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        let pipe = Arc::new(File::options().write(true).open("/dev/null").unwrap());
        Self { pipe, manager: None }
    }

    /// Sends a line for the user, and logs it.
    pub(crate) fn tell(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.say(&DaemonMessage::Said(text));
    }
}

/// Becomes a daemon. Must be called first, while there is one thread. Standard input brings the spec, standard output
/// takes messages, standard error is the log already.
pub(crate) fn become_daemon() -> io::Result<FrontLink> {
    os::tune_malloc();
    os::become_daemon()?;
    let (mut input, output) = (os::take_stdin()?, os::take_stdout()?);
    let spec = Spec::receive(&mut input)?;
    let manager = ServiceManager::of_environment().map(Arc::new);
    let to_front = FrontSender { pipe: Arc::new(output), manager };
    Ok(FrontLink { spec, to_front, front: watch(input)? })
}

/// The channel closes when the front process's end of the pipe does. This needs a thread of its own, which sleeps in
/// read(2) for as long as the front process lives.
fn watch(mut input: impl Read + Send + 'static) -> io::Result<Presence> {
    let (alive, front) = mpsc::channel(1);
    std::thread::Builder::new().name("front".into()).stack_size(64 << 10).spawn(move || {
        let mut byte = [0];
        while input.read(&mut byte).is_ok_and(|count| count > 0) {}
        drop(alive);
    })?;
    Ok(front)
}

/// SIGINT and SIGTERM as they come. The queue has room for two at least, since the second one counts.
pub(crate) fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let (sender, receiver) = mpsc::channel(4);
    for (kind, name) in [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM")]
    {
        let mut signal = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut hear = async || {
                while signal.recv().await.is_some() {
                    // A full queue has more than two, which is as good as any number.
                    let _ = sender.try_send(name);
                }
            };
            // The task must not end, or nobody would notice the next signal.
            while os::watched("hearing signals", hear()).await.is_err() {}
        });
    }
    Ok(receiver)
}
