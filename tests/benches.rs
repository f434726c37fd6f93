//! The short form of each benchmark: it runs to its end, and has every figure that the long one is
//! read for. How large they are says nothing here.

#[path = "../benches/suite/audit.rs"]
mod audit;
#[path = "../benches/suite/churn.rs"]
mod churn;
#[path = "../benches/suite/enqueue.rs"]
mod enqueue;
#[path = "../benches/suite/fair.rs"]
mod fair;
#[path = "../benches/suite/lifecycle.rs"]
mod lifecycle;
#[path = "../benches/suite/peers/mod.rs"]
mod peers;
#[path = "../benches/suite/recover.rs"]
mod recover;
#[path = "../benches/suite/steady.rs"]
mod steady;
#[path = "../benches/support/mod.rs"]
mod support;

/// Every one of these figures is there and above zero, in the table and as JSON.
fn has(report: &support::Report, rows: &[&str], figures: &[&str]) {
    let (table, json) = (report.table(), report.json());
    for row in rows {
        let mut lines = json["rows"].as_array().expect("rows").iter();
        let line = lines.find(|line| line["row"] == *row).expect("the row");
        for figure in figures {
            let value = report.figure(row, figure);
            assert!(value.is_some_and(|value| value > 0.0), "{row}, {figure}:\n{table}");
            assert!(table.contains(figure) && table.contains(row), "{table}");
            assert_eq!(line[figure].as_f64(), value);
        }
    }
}

/// The short form of a benchmark, which has all of these figures in each of these rows.
macro_rules! measured {
    ($benchmark:ident, $rows:expr, $figures:expr) => {{
        let report = $benchmark::measure(true).expect("the benchmark runs");
        has(&report, &$rows, &$figures);
        report
    }};
}

#[test]
fn durable_enqueues_are_measured_beside_the_floor() {
    let figures =
        ["floor/s", "floor p99 us", "burst/s", "% of floor", "sustained/s", "p50 us", "p99 us"];
    measured!(enqueue, ["1 producers", "64 producers", "1024 producers"], figures);
}

#[test]
fn whole_lives_are_measured_through_the_real_server() {
    let figures = ["lives/s", "acknowledged/s", "p99 us", "server CPU us a life"];
    let rows = [
        "64 producers, 1 consumer",
        "64 agents in a ring",
        "64 producers, 1 consumer, frames of 16",
    ];
    measured!(lifecycle, rows, figures);
}

#[test]
fn a_start_over_a_backlog_is_measured_in_a_fresh_process() {
    let figures = ["open ms", "MiB in memory", "status ms", "list of 50 ms", "MB on disk"];
    let rows = ["2000 pending, a kill", "2000 pending, a clean stop"];
    measured!(recover, rows, figures);
}

#[test]
fn what_stays_of_messages_that_have_ended_is_measured() {
    let figures =
        ["lives/s", "journal MB", "journal bytes for each live byte", "sled bytes a message"];
    measured!(churn, ["4000 messages"], figures);
}

#[test]
fn a_long_load_beside_an_agent_that_is_away_is_measured_in_thirds_and_after_a_kill() {
    let figures = ["MiB in memory", "p99 us", "MB on disk"];
    let back = ["open ms", "first message ms later", "64 messages ms later"];
    let report = measured!(steady, ["first third", "second third", "last third"], figures);
    has(&report, &["after a kill"], &back);
}

#[test]
fn nine_agents_are_measured_alone_and_beside_a_deaf_one() {
    let figures = ["nine alone/s", "nine beside the deaf one/s", "% of alone"];
    measured!(fair, ["round 0"], figures);
}

/// Those that are not installed are named instead.
#[test]
fn the_peers_that_are_installed_are_measured() {
    let report = peers::measure(true).expect("the benchmark runs");
    let peers = [
        ("redis-server", "Redis Streams, AOF always, one command a round trip"),
        ("redis-server", "Redis Streams, AOF always, pipeline of 16"),
        ("beanstalkd", "beanstalkd, fsync each put"),
        ("nats-server", "NATS JetStream, its default: not durable"),
        ("python3", "SQLite, WAL, synchronous=FULL"),
    ];
    for (program, row) in peers {
        let is_absent = report.notes.iter().any(|note| note.starts_with(program));
        let rate = report.figure(row, "enqueue/s, 1");
        assert!(is_absent || rate.is_some_and(|rate| rate > 0.0), "{row}: {report:?}");
        assert_eq!(is_absent, rate.is_none(), "{row}: {report:?}");
    }
}

#[test]
fn a_rare_event_is_found_in_a_large_audit_log_running_killed_and_stopped() {
    let figures = ["rare event ms", "last 20 ms", "summary ms", "search of all ms", "exported/s"];
    let rows = ["running", "killed", "stopped"].map(|how| format!("20000 entries, {how}"));
    measured!(audit, rows.each_ref().map(String::as_str), figures);
}
