//! What a person sees: a picture on a terminal, plain lines without control codes elsewhere, and no
//! complaint when the reader of a pipe has seen enough.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use crate::support::{World, output};

const CONFIG: &str = "agents:\n  - type: eng-qa\n    command: [python3, work.py]\n    \
                      task_types: [testing]\n";

/// Takes long enough to be seen at work.
const WORK: &str = "import json, time\nprint(json.dumps({'progress': 0.5}), flush=True)\n\
                    time.sleep(1)\nprint(json.dumps({'result': {'summary': 'well done'}}))\n";

/// Runs its arguments on a terminal of 100 columns and passes on what it shows.
const TERMINAL: &str = "
import fcntl, os, pty, struct, sys, termios
interrupt = os.environ.get('INTERRUPT_AT', '').encode()
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        shown = os.read(terminal, 4096)
    except OSError:
        break
    if not shown:
        break
    os.write(1, shown)
    if interrupt and interrupt in shown:
        os.write(terminal, b'\x03')
        interrupt = b''
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

fn world() -> World {
    let world = World::new();
    world.write("one/.loki/config.yaml", CONFIG);
    world.write("one/work.py", WORK);
    world.write("one/prd.md", "- [ ] Test it all <!-- type: testing -->\n");
    world
}

/// A command on a terminal: its exit code and everything that was shown.
fn on_terminal(world: &World, environment: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let loki = world.loki("one", "");
    program_on_terminal(world, environment, loki.get_program(), arguments)
}

/// The same of any program.
pub fn program_on_terminal(
    world: &World,
    environment: &[(&str, &str)],
    program: &OsStr,
    arguments: &[&str],
) -> (i32, String) {
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL]).arg(program).args(arguments);
    command.current_dir(world.path("one")).env("LOKI_DASHBOARD_PORT", "0").env("TERM", "xterm");
    let (code, shown, talk) = output(command.envs(environment.iter().copied()));
    (code.expect("an exit code"), shown + &talk)
}

#[test]
fn a_terminal_shows_what_is_under_way_and_a_table_at_the_end() {
    let world = world();
    let (code, shown) = on_terminal(&world, &[], &["start", "prd.md"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("in_progress  50 %  eng-qa: Test it all"), "{shown}");
    assert!(shown.contains("0 of 1 done") && shown.contains("well done"), "{shown}");
    let colours = |shown: &str| {
        shown.split("\u{1b}[").skip(1).any(|rest| {
            rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';')
                .starts_with('m')
        })
    };
    let help = ["openclaw", "send", "--help"];
    assert!(colours(&on_terminal(&world, &[], &help).1));
    let bad = ["openclaw", "send"];
    assert!(!colours(&on_terminal(&world, &[("NO_COLOR", "1")], &help).1));
    assert!(!colours(&on_terminal(&world, &[("NO_COLOR", "1")], &bad).1));
}

#[test]
fn an_interrupt_at_the_terminal_lets_the_task_end_and_does_not_shift_the_picture() {
    let world = world();
    let interrupt = [("INTERRUPT_AT", "50 %")];
    let (code, shown) = on_terminal(&world, &interrupt, &["start", "prd.md"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("stopping: what runs may end"), "{shown}");
    assert!(shown.contains("well done") && !shown.contains("^C"), "{shown}");
}

#[test]
fn elsewhere_there_are_plain_lines_and_data_only_on_standard_output() {
    let world = world();
    let (code, data, talk) =
        output(world.loki("one", "http://127.0.0.1:9").args(["start", "prd.md"]));
    assert_eq!(code, Some(0), "{talk}");
    assert!(talk.contains("in_progress eng-qa: Test it all\n"), "{talk}");
    assert!(talk.contains("completed   eng-qa: Test it all ("), "{talk}");
    assert!(data.starts_with(" TASK ID") && data.lines().count() == 2, "{data}");
    assert!(!format!("{data}{talk}").contains('\u{1b}'), "{data}{talk}");
    for command in [
        "start --json prd.md",
        "start --dry-run --json prd.md",
        "openclaw status --json",
        "openclaw tasks --json",
        "openclaw messages --json",
        "enterprise audit tail --json",
        "config show --json",
        "doctor --json",
        "openclaw send state_sync --json",
        "openclaw retry --json",
    ] {
        let arguments = command.split(' ');
        let (_, data, talk) = output(world.loki("one", "http://127.0.0.1:9").args(arguments));
        for line in data.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect(command);
            assert!(value.is_object(), "{command}: {line}");
        }
        assert!(!talk.contains('\u{1b}'), "{command}: {talk}");
        assert!(!data.is_empty() || command.contains("messages"), "{command}: {talk}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = world();
    let (code, ..) = output(world.loki("one", "http://127.0.0.1:9").args(["start", "prd.md"]));
    assert_eq!(code, Some(0));
    for command in [
        "config show",
        "--help",
        "completions bash",
        "enterprise audit tail",
        "openclaw tasks --json",
        "enterprise audit tail --follow",
    ] {
        let mut child = world.loki("one", "http://127.0.0.1:9");
        child.args(command.split(' ')).stdin(Stdio::null());
        let mut child =
            child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        drop(child.stdout.take());
        world.wait("the command to end", || child.try_wait().expect("a status"));
        let ended = child.wait_with_output().expect("an end");
        let talk = String::from_utf8_lossy(&ended.stderr);
        assert!(!talk.contains("panicked") && ended.status.code() == Some(0), "{command}: {talk}");
    }
}
