//! The front process's side: starts the daemon and listens to it until it is usable, or with `--foreground` until it
//! ends.

use std::fs::OpenOptions;
use std::io::{self, Cursor, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Chain, Lines};
use tokio::net::unix::pipe;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::timeout;

use super::environment;
use super::front_link::SECRET_VARIABLES;
use super::logfile;
use super::spec::{DaemonMessage, Spec};
use crate::cli::args::AttendArgs;
use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::progress::UploadBar;
use crate::os::{self, Signal, make_private};

/// The daemon's messages: what was read before this process image took over, then the rest of the pipe.
type Messages = BufReader<Chain<Cursor<Vec<u8>>, pipe::Receiver>>;

/// How long a signal that has just arrived may take to be noticed.
const HEARD: Duration = Duration::from_millis(20);

/// A daemon that this process started.
pub(crate) struct LaunchedDaemon {
    /// A child that nobody has waited for yet, so its pid cannot be reused.
    daemon: u32,
    messages: Lines<Messages>,
    /// While this is open, the daemon knows that somebody waits for it. `None`: the descriptor was inherited open.
    stdin: Option<ChildStdin>,
    /// SIGINT and SIGTERM, if they are to be passed on to the daemon.
    signals: Option<Signals>,
    /// The last failure that the daemon reported.
    failure: Option<Failure>,
    log: String,
}

impl LaunchedDaemon {
    /// Starts this program again as a daemon, and tells it what to do. Must be called inside a runtime.
    pub(crate) fn start(spec: &Spec) -> CliResult<Self> {
        // From the start, so that no signal ends this process before it knows how the daemon ended.
        let signals = if spec.foreground { Some(hear_signals()?) } else { None };
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
        let messages = listen(Vec::new(), output.into()).map_err(failed)?;
        let (stdin, log) = (Some(stdin), log.display().to_string());
        Ok(Self { daemon: child.id(), messages, stdin, signals, failure: None, log })
    }

    /// The process that [`LaunchedDaemon::stay`] turns into.
    pub(crate) async fn attend(args: &AttendArgs) -> CliResult {
        let failed = |error| Failure::io("the daemon cannot be waited for", &error);
        let signals = Some(hear_signals()?);
        os::hold_signals(false);
        let messages = os::take_stdin().map_err(failed)?;
        let messages = listen(args.begun.clone().into(), messages.into()).map_err(failed)?;
        let (daemon, log) = (args.daemon, args.log.clone());
        let mut attended = Self { daemon, messages, stdin: None, signals, failure: None, log };
        attended.wait(&args.name).await
    }

    /// Waits until the mount or service is usable. If this process ends while it waits, the daemon ends, too.
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

    /// Lets the daemon go: from here on it lives on its own.
    pub(crate) fn release(self) {
        drop(self.stdin);
    }

    /// Stays until the daemon ends, as a freshly executed program that never held a secret. This process has had the
    /// passphrase, the master key and the store's credentials in its memory and environment, and a mount can last for
    /// months.
    pub(crate) async fn stay(mut self, name: &str) -> CliResult {
        os::hold_signals(true);
        // A signal that came before is handled here; a later one is handled by the new program.
        while let Ok(signal) = timeout(HEARD, next_signal(&mut self.signals)).await {
            self.forward(signal);
        }
        let error = self.become_attendant(name);
        // No harm is done.
        tracing::debug!(%error, "this process stays what it is");
        os::hold_signals(false);
        self.wait(name).await
    }

    /// Executes the new program. Returns only on failure.
    fn become_attendant(&mut self, name: &str) -> io::Error {
        // Only whole lines were taken so far, so the buffer holds what was read ahead.
        let reader = self.messages.get_ref();
        let (ahead, pipe) = reader.get_ref().get_ref();
        let mut begun = reader.buffer().to_vec();
        begun.extend_from_slice(
            ahead.get_ref().get(ahead.position() as usize..).unwrap_or_default(),
        );
        let begun = match String::from_utf8(begun) {
            Ok(begun) => begun,
            Err(error) => return io::Error::other(error),
        };
        let ready = os::put_stdin(pipe);
        let Some(stdin) = &self.stdin else { return io::ErrorKind::NotFound.into() };
        if let Err(error) = ready.and_then(|()| os::leave_open(stdin)) {
            return error;
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0("s3vault").args(["attend", &self.daemon.to_string(), &self.log, name, &begun]);
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        command.exec()
    }

    async fn wait(&mut self, name: &str) -> CliResult {
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

    /// Passes a signal on to the daemon.
    fn forward(&self, signal: Signal) {
        os::signal_child(self.daemon, signal);
    }

    /// The daemon's next message. Signals that come meanwhile are passed on to the daemon.
    async fn next_message(&mut self) -> Option<DaemonMessage> {
        loop {
            let (messages, signals) = (&mut self.messages, &mut self.signals);
            tokio::select! {
                // A daemon sends only messages, so any other line counts as the end, like end of file.
                line = messages.next_line() => return serde_json::from_str(&line.ok()??).ok(),
                signal = next_signal(signals) => self.forward(signal),
            }
        }
    }

    /// The daemon closed its end of the pipe. Finds out how it ended.
    fn over(&mut self) -> Failure {
        let status = match os::wait_for_child(self.daemon) {
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

type Signals = (unix::Signal, unix::Signal);

fn hear_signals() -> CliResult<Signals> {
    let heard =
        |kind| signal(kind).map_err(|error| Failure::io("signals cannot be listened for", &error));
    Ok((heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?))
}

/// The next SIGINT or SIGTERM, if they are listened for; otherwise never returns.
async fn next_signal(signals: &mut Option<Signals>) -> Signal {
    match signals {
        Some((interrupt, terminate)) => tokio::select! {
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
        },
        None => std::future::pending().await,
    }
}

fn listen(begun: Vec<u8>, rest: OwnedFd) -> io::Result<Lines<Messages>> {
    let rest = pipe::Receiver::from_owned_fd(rest)?;
    Ok(BufReader::new(Cursor::new(begun).chain(rest)).lines())
}
