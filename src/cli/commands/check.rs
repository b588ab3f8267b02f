//! `s3vault check`

use std::path::PathBuf;

use bytesize::ByteSize;

use crate::cli::args::{CheckArgs, Global};
use crate::cli::config::Config;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::messages;
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::cli::progress::CheckBar;
use crate::cli::target::Target;
use crate::cli::unlock::Unlocker;
use crate::os;
use crate::types::Timestamp;
use crate::vault::{self, CheckReport, Deadlines};

/// Notes the result of a check for `status --watch`. A check counts even if its result cannot be noted.
fn note(paths: &UserPaths, vault: &str, found: &CheckReport, read_data: bool) {
    let what = match (found.findings.len(), read_data) {
        (0, true) => "everything is there, and opens".to_owned(),
        (0, false) => "everything is there".to_owned(),
        (count, _) => format!("{count} objects damaged or missing"),
    };
    let text = format!("{}: {what}", messages::when(Timestamp::now()));
    drop(os::replace(&noted_at(paths, vault), text.as_bytes()));
}

/// The file of that note.
pub(super) fn noted_at(paths: &UserPaths, vault: &str) -> PathBuf {
    paths.data.join(format!("{vault}.checked"))
}

/// Checks that everything the vault refers to is in the bucket and complete; changes nothing.
pub(crate) async fn check(global: &Global, paths: &UserPaths, args: &CheckArgs) -> CliResult {
    let config = Config::read(&paths.config)?;
    let target = Target::choose(global, paths, &config, args.bucket.bucket.as_deref(), None)?;
    let place = target.describe();
    let bucket = target.open_with(None, Deadlines::default()).await?;
    let unlocked = Unlocker { global, paths, target: &target }.unlock(&bucket).await?;
    let count = CheckBar::new("checked");
    let seen = Some(paths.data.as_path());
    let show = |done, all| count.show(done, all);
    let found = vault::check(&bucket, &unlocked, args.read_data, seen, &show).await;
    drop(count);
    let found = found.map_err(|error| messages::of_vault(&error, &place))?;
    note(paths, &unlocked.vault.to_string(), &found, args.read_data);
    let mut text = vec![format!(
        "{place}: {} files and directories with {} in {} packs; {} commits since the last checkpoint",
        found.inodes,
        ByteSize::b(found.bytes),
        found.packs,
        found.commits
    )];
    if found.unused.0 > 0 {
        text.push(format!(
            "  nothing refers to {} packs with {} (any more): old states or snapshots may, and `s3vault gc` \
             deletes what none needs",
            found.unused.0,
            ByteSize::b(found.unused.1)
        ));
    }
    text.extend(found.findings.iter().map(|finding| format!("  damaged: {finding}")));
    let rollback = found
        .went_back
        .map(|number| messages::of_vault(&vault::Error::Rollback { number }, &place));
    if let (Some(rollback), true) = (&rollback, found.findings.is_empty()) {
        if let Err(failure) = output::show(&text.join("\n")) {
            complain!("s3vault: {failure}");
        }
        return Err(rollback.clone());
    }
    text.extend(rollback.map(|rollback| format!("  {}", rollback.message)));
    if found.findings.is_empty() {
        let how = if args.read_data { "is there, and opens" } else { "is there, whole" };
        text.push(format!("Everything that the vault refers to {how}."));
        return output::show(&text.join("\n"));
    }
    let shown = output::show(&text.join("\n"));
    let text = format!(
        "{} of the objects in {place} are damaged or missing, as listed; the rest is intact; restore them from a \
         copy of the bucket, or the files from a backup",
        found.findings.len()
    );
    if let Err(failure) = shown {
        complain!("s3vault: {failure}");
    }
    Err(Failure::new(Exit::Damaged, text))
}
