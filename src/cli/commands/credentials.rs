//! `s3vault credentials`

use super::{change, not_mounted};
use crate::cli::args::CredentialsArgs;
use crate::cli::control::Request;
use crate::cli::daemon::spec::Credentials;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::messages;
use crate::cli::paths::{Places, absolute};
use crate::cli::running::Running;
use crate::vault::S3Credentials;

/// Hands a daemon the credentials that this shell has, or that `aws` would find from here. They go over the control
/// socket, which hears this user alone, and are kept in memory alone.
pub(crate) async fn credentials(places: &Places, args: &CredentialsArgs) -> Outcome {
    let all = Running::all(&places.running());
    let running = match &args.mountpoint {
        Some(path) => {
            let path = absolute(path)?;
            let found = Running::at(&places.running(), &path);
            found.ok_or_else(|| not_mounted(&path.display().to_string(), &all))?
        }
        None => match all.as_slice() {
            [only] => only.clone(),
            [] => {
                let text = "no mount or service of this user runs, so nobody needs credentials";
                return Err(Failure::new(Exit::NotMounted, text));
            }
            several => {
                let names: Vec<_> = several.iter().map(Running::name).collect();
                let text = format!("say which one is to have them: {}", names.join(", "));
                return Err(Failure::new(Exit::Usage, text));
            }
        },
    };
    let found = S3Credentials::find().await;
    let found = found.map_err(|error| messages::of_store(&error, &running.bucket))?;
    change(&running, &Request::Credentials(Credentials::from_store(&found)))?;
    say!("{} goes on with the access key {}.", running.name(), found.access_key);
    Ok(())
}
