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
use super::logfile;
use super::process::SECRET_VARIABLES;
use super::spec::{Spec, Word};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::progress::Meter;
use crate::cli::report::Report;
use crate::os::{self, Signal, make_private};

/// A daemon that was started.
pub(crate) struct Front {
    child: Child,
    words: Lines<BufReader<pipe::Receiver>>,
    /// While it is open the daemon knows that somebody waits for it.
    leash: ChildStdin,
    /// SIGINT and SIGTERM, when they are the daemon's.
    signals: Option<(unix::Signal, unix::Signal)>,
    /// The last failure that the daemon told.
    failure: Option<Failure>,
    log: String,
}

impl Front {
    /// Starts this program anew as a daemon, and tells it what to do. Inside a runtime.
    pub(crate) fn start(spec: &Spec) -> Outcome<Self> {
        // Heard from the beginning, so that none ends this process without the daemon's word.
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
        let (Some(mut leash), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("no pipes")));
        };
        spec.send(&mut leash).map_err(failed)?;
        leash.flush().map_err(failed)?;
        let words = pipe::Receiver::from_owned_fd(OwnedFd::from(output)).map_err(failed)?;
        let words = BufReader::new(words).lines();
        Ok(Self { child, words, leash, signals, failure: None, log: log.display().to_string() })
    }

    /// Waits until the mount or the service is usable. While this waits, the end of this process is the
    /// end of the daemon, too.
    pub(crate) async fn ready(&mut self) -> Outcome<Report> {
        loop {
            match self.word().await {
                Some(Word::Ready(report)) => return Ok(*report),
                Some(Word::Said(text)) => complain!("{text}"),
                Some(Word::Progress(_)) => {}
                Some(Word::Ended(failure)) => self.failure = failure,
                None => return Err(self.over()),
            }
        }
    }

    /// Lets the daemon go: from here on it lives by itself.
    pub(crate) fn release(self) {
        drop(self.leash);
    }

    /// Stays until the daemon is over.
    pub(crate) async fn stay(&mut self, name: &str) -> Outcome {
        let mut meter = None;
        while let Some(word) = self.word().await {
            match word {
                Word::Progress(progress) => {
                    let new = || Meter::new(name);
                    meter.get_or_insert_with(new).show(&progress);
                }
                Word::Said(text) => match &meter {
                    Some(meter) => meter.say(&text),
                    None => complain!("{text}"),
                },
                Word::Ready(_) => {}
                Word::Ended(failure) => self.failure = failure,
            }
        }
        drop(meter);
        let failure = self.over();
        if failure.exit == Exit::Done { Ok(()) } else { Err(failure) }
    }

    fn forward(&self, signal: Signal) {
        os::signal_child(self.child.id(), signal);
    }

    /// The daemon's next word; signals that come meanwhile are handed on to it.
    async fn word(&mut self) -> Option<Word> {
        loop {
            let (words, signals) = (&mut self.words, &mut self.signals);
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
                // A line that is no word comes from nobody; it ends the talk as an end of file does.
                line = words.next_line() => return serde_json::from_str(&line.ok()??).ok(),
                signal = signalled => self.forward(signal),
            }
        }
    }

    /// The daemon closed its end: how did it end?
    fn over(&mut self) -> Failure {
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return Failure::io("the daemon was lost sight of", &error),
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
