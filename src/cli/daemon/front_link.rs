//! What makes a process a daemon: session, descriptors, limits, environment.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::spec::{DaemonMessage, Spec};
use crate::os;

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
pub(crate) struct FrontSender(Arc<File>);

impl FrontSender {
    /// Sends one message; it is lost if the pipe is full or closed.
    pub(crate) fn say(&self, message: &DaemonMessage) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        // One write: up to 4096 bytes go whole or not at all, and a longer one (`Ready`)
        // finds the pipe empty.
        drop((&*self.0).write(&line));
    }

    /// Speaks to nobody.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self(Arc::new(File::options().write(true).open("/dev/null").unwrap()))
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
    Ok(FrontLink { spec, to_front: FrontSender(Arc::new(output)), front: watch(input)? })
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
