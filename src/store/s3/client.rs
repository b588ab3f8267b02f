//! The client, with settings that third-party servers can live with.

use std::sync::Arc;

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use zeroize::Zeroizing;

use super::super::deadlines::Deadlines;
use super::super::error::{Error, Result};
use super::proxy::Proxies;
use super::{http, trust};

/// The region when none is known and an endpoint is given: what servers of one's own expect.
const REGION: &str = "us-east-1";

/// Credentials that were handed over instead of found by the standard chain.
#[derive(Clone)]
pub struct S3Credentials {
    /// The access key's id.
    pub access_key: String,
    /// The secret.
    pub secret_key: Zeroizing<String>,
    /// The token of temporary credentials.
    pub session_token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Credentials(…)")
    }
}

/// How an S3 store is reached; what is not given comes from the standard AWS chain.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// `None`: the chain's (`AWS_ENDPOINT_URL`, profile), else Amazon's for the region.
    pub endpoint_url: Option<String>,
    /// `None`: the chain's; us-east-1 if it has none.
    pub region: Option<String>,
    /// `None`: the chain's (environment, profile, SSO, container, instance).
    pub credentials: Option<S3Credentials>,
}

/// The client, and whether it speaks TLS.
pub(super) async fn build(options: &S3Options, limits: &Deadlines) -> Result<(Client, bool)> {
    let settings = |what| Error::Settings { what };
    let proxies = Arc::new(Proxies::of(|name| std::env::var_os(name)));
    let http = http::client(trust::find().await.map_err(settings)?, &proxies);
    let region = match &options.region {
        Some(region) => RegionProviderChain::first_try(Region::new(region.clone())),
        // With an endpoint of one's own, the instance's metadata service is not asked: elsewhere it
        // answers by a timeout.
        None if options.endpoint_url.is_some() => {
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
        }
        None => RegionProviderChain::default_provider(),
    };
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .region(region.or_else(Region::new(REGION)));
    if let Some(endpoint) = &options.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(given) = &options.credentials {
        let token = given.session_token.as_ref().map(|token| token.to_string());
        let credentials = Credentials::new(
            given.access_key.clone(),
            given.secret_key.to_string(),
            token,
            None,
            "s3vault",
        );
        loader = loader.credentials_provider(credentials);
    }
    let shared = loader.load().await;
    let endpoint = options
        .endpoint_url
        .clone()
        .or_else(|| std::env::var("AWS_ENDPOINT_URL_S3").ok())
        .or_else(|| shared.endpoint_url().map(str::to_owned));
    // A proxy that cannot be used is said now. Which host Amazon's endpoint is, the SDK decides; this is like it.
    let region = shared.region().map_or(REGION, |region| region.as_ref());
    let amazon = || format!("https://s3.{region}.amazonaws.com");
    let proxy = proxies.of_url(&endpoint.clone().unwrap_or_else(amazon)).map_err(settings)?;
    if let Some(proxy) = proxy {
        tracing::info!(%proxy, "the store is asked through a proxy");
    }
    let config = aws_sdk_s3::config::Builder::from(&shared)
        // Servers other than Amazon's seldom know a bucket by its host name.
        .force_path_style(endpoint.is_some())
        // The SDK's own CRC trailers break third-party servers; the header is set by hand.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // Repetition and deadlines are the decorators'.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(limits.connect).build())
        .build();
    let encrypted = endpoint.is_none_or(|endpoint| endpoint.starts_with("https://"));
    Ok((Client::from_conf(config), encrypted))
}
