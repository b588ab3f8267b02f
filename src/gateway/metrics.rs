//! The metrics, in the Prometheus text format 0.0.4. Labels name the router's routes, never paths: file names do not
//! belong in metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::http::Method;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::vault_metrics::{self, MetricsText};
use crate::types::VaultStatus;

/// The status under which a request is counted if its client goes away before the response.
const CLIENT_GONE: u16 = 499;

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<RequestLabels, Count>>,
    in_flight: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// Few combinations: methods come from a fixed list, routes from the router, statuses from us.
type RequestLabels = (&'static str, String, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    time: Duration,
}

/// A request under way; it is counted when this is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    metrics: Arc<Metrics>,
    method: &'static str,
    route: String,
    status: u16,
    begun: Instant,
    /// Its place among the concurrent requests.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A connection; it is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Connected(Arc<Metrics>);

impl Metrics {
    /// Begins a request.
    pub(super) fn begin(self: &Arc<Self>, method: &Method, route: &str) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight {
            metrics: self.clone(),
            method: name(method),
            route: route.to_owned(),
            status: CLIENT_GONE,
            begun: Instant::now(),
            permit: None,
        }
    }

    /// Begins a connection.
    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Relaxed);
        Connected(self.clone())
    }

    /// Counts received body bytes.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    /// Counts a connection that was refused because there were too many.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The number of requests under way.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// All metrics as text, including those of the vault.
    pub(super) fn text(&self, vault: &VaultStatus) -> String {
        let counts: Vec<_> =
            self.requests.lock().iter().map(|(label, count)| (label.clone(), *count)).collect();
        let mut text = MetricsText::default();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
            text.family(name, kind, help, lines);
        };
        let by_label = |value: fn(&Count) -> f64| -> Vec<_> {
            let line = |((method, route, status), count): &(RequestLabels, Count)| {
                let route = route.replace('\\', "\\\\").replace('"', "\\\"");
                let labels =
                    format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
                (labels, value(count))
            };
            counts.iter().map(line).collect()
        };
        let one = |value: u64| [(String::new(), value as f64)];
        let of = |counter: &AtomicU64| one(counter.load(Relaxed));
        family(
            "http_requests_total",
            "counter",
            "Requests that were answered, by route and status (499: the client went away).",
            &by_label(|count| count.requests as f64),
        );
        family(
            "http_request_seconds_total",
            "counter",
            "Time from the head of the request to the end of its answer.",
            &by_label(|count| count.time.as_secs_f64()),
        );
        family("http_requests_in_flight", "gauge", "Requests at work.", &of(&self.in_flight));
        family("http_connections", "gauge", "Connections.", &of(&self.connections));
        family(
            "http_connections_refused_total",
            "counter",
            "Connections refused because there were too many.",
            &of(&self.refused),
        );
        family(
            "http_received_bytes_total",
            "counter",
            "Bytes of request bodies.",
            &of(&self.received),
        );
        family("http_sent_bytes_total", "counter", "Bytes of answers' bodies.", &of(&self.sent));
        vault_metrics::write(&mut text, vault);
        text.0
    }
}

impl InFlight {
    /// Notes the status of the answer.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Counts sent bytes of the answer.
    pub(super) fn sent(&self, bytes: u64) {
        self.metrics.sent.fetch_add(bytes, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.fetch_sub(1, Relaxed);
        let label = (self.method, std::mem::take(&mut self.route), self.status);
        let time = self.begun.elapsed();
        tracing::debug!(method = label.0, route = label.1, status = label.2, ?time, "answered");
        let mut requests = self.metrics.requests.lock();
        let count = requests.entry(label).or_default();
        count.requests += 1;
        count.time += time;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// The label of a method. Clients may make methods up; all unknown ones share a label.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => match method.as_str() {
            "PROPFIND" => "PROPFIND",
            "PROPPATCH" => "PROPPATCH",
            "MKCOL" => "MKCOL",
            "COPY" => "COPY",
            "MOVE" => "MOVE",
            "LOCK" => "LOCK",
            "UNLOCK" => "UNLOCK",
            _ => "other",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Progress;

    #[test]
    fn what_happened_is_counted_and_nothing_else_is_said() {
        let metrics: Arc<Metrics> = Arc::default();
        let mut request = metrics.begin(&Method::GET, "/files/{*path}");
        request.sent(5);
        request.answered(200);
        let connected = metrics.connect();
        assert_eq!(metrics.in_flight(), 1);
        drop(request);
        let invented = Method::from_bytes(b"INVENTED").unwrap();
        drop(metrics.begin(&invented, "(none)"));
        metrics.received(7);
        let text = metrics.text(&VaultStatus {
            progress: Progress { unsent_bytes: 3, ..Progress::default() },
            ..VaultStatus::default()
        });
        for line in [
            "s3vault_http_requests_total{method=\"GET\",route=\"/files/{*path}\",status=\"200\"} 1",
            "s3vault_http_requests_total{method=\"other\",route=\"(none)\",status=\"499\"} 1",
            "s3vault_http_requests_in_flight 0",
            "s3vault_http_connections 1",
            "s3vault_http_received_bytes_total 7",
            "s3vault_http_sent_bytes_total 5",
            "# TYPE s3vault_unsent_bytes gauge",
            "s3vault_unsent_bytes 3",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        drop(connected);
        assert!(metrics.text(&VaultStatus::default()).contains("s3vault_http_connections 0\n"));
    }
}
