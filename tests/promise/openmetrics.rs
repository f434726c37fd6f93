//! The metrics of both programs as `OpenMetrics`: a real parser takes them, and they say the same
//! as the plain ones.

use std::process::Command;

use serde_json::json;

use crate::support::{World, output, say};

/// Where scripts/test installs that library.
const VENV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python");

/// Reads both formats of each address with the parsers of Prometheus' own library, and compares
/// the samples by name, labels and value. What is counted between two looks makes it look again.
const COMPARE: &str = r#"
import sys, time, urllib.request
from prometheus_client.openmetrics import parser as open_parser
from prometheus_client import parser as plain_parser

def fetch(url, accept):
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request) as answer:
        return answer.headers["Content-Type"], answer.read().decode()

def samples(families):
    found = {}
    for family in families:
        for sample in family.samples:
            labels = dict(sample.labels)
            if "le" in labels:
                labels["le"] = float(labels["le"])
            key = (sample.name, tuple(sorted(labels.items(), key=str)))
            assert key not in found, key
            found[key] = float(sample.value)
    return found

def types(families):
    return {family.name: family.type for family in families}

for url in sys.argv[1:]:
    for _ in range(200):
        kind, before = fetch(url, "text/plain")
        assert kind == "text/plain; version=0.0.4; charset=utf-8", kind
        kind, text = fetch(url, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", kind
        # The order of the families is that of chance.
        if sorted(fetch(url, "*/*")[1].splitlines()) == sorted(before.splitlines()):
            break
        time.sleep(0.05)
    else:
        sys.exit("the metrics never rest")
    assert text.endswith("\n# EOF\n"), text[-50:]
    opened = list(open_parser.text_string_to_metric_families(text))
    plain = list(plain_parser.text_string_to_metric_families(before))
    assert samples(opened) == samples(plain)
    assert types(opened) == types(plain), (types(opened), types(plain))
    print(len(samples(opened)))
"#;

#[test]
fn a_parser_of_openmetrics_reads_what_the_plain_format_says() {
    let python = std::env::var("LOKI_TEST_PYTHON").unwrap_or_else(|_| VENV.to_owned());
    let mut look = Command::new(&python);
    let look = look.args(["-c", "import prometheus_client"]).output();
    if !look.is_ok_and(|done| done.status.success()) {
        say("prometheus_client is not installed (scripts/test does it): that check is skipped");
        return;
    }
    let world = World::new();
    world.write("one/.loki/config.yaml", "agents:\n  - type: eng-qa\n    command: [\"true\"]\n");
    let server = world.server("server", 0);
    let bridge = world.bridge("one", &server.address, "loki-one");
    let task = json!({"task_id": "t", "task_type": "testing"});
    assert_eq!(world.post(&format!("{}/tasks", server.address), &task).expect("an answer").0, 201);
    let url = format!("{}/tasks/t?wait=30", server.address);
    world.wait("the task", || world.get(&url).filter(|task| task["status"] == "completed"));
    let urls = [&bridge, &server].map(|program| format!("{}/metrics", program.address));
    let (code, counts, said) = output(Command::new(python).args(["-c", COMPARE]).args(urls));
    assert_eq!(code, Some(0), "{said}");
    let counts: Vec<usize> = counts.lines().filter_map(|count| count.parse().ok()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| *count > 40), "{counts:?}");
    assert_eq!((bridge.stop(), server.stop()), (Some(0), Some(0)));
}
