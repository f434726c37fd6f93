//! Puts the layers over each other: default, file, environment, flag. The last one wins, and each
//! setting remembers which it was. Prints nothing; the environment is handed in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::check::Rule;
use super::error::ConfigError;
use super::field::Raw;
use super::known::{Known, nearest};
use super::source::{Setting, Source};
use super::unsupported::Refusal;
use super::yaml::{self, Entry, Value};

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// The one key that may stand more than once: its lists are joined, so that the parts of several
/// instances can stand in one file.
const REPEATABLE: &str = "agents";

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// The values.
    pub config: C,
    /// What looks like a mistake and is none for sure, each as a sentence for the user.
    pub warnings: Vec<String>,
    settings: Vec<Setting>,
}

impl<C> Loaded<C> {
    /// Every setting with its value and its source, in the order of the documentation. Secrets
    /// are `***`.
    pub fn describe(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    /// Where the setting with this key path was given.
    pub fn source(&self, name: &str) -> Source {
        let setting = self.settings.iter().find(|setting| setting.name == name);
        setting.map_or(Source::Default, |setting| setting.source.clone())
    }
}

/// A flag's setting: its key path, its name and its text.
pub(super) type Flag = (&'static str, &'static str, String);

/// What the layers need to know of a program's configuration.
pub(super) trait Program: Default + Clone + 'static {
    /// The mappings of the file whose other keys belong to somebody else.
    const SHARED: &'static [&'static str];
    /// What its environment variables begin with.
    const PREFIX: &'static str;

    /// Every setting, in the order of the documentation.
    fn known() -> &'static [Known<Self>];
    /// The rules that values obey wherever they were given.
    fn rules(&self) -> Vec<Rule>;
    /// What this release refuses.
    fn refusals(&self) -> Vec<Refusal>;
    /// Settings that do not go together: the one to blame, whether it is so, and the sentence.
    fn conflicts(&self) -> Vec<(&'static str, bool, String)>;
}

/// The file to read, and whether somebody asked for it by name.
pub(super) enum Chosen {
    /// It must be there.
    Named(PathBuf),
    /// It may be missing.
    Usual(PathBuf),
    /// None at all.
    Nothing,
}

/// Reads all layers.
pub(super) fn load<C: Program>(
    chosen: &Chosen,
    environment: &Environment,
    flags: &[Flag],
) -> Result<Loaded<C>, ConfigError> {
    let mut layers = Layers { config: C::default(), sources: BTreeMap::new(), warnings: vec![] };
    if let Some((path, text)) = text_of(chosen)? {
        let entries = yaml::read(path, &text)?;
        layers.file(path, &entries, "")?;
    }
    layers.environment(environment)?;
    for (key, flag, text) in flags {
        layers.set(key, Raw::Text(text), Source::Flag(flag))?;
    }
    Ok(layers.finish())
}

/// Judges the values together; the first fault is the error.
pub(super) fn check<C: Program>(loaded: &Loaded<C>) -> Result<(), ConfigError> {
    let config = &loaded.config;
    if let Some((key, _, expected)) = config.rules().into_iter().find(|(_, holds, _)| !holds) {
        let setting = C::known().iter().find(|known| known.key == key);
        let setting = setting.expect("a rule names a known setting");
        let mut config = config.clone();
        let value = quoted(setting.show(&mut config));
        return Err(setting.bad_value(&mut config, value, loaded.source(key), expected));
    }
    if let Some((key, _, reason)) = config.refusals().into_iter().find(|(_, asked, _)| *asked) {
        let key_path = key.to_owned();
        let source_of_value = loaded.source(key);
        return Err(ConfigError::Unsupported { source_of_value, key: key_path, reason });
    }
    match config.conflicts().into_iter().find(|(_, is_so, _)| *is_so) {
        Some((key, _, detail)) => {
            Err(ConfigError::Conflict { source_of_value: loaded.source(key), detail })
        }
        None => Ok(()),
    }
}

/// The value as an error shows it. An address with a user name in it may hold a password.
fn quoted(value: Option<String>) -> String {
    match value {
        Some(address) if address.contains('@') => super::secret::REDACTED.to_owned(),
        Some(value) => format!("`{value}`"),
        None => "empty".to_owned(),
    }
}

fn text_of(chosen: &Chosen) -> Result<Option<(&Path, String)>, ConfigError> {
    let (path, named) = match chosen {
        Chosen::Named(path) => (path, true),
        Chosen::Usual(path) => (path, false),
        Chosen::Nothing => return Ok(None),
    };
    match read_file(path) {
        Ok(text) => Ok(Some((path, text))),
        Err(reason) if reason.kind() == io::ErrorKind::NotFound && !named => Ok(None),
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
            Err(ConfigError::Missing { path: path.clone() })
        }
        Err(reason) => Err(ConfigError::Unreadable { path: path.clone(), reason }),
    }
}

/// One byte more than is allowed: the reader then sees that it is too much.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = yaml::FILE_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

struct Layers<C> {
    config: C,
    sources: BTreeMap<&'static str, Source>,
    warnings: Vec<String>,
}

impl<C: Program> Layers<C> {
    fn set(&mut self, key: &str, raw: Raw<'_>, source: Source) -> Result<(), ConfigError> {
        let known = C::known().iter().find(|known| known.key == key);
        let known = known.expect("the caller found the setting");
        known.set(&mut self.config, raw, &source)?;
        self.sources.entry(known.key).and_modify(|old| *old = source.clone()).or_insert(source);
        Ok(())
    }

    fn file(&mut self, path: &Path, entries: &[Entry], above: &str) -> Result<(), ConfigError> {
        for entry in entries {
            let key = joined(above, &entry.key);
            let known = C::known().iter().filter(|known| known.in_file);
            let is_leaf = known.clone().any(|known| known.key == key);
            let is_branch = known.clone().any(|known| is_below(known.key, &key));
            if entry.key.contains('.') && (is_leaf || is_branch) {
                let detail = format!("`{key}` must be written as nested keys, one a line");
                let (path, line) = (path.to_owned(), entry.line);
                return Err(ConfigError::Syntax { path, line, detail });
            } else if !is_leaf && !is_branch {
                self.unknown(path, entry, above)?;
            } else if entry.repeated && key != REPEATABLE {
                let (path, line) = (path.to_owned(), entry.line);
                return Err(ConfigError::Duplicate { path, line, key });
            } else if matches!(entry.node.value, Value::Null) {
                // A key without a value says nothing; the layer below stands.
            } else if is_leaf {
                self.leaf(path, entry, &key)?;
            } else if let Value::Map(inner) = &entry.node.value {
                self.file(path, inner, &key)?;
            } else {
                return Err(ConfigError::BadValue {
                    source_of_value: Source::File { path: path.to_owned(), line: entry.line },
                    key,
                    value: entry.node.quoted(),
                    expected: "a mapping".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn leaf(&mut self, path: &Path, entry: &Entry, key: &str) -> Result<(), ConfigError> {
        let source = Source::File { path: path.to_owned(), line: entry.line };
        if entry.repeated && !self.sources.contains_key(key) {
            self.warnings
                .push(format!("{source}: `{key}` is given more than once: all are joined"));
        }
        self.set(key, Raw::Node(path, &entry.node), source)
    }

    /// An error in a block of ours; in a shared one a warning if it looks like a slip.
    fn unknown(&mut self, path: &Path, entry: &Entry, above: &str) -> Result<(), ConfigError> {
        let known = C::known().iter().filter(|known| known.in_file);
        let names = known.filter_map(|known| segment_below(known.key, above));
        let nearest = nearest(&entry.key, names).map(|name| joined(above, name));
        let (key, line) = (joined(above, &entry.key), entry.line);
        if !C::SHARED.contains(&above) {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), line, key, nearest });
        }
        if let Some(nearest) = nearest {
            let place = path.display();
            let hint = format!("`{key}` is left alone; did you mean `{nearest}`?");
            self.warnings.push(format!("{place}:{line}: {hint}"));
        }
        Ok(())
    }

    /// An empty variable counts as not set: compose files and charts pass those on.
    fn environment(&mut self, environment: &Environment) -> Result<(), ConfigError> {
        for known in C::known() {
            let given = known.variable.and_then(|name| Some((name, environment.get(name)?)));
            if let Some((name, text)) = given.filter(|(_, text)| !text.is_empty()) {
                self.set(known.key, Raw::Text(text), Source::Environment(name))?;
            }
        }
        let variables = || C::known().iter().filter_map(|known| known.variable);
        for name in environment.keys().filter(|name| !variables().any(|known| known == *name)) {
            let Some(rest) = name.strip_prefix(C::PREFIX) else { continue };
            let names = variables().filter_map(|known| known.strip_prefix(C::PREFIX));
            if let Some(near) = nearest(rest, names) {
                let near = format!("did you mean {}{near}?", C::PREFIX);
                self.warnings.push(format!("{name} is not a known variable; {near}"));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Loaded<C> {
        let setting = |known: &Known<C>| Setting {
            name: known.key,
            value: known.show(&mut self.config),
            source: self.sources.get(known.key).cloned().unwrap_or(Source::Default),
        };
        let settings = C::known().iter().map(setting).collect();
        Loaded { config: self.config, warnings: self.warnings, settings }
    }
}

fn joined(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

fn is_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'))
}

/// The name directly below `above` on the way to `key`.
fn segment_below<'a>(key: &'a str, above: &str) -> Option<&'a str> {
    let rest = if above.is_empty() { key } else { key.strip_prefix(above)?.strip_prefix('.')? };
    rest.split('.').next()
}
