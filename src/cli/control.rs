//! The daemon's socket, `<state dir>/<vault id>/control.sock`. It carries one JSON object per line: a request, then
//! replies until the one that ends the exchange. Only this user (and root) can connect.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
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
/// The longest request: a short line with at most a few paths.
const REQUEST_MAX: u64 = 32 << 10;
/// Room for a whole request, so that the buffer never grows and leaves copies behind.
const ROOM: usize = 33 << 10;
/// The longest reply: a line. A report lists a bounded number of things.
const REPLY_MAX: u64 = 1 << 20;
/// How long a client may take to send a request, and to take a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Concurrent clients; more wait in the socket's backlog.
const CLIENTS: usize = 16;
/// How many more may wait for something that takes long (an upload, a scan), and so do not count as clients. Beyond these they
/// do.
const WAITING: usize = 256;
/// Replies that may be queued for a client; progress is dropped while they are.
const REPLIES: usize = 4;
/// How long a client waits for the daemon's next reply. Methods of [`ControlHandler`] that may take longer send
/// progress about once a second, so such a long silence means that the daemon hangs.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(super) enum ControlRequest {
    /// Report the status, once.
    Status,
    /// Wait until everything written so far is in the bucket.
    Sync,
    /// Unmount, stop the service, finish the uploads, release the vault, and end.
    Umount {
        /// How long the client waits for the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<Duration>,
    },
    /// The command that this daemon was started for is done: end as with `Umount` once nobody else uses the daemon. If
    /// it was mounted or served meanwhile, it lives on, and this waits as `Sync` does.
    Leave,
    /// Mount as well. The daemon has no mount so far.
    Mount {
        /// An empty directory.
        #[serde(with = "path_text")]
        mountpoint: PathBuf,
        /// How the mount looks.
        #[serde(default)]
        look: MountLook,
    },
    /// Serve by HTTP as well.
    Serve(ServeOptions),
    /// Stop the service; without a mount, end as with `Umount`.
    Unserve,
    /// Tell the versions of a path.
    History {
        /// Relative to the root of the mount.
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// Restore a path.
    Restore {
        /// Relative to the root of the mount.
        #[serde(with = "path_text")]
        path: PathBuf,
        /// The state to restore from.
        at: Option<StateAt>,
        /// The target path, if not the original one.
        #[serde(with = "path_text::option")]
        to: Option<PathBuf>,
    },
    /// Bring back what was set aside on this machine.
    Recover(AsideRecovery),
    /// Sign with these from now on.
    Credentials(Credentials),
    /// Apply these limits from now on.
    Tune(LimitWords),
    /// Garbage collection, retention or snapshots.
    OldStates(OldStates),
    /// The key slots of the vault.
    Keys(KeysAsked),
    /// Files: after [`ControlReply::Go`] this connection carries frames (`cli/files`).
    Files {
        /// Permission bits that new files do not get.
        umask: u32,
    },
}

/// The daemon's reply. Each variant is a unit, a struct or holds a struct: internally tagged JSON cannot hold a bare
/// list or number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub(super) enum ControlReply {
    /// The answer to `Status`; the last reply.
    Status(Box<DaemonReport>),
    /// The request is under way.
    Progress(Progress),
    /// A line for the user.
    Said {
        /// The line.
        text: String,
    },
    /// The answer to `Files`: from here on the connection carries frames.
    Go,
    /// The request is done; the last reply.
    Done,
    /// The request failed, and why; the last reply.
    Failed(Failure),
}

/// Carries out the requests: the daemon, or a test double.
#[async_trait]
pub(super) trait ControlHandler: Send + Sync + 'static {
    /// The status. Neither blocks nor asks anybody.
    fn report(&self) -> DaemonReport;
    /// Returns when everything written before is in the bucket, or fails with what is missing.
    async fn sync(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Unmounts, and returns when everything is in the bucket and the vault is released; after `within`, fails with
    /// what is missing.
    async fn umount(
        &self,
        within: Option<Duration>,
        progress: &mpsc::Sender<ControlReply>,
    ) -> CliResult;
    /// Does as `umount` when nobody else uses the daemon. If it was mounted or served, does as `sync`.
    async fn leave(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Mounts the vault, which has no mount so far.
    async fn mount(&self, mountpoint: &Path, look: &MountLook) -> CliResult;
    /// Serves by HTTP. Returns when clients can connect.
    async fn serve(&self, options: ServeOptions) -> CliResult;
    /// Stops serving. Without a mount, the daemon then ends as with `umount`.
    async fn unserve(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Replaces the credentials for the store.
    async fn credentials(&self, given: Credentials) -> CliResult;
    /// Changes the limits that are named.
    async fn tune(&self, said: LimitWords) -> CliResult;
    /// Collects garbage, changes the retention, makes or deletes snapshots; tells the outcome.
    async fn old_states(&self, what: OldStates, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Tells or changes the key slots.
    async fn keys(&self, what: KeysAsked, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Tells the versions of a path.
    async fn history(&self, path: &Path, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Restores a path.
    async fn restore(&self, what: PathRestore, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Lists or brings back what was set aside on this machine.
    async fn recover(&self, what: AsideRecovery, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Whether files may be worked on now; what is returned then is held as long as it goes on.
    fn files(&self) -> CliResult<FilesPlace>;
    /// Serves a files connection until it ends, or the vault closes.
    async fn serve_files(&self, stream: UnixStream, umask: u32, place: FilesPlace);
}

/// The place that a files connection holds.
pub(super) type FilesPlace = Box<dyn Send + Sync>;

/// The parameters of [`ControlRequest::Restore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathRestore {
    /// Relative to the root of the mount.
    pub path: PathBuf,
    /// The state to restore from.
    pub at: Option<StateAt>,
    /// The target path, if not the original one.
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
    // The daemon's umask is 077, so others can never connect; the permissions are set all the same.
    let listener = UnixListener::bind(short(&handle))?;
    std::fs::set_permissions(dir.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A socket path may be 108 bytes at most; through the directory's descriptor it is always short.
fn short(dir: &std::fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Limits the clients that are served at once. Those whose request takes long leave their place to others: a daemon always
/// answers how it is.
#[derive(Clone)]
pub(super) struct Clients {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(CLIENTS)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

impl Clients {
    /// Returns when all of them have their last reply. No new client is served after that.
    pub(super) async fn served(&self) {
        // In this order: a client that leaves its place takes the other one first.
        for (semaphore, all) in [(&self.places, CLIENTS), (&self.waiting, WAITING)] {
            if let Ok(all) = semaphore.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await {
                all.forget();
            }
        }
    }

    /// Gives a place back for one among those that wait, if there is one.
    fn waits(&self, place: OwnedSemaphorePermit) -> OwnedSemaphorePermit {
        self.waiting.clone().try_acquire_owned().unwrap_or(place)
    }
}

/// Serves clients until this is dropped. It never returns before, since nobody could reach the daemon any more.
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
                let Ok(place) = clients.places.clone().acquire_owned().await else { return };
                let (handler, clients) = (handler.clone(), clients.clone());
                tokio::spawn(async move {
                    // A panic closes the stream, which tells the client.
                    let served = converse(stream, handler, (&clients, place));
                    if let Ok(Err(error)) = os::watched("serving a client", served).await {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket did not accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: no busy loop
            }
        }
    }
}

async fn converse(
    mut stream: UnixStream,
    handler: Arc<dyn ControlHandler>,
    (clients, place): (&Clients, OwnedSemaphorePermit),
) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (own, _) = os::effective_ids();
    if peer != own && peer != 0 {
        tracing::warn!(uid = peer, "another user asked at the control socket; not heard");
        return Ok(());
    }
    let (read, mut write) = stream.split();
    // The request may hold a secret. This is its only copy, and it is wiped.
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
    let _place = clients.waits(place);
    let (progress, mut replies) = mpsc::channel(REPLIES);
    // In a task of its own, so that the request goes on if the client goes away.
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
        drop(progress.send(last).await); // fails only if the client is gone
    });
    while let Some(reply) = replies.recv().await {
        send(&mut write, &reply).await?;
    }
    Ok(())
}

/// From here on the connection is for files. It does not count as one of the `CLIENTS`, since it may last for hours.
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

/// The client's side of an exchange.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    /// Sends a request to the daemon whose socket is in `dir`.
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

    /// The raw connection, for frames. Nothing is buffered: the daemon sends nothing before it is asked.
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
