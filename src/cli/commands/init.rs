//! `s3vault init`

use std::io::{self, IsTerminal};

use crate::cli::args::{Global, InitArgs, vault_name};
use crate::cli::config::{Config, KnownVault};
use crate::cli::doctor::{Findings, Gravity, look_at_bucket};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::init_dialogue::{Console, Talk, ask_name, ask_place, ask_whether, wait_for_enter};
use crate::cli::messages;
use crate::cli::paths::UserPaths;
use crate::cli::recovery_output::RecoveryOutput;
use crate::cli::target::Target;
use crate::cli::unlock::{NewVault, Unlocker};
use crate::vault::{self, Bucket, Deadlines};

/// Makes a vault, and remembers it.
pub(crate) async fn init(global: &Global, paths: &UserPaths, args: &InitArgs) -> CliResult {
    let is_asked = io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_asked && args.bucket.bucket.is_none() {
        return guided(global, paths, args, &mut Console).await;
    }
    let target = Target::new(global, paths, args.bucket.bucket.as_deref())?;
    let config = Config::read(&paths.config)?;
    if let Some(name) = &args.name {
        config.may_be_called(name, &target.url.to_string())?;
    }
    let recovery = RecoveryOutput::of_init(args.recovery.recovery_file.as_deref())?;
    let unlocker = Unlocker { global, paths, target: &target };
    let known = known_there(&config, &target, args);
    ready_directory(&unlocker, known)?;
    let bucket = target.open().await?;
    not_made_yet(&unlocker, &bucket, known).await?;
    let new = NewVault {
        single_machine: args.single_machine,
        recovery: recovery.as_ref(),
        name: args.name.as_deref(),
        is_typed_back: false,
    };
    unlocker.make(&bucket, &new).await?;
    say!("Mount it with: {} mount DIRECTORY", super::ask::program());
    Ok(())
}

/// The vault that this machine knows where a new one is to be made, unless the user said that it is to be forgotten.
fn known_there<'a>(config: &'a Config, target: &Target, args: &InitArgs) -> Option<&'a KnownVault> {
    let url = target.url.to_string();
    let is_there = |known: &&KnownVault| {
        !known.id.is_empty() && known.url == url && known.endpoint == target.endpoint
    };
    config.vaults.iter().find(is_there).filter(|_| !args.forget)
}

/// Makes the directory of a store on this machine. The directory of a known vault is on a disk that may not be mounted: nothing
/// is made in its place.
fn ready_directory(unlocker: &Unlocker<'_>, known: Option<&KnownVault>) -> CliResult {
    match known {
        None => unlocker.make_directory(),
        Some(known) if unlocker.target.directory().is_some_and(|path| !path.exists()) => {
            Err(messages::vanished(&unlocker.target.describe(), &known.id))
        }
        Some(_) => Ok(()),
    }
}

/// Checked before anybody is asked for a passphrase; the final check is that of `make`.
async fn not_made_yet(
    unlocker: &Unlocker<'_>,
    bucket: &Bucket,
    known: Option<&KnownVault>,
) -> CliResult {
    let place = unlocker.target.describe();
    match (unlocker.is_made(bucket).await?, known) {
        (true, _) => Err(messages::of_vault(&vault::Error::Exists, &place)),
        (false, Some(known)) => Err(messages::vanished(&place, &known.id)),
        (false, None) => Ok(()),
    }
}

/// Asks for everything that is needed, and tests it before anything is made.
async fn guided(
    global: &Global,
    paths: &UserPaths,
    args: &InitArgs,
    talk: &mut dyn Talk,
) -> CliResult {
    let usual = paths.embedded_store();
    let place = ask_place(talk, &usual.display().to_string())?;
    let global = &Global {
        endpoint_url: global.endpoint_url.clone().or(place.endpoint),
        region: global.region.clone().or(place.region),
        ..global.clone()
    };
    let target = Target::new(global, paths, Some(&place.url))?;
    let config = Config::read(&paths.config)?;
    if let Some(name) = &args.name {
        config.may_be_called(name, &target.url.to_string())?;
    }
    let unlocker = Unlocker { global, paths, target: &target };
    let known = known_there(&config, &target, args);
    ready_directory(&unlocker, known)?;
    let bucket = reach(&target, talk).await?;
    not_made_yet(&unlocker, &bucket, known).await?;
    say!("What the store lets this machine do:");
    let remarks = look_at_bucket(&target).await;
    Findings::default().add(&remarks)?;
    let fails = |is_condition: bool| {
        remarks.iter().any(|remark| {
            remark.gravity == Gravity::Fail && (remark.what == "conditional put") == is_condition
        })
    };
    if fails(false) {
        let text =
            "a vault would not work there; nothing was made; mend what says `fail`, and try again";
        return Err(Failure::new(Exit::Denied, text));
    }
    let single_machine = args.single_machine
        || fails(true)
            && ask_whether(
                talk,
                "Will one machine alone, for ever, write this vault (--single-machine)?",
            )?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_for(talk, paths, &place.url)?,
    };
    let recovery = RecoveryOutput::choose(args.recovery.recovery_file.as_deref())?;
    let is_typed_back = recovery == RecoveryOutput::Shown;
    let new =
        NewVault { single_machine, recovery: Some(&recovery), name: Some(&name), is_typed_back };
    unlocker.make(&bucket, &new).await?;
    let program = super::ask::program();
    say!("It is called {name}. Mount it with: {program} mount DIRECTORY --bucket {name}");
    say!("After that, {program} mount {name} is enough. Whether all is well: {program} doctor");
    Ok(())
}

/// Opens the bucket; repeats until it exists and the credentials are right, or the user gives up.
async fn reach(target: &Target, talk: &mut dyn Talk) -> CliResult<Bucket> {
    loop {
        let failure = match target.open().await {
            Ok(bucket) => return Ok(bucket),
            Err(failure) => failure,
        };
        complain!("{failure}.");
        match failure.exit {
            Exit::NoBucket => {
                if !ask_whether(talk, "Make this bucket?")? {
                    return Err(Failure::new(
                        Exit::NoBucket,
                        "there is no bucket; nothing was made",
                    ));
                }
                let bucket = target.unasked(None, Deadlines::default()).await?;
                let region = target.region.as_deref().filter(|_| target.endpoint.is_none());
                if let Err(error) = bucket.create(region).await {
                    complain!("{}.", messages::of_store(&error, &target.describe()));
                    wait_for_enter(talk, "It could not be made.")?;
                }
            }
            Exit::Denied => wait_for_enter(
                talk,
                "Credentials are found where `aws` finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY when this \
                 program is started, or `aws configure` in another window.\n",
            )?,
            Exit::Unreachable | Exit::Certificate => wait_for_enter(talk, "")?,
            _ => return Err(failure),
        }
    }
}

fn name_for(talk: &mut dyn Talk, paths: &UserPaths, url: &str) -> CliResult<String> {
    let config = Config::read(&paths.config)?;
    let is_free = |name: &str| vault_name(name).is_ok() && config.named(name).is_err();
    let last = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain: String =
        last.chars().filter(|c| c.is_alphanumeric() || "._-".contains(*c)).collect();
    let base = if vault_name(&plain).is_ok() { plain } else { "vault".to_owned() };
    let numbered = (2..1000).map(|number| format!("{base}-{number}"));
    let usual = std::iter::once(base.clone()).chain(numbered).find(|name| is_free(name));
    ask_name(talk, &usual.unwrap_or(base), is_free)
}
