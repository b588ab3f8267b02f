//! `s3vault init`

use crate::cli::args::{Global, Init};
use crate::cli::exit::Outcome;
use crate::cli::messages;
use crate::cli::opening::Opening;
use crate::cli::paths::Places;
use crate::cli::target::Target;
use crate::vault;

/// Makes a vault, and remembers it.
pub(crate) async fn init(global: &Global, places: &Places, args: &Init) -> Outcome {
    let target = Target::new(global, places, args.bucket.bucket.as_deref())?;
    let opening = Opening { global, places, target: &target };
    opening.make_directory()?;
    let bucket = target.open().await?;
    // Looked at before anybody is asked for a passphrase; `make` decides it for good.
    if opening.is_made(&bucket).await? {
        return Err(messages::of_vault(&vault::Error::Exists, &target.describe()));
    }
    opening.make(&bucket, args.single_machine).await?;
    say!("Mount it with: {} mount DIRECTORY", super::program());
    Ok(())
}
