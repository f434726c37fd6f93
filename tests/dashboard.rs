//! The embedded page is the one that its source makes, asks no other host, and is small. Building
//! it needs node and npm, so this test compares digests; `scripts/dashboard` builds it again.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a phone on a bad link still loads.
const BYTES_MAX: usize = 300_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() { under(&path, found) } else { found.push(path) }
    }
}

/// Path and bytes of each file, in the order of the paths: as `dashboard/build.mjs` does it.
fn digest(folder: &Path, files: &[PathBuf]) -> String {
    let name = |path: &PathBuf| path.strip_prefix(folder).expect("below").display().to_string();
    let mut files: Vec<(String, &PathBuf)> = files.iter().map(|path| (name(path), path)).collect();
    files.sort();
    let mut digest = Sha256::new();
    for (name, path) in files {
        let bytes = fs::read(path).expect("readable");
        digest.update(format!("{name}\0{}\0", bytes.len()));
        digest.update(bytes);
    }
    format!("{:x}", digest.finalize())
}

#[test]
fn the_page_is_the_one_that_its_source_makes() {
    let (source, built) = (root().join("dashboard"), root().join("src/dashboard/assets"));
    let mut sources = Vec::new();
    under(&source.join("src"), &mut sources);
    let beside = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
    sources.extend(beside.map(|name| source.join(name)));
    let mut assets = Vec::new();
    under(&built, &mut assets);
    assets.retain(|path| !path.ends_with("digest"));
    let written = fs::read_to_string(built.join("digest")).expect("the digest");
    let is = format!("{}\n{}\n", digest(&built, &assets), digest(&source, &sources));
    assert_eq!(written, is, "run scripts/dashboard and commit what it changes");
}

#[test]
fn the_page_is_small_and_names_no_other_host() {
    let mut assets = Vec::new();
    under(&root().join("src/dashboard/assets"), &mut assets);
    let sizes = assets.iter().map(|path| fs::metadata(path).expect("a file").len());
    let bytes = usize::try_from(sizes.sum::<u64>()).expect("a size");
    assert!((50_000..=BYTES_MAX).contains(&bytes), "{bytes} bytes");
    for path in assets.iter().filter(|path| !path.ends_with("inter.woff2")) {
        let text = fs::read_to_string(path).expect("text");
        let hosts = text.split("://").skip(1).map(|rest| rest.chars().take(14).collect::<String>());
        // Names of XML, which nobody calls.
        let others: Vec<String> = hosts.filter(|host| !host.starts_with("www.w3.org/")).collect();
        assert!(others.is_empty(), "{}: {others:?}", path.display());
    }
}
