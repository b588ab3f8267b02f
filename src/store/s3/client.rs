//! The client, with settings that third-party servers can handle.

use std::sync::Arc;
use std::time::SystemTime;

use aws_config::BehaviorVersion;
use aws_config::SdkConfig;
use aws_config::environment::{
    EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider,
};
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::service_config::ServiceConfigKey;
use futures_util::FutureExt;
use zeroize::Zeroizing;

use super::super::deadlines::Deadlines;
use super::super::error::{Error, Result};
use super::credential_chain::{AwsChain, FindCredentials};
use super::credentials::CredentialCache;
use super::endpoint::Endpoint;
use super::proxy::Proxies;
use super::{answer, http, trust};

/// The region when none is known and an endpoint is given: third-party servers expect it.
const REGION: &str = "us-east-1";

/// Credentials that were handed over rather than found by the standard chain.
#[derive(Clone)]
pub struct S3Credentials {
    /// The access key's id.
    pub access_key: String,
    /// The secret.
    pub secret_key: Zeroizing<String>,
    /// The session token of temporary credentials.
    pub session_token: Option<Zeroizing<String>>,
    /// When they expire, if that is known.
    pub expires: Option<SystemTime>,
}

impl S3Credentials {
    /// The credentials that the chain of `aws` finds for this process: environment, profile, and so on.
    pub async fn find() -> Result<Self> {
        let (http, _) = network().await?;
        let found = AwsChain::new(http, configured_region().await).find().await;
        let found = found.map_err(|why| Error::NoCredentials { cause: answer::said(why) })?;
        Ok(Self::of_sdk(&found))
    }

    /// The credentials in this process's environment, which take precedence over all others: exactly what the chain would take
    /// from there. So a process that clears its environment afterwards lacks none, and has none that the chain would ignore.
    pub fn of_environment() -> Option<Self> {
        let environment = EnvironmentVariableCredentialsProvider::new();
        let found = environment.provide_credentials().now_or_never()?; // it waits for nothing
        found.ok().as_ref().map(Self::of_sdk)
    }

    fn of_sdk(found: &Credentials) -> Self {
        Self {
            access_key: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned().into(),
            session_token: found.session_token().map(|token| token.to_owned().into()),
            expires: found.expiry(),
        }
    }

    pub(super) fn to_sdk(&self) -> Credentials {
        let token = self.session_token.as_ref().map(|token| token.to_string());
        let (id, secret) = (self.access_key.clone(), self.secret_key.to_string());
        Credentials::new(id, secret, token, self.expires, "s3vault")
    }
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Credentials(…)")
    }
}

/// How to reach an S3 store; what is not given comes from the standard AWS chain.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// `None`: from the chain (`AWS_ENDPOINT_URL_S3`, the `services` of a profile, `AWS_ENDPOINT_URL`, the profile), or else
    /// Amazon's for the region.
    pub endpoint_url: Option<String>,
    /// `None`: from the chain, or else us-east-1.
    pub region: Option<String>,
    /// `None`: from the chain (environment, profile, SSO, container, instance).
    pub credentials: Option<S3Credentials>,
}

/// The client, its credentials, and whether nobody can change on the way what it sends.
pub(super) async fn build(
    options: &S3Options,
    limits: &Deadlines,
) -> Result<(Client, CredentialCache, bool)> {
    let (http, proxies) = network().await?;
    let region = match &options.region {
        Some(region) => Some(Region::new(region.clone())),
        // With a custom endpoint, the instance's metadata service is not asked: where there is none, the request would time out.
        None if options.endpoint_url.is_some() => configured_region().await,
        None => RegionProviderChain::default_provider().region().await,
    };
    let region = region.unwrap_or(Region::from_static(REGION));
    let given = options.credentials.as_ref().map(S3Credentials::to_sdk);
    let source = || -> Box<dyn FindCredentials> {
        Box::new(AwsChain::new(http.clone(), Some(region.clone())))
    };
    let source = given.is_none().then(source);
    // A request that waits for a look-up should have time left for itself.
    let credentials = CredentialCache::new(given, source, limits.stall_get * 3 / 4);
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .region(region.clone())
        .credentials_provider(credentials.clone());
    if let Some(endpoint) = &options.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let is_named =
        options.endpoint_url.is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let endpoint = endpoint(options, &shared);
    // An unusable proxy is reported now. The SDK decides the host of Amazon's endpoint; this one is like it.
    let amazon = || format!("https://s3.{region}.amazonaws.com");
    let url = endpoint.clone().unwrap_or_else(amazon);
    let (asked, proxy) = (Endpoint::of(&url), proxies.of_url(&url).map_err(settings)?);
    // An endpoint from a profile does not count: it is whatever the profile's writer took for the store.
    let is_here = is_named && proxy.is_none() && asked.is_here();
    let is_protected = asked.encrypted || is_here;
    if let Some(proxy) = proxy {
        tracing::info!(%proxy, "the store is asked through a proxy");
    }
    let config = aws_sdk_s3::config::Builder::from(&shared)
        // Servers other than Amazon's seldom know a bucket by its host name.
        .force_path_style(endpoint.is_some())
        // The SDK's own CRC trailers break third-party servers; the header is set by hand.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // The decorators handle repetition and deadlines, and our cache keeps the credentials.
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(limits.connect).build())
        .build();
    credentials.begin(limits.operation).await;
    Ok((Client::from_conf(config), credentials, is_protected))
}

/// The endpoint that the SDK uses: the given one, or else one for S3 alone (`AWS_ENDPOINT_URL_S3`, or the `services` of a
/// profile), or else one for all services. `None`: Amazon's.
fn endpoint(options: &S3Options, shared: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok(); // all required fields are set
    let of_s3 = || shared.service_config()?.load_config(key?);
    let given = options.endpoint_url.clone();
    given.or_else(of_s3).or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// The HTTP client for all requests, and its proxies.
async fn network() -> Result<(SharedHttpClient, Arc<Proxies>)> {
    let proxies = Arc::new(Proxies::of(|name| std::env::var_os(name)));
    let trusted = trust::find().await.map_err(settings)?;
    Ok((http::client(trusted, &proxies), proxies))
}

fn settings(what: String) -> Error {
    Error::Settings { what }
}

/// The region from the environment or the profile.
async fn configured_region() -> Option<Region> {
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
    chain.or_else(ProfileFileRegionProvider::new()).region().await
}

#[cfg(test)]
// Their new names are in a crate that nothing else here needs.
#[expect(deprecated)]
mod tests {
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};

    use super::*;

    /// Otherwise requests would go to a custom server as if to Amazon's, and over plain HTTP as if nobody could change them.
    #[tokio::test]
    async fn an_endpoint_that_a_profile_names_for_s3_alone_is_known() {
        const ALL: &str = "[default]\nendpoint_url = https://all.example\n";
        const S3: &str = "[default]\nservices = own\nendpoint_url = https://all.example\n\
                          [services own]\ns3 =\n  endpoint_url = http://s3.example:9000\n";
        let of = async |profile: &str, given: Option<&str>| {
            let files = ProfileFiles::builder().with_contents(ProfileFileKind::Config, profile);
            let shared = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .profile_files(files.build())
                .region(Region::from_static(REGION))
                .no_credentials()
                .load()
                .await;
            let endpoint_url = given.map(str::to_owned);
            endpoint(&S3Options { endpoint_url, ..S3Options::default() }, &shared)
        };
        assert_eq!(of(ALL, None).await.as_deref(), Some("https://all.example"));
        assert_eq!(of(S3, None).await.as_deref(), Some("http://s3.example:9000"));
        assert_eq!(of(S3, Some("http://given")).await.as_deref(), Some("http://given"));
        assert_eq!(of("[default]\n", None).await, None);
    }
}
