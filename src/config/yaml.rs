//! Reads YAML text into a tree in which every key and value knows its line. Knows no setting.

use std::path::Path;

use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};

use super::error::ConfigError;
use super::pairs::Pairs;

/// The largest file that is read: a hundred times what a long configuration takes.
pub(super) const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The largest number of values in a file, with every alias written out: a few lines of nested
/// aliases would otherwise fill the memory.
const VALUES_MAX: usize = 100_000;

/// The last column at which a line may begin. It bounds the depth of nesting, which the parser
/// follows by recursion; inside `[` and `{` the parser has its own bound.
const INDENTATION_COLUMNS_MAX: usize = 200;

/// A value and the line where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `null`, `~` or nothing after the colon.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Anything else without structure, or in quotes.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
    /// A value that contradicts its own tag.
    Bad,
}

/// One pair of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The key as text.
    pub(super) key: String,
    /// The line where the key first stands, from 1.
    pub(super) line: usize,
    /// Whether the mapping has this key more than once.
    pub(super) repeated: bool,
    /// The value.
    pub(super) node: Node,
}

impl Node {
    /// The value as an error shows it: scalars in quotes, structures by their kind.
    pub(super) fn quoted(&self) -> String {
        match &self.value {
            Value::Null => "empty".to_owned(),
            Value::Boolean(value) => format!("`{value}`"),
            Value::Integer(value) => format!("`{value}`"),
            Value::Float(value) => format!("`{value}`"),
            Value::Text(value) => format!("`{value}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
            Value::Bad => "not what its tag says".to_owned(),
        }
    }
}

/// Reads the one mapping that `text` holds. An empty text is an empty mapping.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    // The parser would take a byte order mark for a part of the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let syntax = |line, detail: String| ConfigError::Syntax { path: path.to_owned(), line, detail };
    if text.len() > FILE_BYTES_MAX {
        return Err(syntax(1, format!("the file is larger than {FILE_BYTES_MAX} bytes")));
    }
    if let Some(line) = too_deep(text) {
        return Err(syntax(line, format!("begins after column {INDENTATION_COLUMNS_MAX}")));
    }
    let scan = |error: saphyr::ScanError| {
        syntax(error.marker().line(), format!("not valid yaml: {}", error.info()))
    };
    let pairs = Pairs::load_from_str(text).map_err(scan)?;
    let mut budget = VALUES_MAX;
    if !pairs.iter().all(|document| document.fits(&mut budget)) {
        return Err(syntax(1, format!("the file holds more than {VALUES_MAX} values")));
    }
    let marked = MarkedYaml::load_from_str(text).map_err(scan)?;
    if let Some(second) = marked.get(1) {
        return Err(syntax(second.span.start.line(), "a second yaml document begins here".into()));
    }
    let (Some(pairs), Some(marked)) = (pairs.first(), marked.first()) else {
        return Ok(Vec::new());
    };
    let root = node(pairs, Some(marked), 1);
    match root.value {
        Value::Map(entries) => Ok(entries),
        Value::Null | Value::Bad => Ok(Vec::new()),
        _ => Err(syntax(root.line, "expected keys at the top level".to_owned())),
    }
}

/// The first line that begins too far to the right, counting compact nesting (`- - -`) as columns.
fn too_deep(text: &str) -> Option<usize> {
    let begins = |line: &str| line.find(|c| !matches!(c, ' ' | '\t' | '-' | '?'));
    let deep = |line: &str| begins(line).unwrap_or(line.len()) > INDENTATION_COLUMNS_MAX;
    text.lines().position(deep).map(|index| index + 1)
}

/// Joins both trees: the pairs from one, the lines from the other. Below a repeated key only the
/// last value has its lines; the others are given the line of the nearest known thing above them.
fn node(pairs: &Pairs<'_>, marked: Option<&MarkedYaml<'_>>, near: usize) -> Node {
    let line = marked.map_or(near, |marked| marked.span.start.line());
    let value = match (pairs.data(), marked.map(|marked| &marked.data)) {
        (YamlData::Tagged(_, inner), Some(YamlData::Tagged(_, marked))) => {
            return node(inner, Some(marked), line);
        }
        (YamlData::Tagged(_, inner), _) => return node(inner, None, line),
        (YamlData::Sequence(items), marks) => {
            let marks = marks.and_then(YamlData::as_sequence);
            let mark = |index| marks.and_then(|marks: &Vec<_>| marks.get(index));
            let items = items.iter().enumerate();
            Value::List(items.map(|(index, item)| node(item, mark(index), line)).collect())
        }
        (YamlData::Mapping(_), marks) => Value::Map(entries(pairs, marks, line)),
        (YamlData::Value(scalar), _) => value_of(scalar),
        _ => Value::Bad,
    };
    Node { line, value }
}

fn entries<'input>(
    pairs: &Pairs<'_>,
    marks: Option<&YamlData<'input, MarkedYaml<'input>>>,
    near: usize,
) -> Vec<Entry> {
    let Some(mapping) = pairs.data().as_mapping() else { return Vec::new() };
    let keys: Vec<String> = mapping.keys().map(|key| key_text(key.data())).collect();
    let count = |key: &String| keys.iter().filter(|other| *other == key).count();
    let last = |key: &String| keys.iter().rposition(|other| other == key);
    let entry = |(index, value): (usize, &Pairs<'_>)| {
        let key = &keys[index];
        let mut pairs_of_marks = marks.and_then(YamlData::as_mapping).into_iter().flatten();
        let mark = pairs_of_marks.find(|(mark, _)| key_text(&mark.data) == *key);
        let line = mark.map_or(near, |(key, _)| key.span.start.line());
        let mark = mark.filter(|_| last(key) == Some(index)).map(|(_, value)| value);
        Entry { key: key.clone(), line, repeated: count(key) > 1, node: node(value, mark, line) }
    };
    mapping.values().enumerate().map(entry).collect()
}

fn value_of(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Boolean(*value),
        Scalar::Integer(value) => Value::Integer(*value),
        Scalar::FloatingPoint(value) => Value::Float(value.into_inner()),
        Scalar::String(value) => Value::Text(value.clone().into_owned()),
    }
}

fn key_text<'input, N>(data: &YamlData<'input, N>) -> String
where
    N: std::hash::Hash + Eq + From<YamlData<'input, N>> + saphyr::AnnotatedNode,
{
    match data {
        YamlData::Value(Scalar::String(text)) => text.clone().into_owned(),
        YamlData::Value(Scalar::Integer(value)) => value.to_string(),
        YamlData::Value(Scalar::Boolean(value)) => value.to_string(),
        _ => "?".to_owned(),
    }
}
