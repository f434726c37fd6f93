//! The Prometheus exporter: installed once, rendered on demand. It names no metric; those who
//! count do.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of every histogram of seconds, from a local commit to a slow answer.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// What `/metrics` shows. Clones show the same.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

/// One for a process: a bridge and a server in one process show each other's numbers as well.
static INSTALLED: OnceLock<Exporter> = OnceLock::new();

impl Exporter {
    /// The exporter of this process, made by the first call. What is counted before it is lost.
    pub fn install() -> Self {
        let made = || {
            let builder = PrometheusBuilder::new();
            let builder = builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // There is another one only when a program around ours counts by itself.
            let _ = metrics::set_global_recorder(recorder);
            Self(handle)
        };
        INSTALLED.get_or_init(made).clone()
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
