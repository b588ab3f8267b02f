//! Brings back what was set aside on this machine, for whoever asked at the control socket.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use tokio::sync::mpsc;

use super::past_host::{PAUSE, names, say};
use crate::cli::control::{AsideRecovery, ControlReply};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::messages;
use crate::types::Timestamp;
use crate::vault::{self, AsideFolder, Recovery, Restored, Vault};

/// How long what was recovered may take to the bucket while nothing moves.
const SYNC: Duration = Duration::from_mins(5);

/// Lists what is set aside, or recovers it into new directories of the vault.
pub(super) async fn recover(
    vault: &Vault,
    what: AsideRecovery,
    told: &mpsc::Sender<ControlReply>,
    fail: impl Fn(&vault::Error) -> Failure,
) -> CliResult {
    let folders = vault.set_aside().map_err(|error| fail(&error))?;
    if folders.is_empty() {
        say(told, "Nothing of this vault is set aside on this machine.".to_owned()).await;
        return Ok(());
    }
    if what.lists {
        for folder in &folders {
            say(told, line(folder)).await;
        }
        return Ok(());
    }
    if let Some(reason) = vault.status().read_only {
        let text = format!("nothing can be recovered here, as nothing can be changed: {reason}");
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut failures = 0;
    for folder in &folders {
        if !folder.is_recoverable {
            say(told, line(folder)).await;
            continue;
        }
        let recovered = one(vault, folder, &what.into, told).await.map_err(|error| fail(&error))?;
        failures += recovered.failures;
        vault.sync(SYNC).await.map_err(|error| fail(&error))?;
        let shown = folder.path.display();
        let rest = match (what.removes, recovered.failures) {
            (true, 0) => {
                vault.remove_aside(folder).map_err(|error| fail(&error))?;
                format!("All of it is in the bucket; {shown} is removed.")
            }
            (_, 0) => format!(
                "All of it is in the bucket. It is still set aside, too: when you have looked at it, rm -r {shown}"
            ),
            _ => format!("What was set aside stays in {shown}."),
        };
        say(told, rest).await;
    }
    match failures {
        0 => Ok(()),
        n => {
            let text = format!("{n} files could not be recovered; all others are there");
            Err(Failure::new(Exit::Other, text))
        }
    }
}

async fn one(
    vault: &Vault,
    folder: &AsideFolder,
    into: &Path,
    told: &mpsc::Sender<ControlReply>,
) -> vault::Result<Recovery> {
    let mut last = Instant::now();
    let mut tell = |done: &Restored| {
        if told.is_closed() {
            return ControlFlow::Break(());
        }
        if last.elapsed() >= PAUSE {
            last = Instant::now();
            let text = format!("so far {}", amount(done));
            drop(told.try_send(ControlReply::Said { text })); // the next one says more
        }
        ControlFlow::Continue(())
    };
    let since = messages::when(Timestamp::of_store(folder.since));
    let name = format!("recovered-{}", since.split('T').next().unwrap_or_default());
    let place = (&names(into)[..], name.as_bytes());
    let recovered = vault.recover(folder, place, &mut tell).await?;
    let text = match &recovered.place {
        Some(place) => {
            let path = String::from_utf8_lossy(&place.join(&b'/')).into_owned();
            format!("Recovered {} into {path}.", amount(&recovered.done))
        }
        None => {
            "The changes that were set aside left no file behind: nothing to recover.".to_owned()
        }
    };
    say(told, text).await;
    for (path, why) in &recovered.failed {
        say(told, format!("Not recovered: {}: {why}", String::from_utf8_lossy(path))).await;
    }
    Ok(recovered)
}

fn line(folder: &AsideFolder) -> String {
    let since = messages::when(Timestamp::of_store(folder.since));
    let what = match folder.is_recoverable {
        true => "changes that were set aside",
        false => "a copy of damaged files, which this command can make nothing of",
    };
    format!("{since}  {}: {what}", folder.path.display())
}

fn amount(done: &Restored) -> String {
    let things = match done.files {
        1 => "1 file".to_owned(),
        files => format!("{files} files and directories"),
    };
    format!("{things} with {}", ByteSize::b(done.bytes))
}
