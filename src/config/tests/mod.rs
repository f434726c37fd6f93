//! What the configuration accepts, refuses and remembers, as tables. Reads no real environment.

mod accepted;
mod documented;
mod refused;
mod seed;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{
    BridgeConfig, ConfigError, Environment, Loaded, Overrides, ServerConfig, ServerOverrides,
};

/// A configuration file in a folder of its own.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    fn bridge(&self, variables: &[(&str, &str)]) -> Result<Loaded<BridgeConfig>, ConfigError> {
        let overrides = Overrides { config: Some(self.path()), ..Overrides::default() };
        BridgeConfig::load(&overrides, &environment(variables))
    }

    fn server(&self, variables: &[(&str, &str)]) -> Result<Loaded<ServerConfig>, ConfigError> {
        let config = Some(self.path());
        let overrides = ServerOverrides { config, ..ServerOverrides::default() };
        ServerConfig::load(&overrides, &environment(variables))
    }

    /// A text without the name of the folder.
    fn plain(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// The error of a bridge with this file and these variables, or `accepted`.
fn bridge_error(text: &str, variables: &[(&str, &str)]) -> String {
    let fixture = Fixture::new(text);
    match fixture.bridge(variables) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            fixture.plain(&error.to_string())
        }
    }
}

/// The same for a server.
fn server_error(text: &str, variables: &[(&str, &str)]) -> String {
    let fixture = Fixture::new(text);
    match fixture.server(variables) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => fixture.plain(&error.to_string()),
    }
}

/// A file that holds one value under a key path.
fn nested(key: &str, value: &str) -> String {
    let names: Vec<&str> = key.split('.').collect();
    let line = |(depth, name): (usize, &&str)| {
        let value = if depth + 1 == names.len() { format!(" {value}") } else { String::new() };
        format!("{}{name}:{value}\n", "  ".repeat(depth))
    };
    names.iter().enumerate().map(line).collect()
}

/// `name = value (source)` of one setting.
fn described<C>(fixture: &Fixture, loaded: &Loaded<C>, name: &str) -> String {
    let settings = loaded.describe();
    let setting = settings.iter().find(|setting| setting.name == name).unwrap();
    let value = setting.value.as_deref().unwrap_or("none");
    fixture.plain(&format!("{value} ({})", setting.source))
}
