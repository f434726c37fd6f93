//! The style law as a test: limits of size, forbidden words and attributes, and who may import
//! whom. Each check is a function from a file's text to its defects, and is shown to fail below.

use std::fs;
use std::path::{Path, PathBuf};

use lexer::{blanked, is_word};

#[path = "tidy/lexer.rs"]
mod lexer;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 100;

/// Folders with Rust sources; one that does not exist yet is skipped.
const SOURCE_FOLDERS: [&str; 7] =
    ["src", "storage", "migrations", "powercut", "tests", "benches", "examples"];
/// Where prose stands.
const TEXT_PLACES: [&str; 8] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs",
    "examples",
    "scripts",
    "deploy",
    "storage",
];

// Written in two halves, so that this file passes its own checks.
const NOTES: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const MACHINE_PATHS: [&str; 5] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "wt/"),
];
const OUTSIDE: &str = concat!("../", "shared");

/// What every part may take besides its own row of [`MAY_IMPORT`].
const COMMON: [&str; 5] = ["clock", "config", "error", "metrics", "shutdown"];
/// Parts that take nothing but what their row names.
const PURE: [&str; 7] = ["clock", "config", "error", "metrics", "protocol", "retry", "shutdown"];
/// Who may import whom (`docs/architecture.md`). `cli`, the programs and `lib.rs` take everything.
const MAY_IMPORT: [(&str, &[&str]); 20] = [
    ("audit", &["crypto", "protocol", "retry", "storage"]),
    (
        "bridge",
        &[
            "audit",
            "crypto",
            "dashboard",
            "executor",
            "inbox",
            "inspector",
            "logging",
            "outbox",
            "protocol",
            "storage",
            "trace",
            "transport",
            "upkeep",
        ],
    ),
    ("clock", &[]),
    ("config", &["clock", "error", "protocol", "retry"]),
    ("crypto", &["protocol"]),
    ("dashboard", &["audit", "protocol", "storage"]),
    ("error", &[]),
    ("executor", &["protocol"]),
    ("inbox", &["crypto", "protocol", "retry", "storage", "trace"]),
    ("inspector", &["inbox", "outbox", "protocol", "storage", "trace"]),
    ("logging", &["storage", "trace"]),
    ("metrics", &["clock"]),
    ("outbox", &["crypto", "protocol", "retry", "storage", "trace", "transport"]),
    ("protocol", &["clock", "error"]),
    ("retry", &[]),
    (
        "server",
        &[
            "audit",
            "crypto",
            "dashboard",
            "inbox",
            "inspector",
            "logging",
            "outbox",
            "protocol",
            "storage",
            "trace",
            "transport",
        ],
    ),
    ("shutdown", &["clock"]),
    ("trace", &["protocol", "storage"]),
    ("transport", &["protocol"]),
    ("upkeep", &["storage"]),
];

/// One source: its path from the repository's root, its text, and the text with every comment,
/// string and character blanked, so that only code is left.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }

    /// Where the unit tests begin: they stand last in a file.
    fn tests_start(&self) -> usize {
        let in_folder = ["tests/", "benches/", "storage/tests/", "storage/benches/"];
        if in_folder.iter().any(|folder| self.path.starts_with(folder))
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
        {
            return 0;
        }
        self.code.find("#[cfg(test)]").unwrap_or(self.code.len())
    }

    fn defect(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line_of(&self.code, at))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Positions of `word` where it is not a part of a longer word.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn file_shape(source: &Source) -> Vec<String> {
    let mut defects = Vec::new();
    if !source.text.starts_with("//! ") {
        defects.push(format!("{}:1: begin with a module doc (//!)", source.path));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        defects.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
    }
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            defects.push(format!("{}:{}: {columns} columns", source.path, number + 1));
        }
    }
    defects
}

/// From the line of `fn` to the closing brace, every line counted.
fn function_lengths(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut defects = Vec::new();
    for at in words(code, "fn") {
        let Some(lines) = function_lines(&code[at..]) else { continue };
        if lines > FUNCTION_LINES_MAX {
            let what = format!("a function of {lines} lines, at most {FUNCTION_LINES_MAX}");
            defects.push(source.defect(at, &what));
        }
    }
    defects
}

/// Lines of the function that begins here; `None` for a type or a function without a body.
fn function_lines(code: &str) -> Option<usize> {
    if !code["fn".len()..].trim_start().starts_with(is_word) {
        return None;
    }
    let (mut brackets, mut braces) = (0_usize, 0_usize);
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && brackets == 0 {
                    return Some(line_of(code, at));
                }
            }
            _ => {}
        }
    }
    None
}

fn forbidden(source: &Source) -> Vec<String> {
    let mut defects = Vec::new();
    let code = &source.code;
    for (at, _) in code.match_indices("#[").chain(code.match_indices("#![")) {
        let attribute = code[at..].split(']').next().unwrap_or_default();
        if words(attribute, "allow").next().is_some() {
            defects.push(source.defect(at, "#[expect(reason = ...)] instead of #[allow]"));
        }
        if words(attribute, "ignore").next().is_some() {
            defects.push(source.defect(at, "an ignored test"));
        }
    }
    for (at, _) in code[..source.tests_start()].match_indices(".unwrap()") {
        defects.push(source.defect(at, "unwrap outside a test"));
    }
    defects
}

/// For prose as well as for code: leftover notes, and paths that only one machine has.
fn leftovers(path: &str, text: &str) -> Vec<String> {
    let mut defects = Vec::new();
    let mut report = |at, what: &str| {
        defects.push(format!("{path}:{}: {what}", line_of(text, at)));
    };
    for note in NOTES {
        words(text, note).for_each(|at| report(at, "a leftover note"));
    }
    for folder in MACHINE_PATHS {
        for (at, _) in text.match_indices(folder) {
            if !text[..at].ends_with(|letter| is_word(letter) || letter == '.') {
                report(at, "a path of one machine");
            }
        }
    }
    for (at, _) in text.match_indices(OUTSIDE) {
        report(at, "a file outside the repository");
    }
    defects
}

/// The first segments of what follows `crate::`: one name, or those of a `{...}` group.
fn first_segments(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|&l| is_word(l)).collect();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            ',' if depth == 0 => {
                found.push(name(&group[start..at]));
                start = at + 1;
            }
            '}' if depth == 0 => {
                found.push(name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found.retain(|segment: &String| !segment.is_empty());
    found
}

/// Modules of ours that the code names, with the position: `crate::x`, `super::x` where that
/// reaches the root, and the two packages.
fn imports(source: &Source, depth: usize) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for root in ["crate::", "loki_openclaw::"] {
        for at in path_starts(code, root) {
            let names = first_segments(&code[at + root.len()..]);
            found.extend(names.into_iter().map(|name| (at, name)));
        }
    }
    for package in ["storage::", "loki_storage::"] {
        found.extend(path_starts(code, package).map(|at| (at, "storage".to_owned())));
    }
    for at in path_starts(code, "super::") {
        let rest = code[at..].trim_start_matches("super::");
        let steps = (code.len() - at - rest.len()) / "super::".len();
        if steps == depth + usize::from(at > source.tests_start()) {
            found.extend(first_segments(rest).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// Positions of `root` where a path begins.
fn path_starts<'a>(code: &'a str, root: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(root)
        .map(|(at, _)| at)
        .filter(|&at| !code[..at].ends_with(|letter| is_word(letter) || letter == ':'))
}

fn import_table(source: &Source) -> Vec<String> {
    let member = |folder: &str| source.path.starts_with(folder);
    let (part, row): (&str, &[&str]) = if member("storage/src/") {
        ("storage", &[])
    } else if member("migrations/src/") {
        ("migrations", &["storage"])
    } else if let Some(inside) = source.path.strip_prefix("src/") {
        let part = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if ["bin", "cli", "lib"].contains(&part) {
            return Vec::new();
        }
        match MAY_IMPORT.iter().find(|(name, _)| *name == part) {
            Some((_, row)) => (part, row),
            None => return vec![format!("{}: `{part}` has no row in MAY_IMPORT", source.path)],
        }
    } else {
        return Vec::new();
    };
    let of_member = ["storage", "migrations"].contains(&part);
    let depth = source.path.trim_end_matches("/mod.rs").split('/').count() - 1;
    let ours = |name: &str| name == "storage" || MAY_IMPORT.iter().any(|(part, _)| *part == name);
    let free = |name: &str| !PURE.contains(&part) && COMMON.contains(&name);
    let mut defects = Vec::new();
    for (at, name) in imports(source, depth) {
        let inside = of_member && !source.code[at..].starts_with("loki_openclaw::");
        let own = name == part || (inside && name != "storage") || !(ours(&name) || name == "cli");
        if !own && !row.contains(&name.as_str()) && (of_member || !free(&name)) {
            defects.push(source.defect(at, &format!("`{part}` may not import `{name}`")));
        }
    }
    defects
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a place with one of the endings, or every file when none is given.
fn files(place: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if place.is_dir() {
        if ["target", "__pycache__", "openclaw"].contains(&name) {
            return;
        }
        let entries = fs::read_dir(place).expect("the folder is readable");
        for entry in entries {
            files(&entry.expect("the entry is readable").path(), endings, found);
        }
    } else if place.is_file()
        && (endings.is_empty() || endings.iter().any(|ending| name.ends_with(ending)))
    {
        found.push(place.to_owned());
    }
}

/// Path from the root and text of each file under the places.
fn read(places: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for place in places {
        files(&root().join(place), endings, &mut found);
    }
    let text = |path: &PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, String::from_utf8_lossy(&fs::read(path).expect("readable")).into_owned())
    };
    found.iter().map(text).collect()
}

fn passes(check: impl Fn(&Source) -> Vec<String>) {
    let sources = read(&SOURCE_FOLDERS, &[".rs"]);
    assert!(sources.len() > 10, "the sources were not found");
    let defects: Vec<String> =
        sources.iter().flat_map(|(path, text)| check(&Source::new(path, text))).collect();
    assert!(defects.is_empty(), "\n{}", defects.join("\n"));
}

#[test]
fn files_are_short_narrow_and_begin_with_their_purpose() {
    passes(file_shape);
    let long = format!("//! Doc.\n{}", "\n".repeat(FILE_LINES_MAX));
    let wide = format!("//! Doc.\n// {}\n", "é".repeat(COLUMNS_MAX));
    for bad in ["fn main() {}\n", &long, &wide] {
        assert_eq!(file_shape(&Source::new("src/a.rs", bad)).len(), 1, "{bad}");
    }
    let full = format!("//! Doc.\n{}\n", "é".repeat(COLUMNS_MAX));
    assert!(file_shape(&Source::new("src/a.rs", &full)).is_empty());
}

#[test]
fn functions_are_short() {
    passes(function_lengths);
    let of = |lines: usize| format!("pub fn long(a: [u8; 2]) {{{}}}\n", "\n".repeat(lines - 1));
    let count = |text: &str| function_lengths(&Source::new("src/a.rs", text)).len();
    assert_eq!(count(&of(FUNCTION_LINES_MAX)), 0);
    assert_eq!(count(&of(FUNCTION_LINES_MAX + 1)), 1);
    let brace_in_text =
        of(FUNCTION_LINES_MAX + 1).replacen('\n', "let a = \"}\"; let b = '}';\n", 1);
    assert_eq!(count(&brace_in_text), 1);
    let declared = format!("trait A {{ fn b(c: fn(u8)); {} }}", "\n".repeat(90));
    assert_eq!(count(&declared), 0);
}

#[test]
fn lints_are_expected_tests_run_and_errors_are_handled() {
    passes(forbidden);
    let count = |path, text| forbidden(&Source::new(path, text)).len();
    for bad in [
        "#[allow(dead_code)]",
        "#![allow(dead_code)]",
        "#[cfg_attr(test, allow(dead_code))]",
        "#[ignore]",
        "#[ignore = \"slow\"]",
        "fn a() { b().unwrap(); }",
    ] {
        assert_eq!(count("src/a.rs", bad), 1, "{bad}");
    }
    let in_test = "#[cfg(test)]\nmod tests { fn a() { b().unwrap(); } }";
    for (path, good) in [
        ("src/a.rs", in_test),
        ("tests/a.rs", "fn a() { b().unwrap(); }"),
        ("src/a.rs", "// #[allow(x)] and .unwrap() in words\nconst A: &str = r#\"#[ignore]\"#;"),
        ("src/a.rs", "fn a<'a>(b: &'a str) { b.unwrap_or('\\''); } #[expect(c, reason = \"d\")]"),
    ] {
        assert_eq!(count(path, good), 0, "{good}");
    }
}

#[test]
fn nothing_is_left_over() {
    passes(|source| leftovers(&source.path, &source.text));
    for bad in NOTES {
        assert_eq!(leftovers("a", &format!("// {bad}: later")).len(), 1, "{bad}");
        assert_eq!(leftovers("a", &format!("{bad}ED")).len(), 0, "{bad}");
    }
    for bad in MACHINE_PATHS.into_iter().chain([OUTSIDE]) {
        assert_eq!(leftovers("a", &format!("see {bad}file")).len(), 1, "{bad}");
    }
}

#[test]
fn prose_has_no_leftovers() {
    let texts = read(&TEXT_PLACES, &[".md", ".yaml", ".yml", ".py", ".sh", "example", "/test"]);
    assert!(texts.iter().any(|(path, _)| path == "README.md"), "the prose was not found");
    let defects: Vec<String> =
        texts.iter().flat_map(|(path, text)| leftovers(path, text)).collect();
    assert!(defects.is_empty(), "\n{}", defects.join("\n"));
}

#[test]
fn parts_import_only_what_the_table_allows() {
    passes(import_table);
    let count = |path, text| import_table(&Source::new(path, text)).len();
    for (path, bad) in [
        ("src/bridge/mod.rs", "use crate::server::Router;"),
        ("src/server/routes/a.rs", "fn a() { crate::bridge::run() }"),
        ("src/outbox/worker.rs", "use crate::{clock::Clock, inbox::{Admit, Order}};"),
        ("src/outbox/mod.rs", "use super::inbox;"),
        ("src/outbox/worker.rs", "use super::super::inbox;"),
        ("src/retry.rs", "use crate::config::Retry;"),
        ("src/protocol/envelope.rs", "use storage::Record;"),
        ("src/transport/ws.rs", "use crate::cli::run;"),
        ("src/helpers/mod.rs", ""),
        ("storage/src/journal/mod.rs", "use loki_openclaw::clock::Clock;"),
        ("migrations/src/one.rs", "use loki_openclaw::config::Server;"),
    ] {
        assert_eq!(count(path, bad), 1, "{path}: {bad}");
    }
    for (path, good) in [
        ("src/bridge/tasks.rs", "use crate::{executor, outbox::{self, Worker}, config::Bridge};"),
        ("src/outbox/worker.rs", "use super::verdict; // crate::bridge\nuse crate::transport;"),
        ("src/retry.rs", "#[cfg(test)]\nmod tests { use super::*; }"),
        ("src/cli/start.rs", "use crate::{bridge, server};"),
        ("src/bin/loki.rs", "use loki_openclaw::cli;"),
        ("storage/src/journal/mod.rs", "use crate::codec::Codec;"),
        ("migrations/src/one.rs", "use loki_storage::Store;"),
    ] {
        assert_eq!(count(path, good), 0, "{path}: {good}");
    }
}
