//! Tables of PRDs and what is read from them.

use super::*;

fn descriptions(text: &str) -> Vec<String> {
    let tasks = parse(text, "loki-1").expect("a readable PRD");
    tasks.into_iter().map(|task| task.description).collect()
}

#[test]
fn unchecked_items_of_every_marker_and_depth_are_tasks_in_order() {
    let text = "# Plan\n\n- [ ] one\n  * [ ] two\n    + [ ] three\n- [x] done\n  1. [ ] four\n\
                2) [ ] five\n- plain\n- [ ]\n- [ ]glued\n";
    assert_eq!(descriptions(text), ["one", "two", "three", "four", "five"]);
}

#[test]
fn fenced_code_and_commented_out_items_are_ignored() {
    let text = "- [ ] a\n```sh\n- [ ] code\n~~~\n- [ ] code\n```\n<!--\n- [ ] hidden\n-->\n\
                ~~~~\n- [ ] code\n~~~\n- [ ] code\n~~~~\n- [ ] b\n";
    assert_eq!(descriptions(text), ["a", "b"]);
}

#[test]
fn indented_lines_go_on_with_the_item_above() {
    let text = "- [ ] Add login\n  with sessions <!-- type: backend_development -->\n\
                \nProse.\n  x\n\
                - [x] done\n  and more\n";
    let tasks = parse(text, "loki-1").expect("a readable PRD");
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].description, "Add login\nwith sessions");
    assert_eq!(tasks[0].task_type, "backend_development");
}

#[test]
fn attributes_are_read_from_the_trailing_comment() {
    let text = "\n- [ ] Review the login module <!-- type: code_review; priority: high; \
                skills: security_audit, owasp; files: src/auth.py, src/login page.py; \
                model: vendor/large-4; deadline: 2026-12-31T18:00:00Z; target_agent: a.b -->\r\n";
    let task = parse(text, "loki-1").expect("a readable PRD").remove(0);
    assert_eq!(task.description, "Review the login module");
    assert_eq!(task.task_type, "code_review");
    assert_eq!(task.priority, "high");
    assert_eq!(task.skills, ["security_audit", "owasp"]);
    assert_eq!(task.files, ["src/auth.py", "src/login page.py"]);
    assert_eq!(task.model.as_deref(), Some("vendor/large-4"));
    assert_eq!(task.deadline.map(rfc3339).as_deref(), Some("2026-12-31T18:00:00.000Z"));
    assert_eq!(task.target_agent.as_deref(), Some("a.b"));
    assert_eq!(task.line, 2);
}

#[test]
fn a_bad_attribute_is_an_error_with_its_line_and_the_nearest_name() {
    let cases = [
        ("typ: x", "line 3: unknown attribute `typ`; did you mean `type`?"),
        ("Priority: low", "line 3: unknown attribute `Priority`; did you mean `priority`?"),
        (
            "colour: red",
            "line 3: unknown attribute `colour`; known are type, priority, skills, files, model, \
             deadline, target_agent",
        ),
        ("priority: hgih", "line 3: unknown priority `hgih`; did you mean `high`?"),
        ("type: a; type: b", "line 3: attribute `type` is given twice"),
        ("type:", "line 3: attribute `type` has no value"),
        (
            "deadline: tomorrow",
            "line 3: deadline `tomorrow` is not a time such as 2026-12-31T18:00:00Z",
        ),
        (
            "ask Bob",
            "line 3: `ask Bob` is not an attribute: write `name: value; name: value`, or move the \
             comment to a line of its own",
        ),
        (
            "type: a b",
            "line 3: `a b` cannot be a value of `type`: use up to 128 letters, digits and `.`, \
             `_`, `:`, `-`",
        ),
    ];
    for (comment, expected) in cases {
        let text = format!("# Plan\n\n- [ ] a <!-- {comment} -->\n");
        let error = parse(&text, "loki-1").expect_err(comment);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn without_a_checklist_the_whole_file_is_one_task() {
    let tasks = parse("\u{feff}\n# Build a shop\n\n- with a cart\n", "loki-1").expect("a task");
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].description, "# Build a shop\n\n- with a cart");
    assert_eq!((tasks[0].task_type.as_str(), tasks[0].line), ("general", 2));
}

#[test]
fn a_checklist_where_everything_is_checked_has_no_tasks() {
    assert_eq!(descriptions("- [x] a\n- [X] b\n"), Vec::<String>::new());
}

#[test]
fn ids_follow_the_item_and_not_its_place() {
    let ids = |text: &str| {
        let tasks = parse(text, "loki-1").expect("a readable PRD");
        tasks.into_iter().map(|task| task.task_id).collect::<Vec<_>>()
    };
    let forth = ids("- [ ] a\n- [ ] b\n- [ ] b\n- [ ] b <!-- priority: low -->\n");
    let back = ids("- [ ] b <!-- priority: low -->\n  - [ ] b\n- [ ] b\n- [ ] a\n");
    assert_eq!([&forth[0], &forth[3]], [&back[3], &back[0]]);
    assert_eq!(forth[1..3], back[1..3]);
    assert!(forth[1].ends_with("-1") && forth[2].ends_with("-2"), "{forth:?}");
    // Fixed for ever: a changed digest would run every finished task again.
    assert_eq!(ids("- [ ] a\n"), ["loki-1-6ae4b8d6-1"]);
}

#[test]
fn an_empty_missing_long_or_binary_file_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("PRD.md");
    assert!(matches!(parse(" \n\t\n", "a"), Err(PrdError::Empty)));
    let missing = read(&path, "a").expect_err("no file").to_string();
    assert!(missing.starts_with("cannot read ") && missing.contains("PRD.md"), "{missing}");
    std::fs::write(&path, b"- [ ] \xff").expect("a file");
    assert!(matches!(read(&path, "a"), Err(PrdError::NotText)));
    std::fs::write(&path, "x".repeat(PRD_BYTES_MAX + 1)).expect("a file");
    assert!(matches!(read(&path, "a"), Err(PrdError::TooLong { .. })));
    std::fs::write(&path, "- [ ] fine").expect("a file");
    assert_eq!(read(&path, "a").expect("a task").len(), 1);
}
