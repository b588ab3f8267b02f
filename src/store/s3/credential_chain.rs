//! Where credentials are found: the chain of `aws`, built anew for each look-up.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::Region;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::answer;

/// Finds credentials.
#[async_trait]
pub(super) trait FindCredentials: Send + Sync {
    /// The credentials that can be found now, or why there are none.
    async fn find(&self) -> Result<Credentials, String>;
    /// A value that stays the same as long as the credential files do.
    async fn stamp(&self) -> FileStamps;
}

/// For each file, when it was changed and how long it is.
pub(super) type FileStamps = Vec<Option<(SystemTime, u64)>>;

/// The chain of `aws`: environment, profile (keys, process, role, SSO), web identity, container, instance.
pub(super) struct AwsChain {
    http: SharedHttpClient,
    region: Option<Region>,
    files: Vec<PathBuf>,
}

impl AwsChain {
    pub(super) fn new(http: SharedHttpClient, region: Option<Region>) -> Self {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = get("HOME").map(PathBuf::from).unwrap_or_default();
        let at_home = |path: PathBuf| match path.strip_prefix("~") {
            Ok(rest) => home.join(rest),
            Err(_) => path,
        };
        let file = |name: &str, usual: &str| get(name).map_or_else(|| usual.into(), PathBuf::from);
        let mut files = vec![
            at_home(file("AWS_CONFIG_FILE", "~/.aws/config")),
            at_home(file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")),
        ];
        files.extend(get("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from));
        Self { http, region, files }
    }
}

#[async_trait]
impl FindCredentials for AwsChain {
    async fn find(&self) -> Result<Credentials, String> {
        let config = ProviderConfig::without_region()
            .with_http_client(self.http.clone())
            .with_region(self.region.clone());
        let mut chain = DefaultCredentialsChain::builder().configure(config);
        // Without this the chain looks for a region, in the end at the metadata service.
        chain.set_region(self.region.clone());
        match chain.build().await.provide_credentials().await {
            Ok(found) => Ok(found),
            Err(CredentialsError::CredentialsNotLoaded(_)) => {
                Err("neither environment nor profile, role or metadata service has any".to_owned())
            }
            Err(error) => Err(answer::one_line(&error)),
        }
    }

    /// Not on a thread of the runtime: the files may be in a mount that this process serves.
    async fn stamp(&self) -> FileStamps {
        let files = self.files.clone();
        let read = move || files.iter().map(|path| stamp(path)).collect();
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
