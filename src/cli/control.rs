//! The daemon's socket, `<state dir>/<vault id>/control.sock`: one JSON object a line,
//! a request and then replies until one that ends it. Only this user (and root) is heard.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use zeroize::Zeroizing;

use super::daemon::spec::Credentials;
use super::daemon_report::DaemonReport;
use super::exit::{CliResult, Exit, Failure};
use super::keys::KeysAsked;
use super::limits::LimitWords;
use super::mount_look::MountLook;
use super::old_states::OldStates;
use crate::gateway::ServeOptions;
use crate::os;
use crate::types::{Progress, StateAt, path_text};

/// The socket's name in the vault's state directory.
pub(super) const SOCKET: &str = "control.sock";
/// A request is one short line, with a few paths in it at most; more is not ours.
const REQUEST_MAX: u64 = 32 << 10;
/// For a whole request, so that none is copied while it grows.
const ROOM: usize = 33 << 10;
/// A reply is one line; a report lists a bounded number of things.
const REPLY_MAX: u64 = 1 << 20;
/// How long a client may take to ask, and to take a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients served at once; more wait in the socket's backlog.
const CLIENTS: usize = 16;
/// Replies on their way to one client; progress waits behind them.
const REPLIES: usize = 4;
/// How long a client waits for the daemon's next reply. What may take longer sends its progress about once a second (it
/// is up to each method of [`ControlHandler`]), so this long a silence means that the daemon hangs.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(super) enum ControlRequest {
    /// How things are: one report.
    Status,
    /// Wait until everything written so far is in the bucket.
    Sync,
    /// Unmount, stop the service, finish the uploads, release, end.
    Umount {
        /// How long the client waits for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<Duration>,
    },
    /// The command that this daemon was started for is done: end as with `Umount`, when nobody else uses it. If it was
    /// mounted or served meanwhile it lives on, and this waits as `Sync` does.
    Leave,
    /// Mount as well: the daemon only serves so far.
    Mount {
        /// An empty directory.
        #[serde(with = "path_text")]
        mountpoint: PathBuf,
        /// How it looks.
        #[serde(default)]
        look: MountLook,
    },
    /// Serve by HTTP as well.
    Serve(ServeOptions),
    /// Stop the service; without a mount, end as with `Umount`.
    Unserve,
    /// The versions of a path.
    History {
        /// From the root of the mount.
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// Bring a path back as it was.
    Restore {
        /// From the root of the mount.
        #[serde(with = "path_text")]
        path: PathBuf,
        /// From which state.
        at: Option<StateAt>,
        /// To where, if not to where it was.
        #[serde(with = "path_text::option")]
        to: Option<PathBuf>,
    },
    /// Bring back what was set aside on this machine.
    Recover(AsideRecovery),
    /// Sign with these from now on.
    Credentials(Credentials),
    /// Ask the store for no more than this from now on.
    Tune(LimitWords),
    /// Deletion, retention, snapshots.
    OldStates(OldStates),
    /// What opens the vault.
    Keys(KeysAsked),
    /// Files: after [`ControlReply::Go`] this connection carries frames (`cli/files`).
    Files {
        /// Permission bits that new files do not get.
        umask: u32,
    },
}

/// What the daemon says. Each variant is a unit, a struct or holds a struct: JSON with a tag inside has no place for a
/// list or a number alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub(super) enum ControlReply {
    /// To `Status`; the last reply.
    Status(Box<DaemonReport>),
    /// What was asked for is under way.
    Progress(Progress),
    /// A line for people.
    Said {
        /// What it says.
        text: String,
    },
    /// To `Files`: the connection is for frames from here on.
    Go,
    /// It is done; the last reply.
    Done,
    /// It could not be done, and why; the last reply.
    Failed(Failure),
}

/// Does what clients ask: the daemon, or what stands for it in a test.
#[async_trait]
pub(super) trait ControlHandler: Send + Sync + 'static {
    /// How things are. Asks nobody and does not block.
    fn report(&self) -> DaemonReport;
    /// Returns when everything written before is in the bucket, or says what is missing.
    async fn sync(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Unmounts, and returns when everything is in the bucket and the vault is released; or, with what is missing,
    /// after `within`.
    async fn umount(
        &self,
        within: Option<Duration>,
        progress: &mpsc::Sender<ControlReply>,
    ) -> CliResult;
    /// Does as `umount` when nobody else uses it; or, when it is mounted or served, as `sync`.
    async fn leave(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Mounts what has no mount so far.
    async fn mount(&self, mountpoint: &Path, look: &MountLook) -> CliResult;
    /// Serves by HTTP, and returns when clients can connect.
    async fn serve(&self, options: ServeOptions) -> CliResult;
    /// Stops serving; what has no mount then ends as with `umount`.
    async fn unserve(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Takes other credentials for the store.
    async fn credentials(&self, given: Credentials) -> CliResult;
    /// Changes the limits that are said.
    async fn tune(&self, said: LimitWords) -> CliResult;
    /// Deletes what is old, changes for how long it is kept, makes and ends snapshots; says what came of it.
    async fn old_states(&self, what: OldStates, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Tells or changes what opens the vault.
    async fn keys(&self, what: KeysAsked, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Tells the versions of a path.
    async fn history(&self, path: &Path, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Brings a path back as it was.
    async fn restore(&self, what: PathRestore, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Lists or brings back what was set aside on this machine.
    async fn recover(&self, what: AsideRecovery, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Whether files may be worked on now; what is returned then is held as long as it goes on.
    fn files(&self) -> CliResult<FilesPlace>;
    /// Does what comes over a connection, until it ends, or the vault does.
    async fn serve_files(&self, stream: UnixStream, umask: u32, place: FilesPlace);
}

/// Held by a connection for files.
pub(super) type FilesPlace = Box<dyn Send + Sync>;

/// What [`ControlRequest::Restore`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathRestore {
    /// From the root of the mount.
    pub path: PathBuf,
    /// From which state.
    pub at: Option<StateAt>,
    /// To where, if not to where it was.
    pub to: Option<PathBuf>,
}

/// What [`ControlRequest::Recover`] asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AsideRecovery {
    /// The directory in which new ones are made, from the root of the mount.
    #[serde(with = "path_text")]
    pub into: PathBuf,
    /// Only list what there is.
    pub lists: bool,
    /// Remove what is set aside once it is in the bucket.
    pub removes: bool,
}

/// Makes the socket (0600), in the place of one that a dead daemon left. The caller holds
/// the vault, so no live daemon listens there.
pub(super) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let handle = std::fs::File::open(dir)?;
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The daemon's umask is 077, so there is no moment in which others could connect; the
    // permissions are set all the same.
    let listener = UnixListener::bind(short(&handle))?;
    std::fs::set_permissions(dir.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A socket's path may be 108 bytes at most; through its directory's descriptor it is short.
fn short(dir: &std::fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// The clients that are being served.
#[derive(Clone)]
pub(super) struct Clients(Arc<Semaphore>);

impl Default for Clients {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CLIENTS)))
    }
}

impl Clients {
    /// Returns when every one of them has its last reply. Nobody new is served after that.
    pub(super) async fn served(&self) {
        if let Ok(all) = self.0.acquire_many(u32::try_from(CLIENTS).unwrap_or(u32::MAX)).await {
            all.forget();
        }
    }
}

/// Serves clients until this is dropped. Nothing ends it before: nobody could ask the daemon anything any more.
pub(super) async fn serve(
    listener: UnixListener,
    handler: Arc<dyn ControlHandler>,
    clients: Clients,
) {
    let begin = || accept(&listener, &handler, &clients);
    os::restarted("answering at the control socket", begin).await;
}

async fn accept(listener: &UnixListener, handler: &Arc<dyn ControlHandler>, clients: &Clients) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // The semaphore is never closed.
                let Ok(place) = clients.0.clone().acquire_owned().await else { return };
                let handler = handler.clone();
                tokio::spawn(async move {
                    // After a panic the stream is closed, and so its client told.
                    let served = os::watched("serving a client", converse(stream, handler)).await;
                    if let Ok(Err(error)) = served {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket did not accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: no spinning
            }
        }
    }
}

async fn converse(mut stream: UnixStream, handler: Arc<dyn ControlHandler>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (own, _) = os::effective_ids();
    if peer != own && peer != 0 {
        tracing::warn!(uid = peer, "another user asked at the control socket; not heard");
        return Ok(());
    }
    let (read, mut write) = stream.split();
    // It may hold a secret: there is one copy of it, and that is wiped.
    let mut line = Zeroizing::new(Vec::with_capacity(ROOM));
    let mut read = read.take(REQUEST_MAX);
    let whole = async {
        while !line.ends_with(b"\n") && read.read_buf(&mut *line).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::time::timeout(PATIENCE, whole).await??;
    let request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => {
            let failure = Failure::new(Exit::Usage, format!("not a request: {error}"));
            return send(&mut write, &ControlReply::Failed(failure)).await;
        }
    };
    drop(line);
    if request == ControlRequest::Status {
        return send(&mut write, &ControlReply::Status(Box::new(handler.report()))).await;
    }
    if let ControlRequest::Files { umask } = request {
        return begin_files(stream, handler, umask).await;
    }
    let (progress, mut replies) = mpsc::channel(REPLIES);
    // A task of its own: what was asked goes on when the client goes away.
    tokio::spawn(async move {
        let work = async {
            match request {
                ControlRequest::Umount { within } => handler.umount(within, &progress).await,
                ControlRequest::Leave => handler.leave(&progress).await,
                ControlRequest::Mount { mountpoint, look } => {
                    handler.mount(&mountpoint, &look).await
                }
                ControlRequest::Serve(options) => handler.serve(options).await,
                ControlRequest::Unserve => handler.unserve(&progress).await,
                ControlRequest::Credentials(given) => handler.credentials(given).await,
                ControlRequest::Tune(said) => handler.tune(said).await,
                ControlRequest::OldStates(what) => handler.old_states(what, &progress).await,
                ControlRequest::Keys(what) => handler.keys(what, &progress).await,
                ControlRequest::History { path } => handler.history(&path, &progress).await,
                ControlRequest::Restore { path, at, to } => {
                    handler.restore(PathRestore { path, at, to }, &progress).await
                }
                ControlRequest::Recover(what) => handler.recover(what, &progress).await,
                ControlRequest::Sync => handler.sync(&progress).await,
                ControlRequest::Status | ControlRequest::Files { .. } => Err(Failure::new(
                    Exit::Other,
                    "this request is answered before a task is begun",
                )),
            }
        };
        let done = os::watched("what a client asked for", work).await;
        let outcome = done.unwrap_or_else(|panicked| {
            Err(Failure::new(Exit::Other, format!("{panicked}; the daemon's log says where")))
        });
        let last = outcome.map_or_else(ControlReply::Failed, |()| ControlReply::Done);
        drop(progress.send(last).await); // fails only when the client is gone
    });
    while let Some(reply) = replies.recv().await {
        send(&mut write, &reply).await?;
    }
    Ok(())
}

/// From here on the connection is for files. It takes no place from those who ask: it may last for hours.
async fn begin_files(
    mut stream: UnixStream,
    handler: Arc<dyn ControlHandler>,
    umask: u32,
) -> io::Result<()> {
    let place = match handler.files() {
        Ok(place) => place,
        Err(failure) => return send(&mut stream, &ControlReply::Failed(failure)).await,
    };
    send(&mut stream, &ControlReply::Go).await?;
    let work = async move { handler.serve_files(stream, umask, place).await };
    tokio::spawn(os::watched("a client's files", work));
    Ok(())
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), reply: &ControlReply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, to.write_all(&line)).await??;
    Ok(())
}

/// A client's side of one conversation.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    /// Asks the daemon whose socket lies in `dir`.
    pub(super) fn ask(dir: &Path, request: &ControlRequest, silence: Duration) -> io::Result<Self> {
        let handle = std::fs::File::open(dir)?;
        let mut stream = Stream::connect(short(&handle))?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *line, request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The connection, when it is for something else from here on. The daemon says nothing before it is asked.
    pub(super) fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    /// The daemon's next reply.
    pub(super) fn next(&mut self) -> io::Result<ControlReply> {
        let mut line = String::new();
        (&mut self.stream).take(REPLY_MAX).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests;
