//! `s3vault serve token`: who may use a vault's service. The tokens are in a file on this machine that the service
//! reads.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cli::args::{Global, TokenCommand};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::messages;
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::cli::target::WhichVault;
use crate::gateway::{Access, Token, TokenLimits, Tokens};
use crate::os::{lock, make_private, replace};
use crate::types::{Timestamp, printable};
use crate::vault;

/// Makes, lists or revokes tokens.
pub(super) async fn token(global: &Global, paths: &UserPaths, command: &TokenCommand) -> CliResult {
    let (TokenCommand::Add { bucket, .. }
    | TokenCommand::List { bucket }
    | TokenCommand::Remove { bucket, .. }) = command;
    let vault = vault_of(global, paths, bucket.bucket.as_deref()).await?;
    let path = paths.tokens(&vault);
    match command {
        TokenCommand::Add { name, write, expires, only, .. } => {
            let access = if *write { Access::Write } else { Access::Read };
            let add = |tokens: &mut Tokens| {
                let only = only.as_ref().map(|only| only.as_bytes());
                let limits = TokenLimits { lasts: *expires, only };
                let secret =
                    tokens.add(name, access, limits).map_err(|error| usage(&error.to_string()))?;
                // Printed before it is stored: a token that nobody has seen would be useless.
                output::write(secret.expose()).map_err(|error| output::failure(&error))
            };
            update(&path, add)?;
            let may = if *write { "do everything" } else { "list and download" };
            let below = match only {
                Some(only) => {
                    format!(" below {}, and sees nothing else", printable(&only.to_string_lossy()))
                }
                None => String::new(),
            };
            complain!(
                "This token is shown only once. Send it as `Authorization: Bearer TOKEN`, or enter it on the \
                 page; {name} may {may}{below}."
            );
        }
        TokenCommand::List { .. } => {
            let line = |token: &Token| {
                let made = messages::when(Timestamp { seconds: token.created, nanos: 0 });
                let until = token.expires().map(|seconds| {
                    let has_ended = if token.is_good() { "" } else { " (expired)" };
                    format!(
                        "  until {}{has_ended}",
                        messages::when(Timestamp { seconds, nanos: 0 })
                    )
                });
                let only =
                    token.only().map(|only| format!("  only {}", String::from_utf8_lossy(&only)));
                let (until, only) = (until.unwrap_or_default(), only.unwrap_or_default());
                format!("{:5}  {made}  {}{until}{only}", token.access, token.name)
            };
            let lines: Vec<_> = read(&path)?.iter().map(line).collect();
            if !lines.is_empty() {
                output::show(&lines.join("\n"))?;
            }
        }
        TokenCommand::Remove { name, .. } => {
            let remove = |tokens: &mut Tokens| match tokens.remove(name) {
                true => Ok(()),
                false => Err(usage(
                    "there is no token with this name; `s3vault serve token list` shows them",
                )),
            };
            update(&path, remove)?;
            say!("The token {name} is refused from now on.");
        }
    }
    Ok(())
}

/// The id of the vault. The bucket is asked only if the id is not known here.
async fn vault_of(global: &Global, paths: &UserPaths, bucket: Option<&str>) -> CliResult<String> {
    let target = match WhichVault::find(global, paths, bucket)? {
        WhichVault::Open(running) => return Ok(running.vault),
        WhichVault::Closed(target) => target,
    };
    if let Some(known) = &target.known {
        return Ok(known.id.clone());
    }
    let bucket = target.open().await?;
    let id = vault::vault_id(&bucket).await;
    let id = id.map_err(|error| messages::of_vault(&error, &target.describe()))?;
    Ok(id.to_string())
}

fn usage(text: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{text}; nothing was changed"))
}

fn read(path: &Path) -> CliResult<Tokens> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tokens::default()),
        Err(error) => {
            return Err(Failure::io(format_args!("{} cannot be read", path.display()), &error));
        }
    };
    Tokens::parse(&text).map_err(|error| usage(&format!("{}: {error}", path.display())))
}

/// Changes the file: one process at a time, and atomically.
fn update<T>(path: &Path, change: impl FnOnce(&mut Tokens) -> CliResult<T>) -> CliResult<T> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let failed = |error| Failure::io(format_args!("{} cannot be written", path.display()), &error);
    make_private(dir).map_err(failed)?;
    let _lock = lock(dir).map_err(failed)?;
    let mut tokens = read(path)?;
    let value = change(&mut tokens)?;
    replace(path, tokens.text().as_bytes()).map_err(failed)?;
    Ok(value)
}
