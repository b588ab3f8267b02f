//! The open vault that the daemon mounts, serves, or both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytesize::ByteSize;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::files_host;
use super::lifecycle::HostedVault;
use super::logfile;
use super::malloc::Pressed;
use super::spec::{Credentials, Spec};
use super::{past_host, recover_host};
use crate::cli::control::{AsideRecovery, ControlReply, PathRestore};
use crate::cli::daemon_report::{
    BudgetUsage, DaemonReport, NewestCommit, PastReport, TrafficReport,
};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::keys::{self, KeysAsked};
use crate::cli::limits::LimitWords;
use crate::cli::messages;
use crate::cli::mount_look::MountLook;
use crate::cli::old_states::{self, OldStates};
use crate::cli::registry::RunningDaemon;
use crate::cli::target::Target;
use crate::files::Files;
use crate::fuse::{self, MountOptions, Mounted};
use crate::gateway::{Caller, Gateway, Listening, ServeOptions, Server, StatusSource};

use crate::os::{self, boot_id, pid_namespace, started};
use crate::types::{Hash, Progress, Timestamp, VaultStatus};
use crate::vault::{
    self, Deadlines, ErrorClass, Fsync, Machine, MasterKey, SuperblockCopy, Unlocked, Vault,
    VaultOptions,
};

/// The time limit for the last commit and the release; everything else is in the bucket before.
const CLOSE: Duration = Duration::from_mins(1);
/// How long an upload with `?wait=durable` waits: a large file takes long through a slow link.
const DURABLE: Duration = Duration::from_mins(10);
/// The file size that must be possible: packs and journal segments have 16 MiB; the index begins with less.
const FILE_FLOOR: u64 = 64 << 20;
/// Permission bits that files uploaded by HTTP do not get.
const UMASK: u32 = 0o022;

/// The open vault, with its mount and service.
pub(crate) struct VaultHost {
    vault: Arc<Vault>,
    mount: watch::Sender<MountState>,
    service: Mutex<Option<Arc<Server>>>,
    /// The metrics of a mount (`mount --metrics`); they end with the daemon.
    metrics: Option<Server>,
    /// Held while mounting, serving or stopping, so that only one of these runs.
    changing: tokio::sync::Mutex<()>,
    target: Target,
    running: Option<RunningDaemon>,
    /// The directory with the notes of running daemons.
    notes: PathBuf,
    /// Whether a mount has `.snapshots`.
    shows_snapshots: bool,
    /// The parts of the report that never change.
    fixed: DaemonReport,
}

/// The state of the mount.
#[derive(Clone)]
enum MountState {
    /// Not yet.
    NotYet,
    /// Mounted, where the session says.
    Mounted(Arc<Mounted>),
    /// There was no mount, and there will be none.
    Over,
}

impl VaultHost {
    /// Opens the vault, and mounts and serves it as the spec says.
    pub(crate) async fn open(spec: &Spec, key: Option<MasterKey>) -> CliResult<Self> {
        let short_files = short_files()?;
        // The address first: if it is taken, nothing has been claimed yet.
        let listening = match &spec.serve {
            Some(options) => Some(listen(options.clone()).await?),
            None => None,
        };
        let metrics = match &spec.metrics {
            Some(at) => Some(listen(ServeOptions::metrics_at(at.clone())).await?),
            None => None,
        };
        let target = Target::of_spec(spec)?;
        let shown = match &listening {
            Some(listening) if spec.mountpoint.is_none() => {
                format!("a service on {}", listening.at())
            }
            _ => spec.shown().display().to_string(),
        };
        let vault = open_vault(spec, key, &target, shown).await?;
        let mut hosted = Self::new(spec, target, vault);
        hosted.fixed.warnings.extend(short_files);
        if let Some(path) = &spec.mountpoint
            && let Err(failure) = hosted.mount_at(path, &spec.look)
        {
            // Released, so that this machine's claim is in nobody's way.
            if let Err(error) = hosted.vault.close(CLOSE).await {
                tracing::warn!(%error, "the vault was not released");
            }
            return Err(failure);
        }
        if let Some(listening) = listening {
            hosted.start(listening);
        }
        hosted.metrics = metrics.map(|listening| Server::start(hosted.gateway(), listening));
        Ok(hosted)
    }

    fn new(spec: &Spec, target: Target, vault: Arc<Vault>) -> Self {
        let log = spec.dir.join(logfile::NAME);
        let pid = std::process::id();
        let fixed = DaemonReport {
            vault: spec.vault.clone(),
            bucket: target.url.to_string(),
            endpoint: target.endpoint.clone(),
            pid,
            log: log.display().to_string(),
            read_only: spec.read_only,
            traffic: TrafficReport {
                since: messages::when(Timestamp::now()),
                ..TrafficReport::default()
            },
            fsync: if spec.fsync_bucket { "bucket" } else { "local" }.to_owned(),
            ..DaemonReport::default()
        };
        let running = started(pid).map(|started| RunningDaemon {
            pid,
            started,
            namespace: pid_namespace(),
            boot: boot_id(),
            mountpoint: spec.mountpoint.clone(),
            vault: spec.vault.clone(),
            bucket: target.describe(),
            dir: spec.dir.clone(),
            log,
            read_only: spec.read_only,
            past: spec.at.is_some(),
            for_command: spec.mountpoint.is_none() && spec.serve.is_none(),
        });
        Self {
            vault,
            mount: watch::Sender::new(MountState::NotYet),
            service: Mutex::new(None),
            metrics: None,
            changing: tokio::sync::Mutex::new(()),
            target,
            running,
            notes: spec.data.join("running"),
            shows_snapshots: spec.snapshots_dir && spec.at.is_none(),
            fixed,
        }
    }

    /// Connects the memory watch to the vault's caches.
    pub(crate) fn gives_way(&self, pressed: &Pressed) {
        let vault = Arc::downgrade(&self.vault);
        pressed.tell(move |resident| vault.upgrade().is_some_and(|vault| vault.give_way(resident)));
    }

    /// The note by which others find this daemon.
    pub(crate) fn running(&self) -> std::io::Result<RunningDaemon> {
        self.running.clone().ok_or_else(|| std::io::Error::other("/proc shows no start time"))
    }

    fn mount_at(&self, path: &Path, look: &MountLook) -> CliResult {
        let snapshots = self.shows_snapshots.then(|| past_host::snapshots(&self.vault));
        let options = MountOptions {
            name: look.fsname.clone().unwrap_or_else(|| self.target.url.to_string()),
            allow_other: look.allow_other,
            snapshots,
            flags: look.flags(),
            shown: look.shown(),
            saves_reads: self.vault.options().bucket.limited_to().saves_reads(),
        };
        let session = fuse::mount(self.vault.vfs(), path, &options, Handle::current())
            .map_err(|error| messages::of_fuse(&error))?;
        let session = Arc::new(session);
        let is_taken = self.mount.send_if_modified(|state| {
            let is_in_time = !matches!(state, MountState::Over);
            if is_in_time {
                *state = MountState::Mounted(session.clone());
            }
            is_in_time
        });
        if is_taken {
            return Ok(());
        }
        // Otherwise nobody would unmount it.
        session.detach().map_err(|error| messages::of_fuse(&error))?;
        let text = "the daemon of this vault ended meanwhile; nothing is mounted; try again";
        Err(Failure::new(Exit::MountedAlready, text))
    }

    /// Whether the vault has ended without a mount. If there is no mount yet, makes sure that there never will be.
    fn is_over_without_mount(&self) -> bool {
        self.mount.send_if_modified(|state| {
            let is_unmounted = matches!(state, MountState::NotYet);
            if is_unmounted {
                *state = MountState::Over;
            }
            is_unmounted
        });
        matches!(*self.mount.borrow(), MountState::Over)
    }

    /// Updates this daemon's note: it has a mount or service, so it no longer belongs to a command.
    fn note_as_joined(&self, mountpoint: Option<PathBuf>) {
        let noted = self.running().and_then(|running| {
            let mountpoint = mountpoint.or(running.mountpoint);
            RunningDaemon { mountpoint, for_command: false, ..running }.renote(&self.notes)
        });
        // Without the note, others cannot unmount it by name, but the mount works.
        if let Err(error) = noted {
            tracing::error!(%error, "the mount or service is not noted");
        }
    }

    fn gateway(&self) -> Gateway {
        let (uid, gid) = os::effective_ids();
        Gateway {
            vfs: self.vault.vfs(),
            vault: self.vault.clone(),
            past: self.vault.clone(),
            owner: Caller { uid, gid, pid: std::process::id(), umask: UMASK },
            durable_deadline: DURABLE,
        }
    }

    fn start(&self, listening: Listening) {
        let server = Server::start(self.gateway(), listening);
        tracing::info!(url = server.status().url, "serving");
        *self.service.lock() = Some(Arc::new(server));
    }

    fn session(&self) -> Option<Arc<Mounted>> {
        match &*self.mount.borrow() {
            MountState::Mounted(session) => Some(session.clone()),
            MountState::NotYet | MountState::Over => None,
        }
    }

    fn failure(&self, error: &vault::Error) -> Failure {
        let place = self.target.describe();
        // If the vault is read-only because another machine took it over, that is the better message.
        if matches!(error.class(), ErrorClass::ReadOnly) && self.vault.progress().fenced {
            return messages::of_vault(&vault::Error::Contended, &place);
        }
        messages::of_vault(error, &place)
    }
}

/// Checks `ulimit -f`: too low a limit is refused, and one that may become too low yields a warning.
fn short_files() -> CliResult<Option<String>> {
    let Some(limit) = os::file_limit() else { return Ok(None) };
    let shown = ByteSize::b(limit);
    if limit < FILE_FLOOR {
        let text = format!(
            "files of this user may have {shown} at most (`ulimit -f`), and the vault's own files need {}; \
             nothing was changed; use `ulimit -f unlimited`, or raise the limit in /etc/security/limits.conf, then try again",
            ByteSize::b(FILE_FLOOR)
        );
        return Err(Failure::new(Exit::LocalDisk, text));
    }
    Ok(Some(format!(
        "files of this user may have {shown} at most (`ulimit -f`): when the index or the log grows beyond, changes fail"
    )))
}

async fn listen(options: ServeOptions) -> CliResult<Listening> {
    Listening::open(options).await.map_err(|error| messages::of_service(&error))
}

async fn open_vault(
    spec: &Spec,
    key: Option<MasterKey>,
    target: &Target,
    mountpoint: String,
) -> CliResult<Arc<Vault>> {
    let place = target.describe();
    let fail = |error: vault::Error| messages::of_vault(&error, &place);
    let bucket = target.open_with(spec.credentials.as_ref(), Deadlines::default()).await?;
    bucket.limit(&spec.limits);
    let key = key.ok_or_else(|| Failure::new(Exit::Other, "the front process sent no key"))?;
    let copy = SuperblockCopy::find(spec.superblock.as_deref(), &spec.data, Some(&spec.vault));
    let copy = copy.map_err(fail)?;
    let unlocked: Unlocked = vault::unlock(&bucket, copy.as_ref(), &key).await.map_err(fail)?;
    let named = std::env::var("S3VAULT_MACHINE_ID").ok().filter(|id| !id.is_empty());
    let machine = Machine::identify(named, &spec.data).map_err(fail)?;
    let options = VaultOptions {
        bucket,
        unlocked,
        state_dir: spec.dir.clone(),
        machine,
        memory: spec.memory,
        cache_size: spec.cache_size,
        at: spec.at.clone(),
        read_only: spec.read_only,
        refresh: spec.refresh,
        take_over: spec.take_over,
        accept_rollback: spec.accept_rollback,
        accept_damage: spec.accept_damage,
        single_machine: spec.single_machine,
        fsync: if spec.fsync_bucket { Fsync::Bucket } else { Fsync::Local },
        mountpoint,
    };
    Vault::open(options).await.map_err(fail)
}

#[async_trait]
impl HostedVault for VaultHost {
    fn report(&self) -> DaemonReport {
        let status = self.vault.status();
        let head = (status.head.0 > 0).then(|| NewestCommit {
            number: status.head.0,
            time: messages::when(status.head_time),
            fingerprint: fingerprint(&status.fingerprint),
        });
        let used = status.staging.0 + status.cache_disk + status.index_disk;
        let disk = BudgetUsage { used, limit: status.disk_budget };
        let mountpoint = self.session().map(|session| session.path().display().to_string());
        let service = self.service.lock().clone();
        DaemonReport {
            mountpoint: mountpoint.unwrap_or_default(),
            service: service.map(|server| server.status()),
            head,
            as_of: status.as_of.as_ref().map(PastReport::of),
            read_only_reason: status.read_only.filter(|_| !self.fixed.read_only),
            following: status.following,
            progress: status.progress,
            files: status.inodes,
            bytes: status.bytes,
            memory: BudgetUsage { used: os::resident_memory(), limit: self.vault.options().memory },
            disk,
            old_states: status.old_states,
            traffic: TrafficReport::of(&status.traffic, self.fixed.traffic.since.clone()),
            limits: self.vault.options().bucket.limited_to(),
            renewal: status.renewal,
            unsent_not_shown: status.unsent_not_shown,
            warnings: [self.fixed.warnings.clone(), status.warnings].concat(),
            ..self.fixed.clone()
        }
    }

    fn progress(&self) -> Progress {
        self.vault.progress()
    }

    async fn sync(&self, limit: Duration) -> CliResult {
        self.vault.sync(limit).await.map_err(|error| self.failure(&error))
    }

    async fn close(&self) -> CliResult {
        if let Some(metrics) = &self.metrics {
            metrics.stop().await;
        }
        self.vault.close(CLOSE).await.map_err(|error| self.failure(&error))
    }

    fn has_mount(&self) -> bool {
        matches!(*self.mount.borrow(), MountState::Mounted(_))
    }

    async fn mount(&self, mountpoint: &Path, look: &MountLook) -> CliResult {
        let _turn = self.changing.lock().await;
        if let Some(session) = self.session() {
            let text = format!("the vault is mounted already, at {}", session.path().display());
            return Err(Failure::new(Exit::MountedAlready, text));
        }
        // The mount(2) call waits for the kernel, which sends us requests: not on a thread that answers them.
        tokio::task::block_in_place(|| self.mount_at(mountpoint, look))?;
        self.note_as_joined(Some(mountpoint.to_owned()));
        tracing::info!("mounted");
        Ok(())
    }

    async fn serve(&self, options: ServeOptions) -> CliResult {
        let _turn = self.changing.lock().await;
        let there = self.service.lock().clone();
        if let Some(server) = there {
            if *server.options() == options {
                return Ok(());
            }
            let text = format!(
                "the vault is served already, at {}; nothing was changed; to serve it with other options, \
                 stop the service first: s3vault serve --stop",
                server.status().url
            );
            return Err(Failure::new(Exit::Listen, text));
        }
        self.start(listen(options).await?);
        let mountpoint = self.session().map(|session| session.path().to_owned());
        self.note_as_joined(mountpoint);
        Ok(())
    }

    async fn unserve(&self) -> bool {
        let _turn = self.changing.lock().await;
        let server = self.service.lock().clone();
        let Some(server) = server else { return false };
        server.stop().await;
        *self.service.lock() = None;
        tracing::info!("not serving any more");
        true
    }

    async fn credentials(&self, given: Credentials) -> CliResult {
        let place = self.target.describe();
        match self.vault.options().bucket.hand_over(&given.to_store()).await {
            Ok(()) => Ok(()),
            Err(error) => Err(messages::of_hand_over(&error, &place)),
        }
    }

    async fn tune(&self, said: LimitWords) -> CliResult {
        let _turn = self.changing.lock().await;
        let mut limits = self.vault.options().bucket.limited_to();
        said.apply(&mut limits).map_err(|error| Failure::new(Exit::Usage, error))?;
        self.vault.limit(&limits).await.map_err(|error| self.failure(&error))?;
        tracing::info!(?limits, "other limits");
        Ok(())
    }

    async fn old_states(&self, what: OldStates) -> CliResult<Vec<String>> {
        let done = old_states::carry_out(&self.vault, &what).await;
        done.map_err(|error| self.failure(&error))
    }

    async fn keys(&self, what: KeysAsked) -> CliResult<Vec<String>> {
        let done = keys::carry_out(&self.vault, &what).await;
        done.map_err(|error| self.failure(&error))
    }

    async fn history(&self, path: &Path, told: &mpsc::Sender<ControlReply>) -> CliResult {
        past_host::history(&self.vault, path, told, |error| self.failure(error)).await
    }

    async fn restore(&self, what: PathRestore, told: &mpsc::Sender<ControlReply>) -> CliResult {
        past_host::restore(&self.vault, what, told, |error| self.failure(error)).await
    }

    async fn recover(&self, what: AsideRecovery, told: &mpsc::Sender<ControlReply>) -> CliResult {
        recover_host::recover(&self.vault, what, told, |error| self.failure(error)).await
    }

    async fn serve_files(&self, stream: UnixStream, umask: u32) {
        let (uid, gid) = os::effective_ids();
        let owner = Caller { uid, gid, pid: std::process::id(), umask: umask & 0o777 };
        let files = Files::new(self.vault.vfs(), owner);
        let fail = |error: &vault::Error| self.failure(error);
        if let Err(error) = files_host::serve(&files, stream, &fail).await {
            tracing::debug!(%error, "a client that works on files went away");
        }
    }

    fn has_service(&self) -> bool {
        self.service.lock().is_some()
    }

    fn unmount(&self) -> CliResult {
        if self.is_over_without_mount() {
            return Ok(());
        }
        let Some(session) = self.session() else { return Ok(()) };
        session.unmount().map_err(|error| messages::of_fuse(&error))
    }

    fn detach(&self) -> CliResult {
        if self.is_over_without_mount() {
            return Ok(());
        }
        let Some(session) = self.session() else { return Ok(()) };
        session.detach().map_err(|error| messages::of_fuse(&error))
    }

    async fn ended(&self) {
        let mut mount = self.mount.subscribe();
        loop {
            let now = mount.borrow_and_update().clone();
            match now {
                MountState::Over => return,
                MountState::Mounted(session) => return session.ended().await,
                // This holds the sender, so it cannot go away.
                MountState::NotYet => drop(mount.changed().await),
            }
        }
    }
}

/// The service shows the state of the vault.
impl StatusSource for Vault {
    fn status(&self) -> VaultStatus {
        Self::status(self)
    }
}

/// The first 64 bits of a commit's hash, in groups that can be read aloud.
fn fingerprint(hash: &Hash) -> String {
    let hex = hash.to_string();
    let groups: Vec<&str> = (0..4).filter_map(|group| hex.get(group * 4..group * 4 + 4)).collect();
    groups.join("-")
}
