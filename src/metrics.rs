//! The exporter of the metrics: installed once, rendered on demand, as Prometheus or `OpenMetrics`
//! has it. It names no metric; those who count do.

mod openmetrics;

use std::sync::OnceLock;

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of every histogram of seconds, from a local commit to a slow answer.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// The type of the text format of Prometheus.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `/metrics` shows. Clones show the same.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// The exporter of this process, which is made when it is asked for first. A bridge and a
    /// server in one process share it: their names differ.
    pub fn install() -> Self {
        static OF_PROCESS: OnceLock<Exporter> = OnceLock::new();
        OF_PROCESS.get_or_init(Self::make).clone()
    }

    fn make() -> Self {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Nobody else of this program installs one.
        let _ = metrics::set_global_recorder(recorder);
        Self(handle)
    }

    /// The answer to whoever asks with these headers, in the format that they want.
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        let (kind, text) = if openmetrics::is_wanted(headers) {
            (openmetrics::CONTENT_TYPE, openmetrics::of_plain(&self.render()))
        } else {
            (PLAIN, self.render())
        };
        ([(CONTENT_TYPE, kind), (VARY, "accept")], text).into_response()
    }

    /// The text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Exporter")
    }
}
