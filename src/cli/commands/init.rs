//! `s3vault init`

use crate::cli::args::{Global, InitArgs};
use crate::cli::exit::CliResult;
use crate::cli::messages;
use crate::cli::paths::UserPaths;
use crate::cli::recovery_output::RecoveryOutput;
use crate::cli::target::Target;
use crate::cli::unlock::Unlocker;
use crate::vault;

/// Makes a vault, and remembers it.
pub(crate) async fn init(global: &Global, paths: &UserPaths, args: &InitArgs) -> CliResult {
    let target = Target::new(global, paths, args.bucket.bucket.as_deref())?;
    let recovery = RecoveryOutput::of_init(args.recovery.recovery_file.as_deref())?;
    let unlocker = Unlocker { global, paths, target: &target };
    unlocker.make_directory()?;
    let bucket = target.open().await?;
    // Looked at before anybody is asked for a passphrase; `make` decides it for good.
    if unlocker.is_made(&bucket).await? {
        return Err(messages::of_vault(&vault::Error::Exists, &target.describe()));
    }
    unlocker.make(&bucket, args.single_machine, recovery.as_ref(), args.name.as_deref()).await?;
    say!("Mount it with: {} mount DIRECTORY", super::ask::program());
    Ok(())
}
