//! The HTTP client below the SDK: which certificates it trusts, and which requests go through a proxy.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::{ConfigBag, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ConnectorError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;

use super::proxy::{Proxies, Proxy};

/// How long an idle connection is kept. Less than the minute after which routers forget it: a request on
/// a forgotten connection stalls.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// The client for all requests: to the store, and to those who issue credentials.
pub(super) fn client(trusted: TrustStore, proxies: &Arc<Proxies>) -> SharedHttpClient {
    let direct = one(trusted.clone(), None);
    if proxies.is_empty() {
        return direct;
    }
    let (http, https) = proxies.usable();
    let by = |proxy: Option<&Proxy>| proxy.map(|proxy| one(trusted.clone(), Some(proxy)));
    let (http, https) = (by(http), by(https));
    SharedHttpClient::new(Routed { proxies: proxies.clone(), direct, http, https })
}

/// A client that sends every request the same way.
fn one(trusted: TrustStore, proxy: Option<&Proxy>) -> SharedHttpClient {
    // It accepts the URLs that we parsed. If it ever does not, requests fail rather than bypass the
    // proxy.
    let by = proxy.map(|proxy| ProxyConfig::all(proxy.url()));
    let by = match by.transpose() {
        Ok(by) => by.unwrap_or_else(ProxyConfig::disabled),
        Err(_) => return SharedHttpClient::new(Unusable),
    };
    Builder::new().build_with_connector_fn(move |settings, components| {
        let context = TlsContext::builder().with_trust_store(trusted.clone()).build();
        let mut connector = Connector::builder()
            .proxy_config(by.clone())
            .pool_idle_timeout(POOL_IDLE)
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.unwrap_or_default());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
}

/// Sends each request the way that the environment specifies.
#[derive(Clone, Debug)]
struct Routed<C = SharedHttpClient> {
    proxies: Arc<Proxies>,
    direct: C,
    http: Option<C>,
    https: Option<C>,
}

impl HttpClient for Routed {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let of = |client: &SharedHttpClient| client.http_connector(settings, components);
        SharedHttpConnector::new(Routed {
            proxies: self.proxies.clone(),
            direct: of(&self.direct),
            http: self.http.as_ref().map(of),
            https: self.https.as_ref().map(of),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        HttpClient::validate_base_client_config(&self.direct, components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.direct.connector_metadata()
    }
}

impl HttpConnector for Routed<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let proxy = match self.proxies.of_url(request.uri()) {
            Ok(None) => return self.direct.call(request),
            Ok(Some(proxy)) => proxy.clone(),
            Err(why) => return HttpConnectorFuture::ready(Err(ConnectorError::user(why.into()))),
        };
        let encrypted = request.uri().starts_with("https:");
        let Some(by) = (if encrypted { &self.https } else { &self.http }) else {
            return self.direct.call(request);
        };
        let answer = by.call(request);
        HttpConnectorFuture::new(async move { answer.await.map_err(|error| through(proxy, error)) })
    }
}

/// The same error, with the proxy named.
fn through(proxy: Proxy, error: ConnectorError) -> ConnectorError {
    let kind = error.as_other();
    let make: fn(BoxError) -> ConnectorError = match &error {
        error if error.is_timeout() => ConnectorError::timeout,
        error if error.is_io() => ConnectorError::io,
        error if error.is_user() => ConnectorError::user,
        _ => return ConnectorError::other(Box::new(Through { proxy, error }), kind),
    };
    make(Box::new(Through { proxy, error }))
}

/// The start of such an error's text.
pub(super) const THROUGH: &str = "through the proxy";

#[derive(Debug, thiserror::Error)]
#[error("{THROUGH} {proxy}")]
struct Through {
    proxy: Proxy,
    #[source]
    error: ConnectorError,
}

/// Stands in for a proxy that the client does not accept.
#[derive(Debug)]
struct Unusable;

impl HttpClient for Unusable {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Self)
    }
}

impl HttpConnector for Unusable {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let why = "the proxy cannot be used";
        HttpConnectorFuture::ready(Err(ConnectorError::user(why.into())))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Checks that the client can be built with these certificates.
    pub(in super::super) fn connects_by(trusted: TrustStore) {
        let settings = HttpConnectorSettings::default();
        let context = TlsContext::builder().with_trust_store(trusted).build().unwrap();
        let connector = Connector::builder()
            .connector_settings(settings)
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context);
        drop(connector.build());
    }
}
