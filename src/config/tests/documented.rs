//! `docs/configuration.md` names every setting, its variable and its default.

use super::super::layers::Program;
use super::*;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"));

/// The settings without a complete row. A row is `| key | variable | default | meaning |`.
fn missing<C: Program>(loaded: &Loaded<C>) -> Vec<String> {
    let cell = |text: Option<&str>| text.map_or_else(|| "none".to_owned(), |t| format!("`{t}`"));
    let row = |known: &super::super::known::Known<C>| {
        let settings = loaded.describe();
        let setting = settings.into_iter().find(|setting| setting.name == known.key).unwrap();
        let (variable, default) = (cell(known.variable), cell(setting.value.as_deref()));
        format!("| `{}` | {variable} | {default} | ", known.key)
    };
    C::known().iter().map(row).filter(|row| !DOCUMENT.contains(row)).collect()
}

#[test]
fn every_setting_has_its_row() {
    let fixture = Fixture::new("");
    assert_eq!(missing(&fixture.bridge(&[]).unwrap()), [""; 0]);
    assert_eq!(missing(&fixture.server(&[]).unwrap()), [""; 0]);
}

#[test]
fn every_row_is_a_setting() {
    let known = BridgeConfig::known().iter().map(|known| known.key);
    let known: Vec<&str> = known.chain(ServerConfig::known().iter().map(|k| k.key)).collect();
    let key = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
    let rows = DOCUMENT.lines().filter(|line| line.matches(" | ").count() == 3).filter_map(key);
    let unknown: Vec<&str> = rows.filter(|key| !known.contains(key)).collect();
    assert_eq!(unknown, [""; 0]);
}
