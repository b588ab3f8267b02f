//! The daemon: opens the vault that the spec names, mounts it, and lives until it is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::life::{Life, Live, Patience};
use super::logfile::{self, LogFile};
use super::process::{self, Link, Voice};
use super::spec::{Spec, Word};
use crate::cli::control;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::messages;
use crate::cli::report::{Head, Progress, Report, Usage};
use crate::cli::running::{Running, started};
use crate::cli::target::Target;
use crate::fuse::{self, MountOptions, Mounted};
use crate::types::{Hash, KIB};
use crate::vault::{self, Deadlines, Fsync, Kind, Machine, MasterKey, Options, Secret, Vault};

/// Threads for what waits for the disk (fsync, sealing): more would not make it faster.
const BLOCKING_THREADS: usize = 16;
/// Bytes of stack for each thread: twice tokio's need, a quarter of the system's habit.
const STACK: usize = 2 << 20;
/// For the last commit, the release: everything else is in the bucket before.
const CLOSE: Duration = Duration::from_mins(1);
/// How long clients that wait for the last word have to hear it.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The hidden command `daemon`.
pub fn main() -> Exit {
    let Link { spec, voice, front } = match process::become_daemon() {
        Ok(link) => link,
        Err(error) => {
            complain!("s3vault: this command is for `s3vault mount` to call: {error}");
            return Exit::Usage;
        }
    };
    let outcome = begin(&spec, &voice, front);
    let exit = outcome.as_ref().map_or_else(|failure| failure.exit, |()| Exit::Done);
    if let Err(failure) = &outcome {
        tracing::error!(causes = ?failure.causes, "{failure}");
    }
    voice.say(&Word::Ended(outcome.err()));
    exit
}

fn begin(spec: &Spec, voice: &Voice, front: process::Presence) -> Outcome {
    let log = LogFile::open(&spec.dir.join(logfile::NAME))
        .map_err(|error| Failure::io("the log cannot be written", &error))?;
    logfile::start(log, spec.verbose);
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "starting");
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("no runtime could be started", &error))?;
    let outcome = runtime.block_on(run(spec, voice, front));
    // What still runs then (a request that waits for the store) holds nothing that counts.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

/// From the spec to the end.
async fn run(spec: &Spec, voice: &Voice, mut front: process::Presence) -> Outcome {
    let mut signals = process::signals()
        .map_err(|error| Failure::io("signals cannot be listened for", &error))?;
    let mounted = tokio::select! {
        mounted = mount(spec) => mounted?,
        Some(signal) = signals.recv() => {
            return Err(Failure::new(Exit::Forced, format!("ended by {signal} before it was mounted; nothing was changed")));
        }
        None = front.recv() => {
            return Err(Failure::new(Exit::Forced, "given up before it was mounted; nothing was changed"));
        }
    };
    let mounted = Arc::new(mounted);
    let life = Life::new(mounted.clone(), Patience::USUAL);
    let control = control::listen(&spec.dir).and_then(|listener| {
        let noted = mounted.running(spec)?.note(&spec.data.join("running"))?;
        Ok((listener, noted))
    });
    let (listener, noted) = match control {
        Ok(control) => control,
        Err(error) => {
            drop(mounted.detach());
            return Err(Failure::io(
                format_args!("no control socket in {}", spec.dir.display()),
                &error,
            ));
        }
    };
    let clients = control::Clients::default();
    tokio::spawn(control::serve(listener, life.clone(), clients.clone()));
    tracing::info!("mounted");
    voice.say(&Word::Mounted(Box::new(mounted.report())));
    let outcome = life.run(signals, spec.foreground.then_some(front), voice).await;
    drop(noted);
    drop(tokio::time::timeout(LAST_WORD, clients.served()).await);
    drop(std::fs::remove_file(spec.dir.join(control::SOCKET)));
    tracing::info!("the end");
    outcome
}

/// The vault, opened and mounted.
struct MountedVault {
    vault: Arc<Vault>,
    session: Mounted,
    target: Target,
    /// What of the report never changes.
    fixed: Report,
}

async fn mount(spec: &Spec) -> Outcome<MountedVault> {
    let target = Target::of_spec(spec)?;
    let place = target.describe();
    let fail = |error: vault::Error| messages::of_vault(&error, &place);
    let bucket = target.open_with(spec.credentials.as_ref(), Deadlines::default()).await?;
    let key: Option<Zeroizing<[u8; 32]>> = spec.master.to_key();
    let key = key.ok_or_else(|| Failure::new(Exit::Other, "the front process sent no key"))?;
    let secret = Secret::Master(MasterKey::from_bytes(*key));
    let unlocked = vault::unlock(&bucket, &secret).await.map_err(fail)?;
    let named = std::env::var("S3VAULT_MACHINE_ID").ok().filter(|id| !id.is_empty());
    let machine = Machine::identify(named, &spec.data).map_err(fail)?;
    let mountpoint = spec.mountpoint.display().to_string();
    let vault = Vault::open(Options {
        bucket,
        unlocked,
        state_dir: spec.dir.clone(),
        machine,
        memory: spec.memory,
        cache_size: spec.cache_size,
        read_only: spec.read_only,
        take_over: spec.take_over,
        accept_rollback: spec.accept_rollback,
        single_machine: spec.single_machine,
        fsync: if spec.fsync_bucket { Fsync::Bucket } else { Fsync::Local },
        mountpoint: mountpoint.clone(),
    })
    .await
    .map_err(fail)?;
    let options = MountOptions { name: target.url.to_string(), allow_other: spec.allow_other };
    let session = match fuse::mount(vault.vfs(), &spec.mountpoint, &options, Handle::current()) {
        Ok(session) => session,
        Err(error) => {
            // Released, so that nobody finds this machine's claim in the way.
            if let Err(error) = vault.close(CLOSE).await {
                tracing::warn!(%error, "the vault was not released");
            }
            return Err(messages::of_fuse(&error));
        }
    };
    let fixed = Report {
        mountpoint,
        vault: spec.vault.clone(),
        bucket: target.url.to_string(),
        endpoint: target.endpoint.clone(),
        pid: std::process::id(),
        log: spec.dir.join(logfile::NAME).display().to_string(),
        read_only: spec.read_only,
        fsync: if spec.fsync_bucket { "bucket" } else { "local" }.to_owned(),
        ..Report::default()
    };
    Ok(MountedVault { vault, session, target, fixed })
}

impl MountedVault {
    fn running(&self, spec: &Spec) -> std::io::Result<Running> {
        let pid = std::process::id();
        let started =
            started(pid).ok_or_else(|| std::io::Error::other("/proc shows no start time"))?;
        Ok(Running {
            pid,
            started,
            mountpoint: spec.mountpoint.clone(),
            vault: spec.vault.clone(),
            bucket: self.target.describe(),
            dir: spec.dir.clone(),
            log: spec.dir.join(logfile::NAME),
            read_only: spec.read_only,
        })
    }

    fn failure(&self, error: &vault::Error) -> Failure {
        let place = self.target.describe();
        // What is read-only because another machine has taken over is better said so.
        if matches!(error.kind(), Kind::ReadOnly) && self.vault.progress().fenced {
            return messages::of_vault(&vault::Error::Contended, &place);
        }
        messages::of_vault(error, &place)
    }
}

#[async_trait]
impl Live for MountedVault {
    fn report(&self) -> Report {
        let status = self.vault.status();
        let head = (status.head.0 > 0).then(|| Head {
            number: status.head.0,
            time: messages::when(status.head_time),
            fingerprint: fingerprint(&status.fingerprint),
        });
        let disk = Usage { used: status.staging.0 + status.cache_disk, limit: status.disk_budget };
        Report {
            head,
            read_only_reason: status.read_only.filter(|_| !self.fixed.read_only),
            progress: self.progress(),
            files: status.inodes,
            bytes: status.bytes,
            memory: Usage { used: resident(), limit: self.vault.options().memory },
            disk,
            warnings: status.warnings,
            ..self.fixed.clone()
        }
    }

    fn progress(&self) -> Progress {
        let progress = self.vault.progress();
        Progress {
            unsent_bytes: progress.unsent_bytes,
            unsent_packs: progress.unsent_packs,
            unsent_changes: progress.unsent_changes,
            open_files: progress.unpublished_files,
            trouble: progress.trouble,
        }
    }

    async fn sync(&self, limit: Duration) -> Outcome {
        self.vault.sync(limit).await.map_err(|error| self.failure(&error))
    }

    async fn close(&self) -> Outcome {
        self.vault.close(CLOSE).await.map_err(|error| self.failure(&error))
    }

    fn unmount(&self) -> Outcome {
        self.session.unmount().map_err(|error| messages::of_fuse(&error))
    }

    fn detach(&self) -> Outcome {
        self.session.detach().map_err(|error| messages::of_fuse(&error))
    }

    async fn ended(&self) {
        self.session.ended().await;
    }
}

/// The first 64 bits of a commit's hash, in groups that can be read out.
fn fingerprint(hash: &Hash) -> String {
    let hex = hash.to_string();
    let groups: Vec<&str> = (0..4).filter_map(|group| hex.get(group * 4..group * 4 + 4)).collect();
    groups.join("-")
}

/// Bytes of memory that this process has in use (`VmRSS`); 0 where /proc does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * KIB
}
