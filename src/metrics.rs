//! Counters and histograms of both programs, and their Prometheus text.
