//! The `OpenMetrics` text format 1.0 made of that of Prometheus, and which of the two a scraper
//! wants: <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>. The
//! samples and their values are the same.

use std::fmt::Write as _;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// The format's type, with its version and characters.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The versions of the formats that we write.
const VERSION: &str = "1.0.0";
const VERSION_PLAIN: &str = "0.0.4";

/// Units of ours, which stand last in the names that have one.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Whether whoever asks takes this format, and the plain one not rather. To take everything is not
/// to ask for it.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts.filter_map(|parameter| parameter.split_once('='));
        let (mut quality, mut version) = (1.0_f32, None);
        for (name, value) in parameters {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        let is_version = |ours: &str| version.is_none_or(|version| version == ours);
        match kind.as_str() {
            "application/openmetrics-text" if is_version(VERSION) => open = quality.max(open),
            "text/plain" if is_version(VERSION_PLAIN) => plain = quality.max(plain),
            "text/*" | "*/*" => plain = quality.max(plain),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

/// The same metrics in this format: a counter's family has no `_total`, its samples have; bounds
/// and values are written as it asks; nothing stands between the lines; the end is marked.
pub fn of_plain(text: &str) -> String {
    let mut open = String::with_capacity(text.len() + text.len() / 8);
    let mut help = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type comes next, and with it the name of the family.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            family(&mut open, name, kind, help.take().filter(|(of, _)| *of == name));
        } else if !line.starts_with('#') {
            sample(&mut open, line);
        }
    }
    open.push_str("# EOF\n");
    open
}

/// What is said of a family before its samples. A counter whose name lacks the ending that its
/// samples must have is of no known type.
fn family(open: &mut String, name: &str, kind: &str, help: Option<(&str, &str)>) {
    let (name, kind) = match (kind, name.strip_suffix("_total")) {
        ("counter", Some(family)) => (family, kind),
        ("counter" | "untyped", _) => (name, "unknown"),
        _ => (name, kind),
    };
    let _ = writeln!(open, "# TYPE {name} {kind}");
    let has = |unit: &&&str| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_'));
    if let Some(unit) = UNITS.iter().find(has) {
        let _ = writeln!(open, "# UNIT {name} {unit}");
    }
    if let Some((_, text)) = help {
        // Here quotes are escaped as well.
        let _ = writeln!(open, "# HELP {name} {}", text.replace('"', "\\\""));
    }
}

/// A sample: its name, its labels, its value.
fn sample(open: &mut String, line: &str) {
    const BOUND: &str = "le=\"";
    let Some((named, value)) = line.rsplit_once(' ') else { return };
    // The bound is the last label that the exporter writes.
    match named.rsplit_once(BOUND).and_then(|(before, rest)| Some((before, rest.split_once('"')?)))
    {
        Some((before, (bound, after))) if before.ends_with(['{', ',']) => {
            let _ = write!(open, "{before}{BOUND}{}\"{after}", canonical(bound));
        }
        _ => open.push_str(named),
    }
    let value = match value {
        "inf" => "+Inf",
        "-inf" => "-Inf",
        value => value,
    };
    let _ = writeln!(open, " {value}");
}

/// A bound as this format writes it: `1.0`, not `1`.
fn canonical(bound: &str) -> String {
    let is_whole = bound.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole { format!("{bound}.0") } else { bound.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_format_becomes_the_open_one() {
        let plain = concat!(
            "# HELP x_sent_total Messages \"sent\"\n# TYPE x_sent_total counter\n",
            "x_sent_total{type=\"a b\"} 3\n\n# TYPE x_waits gauge\nx_waits inf\n\n",
            "# HELP x_latency_seconds How long\n# TYPE x_latency_seconds histogram\n",
            "x_latency_seconds_bucket{of=\"le=\",le=\"0.5\"} 1\n",
            "x_latency_seconds_bucket{of=\"le=\",le=\"10\"} 2\n",
            "x_latency_seconds_bucket{of=\"le=\",le=\"+Inf\"} 2\n",
            "x_latency_seconds_sum{of=\"le=\"} 7.5\nx_latency_seconds_count{of=\"le=\"} 2\n\n",
            "# TYPE x_odd counter\nx_odd{file=\"le=\"} 1\n",
        );
        let open = concat!(
            "# TYPE x_sent counter\n# HELP x_sent Messages \\\"sent\\\"\n",
            "x_sent_total{type=\"a b\"} 3\n# TYPE x_waits gauge\nx_waits +Inf\n",
            "# TYPE x_latency_seconds histogram\n# UNIT x_latency_seconds seconds\n",
            "# HELP x_latency_seconds How long\n",
            "x_latency_seconds_bucket{of=\"le=\",le=\"0.5\"} 1\n",
            "x_latency_seconds_bucket{of=\"le=\",le=\"10.0\"} 2\n",
            "x_latency_seconds_bucket{of=\"le=\",le=\"+Inf\"} 2\n",
            "x_latency_seconds_sum{of=\"le=\"} 7.5\nx_latency_seconds_count{of=\"le=\"} 2\n",
            "# TYPE x_odd unknown\nx_odd{file=\"le=\"} 1\n# EOF\n",
        );
        assert_eq!(of_plain(plain), open);
        assert_eq!(of_plain(""), "# EOF\n");
    }

    #[test]
    fn who_asks_for_it_gets_it_and_nobody_else() {
        let table = [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/plain"], false),
            (&["application/openmetrics-text"], true),
            (&["Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8"], true),
            (&["application/openmetrics-text;version=2.0.0"], false),
            (&["application/openmetrics-text;q=0"], false),
            (&["application/openmetrics-text;q=0.5,text/plain;version=0.0.4"], false),
            (&["application/openmetrics-text;q=0.5,text/plain;version=1.0.0;q=0.8"], true),
            (&["text/plain;q=0.5", "application/openmetrics-text;q=0.7"], true),
            (
                // Prometheus 2 asks so.
                &["application/openmetrics-text;version=1.0.0,\
                   application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
                true,
            ),
        ];
        for (accepted, wanted) in table {
            let mut headers = HeaderMap::new();
            for value in accepted {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            assert_eq!(is_wanted(&headers), wanted, "{accepted:?}");
        }
    }
}
