//! The front process's side: starts the daemon, and listens until it is usable, or,
//! with `--foreground`, until it is over.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::signal::unix::{self, SignalKind, signal};

use super::environment;
use super::front_link::SECRET_VARIABLES;
use super::logfile;
use super::spec::{DaemonMessage, Spec};
use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::progress::UploadBar;
use crate::os::{self, Signal, make_private};

/// A daemon that was started.
pub(crate) struct LaunchedDaemon {
    child: Child,
    messages: Lines<BufReader<pipe::Receiver>>,
    /// While it is open the daemon knows that somebody waits for it.
    stdin: ChildStdin,
    /// SIGINT and SIGTERM, when they are the daemon's.
    signals: Option<(unix::Signal, unix::Signal)>,
    /// The last failure that the daemon told.
    failure: Option<Failure>,
    log: String,
}

impl LaunchedDaemon {
    /// Starts this program anew as a daemon, and tells it what to do. Inside a runtime.
    pub(crate) fn start(spec: &Spec) -> CliResult<Self> {
        // From the beginning, so that no signal ends this process before it heard how the daemon ended.
        let heard = |kind| {
            signal(kind).map_err(|error| Failure::io("signals cannot be listened for", &error))
        };
        let signals = match spec.foreground {
            true => Some((heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?)),
            false => None,
        };
        let log = spec.dir.join(logfile::NAME);
        let failed = |error| Failure::io("the daemon cannot be started", &error);
        make_private(&spec.dir).map_err(|error| {
            Failure::io(format_args!("{} cannot be made", spec.dir.display()), &error)
        })?;
        let errors = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
        let errors = errors.map_err(|error| {
            Failure::io(format_args!("{} cannot be written", log.display()), &error)
        })?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("s3vault").arg("daemon").arg(spec.shown());
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        environment::with_absolute_paths(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(mut stdin), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("no pipes")));
        };
        spec.send(&mut stdin).map_err(failed)?;
        stdin.flush().map_err(failed)?;
        let messages = pipe::Receiver::from_owned_fd(OwnedFd::from(output)).map_err(failed)?;
        let messages = BufReader::new(messages).lines();
        Ok(Self { child, messages, stdin, signals, failure: None, log: log.display().to_string() })
    }

    /// Waits until the mount or the service is usable. While this waits, the end of this process is the
    /// end of the daemon, too.
    pub(crate) async fn ready(&mut self) -> CliResult<DaemonReport> {
        loop {
            match self.next_message().await {
                Some(DaemonMessage::Ready(report)) => return Ok(*report),
                Some(DaemonMessage::Said(text)) => complain!("{text}"),
                Some(DaemonMessage::Progress(_)) => {}
                Some(DaemonMessage::Ended(failure)) => self.failure = failure,
                None => return Err(self.over()),
            }
        }
    }

    /// Lets the daemon go: from here on it lives by itself.
    pub(crate) fn release(self) {
        drop(self.stdin);
    }

    /// Stays until the daemon is over.
    pub(crate) async fn stay(&mut self, name: &str) -> CliResult {
        let mut bar = None;
        while let Some(message) = self.next_message().await {
            match message {
                DaemonMessage::Progress(progress) => {
                    let new = || UploadBar::new(name);
                    bar.get_or_insert_with(new).show(&progress);
                }
                DaemonMessage::Said(text) => match &bar {
                    Some(bar) => bar.say(&text),
                    None => complain!("{text}"),
                },
                DaemonMessage::Ready(_) => {}
                DaemonMessage::Ended(failure) => self.failure = failure,
            }
        }
        drop(bar);
        let failure = self.over();
        if failure.exit == Exit::Done { Ok(()) } else { Err(failure) }
    }

    /// Passes a signal on to the daemon. Nobody waited for that child yet, so its number is no other process's.
    fn forward(&self, signal: Signal) {
        os::signal_child(self.child.id(), signal);
    }

    /// The daemon's next message; signals that come meanwhile are passed on to it.
    async fn next_message(&mut self) -> Option<DaemonMessage> {
        loop {
            let (messages, signals) = (&mut self.messages, &mut self.signals);
            let signalled = async {
                match signals {
                    Some((interrupt, terminate)) => tokio::select! {
                        _ = interrupt.recv() => Signal::INT,
                        _ = terminate.recv() => Signal::TERM,
                    },
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // No daemon sends a line that is no message: such a line counts as the end, as an end of file does.
                line = messages.next_line() => return serde_json::from_str(&line.ok()??).ok(),
                signal = signalled => self.forward(signal),
            }
        }
    }

    /// The daemon closed its end: how did it end?
    fn over(&mut self) -> Failure {
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return Failure::io("how the daemon ended cannot be told", &error),
        };
        match (self.failure.take(), status.code()) {
            (Some(failure), _) => failure,
            (None, Some(0)) => Failure::new(Exit::Done, "it is over"),
            (None, code) => {
                let text = format!(
                    "the daemon ended ({status}); whether everything is in the bucket is not known; what is not stays on \
                     this disk; see its log, {}",
                    self.log
                );
                Failure::new(code.map_or(Exit::Other, Exit::from_code), text)
            }
        }
    }
}
