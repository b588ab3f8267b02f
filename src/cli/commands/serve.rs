//! `s3vault serve`: asks the daemon that has the vault open, or starts one that only serves.

use super::ask::{change, program, report_of, silent};
use super::mount::{not_in_use_yet, open_or_make, spec, tune_if_said};
use super::token::token;
use super::umount::finish_to_its_end;
use crate::cli::args::{Global, ServeArgs, ServeCommand};
use crate::cli::config::Config;
use crate::cli::control::ControlRequest;
use crate::cli::daemon::launch::LaunchedDaemon;
use crate::cli::daemon::spec::Spec;
use crate::cli::daemon_report::{DaemonReport, describe_service};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::messages;
use crate::cli::paths::{UserPaths, absolute, listen_at};
use crate::cli::registry::RunningDaemon;
use crate::cli::target::{Target, WhichVault};
use crate::cli::unlock::Unlocker;
use crate::gateway::{Listening, ServeOptions, TlsFiles};

/// Serves a vault. Returns when clients can connect; with `--foreground`, when it has ended.
pub(crate) async fn serve(global: &Global, paths: &UserPaths, args: &ServeArgs) -> CliResult {
    if let Some(ServeCommand::Token(command)) = &args.command {
        return token(global, paths, command).await;
    }
    match (WhichVault::find(global, paths, args.bucket.bucket.as_deref())?, args.stop) {
        (WhichVault::Open(running), true) => stop(&running),
        (WhichVault::Closed(target), true) => {
            let text =
                format!("{} is not served by this user; nothing was stopped", target.describe());
            Err(Failure::new(Exit::NotMounted, text))
        }
        (WhichVault::Open(running), false) => ask(paths, args, &running),
        (WhichVault::Closed(target), false) => start(global, paths, args, &target).await,
    }
}

/// Starts a daemon that only serves.
async fn start(global: &Global, paths: &UserPaths, args: &ServeArgs, target: &Target) -> CliResult {
    // Checked before anybody is asked for a passphrase; the final check is the daemon's.
    let dry = Listening::open(options(paths, args, "")?).await;
    drop(dry.map_err(|error| messages::of_service(&error))?);

    let unlocker = Unlocker { global, paths, target };
    let bucket =
        open_or_make(&unlocker, args.opening.read_only, args.opening.single_machine).await?;
    let unlocked = unlocker.unlock(&bucket).await?;
    let id = unlocked.vault.to_string();
    let dir = paths.state.join(&id);
    not_in_use_yet(paths, |running| running.dir == dir)?;
    let spec = Spec {
        serve: Some(options(paths, args, &id)?),
        ..spec(global, paths, &args.opening, target, &unlocked)?
    };
    drop((unlocked, bucket)); // the daemon has the key from here on
    let mut daemon = LaunchedDaemon::start(&spec)?;
    let report = daemon.ready().await?;
    let known = target.remembered(id);
    if let Err(failure) = Config::update(&paths.config, |config| config.remember(known, None)) {
        complain!("s3vault: served, but not remembered: {failure}");
    }
    announce(&report, args.opening.foreground);
    if args.opening.foreground {
        return daemon.stay(&format!("the service of {}", report.bucket)).await;
    }
    daemon.release();
    Ok(())
}

/// Asks the daemon that has the vault open to serve it.
fn ask(paths: &UserPaths, args: &ServeArgs, running: &RunningDaemon) -> CliResult {
    if args.opening.foreground {
        let text = format!(
            "{} is open already, in process {}, which would serve it in the background: leave --foreground out, or \
             end that process first",
            running.bucket, running.pid
        );
        return Err(Failure::new(Exit::MountedAlready, text));
    }
    if args.opening.read_only && !running.read_only {
        let text = format!(
            "{} is open for writing already, in process {}, and --read-only says how a vault is opened: end that process              first, or leave --read-only out (a token of --read-only reads only)",
            running.bucket, running.pid
        );
        return Err(Failure::new(Exit::MountedAlready, text));
    }
    let options = options(paths, args, &running.vault)?;
    change(running, &ControlRequest::Serve(options))?;
    tune_if_said(running, &args.opening)?;
    announce(&report_of(running), false);
    Ok(())
}

fn stop(running: &RunningDaemon) -> CliResult {
    let process = running.process().map_err(|error| silent(running, &error))?;
    let before = report_of(running);
    // A daemon with a mount lives on, so its end cannot tell that the service ended.
    match running.mountpoint {
        None => finish_to_its_end(running, &ControlRequest::Unserve, None, process)?,
        Some(_) => change(running, &ControlRequest::Unserve)?,
    }
    let url = before.service.map_or_else(|| "nowhere".to_owned(), |service| service.url);
    if running.mountpoint.is_none() {
        let sent = if running.read_only { "" } else { "; everything is in the bucket" };
        say!("{} is not served at {url} any more{sent}.", running.bucket);
    } else {
        say!(
            "{} is not served at {url} any more; it is mounted at {} still.",
            running.bucket,
            running.name()
        );
    }
    Ok(())
}

fn options(paths: &UserPaths, args: &ServeArgs, vault: &str) -> CliResult<ServeOptions> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(TlsFiles { certificate: absolute(certificate)?, key: absolute(key)? })
        }
        _ => None,
    };
    Ok(ServeOptions {
        listen: listen_at(&args.listen)?,
        socket_mode: args.socket_mode,
        open: args.open,
        hosts: args.hosts.clone(),
        tls,
        max_upload: args.max_upload.as_u64(),
        client_timeout: args.client_timeout,
        only_metrics: false,
        tokens: paths.tokens(vault),
    })
}

fn announce(report: &DaemonReport, foreground: bool) {
    let program = program();
    let Some(service) = &report.service else {
        complain!("s3vault: the service has ended already; see {}", report.log);
        return;
    };
    let access = if report.read_only { ", read-only" } else { "" };
    let server = report.endpoint.as_ref().map(|url| format!(" (at {url})")).unwrap_or_default();
    say!("{}{server} is served{access}: {}", report.bucket, describe_service(service));
    if report.mountpoint.is_empty() {
        say!("  mount  not; `{program} mount DIRECTORY` mounts the vault, too");
    } else {
        say!("  mount  {}", report.mountpoint);
    }
    let token = if service.open { "" } else { " -H 'Authorization: Bearer TOKEN'" };
    let socket = service.url.strip_prefix("unix:");
    let (curl, url) = match socket {
        Some(path) => (format!("curl --unix-socket '{path}'"), "http://localhost"),
        None => ("curl".to_owned(), service.url.as_str()),
    };
    say!("  upload {curl}{token} -F 'file=@FILE' {url}/upload/");
    if socket.is_none() {
        say!("  page   {url}/");
    }
    say!("  log    {}", report.log);
    let stop = if foreground { "Ctrl-C, or " } else { "" };
    say!("  stop   {stop}{program} serve --stop");
    say!("  see    {program} status");
    if !service.open && service.tokens == 0 {
        say!("  note   nobody can use it yet: {program} serve token add NAME --read-only|--write");
    }
    let local = socket.is_some() || url.contains("//127.") || url.contains("//[::1]");
    if !service.tls && !local {
        say!(
            "  note   files and tokens travel unencrypted: use --tls-cert and --tls-key, unless a proxy in front of \
             the service speaks TLS"
        );
    }
    for warning in &report.warnings {
        say!("  note   {warning}");
    }
}
