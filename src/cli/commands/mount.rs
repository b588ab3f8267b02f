//! `s3vault mount`: the front process.

use std::path::{Path, PathBuf};

use super::ask::{change, program, report_of};
use crate::cli::args::{Fsync, Global, LogFormat, MountArgs, OpeningArgs};
use crate::cli::config::{Config, KnownVault};
use crate::cli::control::ControlRequest;
use crate::cli::daemon::launch::LaunchedDaemon;
use crate::cli::daemon::spec::{Credentials, Hidden, Spec};
use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::mount_dir;
use crate::cli::mount_look::MountLook;
use crate::cli::past_dir;
use crate::cli::paths::{UserPaths, absolute, listen_at};
use crate::cli::recovery_output::RecoveryOutput;
use crate::cli::registry::RunningDaemon;
use crate::cli::target::{Target, is_name};
use crate::cli::unlock::{NewVault, Unlocker};
use crate::vault::{Bucket, S3Credentials, Unlocked};

/// The default disk cache of a mount of the past.
const PAST_CACHE: u64 = 1 << 30;

/// Mounts a vault. Returns when the mount is usable; with `--foreground`, when it has ended.
pub(crate) async fn mount(global: &Global, paths: &UserPaths, args: &MountArgs) -> CliResult {
    let look = MountLook::of(&args.look, args.allow_other);
    let read_only = args.opening.read_only || look.read_only;
    if look.read_only && (args.opening.take_over || args.protect) {
        let text = "-o ro cannot be used with --take-over or --protect; nothing was changed; leave one of them out";
        return Err(Failure::new(Exit::Usage, text));
    }
    let config = Config::read(&paths.config)?;
    let (bucket, mountpoint) = said(args, &config);
    let named = mountpoint.map(absolute).transpose()?;
    let target = Target::choose(global, paths, &config, bucket, named.as_deref())?;
    let path = match named {
        Some(path) => path,
        None => remembered_mountpoint(&target)?,
    };
    not_in_use_yet(paths, |running| running.mountpoint.as_ref() == Some(&path))?;
    mount_dir::can_mount()?;
    mount_dir::look(&path)?;
    if let Some(running) = without_mount(paths, &target).filter(|_| args.at.is_none()) {
        return join(paths, args, look, &target, &path, &running);
    }

    let unlocker = Unlocker { global, paths, target: &target };
    let bucket = match args.at {
        None => open_or_make(&unlocker, read_only, args.opening.single_machine).await?,
        Some(_) => target.open().await?,
    };
    let unlocked = unlocker.unlock(&bucket).await?;
    let id = unlocked.vault.to_string();
    // Another state directory has a journal of its own; whether that may be used, the vault decides.
    let mut dir = paths.state.join(&id);
    if args.at.is_none() {
        not_in_use_yet(paths, |running| running.dir == dir)?;
    }
    make_ready(&path, args.protect)?;
    if args.at.is_some() {
        dir = past_dir::make(&dir)?;
    }

    let spec = Spec {
        mountpoint: Some(path.clone()),
        look,
        metrics: args.metrics.as_ref().map(listen_at).transpose()?,
        snapshots_dir: !args.no_snapshots_dir,
        at: args.at.clone(),
        read_only: read_only || args.at.is_some(),
        cache_size: cache_size(args),
        dir,
        ..spec(global, paths, &args.opening, &target, &unlocked)?
    };
    drop((unlocked, bucket)); // the daemon has the key from here on
    let started = LaunchedDaemon::start(&spec);
    if started.is_err() && args.at.is_some() {
        past_dir::remove(&spec.dir); // otherwise the daemon does
    }
    let mut daemon = started?;
    let report = daemon.ready().await?;
    if args.at.is_none() && !args.unremembered {
        remember(paths, &target, &id, &path);
    }
    match args.unremembered && global.verbose == 0 {
        true => report.warnings.iter().for_each(|warning| complain!("s3vault: note: {warning}")),
        false => announce(&report, args.opening.foreground),
    }
    if args.opening.foreground {
        return daemon.stay(&path.display().to_string()).await;
    }
    daemon.release();
    Ok(())
}

/// The named bucket and mountpoint. `mount NAME` means the vault of that name at its last mountpoint.
fn said<'a>(args: &'a MountArgs, config: &Config) -> (Option<&'a str>, Option<&'a Path>) {
    let (bucket, mountpoint) = (args.bucket.bucket.as_deref(), args.mountpoint.as_deref());
    let name = mountpoint.and_then(Path::to_str).filter(|text| is_name(text));
    match name {
        Some(name)
            if bucket.is_none()
                && config.named(name).is_ok()
                && Path::new(name).symlink_metadata().is_err() =>
        {
            (Some(name), None)
        }
        _ => (bucket, mountpoint),
    }
}

/// A mount of the past exists for a short while beside the usual one, so its default cache is smaller.
fn cache_size(args: &MountArgs) -> Option<u64> {
    let asked = args.opening.cache_size.map(|size| size.as_u64());
    asked.or_else(|| args.at.as_ref().map(|_| PAST_CACHE))
}

/// Makes the mountpoint, and protects it if asked to.
fn make_ready(path: &Path, protect: bool) -> CliResult {
    mount_dir::make(path)?;
    if protect { mount_dir::protect(path) } else { Ok(()) }
}

/// The daemon that has this vault open for a service or command and has no mount yet.
fn without_mount(paths: &UserPaths, target: &Target) -> Option<RunningDaemon> {
    target.running(paths).filter(|running| running.mountpoint.is_none())
}

/// Asks the daemon that has the vault open to mount it too, since there is only one writer. A daemon that was started
/// for a command then lives on.
fn join(
    paths: &UserPaths,
    args: &MountArgs,
    look: MountLook,
    target: &Target,
    path: &Path,
    running: &RunningDaemon,
) -> CliResult {
    let differs = [
        (args.opening.foreground, "--foreground"),
        ((args.opening.read_only || look.read_only) != running.read_only, "--read-only"),
        // A service has its own /metrics.
        (args.metrics.is_some() && running.for_command, "--metrics"),
    ];
    if let Some((_, option)) = differs.iter().find(|(is_so, _)| *is_so) {
        return Err(differently(running, option));
    }
    if args.metrics.is_some() {
        let text = format!(
            "process {} serves the vault and would run the mount, too: its /metrics has what --metrics would show; leave \
             --metrics out",
            running.pid
        );
        return Err(Failure::new(Exit::MountedAlready, text));
    }
    make_ready(path, args.protect)?;
    let request = ControlRequest::Mount { mountpoint: path.to_path_buf(), look };
    change(running, &request)?;
    tune_if_said(running, &args.opening)?;
    if args.unremembered {
        return Ok(());
    }
    remember(paths, target, &running.vault, path);
    announce(&report_of(running), false);
    say!(
        "  note   process {} {} already, and now mounts it, too; its memory, cache and fsync stay as they were",
        running.pid,
        if running.for_command { "had the vault for a command" } else { "served the vault" }
    );
    Ok(())
}

/// The failure if the mount needs options that the running process does not have.
fn differently(running: &RunningDaemon, option: &str) -> Failure {
    let (does, instead) = match running.for_command {
        true => ("has it for a command", "try again when that has ended".to_owned()),
        false => {
            let stop = format!("stop the service first: {} serve --stop", program());
            ("serves it", format!("mount it as it is served, or {stop}"))
        }
    };
    let text = format!(
        "{} is open already: process {} {does} and would run the mount, too, so {option} cannot differ from how that process \
         runs; {instead}",
        running.bucket, running.pid
    );
    Failure::new(Exit::MountedAlready, text)
}

/// Limits on the command line apply to a daemon that runs already, too.
pub(super) fn tune_if_said(running: &RunningDaemon, opening: &OpeningArgs) -> CliResult {
    match opening.limits.is_empty() {
        true => Ok(()),
        false => change(running, &ControlRequest::Tune(opening.limits.clone())),
    }
}

fn remembered_mountpoint(target: &Target) -> CliResult<PathBuf> {
    let known = target.known.as_ref().and_then(KnownVault::only_mountpoint);
    known.ok_or_else(|| {
        let text = format!(
            "where to mount? This vault was not mounted at just one place before; name an empty directory: {} \
             mount DIRECTORY",
            program()
        );
        Failure::new(Exit::Usage, text)
    })
}

/// Refuses what this user has in use already.
pub(super) fn not_in_use_yet(
    paths: &UserPaths,
    same: impl Fn(&RunningDaemon) -> bool,
) -> CliResult {
    let Some(running) = RunningDaemon::all(&paths.running()).into_iter().find(same) else {
        return Ok(());
    };
    let (pid, program) = (running.pid, program());
    let mounted = running.mountpoint.as_ref().map(|path| mount_dir::ours_at(path).is_some());
    let text = match mounted {
        None => format!(
            "{} is served already (process {pid}); stop that first: {program} serve --stop",
            running.bucket
        ),
        Some(true) => format!(
            "{} is mounted already, at {} (process {pid}); use it there, or unmount it \
             first; a second, --read-only mount needs a --state-dir of its own",
            running.bucket,
            running.name()
        ),
        Some(false) => format!(
            "{} was mounted at {}, and process {pid} is still sending what was written; wait for it (see `{program} \
             status`), or end it with `{program} umount --force {1}`",
            running.bucket,
            running.name()
        ),
    };
    Err(Failure::new(Exit::MountedAlready, text))
}

/// Opens the bucket. The store that needs no account gets its vault at the first mount or service.
pub(super) async fn open_or_make(
    unlocker: &Unlocker<'_>,
    read_only: bool,
    single_machine: bool,
) -> CliResult<Bucket> {
    let target = unlocker.target;
    let first = target.embedded && target.known.is_none();
    if first && !read_only {
        unlocker.make_directory()?;
    }
    let bucket = target.open().await?;
    if first && !read_only && !unlocker.is_made(&bucket).await? {
        let recovery = RecoveryOutput::beside(&unlocker.paths.key_file());
        let new = NewVault {
            single_machine,
            recovery: Some(&recovery),
            name: None,
            is_typed_back: false,
        };
        unlocker.make(&bucket, &new).await?;
    }
    Ok(bucket)
}

/// What a daemon is told to do, without a mount or service yet.
pub(super) fn spec(
    global: &Global,
    paths: &UserPaths,
    args: &OpeningArgs,
    target: &Target,
    unlocked: &Unlocked,
) -> CliResult<Spec> {
    let vault = unlocked.vault.to_string();
    Ok(Spec {
        mountpoint: None,
        serve: None,
        metrics: None,
        url: target.url.to_string(),
        endpoint: target.endpoint.clone(),
        region: target.region.clone(),
        dir: paths.state.join(&vault),
        vault,
        master: Hidden::from_key(unlocked.master.expose()),
        superblock: unlocked.copied.clone(),
        // They are removed from the daemon's environment.
        credentials: S3Credentials::of_environment().as_ref().map(Credentials::from_store),
        data: paths.data.clone(),
        at: None,
        foreground: args.foreground,
        read_only: args.read_only,
        refresh: args.refresh.0,
        take_over: args.take_over,
        accept_rollback: args.accept_rollback,
        accept_damage: args.accept_damage,
        single_machine: args.single_machine,
        look: MountLook::default(),
        snapshots_dir: true,
        fsync_bucket: args.fsync == Fsync::Bucket,
        memory: args.memory.as_u64(),
        cache_size: args.cache_size.map(|size| size.as_u64()),
        stop_timeout: args.stop_timeout,
        verbose: global.verbose,
        log_json: args.log_format == LogFormat::Json,
        limits: target.limits(&args.limits)?,
    })
}

/// Remembers the vault and the mountpoint, so that the next `mount` needs neither. A mount that works is not undone if
/// this fails.
fn remember(paths: &UserPaths, target: &Target, id: &str, path: &Path) {
    let known = target.remembered(id.to_owned());
    let Some(text) = path.to_str() else {
        complain!("s3vault: the mountpoint is not remembered: its name is not UTF-8");
        return;
    };
    if let Err(failure) = Config::update(&paths.config, |config| config.remember(known, Some(text)))
    {
        complain!("s3vault: mounted, but not remembered: {failure}");
    }
}

fn announce(report: &DaemonReport, foreground: bool) {
    let access = match &report.as_of {
        Some(as_of) => format!(", read-only, {}", as_of.describe()),
        None if report.read_only => ", read-only".to_owned(),
        None => String::new(),
    };
    let what = match report.read_only {
        true => "what it shows comes from",
        false => "what you put there is encrypted here and stored in",
    };
    say!("{} is mounted{access}: {what}", report.mountpoint);
    let server = report.endpoint.as_ref().map(|url| format!(" (at {url})")).unwrap_or_default();
    say!("  data   {}{server}", report.bucket);
    if let Some(head) = &report.head {
        say!("  head   commit {} of {}, fingerprint {}", head.number, head.time, head.fingerprint);
    }
    say!("  log    {}", report.log);
    let program = program();
    let stop = if foreground { "Ctrl-C, or " } else { "" };
    say!("  stop   {stop}{program} umount {}", report.mountpoint);
    say!("  see    {program} status");
    for warning in &report.warnings {
        say!("  note   {warning}");
    }
}
