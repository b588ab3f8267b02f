//! What makes a process a daemon: session, descriptors, limits, environment.

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

/// How much more time is asked for, again and again, while what is left gets ahead.
const MORE_TIME: Duration = Duration::from_secs(60);
/// What the front process takes out of the daemon's environment.
pub(crate) const SECRET_VARIABLES: [&str; 4] = [
    "S3VAULT_PASSPHRASE",
    "AWS_SECRET_ACCESS_KEY",
    "SECRET_ACCESS_KEY", // the SDK takes it in the place of the one before
    "AWS_SESSION_TOKEN",
];

/// The daemon's end of its link with the front process.
pub(crate) struct FrontLink {
    /// What to do.
    pub spec: Spec,
    /// What the front process hears.
    pub to_front: FrontSender,
    /// Whether it is there.
    pub front: Presence,
}

/// Closes when the front process is gone; brings nothing before that.
pub(crate) type Presence = mpsc::Receiver<()>;

/// Speaks to the front process while it listens. Never waits for it.
#[derive(Clone, Debug)]
pub(crate) struct FrontSender {
    pipe: Arc<File>,
    /// Who else wants to hear it.
    manager: Option<Arc<ServiceManager>>,
}

impl FrontSender {
    /// Sends one message; it is lost if the pipe is full or closed.
    pub(crate) fn say(&self, message: &DaemonMessage) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        // One write: up to 4096 bytes go whole or not at all, and a longer one (`Ready`)
        // finds the pipe empty.
        drop((&*self.pipe).write(&line));
    }

    /// It is usable.
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

    /// It ends, as soon as what is left is in the bucket.
    pub(crate) fn ending(&self) {
        if let Some(manager) = &self.manager {
            manager.stopping("sending what is not in the bucket yet");
        }
    }

    /// How far it is at its end. As long as that gets ahead, it may take more time.
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

    /// Speaks to nobody.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        let pipe = Arc::new(File::options().write(true).open("/dev/null").unwrap());
        Self { pipe, manager: None }
    }

    /// Says a line for people, and logs it.
    pub(crate) fn tell(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.say(&DaemonMessage::Said(text));
    }
}

/// Becomes a daemon. Called at once, while there is one thread: standard input brings the
/// spec, standard output takes messages, standard error is the log already.
pub(crate) fn become_daemon() -> io::Result<FrontLink> {
    os::tune_malloc();
    os::become_daemon()?;
    let (mut input, output) = (os::take_stdin()?, os::take_stdout()?);
    let spec = Spec::receive(&mut input)?;
    let manager = ServiceManager::of_environment().map(Arc::new);
    let to_front = FrontSender { pipe: Arc::new(output), manager };
    Ok(FrontLink { spec, to_front, front: watch(input)? })
}

/// The channel closes when the front process's end of the pipe does. A thread of its own:
/// it sleeps in read(2) for as long as the front process lives.
fn watch(mut input: impl Read + Send + 'static) -> io::Result<Presence> {
    let (alive, front) = mpsc::channel(1);
    std::thread::Builder::new().name("front".into()).stack_size(64 << 10).spawn(move || {
        let mut byte = [0];
        while input.read(&mut byte).is_ok_and(|count| count > 0) {}
        drop(alive);
    })?;
    Ok(front)
}

/// SIGINT and SIGTERM, as they come. At least two fit, the second of which counts.
pub(crate) fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let (sender, receiver) = mpsc::channel(4);
    for (kind, name) in [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM")]
    {
        let mut signal = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut hear = async || {
                while signal.recv().await.is_some() {
                    // Full: more than two are waiting, which is as good as any number.
                    let _ = sender.try_send(name);
                }
            };
            // Nobody else would hear the next signal.
            while os::watched("hearing signals", hear()).await.is_err() {}
        });
    }
    Ok(receiver)
}
