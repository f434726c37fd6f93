//! The newest end of a journal, signed with a key of its own folder: each minute in which something
//! was recorded, and at a clean stop. The signatures stand in the audit log itself (`audit.sign`),
//! the last one also in a file beside it, so that a journal that ends too early is noticed.
//!
//! Whoever owns the folder owns the key: what they cut off and sign anew only a peer can tell.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use storage::database::Database;
use storage::event::Event;
use storage::record::Level;
use storage::store::Store;
use storage::transaction::Act;

use super::heads;
use super::witness::is_witnessing;

/// The file of the data directory with the key: PKCS #8, for its owner alone.
pub const KEY_FILE: &str = "audit.key";

/// The file of the data directory with the last signed end.
pub const HEAD_FILE: &str = "audit.head";

/// Between two signatures while something is recorded.
const INTERVAL: Duration = Duration::from_mins(1);

/// What is signed begins with this, so that the key's signature means nothing else.
const DOMAIN: &str = "loki-openclaw journal head 1\n";

/// An end of a journal and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `<journal id>:<epoch>:<sequence>:<hash>`.
    pub head: String,
    /// The public key of Ed25519, in hexadecimal digits.
    pub key: String,
    /// Over the domain and the head, in hexadecimal digits.
    pub signature: String,
}

impl Signed {
    /// Whether the signature is that of the key that it names.
    pub fn is_sound(&self) -> bool {
        let (Some(key), Some(signature)) = (bytes(&self.key), bytes(&self.signature)) else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ED25519, key);
        key.verify(format!("{DOMAIN}{}", self.head).as_bytes(), &signature).is_ok()
    }

    /// The one that was written last beside the journal; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last(data_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(data_dir.join(HEAD_FILE)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// Signs on a thread of its own until it is finished.
pub struct Signer {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Signer {
    /// Begins for the store of this folder, with its key; the first start makes one.
    ///
    /// # Errors
    /// When the key cannot be read or made.
    pub fn start(database: &Database, data_dir: &Path) -> io::Result<Self> {
        let store = database.store();
        // A store of an older version has none, and a start is possible on a full disk.
        let key = database.with_reserve(|| key(&data_dir.join(KEY_FILE)))?;
        let is_new = Arc::new(AtomicBool::new(true));
        let changed = Arc::clone(&is_new);
        store.listen(Box::new(move |published| {
            if !published.entries.iter().all(|(_, record, _)| is_witnessing(record.event)) {
                changed.store(true, Ordering::Relaxed);
            }
            true
        }));
        let desk = Desk { key, store: store.clone(), file: data_dir.join(HEAD_FILE), is_new };
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("signer".into()).spawn(move || {
            // The store that this thread holds would not end by itself.
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                desk.sign();
            }
            desk.sign();
        })?;
        Ok(Self { stop, thread })
    }

    /// Signs the end as it is now and ends.
    pub fn finish(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::warn!("the end of the audit log is not signed");
        }
    }
}

struct Desk {
    key: Ed25519KeyPair,
    store: Store,
    file: PathBuf,
    /// Something was recorded since the last signature.
    is_new: Arc<AtomicBool>,
}

impl Desk {
    fn sign(&self) {
        if self.store.is_full() || !self.is_new.swap(false, Ordering::Relaxed) {
            return;
        }
        let head = heads::head(self.store.reader());
        let signature = self.key.sign(format!("{DOMAIN}{head}").as_bytes());
        let (key, signature) = (heads::hex(self.key.public_key().as_ref()), signature.as_ref());
        let signed = Signed { head, key, signature: heads::hex(signature) };
        let details = serde_json::to_string(&signed).unwrap_or_default();
        let act = Act::new(Event::AuditSign, "store", "", "journal").level(Level::Debug);
        let act = act.details(details.clone());
        let done = self.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
            tx.note(act);
            Ok(())
        });
        let kept = match done.wait() {
            Ok(_) => replace(&self.file, details.as_bytes()),
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the end of the audit log is not signed");
            self.is_new.store(true, Ordering::Relaxed);
        }
    }
}

/// The key of a file, which is made where there is none.
fn key(path: &Path) -> io::Result<Ed25519KeyPair> {
    let bad = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("{} is no Ed25519 key: {error}", path.display()))
    };
    let pkcs8 = match fs::read(path) {
        Ok(pkcs8) => pkcs8,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
            let made = made.map_err(|error| bad(&error))?;
            replace(path, made.as_ref())?;
            made.as_ref().to_vec()
        }
        Err(error) => return Err(error),
    };
    Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|error| bad(&error))
}

/// Writes a file aside, for its owner alone, and puts it in its place.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_its_head_and_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        let (one, same) = (key(&path).unwrap(), key(&path).unwrap());
        assert_eq!(one.public_key().as_ref(), same.public_key().as_ref());
        let head = "ab:1:2:cd".to_owned();
        let signature = heads::hex(one.sign(format!("{DOMAIN}{head}").as_bytes()).as_ref());
        let sound = Signed { head, key: heads::hex(one.public_key().as_ref()), signature };
        assert!(sound.is_sound());
        let other = key(&folder.path().join("other")).unwrap();
        let other = heads::hex(other.public_key().as_ref());
        for wrong in [
            Signed { head: "ab:1:3:cd".into(), ..sound.clone() },
            Signed { key: other, ..sound.clone() },
            Signed { signature: "zz".into(), ..sound.clone() },
            Signed { key: "é".into(), ..sound },
        ] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
    }
}
