//! Runs real commands under the real supervisor: what they print becomes updates and a result, what
//! goes wrong becomes a failure with its reason, and nothing of them is left when they have ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loki_openclaw::clock::Clock;
use loki_openclaw::executor::{Executor, OutputFormat, Run, RunSpec, Status};

/// Longer than any of these runs takes on a busy machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_mins(1);

struct Bench {
    folder: tempfile::TempDir,
    executor: Executor,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("project")).expect("a project");
        let executor = executor(folder.path());
        Self { folder, executor }
    }

    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    async fn run(&self, script: &str) -> Run {
        self.executor.start(spec("t-1", script)).await.expect("a start")
    }

    /// The folders of all runs, by name.
    fn run_folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.executor.dir()).expect("the folder of runs");
        entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect()
    }

    fn run_folder(&self) -> PathBuf {
        self.executor.dir().join(self.run_folders().pop().expect("a run"))
    }
}

fn executor(folder: &Path) -> Executor {
    let supervisor = [env!("CARGO_BIN_EXE_loki"), "supervise"].map(OsString::from).to_vec();
    Executor::new(folder.join("runs"), supervisor, folder.join("project"), Clock::system())
}

fn spec(task_id: &str, script: &str) -> RunSpec {
    RunSpec {
        task_id: task_id.to_owned(),
        attempt: 1,
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        pass_env: Vec::new(),
        timeout: None,
        output: OutputFormat::Lines,
        stdin: br#"{"task_id": "t-1"}"#.to_vec(),
    }
}

/// What is awaited, unless it hangs.
async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, awaited).await.expect("it takes much too long")
}

/// The end of a run as (status, code, message, result).
async fn end(run: &mut Run) -> (Status, String, String, String) {
    let outcome = soon(run.wait()).await.expect("an outcome");
    let error = outcome.error.map(|error| (error.code, error.message)).unwrap_or_default();
    let result = outcome.result.map(|result| result.get().to_owned()).unwrap_or_default();
    (outcome.status, error.0, error.1, result)
}

/// Waits for the update that says that the command is at work.
async fn at_work(run: &mut Run) {
    soon(run.update()).await.expect("a readable folder").expect("an update");
}

/// Whether a process still runs; one that is dead but not yet waited for does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn updates_and_the_last_result_are_told_and_the_task_is_on_the_input() {
    let bench = Bench::new();
    let script = r#"
        read task
        echo '{"progress": 0.25, "message": "a", "artifact": 1}'
        echo 'noise {"progress": 1}'
        echo '["progress", 1]'
        echo '{"progress": "x"}'
        echo '{"result": 1}'
        echo '{"progress": 7}'
        printf '{"result": {"task": %s, "id": "%s", "pwd": "%s"}}' \
            "$task" "$LOKI_TASK_ID" "${PWD##*/}""#;
    let mut run = bench.run(script).await;
    let mut updates = Vec::new();
    while let Some(update) = soon(run.update()).await.expect("a readable folder") {
        updates.push((update.progress, update.message, update.object.get().to_owned()));
    }
    let first = r#"{"progress": 0.25, "message": "a", "artifact": 1}"#;
    assert_eq!(
        updates,
        [
            (0.25, Some("a".to_owned()), first.to_owned()),
            (1.0, None, r#"{"progress": 7}"#.to_owned())
        ]
    );
    let outcome = run.wait().await.expect("an outcome");
    assert_eq!((outcome.status, outcome.exit_code), (Status::Completed, Some(0)));
    assert!(outcome.started_at <= outcome.finished_at && outcome.duration_seconds >= 0.0);
    let expected = r#"{"task": {"task_id": "t-1"}, "id": "t-1", "pwd": "project"}"#;
    assert_eq!(outcome.result.expect("a result").get(), expected);
    run.forget().await.expect("forgotten");
    assert!(bench.run_folders().is_empty());
}

#[tokio::test]
async fn without_a_result_a_completed_run_has_none() {
    let bench = Bench::new();
    assert_eq!(end(&mut bench.run("echo done").await).await.0, Status::Completed);
    let mut null = spec("t-2", r#"echo '{"result": 1}'; echo '{"result": null}'"#);
    null.timeout = Some(PATIENCE);
    let mut null = bench.executor.start(null).await.expect("a start");
    assert_eq!(end(&mut null).await.3, "");
}

#[tokio::test]
async fn a_failure_has_the_tail_of_the_standard_error() {
    let bench = Bench::new();
    let script = "i=0; while [ $i -lt 3000 ]; do echo \"line $i é\" >&2; i=$((i+1)); done; exit 3";
    let (status, code, message, _) = end(&mut bench.run(script).await).await;
    assert_eq!((status, code.as_str()), (Status::Failed, "exit_3"));
    assert!(message.ends_with("line 2999 é"), "{message}");
    assert!(message.len() <= 8 * 1024 && !message.contains('\u{fffd}'), "{}", message.len());
}

#[tokio::test]
async fn what_cannot_run_or_is_killed_says_so() {
    let bench = Bench::new();
    let mut missing = spec("missing", "");
    missing.command = vec!["no-such-program".to_owned()];
    let mut missing = bench.executor.start(missing).await.expect("a start");
    let (status, code, message, _) = end(&mut missing).await;
    assert_eq!((status, code.as_str()), (Status::Failed, "command_not_found"));
    assert!(message.starts_with("the program `no-such-program` was found neither"), "{message}");

    let mut killed = bench.executor.start(spec("killed", "kill -9 $$")).await.expect("a start");
    let (_, code, message, _) = end(&mut killed).await;
    assert_eq!(code, "signal_9");
    assert_eq!(
        message,
        "the command was ended by signal 9 and wrote nothing to its standard error"
    );

    let mut empty = spec("empty", "");
    empty.command.clear();
    let error = bench.executor.start(empty).await.expect_err("an empty command");
    assert_eq!(error.to_string(), "task empty has an empty command");
}

#[tokio::test]
async fn a_result_that_no_message_can_carry_is_a_failure() {
    let bench = Bench::new();
    let script = r#"python3 -c 'print("{\"result\": \"" + "x" * 800000 + "\"}")'"#;
    let (status, code, ..) = end(&mut bench.run(script).await).await;
    assert_eq!((status, code.as_str()), (Status::Failed, "result_too_large"));
}

#[tokio::test]
async fn the_output_of_providers_is_read_in_their_format() {
    let bench = Bench::new();
    let cases = [
        (
            OutputFormat::CodexEvents,
            r#"echo '{"type":"item.completed","item":{"type":"agent_message","text":"first"}}'
               echo '{"type":"item.completed","item":{"type":"agent_message","text":"done"}}'
               echo '{"type":"turn.completed","usage":{}}'"#,
            r#""done""#,
        ),
        (
            OutputFormat::GeminiDocument,
            r#"printf 'Loaded credentials.\n{\n  "response": "done",\n  "stats": {}\n}\n'"#,
            r#""done""#,
        ),
        (
            OutputFormat::Lines,
            r#"echo '{"type":"result","is_error":false,"result":"done","total_cost_usd":0.1}'"#,
            r#""done""#,
        ),
    ];
    for (output, script, expected) in cases {
        let spec = RunSpec { output, ..spec(&format!("{output:?}"), script) };
        let mut run = bench.executor.start(spec).await.expect("a start");
        assert_eq!(
            end(&mut run).await,
            (Status::Completed, String::new(), String::new(), expected.to_owned())
        );
    }
}

/// A family that ignores a polite end: a child in the group, and one in a session of its own that
/// has given away its outputs.
const FAMILY: &str = r#"
    trap '' TERM
    sh -c 'trap "" TERM; echo $$ > child; while :; do sleep 1; done' &
    setsid sh -c 'trap "" TERM; echo $$ > stray; while :; do sleep 1; done' \
        </dev/null >/dev/null 2>&1 &
    until [ -s child ] && [ -s stray ]; do :; done
    echo '{"progress": 0.5}'
"#;

/// The processes of [`FAMILY`].
fn family(bench: &Bench) -> [String; 2] {
    ["child", "stray"]
        .map(|name| std::fs::read_to_string(bench.project().join(name)).expect("a process number"))
}

#[tokio::test]
async fn a_timeout_ends_the_whole_family() {
    let bench = Bench::new();
    let mut spec = spec("t-1", &format!("{FAMILY}\nwhile :; do sleep 1; done"));
    // Long enough for the family to come together on a busy machine.
    spec.timeout = Some(Duration::from_secs(4));
    let mut run = bench.executor.start(spec).await.expect("a start");
    at_work(&mut run).await;
    assert!(family(&bench).iter().all(|pid| runs(pid)));
    let (status, code, message, _) = end(&mut run).await;
    assert_eq!((status, code.as_str()), (Status::Failed, "timeout"));
    assert_eq!(message, "the command took longer than 4 s");
    assert!(!family(&bench).iter().any(|pid| runs(pid)));
}

#[tokio::test]
async fn what_a_completed_command_left_behind_is_ended() {
    let bench = Bench::new();
    let mut run = bench.run(&format!("{FAMILY}\nexit 0")).await;
    assert_eq!(end(&mut run).await.0, Status::Completed);
    assert!(!family(&bench).iter().any(|pid| runs(pid)));
}

#[tokio::test]
async fn a_cancelled_run_may_put_its_things_in_order() {
    let bench = Bench::new();
    let script =
        "trap 'touch tidied; exit 0' TERM; echo '{\"progress\": 0}'; while :; do sleep 0.05; done";
    let mut run = bench.run(script).await;
    at_work(&mut run).await;
    run.cancel("not needed").await.expect("a request");
    run.cancel_handle().cancel("second thoughts").await.expect("a request");
    let (status, code, message, _) = end(&mut run).await;
    let seen = (status, code.as_str(), message.as_str());
    assert_eq!(seen, (Status::Cancelled, "cancelled", "not needed"));
    assert!(bench.project().join("tidied").exists());
}

#[tokio::test]
async fn the_same_attempt_runs_once_and_is_followed_twice() {
    let bench = Bench::new();
    let script = "echo x >> count; read go < gate; echo '{\"result\": 1}'";
    let gate = bench.project().join("gate");
    let made = std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo");
    assert!(made.success());
    let (first, second) = tokio::join!(
        bench.executor.start(spec("t-1", script)),
        bench.executor.start(spec("t-1", script))
    );
    let (mut first, mut second) = (first.expect("a start"), second.expect("the same"));
    // Opening a pipe for writing waits for its reader: the command is at work then.
    soon(tokio::fs::write(&gate, "go\n")).await.expect("a word through the gate");
    assert_eq!(end(&mut first).await, end(&mut second).await);
    let mut third = bench.executor.start(spec("t-1", script)).await.expect("the same");
    assert_eq!(end(&mut third).await.3, "1");
    assert_eq!(std::fs::read_to_string(bench.project().join("count")).expect("a count"), "x\n");

    third.forget().await.expect("forgotten");
    let again = RunSpec { attempt: 2, ..spec("t-1", "echo '{\"result\": 2}'") };
    let mut again = bench.executor.start(again).await.expect("a start");
    assert_eq!(end(&mut again).await.3, "2");
}

#[tokio::test]
async fn a_running_and_a_finished_run_are_adopted_by_the_next_executor() {
    let bench = Bench::new();
    let gate = bench.project().join("gate");
    let made = std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo");
    assert!(made.success());
    let script = "echo '{\"progress\": 0.5}'; read go < gate; echo '{\"result\": \"slow\"}'";
    drop(bench.run(script).await);
    let mut quick = bench
        .executor
        .start(spec("quick", "echo '{\"result\": \"quick\"}'"))
        .await
        .expect("a start");
    end(&mut quick).await;
    drop(quick);

    let mut runs = executor(bench.folder.path()).adopt().await.expect("runs");
    runs.sort_by_key(|run| run.key().clone());
    let [quick, slow] = runs.try_into().expect("two runs");
    let (mut quick, mut slow) = (quick, slow);
    assert_eq!((quick.key().task_id.as_str(), slow.key().task_id.as_str()), ("quick", "t-1"));
    assert_eq!(end(&mut quick).await.3, "\"quick\"");
    at_work(&mut slow).await;
    assert!(slow.forget().await.is_err(), "a running run is not forgotten");
    let mut slow = bench.executor.start(spec("t-1", script)).await.expect("the same");
    soon(tokio::fs::write(&gate, "go\n")).await.expect("a word through the gate");
    assert_eq!(end(&mut slow).await.3, "\"slow\"");
}

#[tokio::test]
async fn a_killed_supervisor_is_told_and_its_command_is_ended() {
    let bench = Bench::new();
    let mut run =
        bench.run(&format!("echo $PPID > parent\n{FAMILY}\nwhile :; do sleep 1; done")).await;
    at_work(&mut run).await;
    let parent = std::fs::read_to_string(bench.project().join("parent")).expect("a number");
    let killed = std::process::Command::new("kill").args(["-9", parent.trim()]).status();
    assert!(killed.expect("kill").success());
    let (status, code, message, _) = end(&mut run).await;
    assert_eq!((status, code.as_str()), (Status::Failed, "supervisor_lost"));
    let expected = "the supervisor process ended without leaving an outcome; what was left of its \
                    command was ended";
    assert_eq!(message, expected);
    assert!(!family(&bench).iter().any(|pid| runs(pid)));

    let mut adopted = executor(bench.folder.path()).adopt().await.expect("runs");
    assert_eq!(end(&mut adopted[0]).await.1, "supervisor_lost");
}

#[tokio::test]
async fn signals_that_end_the_bridge_do_not_end_a_run() {
    let bench = Bench::new();
    let script = "for s in INT HUP TERM; do kill -$s $PPID; done; echo '{\"result\": 1}'";
    assert_eq!(end(&mut bench.run(script).await).await.3, "1");
}

#[tokio::test]
async fn a_run_that_never_began_is_started_by_the_next_executor() {
    let bench = Bench::new();
    // A supervisor that dies at once, as in a crash between the two.
    let broken = Executor::new(
        bench.executor.dir().to_owned(),
        vec![OsString::from("true")],
        bench.project(),
        Clock::system(),
    );
    drop(broken.start(spec("t-1", "echo '{\"result\": 1}'")).await.expect("a start"));
    let folder = bench.run_folder();
    let lock = std::fs::File::open(folder.join("lock")).expect("a lock");
    soon(tokio::task::spawn_blocking(move || lock.lock())).await.expect("joined").expect("free");
    let mut runs = bench.executor.adopt().await.expect("runs");
    assert_eq!(end(&mut runs[0]).await.3, "1");
}

#[tokio::test]
async fn a_start_without_a_supervisor_leaves_nothing_behind() {
    let bench = Bench::new();
    let missing = vec![OsString::from("/no/such/supervisor")];
    let dir = bench.executor.dir().to_owned();
    let broken = Executor::new(dir, missing, bench.project(), Clock::system());
    let error = broken.start(spec("t-1", "exit 0")).await.expect_err("no supervisor");
    assert!(error.to_string().starts_with("cannot start the supervisor of task t-1: "), "{error}");
    assert!(bench.run_folders().is_empty());
}

#[tokio::test]
async fn a_supervisor_without_the_lock_refuses() {
    let bench = Bench::new();
    let mut run = bench.run("echo x >> count").await;
    end(&mut run).await;
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_loki"))
        .arg("supervise")
        .arg(bench.run_folder())
        .stdin(std::process::Stdio::null())
        .status();
    assert_eq!(status.expect("a status").code(), Some(1));
    let log = std::fs::read_to_string(bench.run_folder().join("log")).expect("a log");
    assert!(log.contains("is started by the bridge"), "{log}");
    assert_eq!(std::fs::read_to_string(bench.project().join("count")).expect("a count"), "x\n");
}

#[tokio::test]
async fn outputs_without_end_stay_bounded_on_disk() {
    let bench = Bench::new();
    let script = r#"python3 -c '
import sys
for i in range(40000):
    sys.stderr.write("e" * 99 + "\n")
    print("{\"progress\": 0.5, \"message\": \"" + "m" * 99 + "\"}")
print("{\"result\": 1}")'"#;
    let mut run = bench.run(script).await;
    assert_eq!(end(&mut run).await.3, "1");
    for (name, limit) in [("stdout", 1 << 20), ("progress", 1 << 20), ("stderr", 3 << 16)] {
        let length = bench.run_folder().join(name).metadata().expect("a file").len();
        assert!((1..=limit).contains(&length), "{name}: {length}");
    }
}

#[tokio::test]
async fn a_supervisor_whose_folder_is_gone_ends() {
    let bench = Bench::new();
    // Once the supervisor has made its last file: one that is made while the folder is emptied
    // would keep the folder there, and the supervisor would end with an outcome in it.
    let script = r#"
        until [ -e ../runs/*/stderr ]; do :; done
        echo "$PPID" > supervisor
        rm -rf ../runs/*
        exit 0"#;
    let run = bench.run(script).await;
    let told = bench.project().join("supervisor");
    let ended = async {
        loop {
            let pid = std::fs::read_to_string(&told).unwrap_or_default();
            if pid.ends_with('\n') && !runs(&pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(ended).await;
    drop(run);
    assert!(bench.run_folders().is_empty());
}
