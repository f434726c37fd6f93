//! What the disk holds now, and what of it is durable. It knows nothing of FUSE.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

use crate::content::{Change, Content};
use crate::{Chance, Cut, Events};

/// The number of the root.
pub(crate) const ROOT: u64 = 1;

/// Why a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The power is cut.
    Dead,
    Missing,
    Exists,
    NotEmpty,
    NotSupported,
}

type Done<T> = Result<T, Failure>;

/// A change of a folder's names, which a disk does as a whole or not at all.
#[derive(Clone, Debug)]
enum Naming {
    Set(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString, u64),
}

#[derive(Debug, Default)]
struct Folder {
    now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// Since the last sync.
    changes: Vec<Naming>,
}

#[derive(Debug, Default)]
struct Plain {
    now: Content,
    durable: Content,
    /// Since the last sync.
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Node {
    Folder(Folder),
    File(Plain),
}

/// A kind of node and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) is_folder: bool,
    pub(crate) length: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    nodes: HashMap<u64, Node>,
    newest: u64,
    events: Events,
    cut: Option<Cut>,
    dead: bool,
}

impl Default for State {
    fn default() -> Self {
        let nodes = HashMap::from([(ROOT, Node::Folder(Folder::default()))]);
        Self { nodes, newest: ROOT, events: Events::default(), cut: None, dead: false }
    }
}

fn name_in(names: &mut BTreeMap<OsString, u64>, naming: &Naming) {
    match naming {
        Naming::Set(name, node) => {
            names.insert(name.clone(), *node);
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
        Naming::Rename(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

impl State {
    pub(crate) fn schedule(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    pub(crate) fn die(&mut self) {
        self.dead = true;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn events(&self) -> Events {
        self.events
    }

    pub(crate) fn alive(&self) -> Done<()> {
        if self.dead { Err(Failure::Dead) } else { Ok(()) }
    }

    /// Counts a change; `false`: it is lost in the cut.
    fn changes(&mut self) -> Done<bool> {
        self.alive()?;
        self.events.changes += 1;
        match self.cut {
            Some(Cut::Change(at, done)) if at == self.events.changes => {
                self.dead = true;
                Ok(done)
            }
            _ => Ok(true),
        }
    }

    fn folder(&mut self, node: u64) -> Done<&mut Folder> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(Failure::Missing),
        }
    }

    fn file(&mut self, node: u64) -> Done<&mut Plain> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(Failure::Missing),
        }
    }

    pub(crate) fn facts(&self, node: u64) -> Done<Facts> {
        self.alive()?;
        match self.nodes.get(&node) {
            Some(Node::Folder(_)) => Ok(Facts { is_folder: true, length: 0 }),
            Some(Node::File(file)) => Ok(Facts { is_folder: false, length: file.now.length() }),
            None => Err(Failure::Missing),
        }
    }

    pub(crate) fn look_up(&mut self, parent: u64, name: &OsStr) -> Done<u64> {
        self.alive()?;
        self.folder(parent)?.now.get(name).copied().ok_or(Failure::Missing)
    }

    pub(crate) fn list(&mut self, node: u64) -> Done<Vec<(OsString, u64)>> {
        self.alive()?;
        let names = &self.folder(node)?.now;
        Ok(names.iter().map(|(name, node)| (name.clone(), *node)).collect())
    }

    fn name(&mut self, parent: u64, naming: Naming) -> Done<()> {
        if self.changes()? {
            let folder = self.folder(parent)?;
            name_in(&mut folder.now, &naming);
            folder.changes.push(naming);
        }
        self.alive()
    }

    pub(crate) fn make(&mut self, parent: u64, name: &OsStr, is_folder: bool) -> Done<u64> {
        if self.look_up(parent, name).is_ok() {
            return Err(Failure::Exists);
        }
        self.newest += 1;
        let node = self.newest;
        let made =
            if is_folder { Node::Folder(Folder::default()) } else { Node::File(Plain::default()) };
        self.nodes.insert(node, made);
        self.name(parent, Naming::Set(name.into(), node))?;
        Ok(node)
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr) -> Done<()> {
        let node = self.look_up(parent, name)?;
        if matches!(self.nodes.get(&node), Some(Node::Folder(folder)) if !folder.now.is_empty()) {
            return Err(Failure::NotEmpty);
        }
        self.name(parent, Naming::Remove(name.into()))
    }

    /// Renames within one folder.
    pub(crate) fn rename(
        &mut self,
        (parent, from): (u64, &OsStr),
        (new_parent, to): (u64, &OsStr),
    ) -> Done<()> {
        let node = self.look_up(parent, from)?;
        if parent != new_parent {
            return Err(Failure::NotSupported);
        }
        self.name(parent, Naming::Rename(from.into(), to.into(), node))
    }

    pub(crate) fn change(&mut self, node: u64, change: Change) -> Done<()> {
        self.file(node)?;
        if self.changes()? {
            let file = self.file(node)?;
            file.now.apply(&change);
            file.changes.push(change);
        }
        self.alive()
    }

    pub(crate) fn read(&mut self, node: u64, offset: u64, size: usize) -> Done<Vec<u8>> {
        self.alive()?;
        Ok(self.file(node)?.now.read(offset, size))
    }

    pub(crate) fn sync(&mut self, node: u64) -> Done<()> {
        self.alive()?;
        self.events.syncs += 1;
        if let Some(Cut::Sync(at, done)) = self.cut
            && at == self.events.syncs
        {
            self.dead = true;
            if !done {
                return Err(Failure::Dead);
            }
        }
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => {
                for change in file.changes.drain(..) {
                    file.durable.apply(&change);
                }
            }
            Some(Node::Folder(folder)) => {
                for naming in folder.changes.drain(..) {
                    name_in(&mut folder.durable, &naming);
                }
            }
            None => return Err(Failure::Missing),
        }
        self.alive()
    }

    /// Takes the files of a folder in, all of them durable.
    pub(crate) fn load(&mut self, from: &Path) -> io::Result<()> {
        self.load_into(ROOT, from)
    }

    fn load_into(&mut self, parent: u64, from: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            self.newest += 1;
            let node = self.newest;
            if entry.file_type()?.is_dir() {
                self.nodes.insert(node, Node::Folder(Folder::default()));
                self.load_into(node, &entry.path())?;
            } else {
                let mut content = Content::default();
                content.apply(&Change::Write(0, fs::read(entry.path())?));
                let (now, durable) = (content.clone(), content);
                self.nodes.insert(node, Node::File(Plain { now, durable, changes: Vec::new() }));
            }
            if let Some(Node::Folder(folder)) = self.nodes.get_mut(&parent) {
                folder.now.insert(entry.file_name(), node);
                folder.durable.insert(entry.file_name(), node);
            }
        }
        Ok(())
    }

    /// Writes what the disk kept: of the names in a folder a part from the beginning, as file
    /// systems write them in order; of the bytes of a file whatever chance decides.
    pub(crate) fn image(&self, chance: &mut Chance, into: &Path) -> io::Result<()> {
        self.image_of(ROOT, chance, into)
    }

    fn image_of(&self, node: u64, chance: &mut Chance, into: &Path) -> io::Result<()> {
        match self.nodes.get(&node) {
            Some(Node::Folder(folder)) => {
                fs::create_dir_all(into)?;
                let mut names = folder.durable.clone();
                let kept = chance.below(folder.changes.len() as u64 + 1);
                for naming in folder.changes.iter().take(usize::try_from(kept).unwrap_or(0)) {
                    name_in(&mut names, naming);
                }
                for (name, node) in names {
                    self.image_of(node, chance, &into.join(name))?;
                }
                Ok(())
            }
            Some(Node::File(file)) => {
                let mut content = file.durable.clone();
                keep_some(&mut content, &file.changes, chance);
                content.save(&fs::File::create(into)?)
            }
            None => Ok(()),
        }
    }
}

/// Applies what of these changes reached the disk: nothing, everything, or any of it, torn.
fn keep_some(content: &mut Content, changes: &[Change], chance: &mut Chance) {
    match chance.below(4) {
        0 => {}
        1 => {
            for change in changes {
                content.apply(change);
            }
        }
        2 => {
            // The first ones, of which the last is torn.
            let whole = usize::try_from(chance.below(changes.len() as u64 + 1)).unwrap_or(0);
            let torn = changes.get(whole).map(|change| change.torn(|| chance.flip()));
            for change in changes.iter().take(whole).chain(torn.iter().flatten()) {
                content.apply(change);
            }
        }
        _ => {
            for change in changes {
                let parts = match chance.below(3) {
                    0 => Vec::new(),
                    1 => vec![change.clone()],
                    _ => change.torn(|| chance.flip()),
                };
                for part in &parts {
                    content.apply(part);
                }
            }
        }
    }
}
