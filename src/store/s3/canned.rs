//! A server without a network that answers everything with the same bytes: for what the SDK does with
//! hostile ones.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, RuntimeComponents,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::ConnectorError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use super::credentials::CredentialCache;

/// The answer: status and body.
#[derive(Clone, Debug)]
struct Canned(u16, Arc<[u8]>);

impl HttpClient for Canned {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Canned {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let Ok(status) = self.0.try_into() else {
            return HttpConnectorFuture::ready(Err(ConnectorError::user("no status".into())));
        };
        let response = HttpResponse::new(status, SdkBody::from(self.1.to_vec()));
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// A client whose server always answers with this.
pub(super) fn canned_client(status: u16, body: &[u8]) -> (Client, CredentialCache) {
    let credentials = Credentials::new("id", "secret", None, None, "canned");
    let config = aws_sdk_s3::config::Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(Canned(status, body.into()))
        .region(Region::from_static("us-east-1"))
        .credentials_provider(credentials.clone())
        .endpoint_url("http://127.0.0.1")
        .force_path_style(true)
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .build();
    let cache = CredentialCache::new(Some(credentials), None, Duration::from_secs(1));
    (Client::from_conf(config), cache)
}
